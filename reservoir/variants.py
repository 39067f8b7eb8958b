"""A network with its learner as settings: what an ablation or another rule changes, and nothing else."""

# N neurons

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from neuroloaders.checks import check_int, check_number, check_option, invalid
from reservoir.learner import READOUTS, PredictionLearner
from reservoir.network import Population, Reservoir, default_populations
from reservoir.rules.base import Rule
from reservoir.rules.three_factor import ThreeFactorRule
from reservoir.tasks import PredictionTask

__all__ = ["Variant", "chosen"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A network with its learner; what is not said is as in the experiment.

    Parameters
    ----------
    about : str
        What differs, in words.
    size : float
        Factor on the number of neurons.
    gain : float
        Factor on all recurrent weights; 0 takes the recurrence away.
    populations : callable
        Returns the populations, as `Reservoir` takes them.
    feedback : float
        Size of the current that outputs feed back; 0 opens the loop.
    readout : str
        A key of `reservoir.learner.READOUTS`.
    rule : Rule
        How the readout of timing learns.
    reset_at_switch : bool
        Tell the rule of each switch.
    reset_state : bool
        Whether each trial begins with the network at rest.
    """

    about: str
    size: float = 1.0
    gain: float = 1.0
    populations: Callable[[], Mapping[str, Population]] = default_populations
    feedback: float = 1.0
    readout: str = "factored"
    rule: Rule = field(default_factory=ThreeFactorRule)
    reset_at_switch: bool = False
    reset_state: bool = False

    def __post_init__(self) -> None:
        check_number("size", self.size, above=0)
        check_number("gain", self.gain, at_least=0)
        check_number("feedback", self.feedback, at_least=0)
        check_option("readout", self.readout, READOUTS)
        if not isinstance(self.rule, Rule):
            raise invalid("rule", "be a Rule", self.rule, kind=TypeError)

    def learner(
        self, task: PredictionTask, n: int, seeds: Sequence[int], *, n_threads: int | None = None
    ) -> PredictionLearner:
        """Return a learner that knows nothing yet, with one network for each seed.

        Parameters
        ----------
        task : PredictionTask
            Gives the numbers of events and cues.
        n : int
            Number of neurons of the experiment, on which `size` is a factor.
        seeds : sequence of int
            Consecutive.
        n_threads : int, optional
            As for `reservoir.simulate`.
        """
        n_own = max(1, round(check_int("n", n, at_least=1) * self.size))
        networks = [
            Reservoir(n_own, gain=self.gain, populations=self.populations(), generator=int(seed)) for seed in seeds
        ]
        return PredictionLearner(
            networks,
            task.n_events,
            n_cues=task.n_cues,
            rule=self.rule,
            readout=self.readout,
            feedback=self.feedback,
            reset_state=self.reset_state,
            seed=int(seeds[0]),
            n_threads=n_threads,
        )


def chosen(names: Sequence[str] | None, known: Mapping[str, Variant]) -> dict[str, Variant]:
    """Return the variants of these names, in their order; by default all.

    Parameters
    ----------
    names : sequence of str or None
        Keys of `known`.
    known : mapping of str to Variant
        What there is to choose from.
    """
    if names is None:
        return dict(known)
    return {check_option("names", name, known): known[name] for name in names}
