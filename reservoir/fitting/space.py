"""What is searched: the free parameters of each form, where they may lie, and where the search begins."""

# P candidates, F free parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_number, check_option, invalid
from reservoir.fitting.measure import Measured
from reservoir.izhikevich import Izhikevich

__all__ = ["SPACES", "Free", "Space", "make_space"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Free:
    """A parameter that is searched for, or fixed where `low` and `high` are the same.

    Attributes
    ----------
    name : str
        As `Izhikevich` calls it; "input_gain" and "input_bias" turn the recorded current into the cell's input.
    unit : str
        Its unit.
    low, high : float
        Bounds.
    start : float
        Initial value.
    log : bool
        Whether the search sees its logarithm.
    """

    name: str
    unit: str
    low: float
    high: float
    start: float
    log: bool = False

    @property
    def fixed(self) -> bool:
        """Whether it is not searched for."""
        return self.low == self.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """All parameters of a form.

    Attributes
    ----------
    form : str
        A key of `reservoir.izhikevich.FORMS`.
    parameters : tuple of Free
        In the order of the search.
    """

    form: str
    parameters: tuple[Free, ...]

    @property
    def free(self) -> list[Free]:
        """Those that are searched for."""
        return [one for one in self.parameters if not one.fixed]

    def bounds(self) -> np.ndarray:
        """Return the bounds as the search sees them, shape (F, 2)."""
        both = np.array([(one.low, one.high) for one in self.free])
        logs = np.array([one.log for one in self.free])
        return np.where(logs[:, None], np.log(np.where(logs[:, None], both, 1.0)), both)

    def start(self) -> np.ndarray:
        """Return the initial values as the search sees them, shape (F,)."""
        return np.array([np.log(one.start) if one.log else one.start for one in self.free])

    def values(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Return the parameters of points of the search.

        Parameters
        ----------
        points : ndarray, shape (P, F)
            Points.
        """
        found = {one.name: np.full(len(points), one.start) for one in self.parameters}
        for column, one in enumerate(self.free):
            found[one.name] = np.exp(points[:, column]) if one.log else points[:, column]
        return found

    def candidates(self, points: np.ndarray, dt_ms: float) -> np.ndarray:
        """Return what the kernel takes, shape (P, 11).

        Parameters
        ----------
        points : ndarray, shape (P, F)
            Points of the search.
        dt_ms : float
            Time step.
        """
        from reservoir.fitting.kernel import COLUMNS

        neutral = {"capacitance": 1.0, "k": 0.0, "v_rest": 0.0, "v_threshold": 0.0}
        values = neutral | self.values(points)
        rows = np.stack([np.broadcast_to(values[name], len(points)) for name in COLUMNS], axis=1)
        rows[:, 0] = rows[:, 0] * dt_ms
        return np.ascontiguousarray(rows)

    def cell(self, point: np.ndarray, scheme: str) -> Izhikevich:
        """Return a point as a cell.

        Parameters
        ----------
        point : ndarray, shape (F,)
            Point of the search.
        scheme : str
            A key of `reservoir.izhikevich.SCHEMES`.
        """
        values = {name: float(one[0]) for name, one in self.values(point[None]).items() if not name.startswith("input")}
        return Izhikevich(form=self.form, scheme=scheme, **values)


def make_space(
    form: str,
    measured: Measured,
    *,
    bounds: Mapping[str, Sequence[float]] | None = None,
    fit_bias: bool | None = None,
) -> Space:
    """Return the space of a form for a cell.

    Parameters
    ----------
    form : str
        A key of `SPACES`.
    measured : Measured
        What the recording says without a search.
    bounds : mapping of str to (low, high), optional
        Other bounds for some parameters; the same number twice fixes one.
    fit_bias : bool, optional
        Whether a constant current is added that is searched for; by default where the cell fires by itself.

    Notes
    -----
    Near rest the 2007 form is an RC circuit of resistance 1 / (k (v_threshold - v_rest) + b) once u has followed, and
    of capacitance C: these give the initial values, with b = 0. The unit of k is pA/mV**2, that of b nS.
    """
    space = SPACES[check_option("form", form, SPACES)](
        measured, measured.fires_at_rest if fit_bias is None else fit_bias
    )
    given = dict(bounds or {})
    names = [one.name for one in space]
    changed = []
    for one in space:
        low, high = one.low, one.high
        if one.name in given:
            low, high = _two_numbers(one.name, given.pop(one.name))
            if one.log and low <= 0:
                raise invalid("bounds", f"be above 0 for {one.name!r}", f"{low:g}")
        start = float(np.clip(one.start, low, high))
        changed.append(Free(name=one.name, unit=one.unit, low=low, high=high, start=start, log=one.log))
    for name in given:
        check_option("bounds", name, names)
    if all(one.fixed for one in changed):
        raise invalid("bounds", "leave a parameter to be fitted", "all fixed")
    return Space(form=form, parameters=tuple(changed))


def _two_numbers(name: str, pair: Sequence[float]) -> tuple[float, float]:
    if np.shape(pair) != (2,):
        raise invalid("bounds", f"be (low, high) for {name!r}", pair)
    low = check_number("bounds", pair[0])
    return low, check_number("bounds", pair[1], at_least=low)


def _space_2007(m: Measured, fit_bias: bool) -> list[Free]:
    conductance = 1000 / m.resistance_MOhm  # nS, which is pA/mV
    reach = max(m.threshold_mV - m.rest_mV, 5.0)
    k = conductance / reach
    # Current that takes the cell from rest to threshold, without its getting less resistant on the way.
    strength = conductance * reach
    c = m.capacitance_pF
    low_c = m.trough_mV - 20
    return [
        Free(name="capacitance", unit="pF", low=c / 6, high=c * 6, start=c, log=True),
        Free(name="k", unit="pA/mV^2", low=k / 30, high=k * 30, start=k, log=True),
        Free(name="v_rest", unit="mV", low=m.rest_mV - 20, high=m.rest_mV + 10, start=m.rest_mV),
        Free(
            name="v_threshold", unit="mV", low=m.rest_mV + 2, high=m.rest_mV + reach + 20, start=m.rest_mV + 0.8 * reach
        ),
        Free(name="v_peak", unit="mV", low=m.peak_mV, high=m.peak_mV, start=m.peak_mV),
        Free(name="a", unit="1/ms", low=5e-4, high=0.5, start=0.02, log=True),
        Free(name="b", unit="nS", low=-2 * conductance, high=2 * conductance, start=0.0),
        Free(name="c", unit="mV", low=low_c, high=max(m.threshold_mV + 15, low_c + 10), start=m.trough_mV),
        Free(name="d", unit="pA", low=-0.5 * strength, high=10 * strength, start=0.5 * strength),
        Free(name="input_gain", unit="1", low=1.0, high=1.0, start=1.0),
        _bias(strength, fit_bias, "pA"),
    ]


def _space_2003(m: Measured, fit_bias: bool) -> list[Free]:
    """The form has no scale of its own for currents: mV/ms for each pA; and its rest is where b and the bias put it."""
    # The slope of 0.04 v**2 + 5 v at -65 mV is -0.2 per ms: its own conductance, to which b adds.
    gain = 0.4 * m.resistance_MOhm / 1000
    return [
        Free(name="a", unit="1/ms", low=5e-4, high=0.5, start=0.02, log=True),
        Free(name="b", unit="1/ms", low=-0.5, high=0.5, start=0.2),
        Free(name="c", unit="mV", low=-80.0, high=-35.0, start=float(np.clip(m.trough_mV, -70, -45))),
        Free(name="d", unit="mV/ms", low=-5.0, high=40.0, start=6.0),
        Free(name="v_peak", unit="mV", low=30.0, high=30.0, start=30.0),
        Free(name="input_gain", unit="mV/ms/pA", low=gain / 20, high=gain * 20, start=gain, log=True),
        # Always: without it the cell rests at about -70 mV, wherever the recorded one does.
        Free(name="input_bias", unit="mV/ms", low=-15.0, high=15.0, start=0.0),
    ]


def _bias(strength: float, fit_bias: bool, unit: str) -> Free:
    reach = 5 * strength if fit_bias else 0.0
    return Free(name="input_bias", unit=unit, low=-reach, high=reach, start=0.0)


SPACES = {"2007": _space_2007, "2003": _space_2003}
