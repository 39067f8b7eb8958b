"""Functions to sweep over, and how two sweeps are compared."""

import functools

import numpy as np

from reservoir import PredictionLearner, PredictionTask, Reservoir, ThreeFactorRule, learning_curves
from reservoir.sweep import sweep

GRID = {"gain": [0.0, 1.0], "eta": [1e-3, 3e-3]}
quiet = functools.partial(sweep, progress=False)


def learning_error():
    """Return a function that learns; made here, so that it goes to other processes by value."""

    # Pauses of one length: cues come at the same times in all networks.
    def error(gain, eta, *, generator, n_lanes=1):
        task = PredictionTask((80.0, 140.0), 0.5, n_trials=3, trial_ms=200.0, pause_ms=(50.0, 50.0))
        networks = [Reservoir(50, gain=gain, generator=generator + k) for k in range(n_lanes)]
        rule = ThreeFactorRule(eta=eta)
        learner = PredictionLearner(networks, 2, rule=rule, seed=generator, n_threads=1)
        curves = learning_curves(learner, [task], tests=(0, 3), n_repeats=2)
        return {"rmse": curves.rmse, "weights": curves.when_weights, "last": float(curves.rmse[0, 1, 0])}

    return error


def product(calls=None):
    def multiply(x, y=1, *, generator):
        if calls is not None:
            calls.append((x, y, generator))
        return x * y

    return multiply


def assert_same(one, other):
    assert one.axes == other.axes
    assert [run.point.plain for run in one] == [run.point.plain for run in other]
    for a, b in zip(one, other, strict=True):
        assert list(a.result) == list(b.result)
        for name, value in a.result.items():
            assert type(value) is type(b.result[name])
            assert np.array_equal(value, b.result[name], equal_nan=isinstance(value, float)), name
            assert getattr(value, "dtype", None) == getattr(b.result[name], "dtype", None)


def failing(x, *, generator):
    if x == 2:
        raise RuntimeError("no such reservoir")
    return x
