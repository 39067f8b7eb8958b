"""Fit an Izhikevich cell to a current-clamp recording."""

# S sweeps

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_number, check_option, invalid
from reservoir.fitting.measure import measure_cell
from reservoir.fitting.result import FittedParameter, IzhikevichFit, goodness
from reservoir.fitting.scores import check_loss
from reservoir.fitting.search import Objective, default_threads, search
from reservoir.fitting.space import SPACES, Space, make_space
from reservoir.fitting.sweeps import Sweeps, prepare_sweeps, sweeps_of
from reservoir.izhikevich import SCHEMES
from reservoir.network import random_source

__all__ = ["fit_izhikevich", "hold_out"]

_log = logging.getLogger(__name__)
_SCHEMES = {"2007": "euler", "2003": "iz2003_pub"}
_HELD_OUT = 0.25


def fit_izhikevich(
    voltage: Any,
    current: Any,
    sfreq: float,
    *,
    form: str = "2007",
    loss: str | Mapping[str, float] = "features",
    held_out: float | Sequence[int] | None = None,
    dt_ms: float | None = None,
    scheme: str | None = None,
    bounds: Mapping[str, Sequence[float]] | None = None,
    fit_bias: bool | None = None,
    delta_ms: float = 4.0,
    level_mV: float = -20.0,
    prominence_mV: float = 20.0,
    n_iterations: int = 400,
    n_candidates: int = 100,
    max_seconds: float | None = None,
    generator: Any = 0,
    n_threads: int | None = None,
    progress: bool = False,
) -> IzhikevichFit:
    r"""Find the Izhikevich cell that does what a recorded cell did.

    Parameters
    ----------
    voltage : array, shape (n_samples,) or (n_sweeps, n_samples), or list of arrays
        Membrane potential in mV, from current clamp. Sweeps of different lengths come as a list.
    current : like `voltage`
        Injected current in pA, positive where it depolarises.
    sfreq : float
        Samples a second, in Hz; at least 2000.
    form : str
        The equations, a key of `reservoir.fitting.SPACES`: "2007", which has units, or "2003".
    loss : str or mapping of str to float
        What is minimised: a key of `reservoir.fitting.LOSSES`, or weights of the terms in `reservoir.fitting.TERMS`.
    held_out : float or sequence of int, optional
        Which sweeps are kept out of the fit, and of the measurements that it begins with: a fraction, or their
        numbers; 0 for none. By default a quarter, one at least, where there is more than one sweep.
    dt_ms : float, optional
        Time step, a multiple of the sample interval or a whole part of it: that of the network in which the cell will
        be used. By default what comes closest to 0.1. Another step is another cell, the more so the longer it is.
    scheme : str, optional
        How the equations are integrated, a key of `reservoir.SCHEMES`; by default as the form was published.
    bounds : mapping of str to (low, high), optional
        Other bounds of some parameters; the same number twice fixes one.
    fit_bias : bool, optional
        Whether a constant current is searched for as well; by default where the cell fires without one. The 2003 form
        always has one.
    delta_ms : float
        Precision of the coincidence factor.
    level_mV, prominence_mV : float
        A recorded spike peaks above `level_mV` and stands out by `prominence_mV`.
    n_iterations : int
        Generations of the search, at most.
    n_candidates : int
        Candidates of a generation.
    max_seconds : float, optional
        No further generation begins after this time. What is found then depends on the machine.
    generator : int, numpy.random.Generator or torch.Generator
        Source of randomness. With the same one the fit is the same, on any number of threads.
    n_threads : int, optional
        Threads that share the candidates; by default torch's number if torch is loaded, else that of the cores.
    progress : bool
        Show a bar.

    Returns
    -------
    IzhikevichFit
        The cell, its parameters with their bounds, and how well it does on fitted and on held-out sweeps.

    Raises
    ------
    ValueError
        For shapes, units, NaN, a rate that is too low; without a spike or without a change of the current in the
        sweeps that are fitted; where the potential does not follow the current.

    Notes
    -----
    Rest, input resistance and time constant come from the stretches without spikes, threshold, peak and trough from
    the spikes (`reservoir.fitting.measure_cell`); bounds lie around them, and v_peak stays as measured, as it does not
    matter. Then differential evolution searches in two stages, and Nelder-Mead refines, see
    `reservoir.fitting.search.search`. The method follows the literature on fitting point neurons [1]_ [2]_ in its
    parts; the mix of terms in the loss is this project's choice.

    A sweep begins at its recorded potential, with u where it rests there. Potentials are not compared from 2 ms before
    to 5 ms after the peak of a recorded spike: the model has no shape of a spike. Uncompensated series resistance is
    not modelled: threshold and reset then move with the current. Nor is depolarisation block: leave such sweeps out.
    The 2003 form has neither a time constant nor a rest that would be free: it fits spikes, and potentials badly.

    What a recording does not tell. With a bias, v_rest may move, v_threshold move the other way, and the bias make up
    for it: these cells are one and the same, and only the sum of the two potentials means something. c, d and a may
    take each other's place where u recovers within a few ms (fast-spiking cells). Capacitance, k and the distance of
    the two potentials hang together if all currents are steps: their ratios are found better than they are. Noise
    currents tell most. Run several seeds, and trust what they have in common.

    References
    ----------
    .. [1] Izhikevich, Dynamical Systems in Neuroscience, MIT Press 2007, chapter 5 and 8.
    .. [2] Jolivet et al., Journal of Neuroscience Methods 169 (2008), doi:10.1016/j.jneumeth.2007.11.006.

    Examples
    --------
    A cell that is known, recorded by simulation:

    >>> from reservoir import Izhikevich, Record, Reservoir, simulate
    >>> net = Reservoir.from_edges(2, [], [], [], Izhikevich("RS", form="2007"), dt_ms=0.1)
    >>> current = np.zeros((4000, 2))
    >>> current[1000:3500] = [-50.0, 150.0]
    >>> v = simulate(net, current, record=Record(traces=("v",))).traces["v"][:, 0]
    >>> fit = fit_izhikevich(v.T, current.T, 10_000.0, held_out=0, n_iterations=4, n_candidates=20, n_threads=1)
    >>> fit.cell.form, fit.train.spikes_data
    ('2007', (0, 6))
    """
    check_option("form", form, SPACES)
    scheme = _SCHEMES[form] if scheme is None else check_option("scheme", scheme, SCHEMES)
    weights = check_loss(loss)
    check_number("delta_ms", delta_ms, above=0, at_most=50)
    n_iterations = check_int("n_iterations", n_iterations, at_least=2)
    n_candidates = check_int("n_candidates", n_candidates, at_least=8)
    if max_seconds is not None:
        check_number("max_seconds", max_seconds, above=0)
    n_threads = default_threads() if n_threads is None else check_int("n_threads", n_threads, at_least=1)
    rng = random_source(generator)
    sweeps = prepare_sweeps(voltage, current, sfreq, dt_ms=dt_ms, level_mV=level_mV, prominence_mV=prominence_mV)
    train, apart = hold_out(sweeps, held_out)
    fitted = sweeps.choose(train)
    if np.ptp(fitted.current[np.arange(len(fitted.current))[:, None] < fitted.n_steps]) == 0:
        raise invalid("held_out", "leave sweeps in which the current changes", f"{train} for the fit")
    potentials = sweeps_of("voltage", voltage)
    measured = measure_cell(fitted, [potentials[k] for k in train], sfreq)
    space = make_space(form, measured, bounds=bounds, fit_bias=fit_bias)
    ceiling = max(measured.threshold_mV, float(np.nanmax(fitted.target)))
    how = {"scheme": scheme, "ceiling": ceiling, "delta_ms": delta_ms}
    objective = Objective(space, fitted, weights, n_threads=n_threads, **how)
    found = search(
        objective,
        rng,
        n_iterations=n_iterations,
        n_candidates=n_candidates,
        max_seconds=max_seconds,
        progress=progress,
    )
    parameters = _parameters(space, found.point)
    at_bound = [one.name for one in parameters if one.at_bound]
    if at_bound:
        _log.info("at their bounds: %s", ", ".join(at_bound))
    return IzhikevichFit(
        form=form,
        scheme=scheme,
        dt_ms=sweeps.dt_ms,
        parameters=parameters,
        measured=measured,
        train=goodness(space, found.point, fitted, train, **how),
        held_out=goodness(space, found.point, sweeps.choose(apart), apart, **how) if apart else None,
        loss=weights,
        loss_value=found.loss,
        start_loss=found.start_loss,
        n_evaluations=objective.n_evaluations,
        stopped_by=found.stopped_by,
        ceiling_mV=ceiling,
        level_mV=level_mV,
        prominence_mV=prominence_mV,
    )


def hold_out(sweeps: Sweeps, held_out: float | Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Return which sweeps are fitted and which are kept out.

    Parameters
    ----------
    sweeps : Sweeps
        All sweeps.
    held_out : float, sequence of int, or None
        As for `fit_izhikevich`.

    Notes
    -----
    A fraction is taken evenly from the sweeps in the order of their spike counts, so that weak and strong currents are
    on both sides; the one with most spikes is fitted.
    """
    n = sweeps.n_sweeps
    if held_out is None:
        held_out = _HELD_OUT if n > 1 else 0.0
    if isinstance(held_out, Real) and not isinstance(held_out, bool):
        fraction = check_number("held_out", held_out, at_least=0, below=1, advice="Or list sweeps: [3, 7].")
        n_apart = max(1, round(fraction * n)) if fraction > 0 else 0
        order = np.argsort([len(one) for one in sweeps.spikes], kind="stable")
        apart = sorted(int(order[int((k + 0.5) * (n - 1) / n_apart)]) for k in range(n_apart))
    else:
        if isinstance(held_out, str | bool) or np.ndim(held_out) != 1:
            raise invalid("held_out", "be a fraction below 1, or a list of sweeps", held_out, kind=TypeError)
        apart = sorted(check_int("held_out", k, at_least=0, at_most=n - 1) for k in np.asarray(held_out).tolist())
        if len(set(apart)) < len(apart):
            raise invalid("held_out", "name each sweep once", f"{apart}")
    train = [k for k in range(n) if k not in apart]
    if not train or len(apart) + len(train) != n:
        raise invalid("held_out", f"leave one of {n} sweeps to be fitted", f"{held_out}")
    return train, apart


def _parameters(space: Space, point: np.ndarray) -> tuple[FittedParameter, ...]:
    values = space.values(point[None])
    inside = dict(zip([one.name for one in space.free], zip(point, space.bounds(), strict=True), strict=True))
    found = []
    for one in space.parameters:
        at_bound = False
        if not one.fixed:
            place, (low, high) = inside[one.name]
            at_bound = bool(min(place - low, high - place) < 0.01 * (high - low))
        found.append(
            FittedParameter(
                name=one.name,
                unit=one.unit,
                value=float(values[one.name][0]),
                low=one.low,
                high=one.high,
                how="fixed" if one.fixed else "fitted",
                at_bound=at_bound,
            )
        )
    return tuple(found)
