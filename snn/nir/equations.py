r"""The neurons of NIR, in seconds, and ours, in time steps.

NIR states a differential equation, :math:`\tau \dot v = (v_l - v) + R I`, a spike where :math:`v > \vartheta` and a
reset to :math:`v_r`; how to step it is left to the simulator. Ours is a recursion,
:math:`h = v - (v - v_r) / \tau' + g x`. The two meet in the number of steps :math:`\tau'` and the gain :math:`g`.
"""

# C channels, H W image

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from neuroloaders.checks import invalid
from snn.neurons import IF, LIF
from snn.nir.layers import LeakyIntegrator, PerNeuron, Scale

if TYPE_CHECKING:
    import nir

__all__ = ["COMPARE_KEY", "INTEGRATIONS", "integrator_from_nir", "neuron_from_nir", "neuron_to_nir"]

# Where our files say that a membrane exactly at threshold spikes.
COMPARE_KEY = "spikedecode_compare"


def _euler(ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return ratio, 1 / ratio


def _exact(ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -1 / np.expm1(-1 / ratio), -np.expm1(-1 / ratio)


def _impulse(ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -1 / np.expm1(-1 / ratio), 1 / ratio


# tau / dt -> (our tau in steps, the factor on R * I). Forward Euler; the exact solution for an input that is constant
# within a step; and that for an input that comes as one impulse at the end of the step, of the same area.
INTEGRATIONS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "euler": _euler,
    "exact": _exact,
    "impulse": _impulse,
}


def neuron_to_nir(nir: ModuleType, path: str, neuron: nn.Module, shape: tuple[int, ...], dt_s: float) -> nir.NIRNode:
    """Return the node of a `LIF`, `PLIF` or `IF` on steps of `shape`, (C, ...)."""
    if isinstance(neuron, PerNeuron):
        node = neuron_to_nir(nir, f"{path}.module", neuron.module, (int(np.prod(shape)),), dt_s)
        fields = {key: value.reshape(shape) for key, value in vars(node).items() if isinstance(value, np.ndarray)}
        return type(node)(**fields, metadata=node.metadata)
    if neuron.v_reset is None:
        advice = "NIR has no soft reset. Train with v_reset=0.0, or keep this network in our own format."
        raise invalid(f"{path}.v_reset", "be a number", "None, which subtracts the threshold", advice)
    threshold = _spread(path, neuron.v_threshold, shape)
    metadata = {}
    if neuron.compare == "ge":
        # NIR's comparison is strict: to be above the next smaller float is to be at least this one.
        threshold = np.nextafter(threshold, threshold.dtype.type(-np.inf))
        metadata[COMPARE_KEY] = "ge"
    fields = {"v_threshold": threshold, "v_reset": np.full(shape, neuron.v_reset), "metadata": metadata}
    if isinstance(neuron, IF):
        return nir.IF(r=np.full(shape, 1 / dt_s), **fields)
    # In float64, so that the steps come back to the last bit of float32.
    tau = _spread(path, neuron.tau, shape).astype(np.float64)
    r = np.ones(shape) if neuron.decay_input else tau
    return nir.LIF(tau=tau * dt_s, r=r, v_leak=fields["v_reset"].copy(), **fields)


def integrator_to_nir(
    nir: ModuleType, path: str, layer: LeakyIntegrator, shape: tuple[int, ...], dt_s: float
) -> nir.NIRNode:
    """Return the LI or I node of a `LeakyIntegrator`."""
    constants = (value.numpy(force=True).astype(np.float64) for value in (layer.tau, layer.gain, layer.v_leak))
    tau, gain, v_leak = (np.broadcast_to(value, shape) for value in constants)
    if np.isfinite(tau).all():
        return nir.LI(tau=tau * dt_s, r=gain * tau, v_leak=v_leak.copy())
    if np.isfinite(tau).any() or v_leak.any():
        raise invalid(f"{path}.tau", "be finite everywhere, or infinite everywhere with v_leak = 0", "a mixture")
    return nir.I(r=gain / dt_s)


def _spread(path: str, value: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Spread one number, or one per channel, over `shape`."""
    value = value.detach().cpu()
    array = (value if value.dtype == torch.float64 else value.float()).numpy()
    if array.ndim and array.shape[0] not in (1, shape[0]):
        raise invalid(f"{path}.n_channels", f"be {shape[0]}, that of its input {shape}", f"{array.shape[0]}")
    return np.broadcast_to(array.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()


def neuron_from_nir(
    name: str, fields: dict, *, dt_s: float, integration: str, soft_reset: bool, at_threshold: bool = False
) -> nn.Module:
    """Return our module for the fields of a LIF node, or of an IF node, which has no `tau` and no `v_leak`."""
    if at_threshold:
        stored = np.asarray(fields["v_threshold"])
        fields = {**fields, "v_threshold": np.nextafter(stored, stored.dtype.type(np.inf))}
    of = _arrays(name, fields)
    options: dict = {"compare": "ge" if at_threshold else "gt", "v_reset": None}
    if soft_reset:
        if "v_leak" in of and of["v_leak"].any():
            raise invalid(f"{name}.v_leak", "be 0 with soft_reset=True", "another potential", "Use soft_reset=False.")
    else:
        of["v_threshold"], options["v_reset"] = _rest(name, of)
    if (of["v_threshold"] <= 0).any():
        raise invalid(f"{name}.v_threshold", "be above v_reset" if not soft_reset else "be above 0", "a lower one")
    if "tau" in of:
        of["tau"], gain = _steps(name, of["tau"], of["r"], dt_s, integration)
        options["decay_input"] = np.allclose(gain * of["tau"], 1, rtol=1e-6, atol=0)
        gain = np.ones(()) if options["decay_input"] else gain
        names = ("tau", "v_threshold")
    else:
        gain, names = of["r"] * dt_s, ("v_threshold",)
    values, n_channels, apart = _per_channel({key: of[key] for key in names})
    neuron = (LIF if "tau" in of else IF)(**values, **options, n_channels=n_channels)
    neuron = PerNeuron(neuron) if apart else neuron
    # Our neurons take their input as it is; a gain of 1 within the precision of float32 needs no layer of its own.
    return neuron if np.allclose(gain, 1, rtol=1e-6, atol=0) else nn.Sequential(Scale(_compact(gain)), neuron)


def integrator_from_nir(
    name: str, *, r: np.ndarray, dt_s: float, integration: str, tau: np.ndarray | None = None, v_leak: float = 0.0
) -> LeakyIntegrator:
    """Return our module for the LI and I nodes, and for the synapses of a current-based neuron."""
    if tau is None:
        (r,) = _arrays(name, {"r": r}).values()
        return LeakyIntegrator(np.inf, _compact(r * dt_s))
    tau, r, v_leak = _arrays(name, {"tau": tau, "r": r, "v_leak": v_leak}).values()
    steps, gain = _steps(name, tau, r, dt_s, integration)
    return LeakyIntegrator(_compact(steps), _compact(gain), _compact(v_leak))


def _rest(name: str, of: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """Return threshold and reset potential, both relative to the latter where ours cannot hold it as it is."""
    threshold, v_reset = of["v_threshold"], of["v_reset"]
    if "v_leak" in of and not np.array_equal(of["v_leak"], v_reset):
        raise invalid(
            f"{name}.v_leak",
            "equal v_reset",
            "another potential",
            "Subtract v_reset from all potentials of the node, add (v_leak - v_reset) / r to the bias of the layer "
            "before it, and set v_leak to v_reset.",
        )
    if v_reset.min() == v_reset.max() and (threshold > 0).all():
        if (threshold <= v_reset).any():
            raise invalid(f"{name}.v_threshold", "be above v_reset", "a lower one", "Such a neuron never stops.")
        return threshold, float(v_reset.flat[0])
    return threshold - v_reset, 0.0


def _steps(name: str, tau: np.ndarray, r: np.ndarray, dt_s: float, integration: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the time constant in our steps, and the gain."""
    if (tau <= 0).any():
        raise invalid(f"{name}.tau", "be above 0 seconds", f"{tau.min():.3g}")
    steps, weight = INTEGRATIONS[integration](tau / dt_s)
    # The rounding of float32 files must not turn 1 into a number that passes.
    if (steps <= 1 + 1e-6).any():
        advice = "Choose a smaller one." if integration != "euler" else "Choose a smaller one, or integration='exact'."
        required = f"be shorter than the time constant of the node {name!r}, {tau.min() * 1e3:.3g} ms"
        raise invalid("dt_ms", required, f"{dt_s * 1e3:.3g}", advice)
    return steps, r * weight


def _arrays(name: str, fields: dict) -> dict[str, np.ndarray]:
    """Return the fields in float64, of one shape, finite."""
    arrays = {key: np.asarray(value, dtype=np.float64) for key, value in fields.items()}
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise invalid(f"{name}.{key}", "hold finite numbers only", "NaN or infinity", "Repair the graph.")
    try:
        return dict(zip(arrays, np.broadcast_arrays(*arrays.values()), strict=True))
    except ValueError as error:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        raise invalid(name, "have parameters of one shape", shapes) from error


def _per_channel(arrays: dict[str, np.ndarray]) -> tuple[dict, int | None, bool]:
    """Return numbers or lists, their length, and whether they go with places rather than channels."""
    if all(array.size == 1 or array.min() == array.max() for array in arrays.values()):
        return {key: float(array.flat[0]) for key, array in arrays.items()}, None, False
    rows = {key: array.reshape(array.shape[0], -1) for key, array in arrays.items()}
    apart = any((array != array[:, :1]).any() for array in rows.values())
    values = {key: array.ravel() if apart else array[:, 0] for key, array in rows.items()}
    return {key: array.tolist() for key, array in values.items()}, len(next(iter(values.values()))), apart


def _compact(array: np.ndarray) -> Tensor:
    """Return one number if all are the same."""
    same = array.min() == array.max()
    return torch.as_tensor(np.array(array.flat[0] if same else array), dtype=torch.get_default_dtype())
