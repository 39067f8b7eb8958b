"""What a fit gives: the cell, its parameters with their bounds, and how well it agrees with which sweeps."""

# S sweeps, T steps

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_number, corrupt_file
from reservoir.fitting.measure import Measured
from reservoir.fitting.scores import coincidence_factor
from reservoir.fitting.search import QUADRATIC, Objective
from reservoir.fitting.space import Free, Space
from reservoir.fitting.sweeps import Sweeps, prepare_sweeps, steps_of, sweeps_of, time_step
from reservoir.izhikevich import SCHEMES, Izhikevich

__all__ = ["FittedParameter", "Goodness", "IzhikevichFit", "Prediction", "goodness"]

_FORMAT, _VERSION = "spikedecode Izhikevich fit", 1


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedParameter:
    """One parameter of a fitted cell.

    Attributes
    ----------
    name, unit : str
        Name as `Izhikevich` has it, and unit.
    value : float
        What was found.
    low, high : float
        Bounds of the search.
    how : str
        "fitted", or "fixed": measured beforehand, or given.
    at_bound : bool
        Whether it lies within a hundredth of the bounds' distance from one of them: then the bound has chosen it, and
        the recording has not.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    how: str
    at_bound: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Goodness:
    """How well a cell agrees with sweeps.

    Attributes
    ----------
    sweeps : tuple of int
        Which sweeps of the recording.
    gamma : float
        Coincidence factor at `delta_ms`: 1 perfect, 0 as by chance; NaN without any spike.
    delta_ms : float
        Its precision.
    n_coincident, n_expected : int, float
        Spikes that agree within `delta_ms`, and how many would by chance.
    spikes_data, spikes_model : tuple of int
        Number of spikes of each sweep.
    explained_variance : float
        Of the potential, outside recorded spikes: 1 - squared distance / variance. Below 0 the mean is better.
    rmse_mV : float
        Root mean square distance of the potential there.
    """

    sweeps: tuple[int, ...]
    gamma: float
    delta_ms: float
    n_coincident: int
    n_expected: float
    spikes_data: tuple[int, ...]
    spikes_model: tuple[int, ...]
    explained_variance: float
    rmse_mV: float

    @property
    def count_error(self) -> float:
        """Mean absolute difference of the spike counts, in spikes a sweep."""
        return float(np.abs(np.subtract(self.spikes_data, self.spikes_model)).mean())


class Prediction(NamedTuple):
    """What a fitted cell does with a current.

    Attributes
    ----------
    spikes_ms : tuple of ndarray
        Spike times of each sweep.
    voltage_mV : tuple of ndarray
        Potential at the end of each step, cut at the peak.
    dt_ms : float
        Time step.
    """

    spikes_ms: tuple[np.ndarray, ...]
    voltage_mV: tuple[np.ndarray, ...]
    dt_ms: float


@dataclass(frozen=True, kw_only=True, eq=False)
class IzhikevichFit:
    """A fitted cell. `reservoir.fitting.fit_izhikevich` makes it.

    Attributes
    ----------
    form, scheme : str
        Equations, and how they are integrated.
    dt_ms : float
        Time step: the parameters belong to it.
    parameters : tuple of FittedParameter
        Of the cell, and the two that turn a recorded current into its input, ``input_gain * pA + input_bias``.
    measured : Measured
        What the recording says without a search.
    train : Goodness
        On the sweeps that were fitted.
    held_out : Goodness or None
        On those that were not: the number to report.
    loss : dict of str to float
        Weights of the terms.
    loss_value, start_loss : float
        Loss of the cell, and of the measured initial values.
    n_evaluations : int
        How many candidates were simulated.
    stopped_by : str
        "iterations", "converged", or "time": then the numbers depend on the machine.
    ceiling_mV : float
        Potentials are compared up to here.
    level_mV, prominence_mV : float
        What counted as a recorded spike.
    """

    form: str
    scheme: str
    dt_ms: float
    parameters: tuple[FittedParameter, ...]
    measured: Measured
    train: Goodness
    held_out: Goodness | None
    loss: dict[str, float]
    loss_value: float
    start_loss: float
    n_evaluations: int
    stopped_by: str
    ceiling_mV: float
    level_mV: float
    prominence_mV: float

    @property
    def values(self) -> dict[str, float]:
        """Every parameter's value by its name."""
        return {one.name: one.value for one in self.parameters}

    @property
    def cell(self) -> Izhikevich:
        """The cell: ``Population(size=0.8, neuron=fit.cell, bias=(fit.input_bias, 0.0))`` puts it into a network."""
        values = {name: value for name, value in self.values.items() if not name.startswith("input")}
        return Izhikevich(form=self.form, scheme=self.scheme, **values)

    @property
    def input_gain(self) -> float:
        """Input for each pA: 1 in the 2007 form."""
        return self.values["input_gain"]

    @property
    def input_bias(self) -> float:
        """Input that is always there."""
        return self.values["input_bias"]

    def predict(self, current: Any, sfreq: float, *, v_start_mV: float | Sequence[float] | None = None) -> Prediction:
        """Simulate the cell with a current.

        Parameters
        ----------
        current : array, shape (n_samples,) or (n_sweeps, n_samples), or list of arrays
            Current, pA.
        sfreq : float
            Samples a second; the fit's `dt_ms` must be a multiple of the sample interval, or divide it.
        v_start_mV : float or sequence of float, optional
            Potential at the beginning, one for all sweeps or one a sweep; by default the measured rest.

        Returns
        -------
        Prediction
            The same spikes, to the last, as `reservoir.simulate` gives.
        """
        from reservoir.fitting.kernel import trace_candidate

        step, per_step, per_sample = time_step(sfreq, self.dt_ms)
        drives = [steps_of(one, per_step, per_sample) for one in sweeps_of("current", current)]
        start = self.measured.rest_mV if v_start_mV is None else v_start_mV
        if np.ndim(start) == 0:
            start = [check_number("v_start_mV", start)] * len(drives)
        candidate, scheme = self._space().candidates(np.zeros((1, 0)), step)[0], SCHEMES[self.scheme]
        numbers = np.array([step / scheme.n_substeps, *QUADRATIC])
        flags = (scheme.n_substeps, scheme.u_sees_old_v, self.form == "2007", scheme.strict)
        spikes, voltages = [], []
        for drive, v_first in zip(drives, start, strict=True):
            v, spiked = np.empty(len(drive)), np.empty(len(drive), dtype=np.bool_)
            trace_candidate(candidate, numbers, *flags, drive, float(v_first), v, spiked)
            spikes.append((np.flatnonzero(spiked) + 1) * step)
            voltages.append(v)
        return Prediction(tuple(spikes), tuple(voltages), step)

    def evaluate(self, voltage: Any, current: Any, sfreq: float) -> Goodness:
        """Compare the cell with another recording.

        Parameters
        ----------
        voltage, current : array or list of arrays
            Potential in mV and current in pA, as for `fit_izhikevich`.
        sfreq : float
            Samples a second.
        """
        sweeps = prepare_sweeps(
            voltage, current, sfreq, dt_ms=self.dt_ms, level_mV=self.level_mV, prominence_mV=self.prominence_mV
        )
        return goodness(
            self._space(),
            np.zeros(0),
            sweeps,
            range(sweeps.n_sweeps),
            scheme=self.scheme,
            ceiling=self.ceiling_mV,
            delta_ms=self.train.delta_ms,
        )

    def table(self) -> str:
        """Return parameters with units and bounds as text."""
        lines = [f"{'parameter':12}{'value':>11}  {'unit':10}{'bounds':>22}"]
        for one in self.parameters:
            bounds = f"{one.low:.4g} to {one.high:.4g}" if one.how == "fitted" else one.how
            flag = "  AT ITS BOUND" if one.at_bound else ""
            lines.append(f"{one.name:12}{one.value:11.4g}  {one.unit:10}{bounds:>22}{flag}")
        return "\n".join(lines)

    def summary(self) -> str:
        """Return how well it fits as text: held-out sweeps first."""
        parts = [("held out", self.held_out), ("fitted", self.train)]
        lines = []
        for name, good in parts:
            if good is None:
                lines.append("held out   none: there is one sweep only, or none was asked for")
                continue
            lines.append(
                f"{name:9}  {len(good.sweeps)} sweeps  Gamma {good.gamma:.2f} at {good.delta_ms:g} ms "
                f"({good.n_coincident} of {sum(good.spikes_data)} spikes hit, {good.n_expected:.1f} by chance)  "
                f"spikes {sum(good.spikes_data)} recorded, {sum(good.spikes_model)} modelled, "
                f"{good.count_error:.1f} off a sweep  variance explained {good.explained_variance:.0%}"
            )
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON.

        Parameters
        ----------
        path : path-like
            The file, which is replaced.
        """
        with atomic_write(path, "w") as file:
            content = {"format": _FORMAT, "version": _VERSION, **dataclasses.asdict(self)}
            json.dump(_without_nan(content), file, indent=1)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IzhikevichFit:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like
            The file.

        Raises
        ------
        ValueError
            If it is something else.
        """
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            content = json.loads(text)
            if content.pop("format") != _FORMAT or content.pop("version") != _VERSION:
                raise KeyError("format")
            content["parameters"] = tuple(FittedParameter(**one) for one in content["parameters"])
            content["measured"] = Measured(**content["measured"])
            for name in ("train", "held_out"):
                content[name] = None if content[name] is None else _goodness_from(content[name])
            return cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            advice = "Save a fit anew with fit.save(path)."
            raise corrupt_file(path, "it is no saved fit of this version", advice) from error

    def __repr__(self) -> str:
        gamma = self.train.gamma if self.held_out is None else self.held_out.gamma
        where = "fitted" if self.held_out is None else "held-out"
        return f"IzhikevichFit({self.form} form, Gamma {gamma:.2f} on {where} sweeps, {self.cell!r})"

    def _space(self) -> Space:
        fixed = [Free(name=p.name, unit=p.unit, low=p.value, high=p.value, start=p.value) for p in self.parameters]
        return Space(form=self.form, parameters=tuple(fixed))


def goodness(
    space: Space,
    point: np.ndarray,
    sweeps: Sweeps,
    numbers: Sequence[int],
    *,
    scheme: str,
    ceiling: float,
    delta_ms: float,
) -> Goodness:
    """Compare a point of a search with sweeps.

    Parameters
    ----------
    space : Space
        The space.
    point : ndarray, shape (F,)
        The point.
    sweeps : Sweeps
        What was recorded.
    numbers : sequence of int
        What the sweeps are called.
    scheme, ceiling, delta_ms
        As in `reservoir.fitting.search.Objective`.
    """
    objective = Objective(space, sweeps, {}, scheme=scheme, ceiling=ceiling, delta_ms=delta_ms)
    times, counts, errors = objective.simulate(point[None])
    while (counts > objective.room).any():
        objective.room = int(counts.max())
        times, counts, errors = objective.simulate(point[None])
    model = [times[0, s, : counts[0, s]] for s in range(sweeps.n_sweeps)]
    found = coincidence_factor(sweeps.spikes, model, sweeps.durations_ms, delta_ms=delta_ms)
    goal = sweeps.target[np.isfinite(sweeps.target)]
    error = float(errors.sum()) / len(goal)
    return Goodness(
        sweeps=tuple(map(int, numbers)),
        gamma=found.gamma,
        delta_ms=delta_ms,
        n_coincident=found.n_coincident,
        n_expected=found.n_expected,
        spikes_data=tuple(map(len, sweeps.spikes)),
        spikes_model=tuple(map(int, counts[0])),
        explained_variance=1 - error / float(goal.var()) if goal.var() > 0 else float("nan"),
        rmse_mV=float(np.sqrt(error)),
    )


def _goodness_from(content: dict[str, Any]) -> Goodness:
    lists = {name: tuple(content[name]) for name in ("sweeps", "spikes_data", "spikes_model")}
    # JSON has no NaN.
    numbers = {
        name: float("nan") if content[name] is None else content[name] for name in ("gamma", "explained_variance")
    }
    return Goodness(**{**content, **lists, **numbers})


def _without_nan(value: Any) -> Any:
    """Return it with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
