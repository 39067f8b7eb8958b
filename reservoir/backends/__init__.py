"""Simulators of one and the same network: backends, and how to choose among them.

A backend is a module with ``run(plan, state, sink)``; `reservoir.backends.spec` says what it is given. It is imported
when it is first used.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections import Counter

import numpy as np

from neuroloaders.checks import check_option
from reservoir.backends.spec import Plan
from reservoir.recording import Sink
from reservoir.state import State

__all__ = ["BACKENDS", "available_backends", "calls", "run"]

BACKENDS = {
    "numba": "compiled for the CPU: all steps of a lane in one loop; threads share lanes, or one large lane",
    "torch": "all lanes side by side, step by step; any device. float64 on the CPU gives the numbers of 'numba'",
    "brian2": "the reference simulator, in numpy; lane after lane",
    "brian2_cython": "the same, compiled by Cython; needs a C++ compiler",
    "brian2_cpp": "the same as a C++ program (cpp_standalone); needs a C++ compiler",
    "brian2_cpp_default": "with brian2's own options, -ffast-math among them: other numbers; to compare speeds with",
}
# How often each backend ran in this process, so that a test or a user can see which one did.
calls: Counter[str] = Counter()


def available_backends() -> dict[str, str]:
    """Return each backend with "available", or with the reason why it cannot run here.

    Examples
    --------
    >>> available_backends()["numba"]
    'available'
    """
    found = {}
    compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))
    for name in BACKENDS:
        package, _, target = name.partition("_")
        if importlib.util.find_spec(package) is None:
            found[name] = f"{package} is not installed: pip install {package}"
        else:
            found[name] = "no C++ compiler" if target and not compiler else "available"
    return found


def run(backend: str, plan: Plan, state: State, sink: Sink) -> np.ndarray:
    """Run a plan on a backend; `state` is advanced, `sink` filled.

    Parameters
    ----------
    backend : str
        A key of `BACKENDS`.
    plan : Plan
        What to run.
    state : State
        Where to start; overwritten with where it ended.
    sink : Sink
        Where spikes and traces go.

    Returns
    -------
    ndarray of int64, shape (B,)
        How often v was held at its lower bound.
    """
    check_option("backend", backend, BACKENDS)
    module, _, target = backend.partition("_")
    calls[backend] += 1
    run_plan = importlib.import_module(f"reservoir.backends.{module}").run
    if module == "brian2":
        return run_plan(plan, state, sink, target=target or "numpy")
    return run_plan(plan, state, sink)
