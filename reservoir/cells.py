"""The published kinds of neurons: tables of numbers, no code.

2003 form (Izhikevich 2003 [1]_; RZ, LTS and TC as in its figure 2)::

    kind   a     b     c    d      what it is
    RS     0.02  0.2   -65  8      regular spiking, excitatory
    IB     0.02  0.2   -55  4      intrinsically bursting, excitatory
    CH     0.02  0.2   -50  2      chattering, excitatory
    FS     0.1   0.2   -65  2      fast spiking, inhibitory
    LTS    0.02  0.25  -65  2      low-threshold spiking, inhibitory
    TC     0.02  0.25  -65  0.05   thalamo-cortical
    RZ     0.1   0.26  -65  2      resonator

2007 form (Izhikevich 2007 [2]_, chapter 8, and the author's ModelDB entry 39948)::

    kind  C    k    v_rest v_threshold v_peak     a     b              c           d     else
    RS    100  0.7  -60    -40         35         0.03  -2             -50         100
    IB    150  1.2  -75    -45         50         0.01  5              -56         130
    CH    50   1.5  -60    -40         25         0.03  1              -40         150
    LTS   100  1    -56    -42         40 - 0.1u  0.03  8              -53+0.04u   20    u <= 670
    FS    20   1    -55    -40         25         0.2   -              -45         -     u' = a (U - u)
    TC    200  1.6  -60    -50         35 + 0.1u  0.01  15; 0 > -65    -60-0.1u    10
    RTN   40   0.25 -65    -45         0          0.015 10; 2 > -65    -55         50

FS: U = 0.025 (v + 55)**3 above -55 mV, else 0. TC and RTN: the first `b` holds up to -65 mV, the second above.

References
----------
.. [1] Izhikevich, IEEE Transactions on Neural Networks 14 (2003), doi:10.1109/TNN.2003.820440.
.. [2] Izhikevich, Dynamical Systems in Neuroscience, MIT Press 2007.
"""

from __future__ import annotations

import math

__all__ = ["DEFAULTS", "PRESETS", "REQUIRED"]


def _simple(a: float, b: float, c: float, d: float) -> dict[str, float]:
    return {"a": a, "b": b, "c": c, "d": d}


def _full(
    capacitance: float,
    k: float,
    v_rest: float,
    v_threshold: float,
    v_peak: float,
    a: float,
    b: float,
    c: float,
    d: float,
    **more: float,
) -> dict[str, float]:
    shape = {"capacitance": capacitance, "k": k, "v_rest": v_rest, "v_threshold": v_threshold, "v_peak": v_peak}
    return {**shape, **_simple(a, b, c, d), **more}


_KINDS_2003 = {
    "RS": _simple(0.02, 0.2, -65.0, 8.0),
    "IB": _simple(0.02, 0.2, -55.0, 4.0),
    "CH": _simple(0.02, 0.2, -50.0, 2.0),
    "FS": _simple(0.1, 0.2, -65.0, 2.0),
    "LTS": _simple(0.02, 0.25, -65.0, 2.0),
    "TC": _simple(0.02, 0.25, -65.0, 0.05),
    "RZ": _simple(0.1, 0.26, -65.0, 2.0),
}
PRESETS: dict[str, dict[str, dict[str, float]]] = {
    "2003": _KINDS_2003,
    "2003_accommodation": {},
    "2007": {
        "RS": _full(100, 0.7, -60, -40, 35, 0.03, -2, -50, 100),
        "IB": _full(150, 1.2, -75, -45, 50, 0.01, 5, -56, 130),
        "CH": _full(50, 1.5, -60, -40, 25, 0.03, 1, -40, 150),
        "LTS": _full(100, 1, -56, -42, 40, 0.03, 8, -53, 20, peak_slope=-0.1, reset_slope=0.04, u_max=670.0),
        "FS": _full(20, 1, -55, -40, 25, 0.2, 0, -45, 0, v_bend=-55.0, b_below=0.0, cubic=0.025),
        "TC": _full(200, 1.6, -60, -50, 35, 0.01, 0, -60, 10, v_bend=-65.0, b_below=15.0, peak_slope=0.1)
        | {"reset_slope": -0.1},
        "RTN": _full(40, 0.25, -65, -45, 0, 0.015, 2, -55, 50, v_bend=-65.0, b_below=10.0),
    },
}
REQUIRED = {
    "2003": ("a", "b", "c", "d"),
    "2003_accommodation": ("a", "b", "c", "d"),
    "2007": ("capacitance", "k", "v_rest", "v_threshold", "v_peak", "a", "b", "c", "d"),
}
# What a parameter is if neither the kind nor the user says; `b_below` is `b` itself.
DEFAULTS = {
    "v_peak": 30.0,
    "v_bend": -math.inf,
    "cubic": 0.0,
    "peak_slope": 0.0,
    "reset_slope": 0.0,
    "u_max": math.inf,
}
