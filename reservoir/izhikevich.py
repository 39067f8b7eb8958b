"""Izhikevich neurons: parameters, forms of the equations, and schemes that integrate them."""

# N neurons

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_finite, check_number, check_option, invalid
from reservoir.cells import DEFAULTS, PRESETS, REQUIRED

__all__ = ["FORMS", "PARAMETERS", "SCHEMES", "Izhikevich", "Scheme"]

FORMS = {
    "2003": "v' = k2 v**2 + k1 v + k0 - u + I;  u' = a (b v - u);  v >= v_peak: v = c, u += d",
    "2003_accommodation": "as 2003, with u' = a b (v + 65): the accommodation pattern of the 2004 figure",
    "2007": "C v' = k (v - v_rest)(v - v_threshold) - u + I;  u' = a (b (v - v_rest) - u);  the same reset",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """How a step of `dt_ms` is taken.

    Attributes
    ----------
    n_substeps : int
        How many equal Euler steps v takes, with the same u and input.
    u_sees_old_v : bool
        Whether u is integrated with the v from before the step.
    strict : bool
        Whether a v exactly at the peak is no spike yet.
    source : str
        Where it comes from.
    """

    n_substeps: int
    u_sees_old_v: bool
    strict: bool
    source: str


SCHEMES = {
    "iz2003_pub": Scheme(
        n_substeps=2,
        u_sees_old_v=False,
        strict=False,
        source="net.m of Izhikevich 2003: two half steps of v, then u with the new v",
    ),
    "iz_fig1": Scheme(
        n_substeps=1,
        u_sees_old_v=False,
        strict=True,
        source="figure1.m of Izhikevich 2004: one step of v, then u with the new v; a spike is above the peak",
    ),
    "euler": Scheme(
        n_substeps=1,
        u_sees_old_v=True,
        strict=False,
        source="forward Euler, consistent in v and u: izhi2007.m, Nicola & Clopath 2017, NEST's default",
    ),
}
_DEFAULT_SCHEME = {"2003": "iz2003_pub", "2003_accommodation": "iz_fig1", "2007": "euler"}
# Per-neuron numbers, in the order in which backends receive them.
PARAMETERS = ("a", "b", "c", "d", "v_peak", "capacitance", "k", "v_rest", "v_threshold")
BENT = ("b_below", "v_bend", "cubic", "peak_slope", "reset_slope", "u_max")


class Izhikevich:
    r"""Parameters of one neuron, or of a group of them.

    Each parameter is a number, or an array with one number a neuron. Those of a published kind can be overridden.

    Parameters
    ----------
    kind : str, optional
        A published kind: RS, IB, CH, FS, LTS, TC, RZ in the 2003 form, RS, IB, CH, FS, LTS, TC, RTN in the 2007 form;
        the tables are in `reservoir.cells`. Without it all parameters of the form must be given.
    form : str
        The equations, a key of `FORMS`.
    scheme : str, optional
        How they are integrated, a key of `SCHEMES`; by default as the form was published.
    a : float or array, optional
        Rate of recovery, 1/ms.
    b : float or array, optional
        How u follows v.
    c : float or array, optional
        v after a spike, mV.
    d : float or array, optional
        What a spike adds to u.
    v_peak : float or array, optional
        Where a spike is cut, mV; 30 in the 2003 form.
    quadratic : sequence of float, length 3
        k2, k1, k0 of the 2003 form. The class-1 and integrator patterns were published with (0.04, 4.1, 108).
    capacitance : float or array, optional
        C of the 2007 form, pF.
    k : float or array, optional
        Of the 2007 form, pA/mV**2.
    v_rest : float or array, optional
        Of the 2007 form, mV.
    v_threshold : float or array, optional
        Of the 2007 form, mV: the instantaneous threshold, which is no bound that is watched.
    b_below : float or array, optional
        2007 form: `b` up to the potential `v_bend`.
    v_bend : float or array, optional
        2007 form, mV: where `b_below` ends and `cubic` begins.
    cubic : float or array, optional
        2007 form: u follows ``cubic * (v - v_bend)**3`` as well, above `v_bend`.
    peak_slope : float or array, optional
        2007 form: the peak is ``v_peak + peak_slope * u``.
    reset_slope : float or array, optional
        2007 form: v after a spike is ``c + reset_slope * u``.
    u_max : float or array, optional
        2007 form: bound of u after a spike.

    Attributes
    ----------
    parameters : dict of str to float or ndarray
        Every parameter of the form.

    Raises
    ------
    ValueError
        For unknown kinds, missing or non-finite parameters, arrays of different lengths, a parameter of another form.

    Notes
    -----
    The 2003 form [1]_ is :math:`\dot v = 0.04 v^2 + 5 v + 140 - u + I`, :math:`\dot u = a (b v - u)`, and the 2007
    form [2]_ :math:`C \dot v = k (v - v_r)(v - v_t) - u + I`, :math:`\dot u = a (b (v - v_r) - u)`, with v in mV and
    time in ms. Explicit steps of h ms are stable where :math:`|h (0.08 v + 5)| < 2`: above -112.5 mV for half steps of
    1 ms, above -87.5 mV for whole ones.

    References
    ----------
    .. [1] Izhikevich, IEEE Transactions on Neural Networks 14 (2003), doi:10.1109/TNN.2003.820440.
    .. [2] Izhikevich, Dynamical Systems in Neuroscience, MIT Press 2007.

    Examples
    --------
    >>> Izhikevich("CH")
    Izhikevich('CH', a=0.02, b=0.2, c=-50, d=2, v_peak=30)
    >>> Izhikevich("RS", d=6.0).parameters["d"]
    6.0
    """

    def __init__(
        self,
        kind: str | None = None,
        *,
        form: str = "2003",
        scheme: str | None = None,
        a: float | Sequence[float] | np.ndarray | None = None,
        b: float | Sequence[float] | np.ndarray | None = None,
        c: float | Sequence[float] | np.ndarray | None = None,
        d: float | Sequence[float] | np.ndarray | None = None,
        v_peak: float | Sequence[float] | np.ndarray | None = None,
        quadratic: Sequence[float] = (0.04, 5.0, 140.0),
        capacitance: float | Sequence[float] | np.ndarray | None = None,
        k: float | Sequence[float] | np.ndarray | None = None,
        v_rest: float | Sequence[float] | np.ndarray | None = None,
        v_threshold: float | Sequence[float] | np.ndarray | None = None,
        b_below: float | Sequence[float] | np.ndarray | None = None,
        v_bend: float | Sequence[float] | np.ndarray | None = None,
        cubic: float | Sequence[float] | np.ndarray | None = None,
        peak_slope: float | Sequence[float] | np.ndarray | None = None,
        reset_slope: float | Sequence[float] | np.ndarray | None = None,
        u_max: float | Sequence[float] | np.ndarray | None = None,
    ) -> None:
        self.kind = kind
        self.form = check_option("form", form, FORMS)
        self.scheme = _DEFAULT_SCHEME[form] if scheme is None else check_option("scheme", scheme, SCHEMES)
        given = {"a": a, "b": b, "c": c, "d": d, "v_peak": v_peak, "capacitance": capacitance, "k": k}
        given |= {"v_rest": v_rest, "v_threshold": v_threshold, "b_below": b_below, "v_bend": v_bend, "cubic": cubic}
        given |= {"peak_slope": peak_slope, "reset_slope": reset_slope, "u_max": u_max}
        given = {name: value for name, value in given.items() if value is not None}
        values = dict(PRESETS[form][check_option("kind", kind, PRESETS[form])]) if kind is not None else {}
        allowed = [*REQUIRED[form], "v_peak", *(BENT if form == "2007" else ())]
        for name, value in given.items():
            if name not in allowed:
                raise invalid(name, f"be left out in the {form!r} form", value, "Use form='2007'.")
            values[name] = value
        self.quadratic = _three_numbers(quadratic)
        for name in REQUIRED[form]:
            if name not in values:
                raise invalid(name, "be given, or `kind`", "neither", f"A kind is one of {', '.join(PRESETS[form])}.")
        self.parameters = {"v_peak": DEFAULTS["v_peak"]} | {name: _number(name, v) for name, v in values.items()}
        # Whether u bends, or the peak and the reset move with it, as in half of the kinds of 2007.
        self.is_bent = any(name in values for name in BENT)
        sizes = {v.size for v in self.parameters.values() if isinstance(v, np.ndarray)}
        if len(sizes) > 1:
            raise invalid("a, b, c, d", "have one value a neuron, the same number each", f"{sorted(sizes)} values")
        self.n = sizes.pop() if sizes else None

    def per_neuron(self, n: int) -> dict[str, np.ndarray]:
        """Return every parameter as an array of length `n`; those that do not matter have their neutral value.

        Parameters
        ----------
        n : int
            Number of neurons.
        """
        if self.n not in (None, n):
            raise invalid("neuron", f"have parameters for {n} neurons", f"parameters for {self.n}")
        neutral = {"capacitance": 1.0, "k": 0.0, "v_rest": 0.0, "v_threshold": 0.0, **DEFAULTS}
        values = neutral | {"b_below": self.parameters["b"]} | self.parameters
        return {name: np.array(np.broadcast_to(values[name], n), dtype=np.float64) for name in (*PARAMETERS, *BENT)}

    def __repr__(self) -> str:
        shown = [repr(self.kind)] if self.kind else []
        shown += [f"form={self.form!r}"] if self.form != "2003" else []
        for name in ("a", "b", "c", "d", *(key for key in self.parameters if key not in "abcd")):
            value = self.parameters[name]
            shown.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}=<{value.size} values>")
        return f"Izhikevich({', '.join(shown)})"


def _number(name: str, value: float | Sequence[float] | np.ndarray) -> float | np.ndarray:
    """Return a number, or a one-dimensional array; what stands for "nowhere" may be infinite."""
    unbounded = name in ("u_max", "v_bend")
    if isinstance(value, int | float):
        return check_number(name, value, finite=not unbounded)
    array = np.array(value, dtype=np.float64)
    if array.ndim != 1:
        raise invalid(name, "be a number or have shape (N,)", f"{array.shape}")
    check_finite(name, array[~np.isinf(array)] if unbounded else array)
    return array


def _three_numbers(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise invalid("quadratic", "hold three numbers: k2, k1, k0", values)
    k2, k1, k0 = (check_number("quadratic", value) for value in values)
    return k2, k1, k0
