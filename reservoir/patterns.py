"""The twenty published firing patterns of one neuron: parameters and inputs of Izhikevich 2004, figure 1.

They are the test of a simulator: with scheme "iz_fig1" and the time steps below, spikes come at the times of the
published script, to the step. Where printed tables and the script differ (patterns P and T), the script is followed.
"""

# T time

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_option
from reservoir.izhikevich import Izhikevich
from reservoir.network import Reservoir
from reservoir.recording import Record, Recording
from reservoir.simulate import simulate
from reservoir.state import initial_state
from reservoir.stimulus import Stimulus

__all__ = ["PATTERNS", "Pattern", "run_pattern"]

_CLASS_1 = (0.04, 4.1, 108.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """One pattern.

    Attributes
    ----------
    name : str
        What it is called.
    abcd : tuple of float
        Parameters.
    v0, u0 : float
        Start; without `u0`, u starts at b v0.
    dt_ms, duration_ms : float
        Time step and length.
    current : callable
        Input as a function of time, an array in ms.
    quadratic : tuple of float
        Coefficients of the equation of v.
    form : str
        The equations.
    """

    name: str
    abcd: tuple[float, float, float, float]
    v0: float
    dt_ms: float
    duration_ms: float
    current: Callable[[np.ndarray], np.ndarray]
    quadratic: tuple[float, float, float] = (0.04, 5.0, 140.0)
    form: str = "2003"
    u0: float | None = None


def _step(value: float, start: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: np.where(t > start, value, 0.0)


def _window(value: float, *windows: tuple[float, float], rest: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    """Return `value` strictly inside the windows, and `rest` outside."""

    def current(t: np.ndarray) -> np.ndarray:
        inside = np.zeros(t.shape, dtype=bool)
        for start, stop in windows:
            inside |= (t > start) & (t < stop)
        return np.where(inside, value, rest)

    return current


def _variability(t: np.ndarray) -> np.ndarray:
    return _window(1.0, (10, 15), (80, 85))(t) + _window(-6.0, (70, 75))(t)


def _accommodation(t: np.ndarray) -> np.ndarray:
    return np.where(t < 200, t / 25, np.where((t >= 300) & (t < 312.5), (t - 300) / 12.5 * 4, 0.0))


_PAIRS = _window(0.65, (40, 44), (60, 64), (280, 284), (320, 324))


def _inhibition(t: np.ndarray) -> np.ndarray:
    return np.where((t < 50) | (t > 250), 80.0, 75.0)


def _pattern(
    name: str,
    abcd: tuple[float, float, float, float],
    v0: float,
    dt_ms: float,
    duration_ms: float,
    current: Callable[[np.ndarray], np.ndarray],
    quadratic: tuple[float, float, float] = (0.04, 5.0, 140.0),
) -> Pattern:
    times = {"v0": v0, "dt_ms": dt_ms, "duration_ms": duration_ms}
    return Pattern(name=name, abcd=abcd, current=current, quadratic=quadratic, **times)


PATTERNS: dict[str, Pattern] = {
    "A": _pattern("tonic spiking", (0.02, 0.2, -65, 6), -70, 0.25, 100, _step(14, 10)),
    "B": _pattern("phasic spiking", (0.02, 0.25, -65, 6), -64, 0.25, 200, _step(0.5, 20)),
    "C": _pattern("tonic bursting", (0.02, 0.2, -50, 2), -70, 0.25, 220, _step(15, 22)),
    "D": _pattern("phasic bursting", (0.02, 0.25, -55, 0.05), -64, 0.2, 200, _step(0.6, 20)),
    "E": _pattern("mixed mode", (0.02, 0.2, -55, 4), -70, 0.25, 160, _step(10, 16)),
    "F": _pattern("spike frequency adaptation", (0.01, 0.2, -65, 8), -70, 0.25, 85, _step(30, 8.5)),
    "G": _pattern(
        "class 1", (0.02, -0.1, -55, 6), -60, 0.25, 300, lambda t: np.where(t > 30, 0.075 * (t - 30), 0.0), _CLASS_1
    ),
    "H": _pattern(
        "class 2", (0.2, 0.26, -65, 0), -64, 0.25, 300, lambda t: np.where(t > 30, -0.5 + 0.015 * (t - 30), -0.5)
    ),
    "I": _pattern("spike latency", (0.02, 0.2, -65, 6), -70, 0.2, 100, _window(7.04, (10, 13))),
    "J": _pattern("subthreshold oscillations", (0.05, 0.26, -60, 0), -62, 0.25, 200, _window(2.0, (20, 25))),
    "K": _pattern("resonator", (0.1, 0.26, -60, -1), -62, 0.25, 400, _PAIRS),
    "L": _pattern(
        "integrator", (0.02, -0.1, -55, 6), -60, 0.25, 100,
        _window(9.0, (100 / 11, 100 / 11 + 2), (100 / 11 + 5, 100 / 11 + 7), (70, 72), (80, 82)), _CLASS_1,
    ),
    "M": _pattern("rebound spike", (0.03, 0.25, -60, 4), -64, 0.2, 200, _window(-15.0, (20, 25))),
    "N": _pattern("rebound burst", (0.03, 0.25, -52, 0), -64, 0.2, 200, _window(-15.0, (20, 25))),
    "O": _pattern("threshold variability", (0.03, 0.25, -60, 4), -64, 0.25, 100, _variability),
    "P": _pattern(
        "bistability", (0.1, 0.26, -60, 0), -61, 0.25, 300, _window(1.24, (37.5, 42.5), (216, 221), rest=0.24)
    ),
    "Q": _pattern(
        "depolarising after-potential", (1, 0.2, -60, -21), -70, 0.1, 50, _window(20.0, (9, 11))
    ),
    "R": Pattern(
        name="accommodation", abcd=(0.02, 1, -55, 4), v0=-65, u0=-16, dt_ms=0.5, duration_ms=400,
        current=_accommodation, form="2003_accommodation",
    ),
    "S": _pattern("inhibition-induced spiking", (-0.02, -1, -60, 8), -63.8, 0.5, 350, _inhibition),
    "T": _pattern("inhibition-induced bursting", (-0.026, -1, -45, -2), -63.8, 0.5, 350, _inhibition),
}  # fmt: skip


def run_pattern(letter: str, *, scheme: str = "iz_fig1", backend: str = "numba", dtype: str = "float64") -> Recording:
    """Run a published pattern.

    Parameters
    ----------
    letter : str
        A key of `PATTERNS`, "A" to "T".
    scheme : str
        How it is integrated; the published spike times are those of "iz_fig1".
    backend, dtype : str
        As for `reservoir.simulate`.

    Returns
    -------
    Recording
        With v and u of the neuron.

    References
    ----------
    .. [1] Izhikevich, IEEE Transactions on Neural Networks 15 (2004), doi:10.1109/TNN.2004.832719.

    Examples
    --------
    >>> run_pattern("A").spikes()[0].tolist()
    [13.0, 17.0, 31.5, 59.25, 86.75]
    """
    p = PATTERNS[check_option("letter", letter, PATTERNS)]
    a, b, c, d = p.abcd
    neuron = Izhikevich(form=p.form, scheme=scheme, a=a, b=b, c=c, d=d, quadratic=p.quadratic)
    net = Reservoir.from_edges(1, [], [], [], neuron, dt_ms=p.dt_ms, v_min=None)
    t = np.arange(round(p.duration_ms / p.dt_ms) + 1) * p.dt_ms
    return simulate(
        net,
        Stimulus(current=p.current(t)[:, None]),
        state=initial_state(net, v=p.v0, u=p.u0, dtype=dtype),
        record=Record(traces=("v", "u")),
        backend=backend,
        dtype=dtype,
    )
