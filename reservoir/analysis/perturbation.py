"""What becomes of a small disturbance: the same network, the same noise, one neuron nudged."""

# T time, R repetitions, N neurons

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_number, check_option, invalid
from reservoir.network import Reservoir, random_source
from reservoir.readout import Readout
from reservoir.recording import Record, Recording
from reservoir.simulate import simulate
from reservoir.state import State, initial_state
from reservoir.stimulus import Stimulus, as_stimulus

__all__ = ["DISTANCES", "NUDGES", "PerturbationGrowth", "perturbation_growth"]

NUDGES = {
    "voltage": "v of one neuron is changed by `size_mV`",
    "spike": "one neuron spikes once more, in the first step",
}
DISTANCES = {
    "voltage": "root mean square over neurons of the difference of v, mV",
    "spikes": "root mean square over neurons of the difference of spike trains that decay with `tau_ms`",
}
# Growth is fitted up to this part of the distance of unrelated runs: beyond it the curve bends, for it cannot exceed
# that of runs that have nothing in common.
_NEAR = 0.25
# Below this part of where it began it has died; what is left after that are a few spikes that moved.
_DEAD = 0.01
_FEWEST = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class PerturbationGrowth:
    """How far runs that differ in one nudge have parted.

    Attributes
    ----------
    t_ms : ndarray, shape (T,)
        Time since the nudge.
    distance : ndarray, shape (R, T)
        Distance of the nudged run from its twin.
    unrelated : ndarray, shape (R, T)
        Distance of the twin from a run with the same input and the same noise that began in another state: what the
        distance can grow to. If it shrinks, the input and the noise alone bring the network onto one path.
    rate_per_ms : float
        Slope of the logarithm of the mean distance in the window: above 0 the nudge grows, below 0 it dies. NaN if
        there are fewer than 3 points to fit.
    error_per_ms : float
        Its standard error over repetitions, by the jackknife; NaN for a single one.
    window_ms : tuple of float
        The first and the last time that the slope was fitted to.
    neurons : ndarray of int64, shape (R,)
        Who was nudged.
    measure : str
        A key of `DISTANCES`.
    """

    t_ms: np.ndarray
    distance: np.ndarray
    unrelated: np.ndarray
    rate_per_ms: float
    error_per_ms: float
    window_ms: tuple[float, float]
    neurons: np.ndarray
    measure: str

    @property
    def fit(self) -> np.ndarray:
        """The fitted exponential in the window, NaN outside; shape (T,)."""
        curve, inside = self.distance.mean(axis=0), self._inside()
        line = np.full(len(self.t_ms), np.nan)
        if np.isfinite(self.rate_per_ms):
            used = inside & (curve > 0)
            middle = np.log(curve[used]).mean() - self.rate_per_ms * self.t_ms[used].mean()
            line[inside] = np.exp(middle + self.rate_per_ms * self.t_ms[inside])
        return line

    def _inside(self) -> np.ndarray:
        return (self.t_ms >= self.window_ms[0]) & (self.t_ms <= self.window_ms[1])


def perturbation_growth(
    reservoir: Reservoir,
    stimulus: Stimulus | float | np.ndarray = 500.0,
    *,
    nudge: str = "spike",
    size_mV: float = 1.0,
    distance: str = "spikes",
    neurons: Any = None,
    n_repeats: int = 20,
    settle_ms: float = 500.0,
    state: State | None = None,
    readout: Readout | None = None,
    tau_ms: float = 20.0,
    window_ms: tuple[float, float] | None = None,
    seed: int = 0,
    generator: Any = 0,
    n_threads: int | None = None,
    progress: bool = False,
) -> PerturbationGrowth:
    """Nudge one neuron, and follow how far the network gets from where it would have been.

    Parameters
    ----------
    reservoir : Reservoir
        The network.
    stimulus : Stimulus, float, or array of shape (T, N)
        Input from the nudge on, the same for all runs, or a duration in ms.
    nudge : str
        What is done, a key of `NUDGES`.
    size_mV : float
        By how much v is changed, of either sign; for "voltage".
    distance : str
        What is compared, a key of `DISTANCES`.
    neurons : sequence of int, optional
        Who is nudged, one a repetition; by default drawn by lot.
    n_repeats : int
        How often, R, each from another state of the network and with other noise.
    settle_ms : float
        How long the network runs before the nudge, without input.
    state : State, optional
        Where to start, one lane, such as ``learner.state``; by default at rest.
    readout : Readout, optional
        Reads and feeds back with its weights as they are, of one lane, such as ``learner.when``; it is not changed.
    tau_ms : float
        How fast spikes are forgotten; for "spikes".
    window_ms : tuple of float, optional
        Where to fit, ms since the nudge. By default, if the mean distance rises to a quarter of that of unrelated runs:
        from where it is smallest before that to there. Otherwise from the beginning until it has first fallen to a
        hundredth of what it was then, or to the end.
    seed : int
        Of the noise of the first repetition; others have those that follow.
    generator : numpy.random.Generator, torch.Generator, or int
        Source of the neurons.
    n_threads : int, optional
        As for `reservoir.simulate`.
    progress : bool
        Show a bar over the repetitions.

    Returns
    -------
    PerturbationGrowth

    Raises
    ------
    ValueError
        If the input is not the same for all lanes, if `window_ms` holds fewer than 3 steps, or for a state or a readout
        of several lanes.

    Notes
    -----
    Noise depends on seed and step only, so that both runs get the same. The extra spike is that of [1]_. The spike
    distance is that of [2]_, as root mean square over neurons, at each time instead of over all of it.

    The slope is no Lyapunov exponent, which is about infinitely small nudges: in a network with time steps a very small
    nudge moves no spike, and the reset of v erases it, so that it dies although larger ones grow. What is reported is
    about a nudge of that size. Where the distance reaches that of unrelated runs the slope is above 0 by the choice of
    the window; that it gets there is the finding. The mean over repetitions is that of distances, not of their
    logarithms: it is led by the runs that part first, and runs in which a nudge died count as what they are. Look at
    ``distance`` for each.

    A spike that moves by one step makes v differ by 100 mV in that step. The mean distance of voltages of a few
    repetitions therefore jumps where that of spikes is smooth; take ten times as many.

    References
    ----------
    .. [1] London, Roth, Beeren, Häusser & Latham, Nature 466 (2010), doi:10.1038/nature09086.
    .. [2] van Rossum, Neural Computation 13 (2001), doi:10.1162/089976601300014321.

    Examples
    --------
    >>> net = Reservoir(100, gain=0.0, generator=0)
    >>> found = perturbation_growth(net, 200.0, settle_ms=100.0)
    >>> found.distance.shape, found.rate_per_ms < 0
    ((20, 200), True)
    """
    check_option("nudge", nudge, NUDGES)
    check_option("distance", distance, DISTANCES)
    if nudge == "voltage" and check_number("size_mV", size_mV) == 0:
        raise invalid("size_mV", "differ from 0", "0")
    check_number("tau_ms", tau_ms, above=0)
    r = check_int("n_repeats", n_repeats, at_least=1)
    stimulus = _for_all_lanes(stimulus)
    n_steps, dt_ms = stimulus.n_steps(reservoir.dt_ms), reservoir.dt_ms
    t_ms = np.arange(1, n_steps + 1) * dt_ms
    chosen = _neurons(neurons, r, reservoir.n, generator)
    if n_steps < _FEWEST:
        raise invalid("stimulus", f"last at least {_FEWEST} time steps", f"{n_steps}")
    if window_ms is not None:
        given = _window(window_ms, t_ms)

    # One network more than repetitions: the last one is the unrelated one of the repetition before.
    seeds = [check_int("seed", seed, at_least=0) + k for k in range(r + 1)]
    start, own = _one_lane(reservoir, state, readout, seeds)
    record = Record(spikes="none")
    settled = simulate(reservoir, settle_ms, batch=r + 1, state=start, readout=own, record=record, n_threads=n_threads)
    apart, unrelated = np.zeros((r, n_steps)), np.zeros((r, n_steps))
    for k in _with_bar(r, progress):
        lanes = [k, k, k + 1]
        now = settled.state.fork(lanes, seeds=[seeds[k]] * 3)
        _nudge(reservoir, now, 1, chosen[k], nudge, size_mV)
        found = simulate(
            reservoir, stimulus, batch=3, state=now, readout=None if own is None else own.fork(lanes),
            record=Record(traces=("v",) if distance == "voltage" else ()), n_threads=n_threads,
        )  # fmt: skip
        apart[k], unrelated[k] = (_distance(found, distance, lane, tau_ms) for lane in (1, 2))
    inside = given if window_ms is not None else _found_window(apart.mean(axis=0), unrelated.mean())
    rate = _slope(t_ms, apart.mean(axis=0), inside)
    leave_one = [_slope(t_ms, np.delete(apart, k, axis=0).mean(axis=0), inside) for k in range(r)] if r > 1 else []
    error = np.sqrt((r - 1) * np.var(leave_one)) if r > 1 else np.nan
    return PerturbationGrowth(
        t_ms=t_ms, distance=apart, unrelated=unrelated, rate_per_ms=rate, error_per_ms=float(error),
        window_ms=(float(t_ms[inside][0]), float(t_ms[inside][-1])), neurons=chosen, measure=distance,
    )  # fmt: skip


def _for_all_lanes(stimulus: Any) -> Stimulus:
    stimulus = as_stimulus(stimulus)
    if any(pulse.lane is not None for pulse in stimulus.pulses) or np.ndim(stimulus.current) == 3:
        raise invalid("stimulus", "be the same for all lanes", stimulus, "Give currents (T, N), and pulses no `lane`.")
    return stimulus


def _neurons(neurons: Any, r: int, n: int, generator: Any) -> np.ndarray:
    if neurons is None:
        return random_source(generator).integers(0, n, r)
    chosen = [check_int("neurons", neuron, at_least=0, at_most=n - 1) for neuron in neurons]
    if len(chosen) != r:
        raise invalid("neurons", f"name {r} neurons, one a repetition", f"{len(chosen)}")
    return np.array(chosen, dtype=np.int64)


def _one_lane(
    reservoir: Reservoir, state: State | None, readout: Readout | None, seeds: list[int]
) -> tuple[State, Readout | None]:
    """Return as many copies of state and readout as there are seeds."""
    for name, given in (("state", state), ("readout", readout)):
        if given is not None and given.n_lanes != 1:
            advice = f"Choose one: {name}.fork([0])."
            raise invalid(name, "have one lane", f"{given.n_lanes}", advice)
    start = initial_state(reservoir) if state is None else state
    return start.fork(len(seeds), seeds=seeds), None if readout is None else readout.fork([0] * len(seeds))


def _nudge(reservoir: Reservoir, state: State, lane: int, neuron: int, nudge: str, size_mV: float) -> None:
    """Change the state of one neuron, in place."""
    if nudge == "voltage":
        state.v[lane, neuron] += size_mV
        return
    # From its peak v only rises, whatever the current is: the neuron spikes in the step that follows.
    p = reservoir.parameters
    state.v[lane, neuron] = p["v_peak"][neuron] + max(0.0, p["peak_slope"][neuron] * state.u[lane, neuron])


def _distance(recording: Recording, distance: str, lane: int, tau_ms: float) -> np.ndarray:
    """Return the distance of a lane from lane 0 at each step."""
    if distance == "voltage":
        v = recording.traces["v"]
        return np.sqrt(np.mean((v[:, lane] - v[:, 0]) ** 2, axis=1))
    dense = recording.to_dense()
    parted = np.flatnonzero((dense[:, lane] != dense[:, 0]).any(axis=0))
    difference = dense[:, lane, parted].astype(np.float64) - dense[:, 0, parted]
    decay = np.exp(-recording.dt_ms / tau_ms)
    from scipy.signal import lfilter

    filtered = lfilter([1.0], [1.0, -decay], difference, axis=0)
    return np.sqrt((filtered**2).sum(axis=1) / recording.n)


def _window(window_ms: tuple[float, float], t_ms: np.ndarray) -> np.ndarray:
    if len(window_ms) != 2:
        raise invalid("window_ms", "be (first, last)", window_ms)
    first, last = (check_number("window_ms", edge) for edge in window_ms)
    inside = (t_ms >= first) & (t_ms <= last)
    if inside.sum() < _FEWEST:
        raise invalid("window_ms", f"hold at least {_FEWEST} steps of the {t_ms[-1]:g} ms", window_ms)
    return inside


def _found_window(curve: np.ndarray, level: float) -> np.ndarray:
    """Return where to fit: the rise up to a quarter of the level of unrelated runs, else the beginning, until dead."""
    begin = int(np.argmax(curve > 0))
    inside = np.zeros(len(curve), dtype=bool)
    # The nudge itself may be as large; what counts is whether the distance rises to it from below.
    low = begin + int(np.argmax(curve[begin:] < _NEAR * level))
    risen = low + np.flatnonzero(curve[low:] >= _NEAR * level)
    if curve[low] < _NEAR * level and len(risen):
        first = low + int(curve[low : risen[0]].argmin())
        inside[first : risen[0] + 1] = True
        return inside
    dead = np.flatnonzero(curve[begin:] < _DEAD * curve[begin])
    inside[begin : begin + dead[0] + 1 if len(dead) else None] = True
    return inside


def _slope(t_ms: np.ndarray, curve: np.ndarray, inside: np.ndarray) -> float:
    used = inside & (curve > 0)
    if used.sum() < _FEWEST:
        return float("nan")
    return float(np.polyfit(t_ms[used], np.log(curve[used]), 1)[0])


def _with_bar(r: int, show: bool) -> Any:
    """Return the numbers of repetitions, with a bar if it is to be shown."""
    if not show:
        return range(r)
    from tqdm.auto import tqdm

    return tqdm(range(r), unit="nudge")
