"""The node, or nodes, that each layer becomes."""

# C channels, H W image, O outputs, I inputs, K taps

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from neuroloaders.checks import invalid
from snn.neurons import IF, LIF, PLIF
from snn.nir.chain import Chain
from snn.nir.equations import integrator_to_nir, neuron_to_nir
from snn.nir.layers import LeakyIntegrator, PerNeuron, Scale, StepDelay

if TYPE_CHECKING:
    import nir

__all__ = ["EXPORTERS"]


def _linear(chain: Chain, path: str, layer: nn.Linear, folded: bool) -> None:
    _check_features(chain, path, layer.in_features)
    chain.add(path, _weighted(chain, layer.weight, layer.bias), shape=(layer.out_features,))


def _check_features(chain: Chain, path: str, n_in: int) -> None:
    if chain.shape != (n_in,):
        advice = "Put nn.Flatten(2) before it." if len(chain.shape) > 1 else ""
        raise invalid(path, f"get steps of shape ({n_in},)", f"{chain.shape}", advice)


def _weighted(chain: Chain, weight: Tensor, bias: Tensor | None) -> nir.NIRNode:
    return chain.nir.Linear(_array(weight)) if bias is None else chain.nir.Affine(_array(weight), _array(bias))


def _conv(chain: Chain, path: str, layer: nn.Conv1d | nn.Conv2d, folded: bool) -> None:
    kind = nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.Conv2d
    n_axes = layer.weight.ndim - 2
    if layer.padding_mode != "zeros":
        raise invalid(f"{path}.padding_mode", "be 'zeros'", repr(layer.padding_mode), "NIR pads with zeros only.")
    shape = _shape_after(chain, path, layer, kind, folded)
    bias = layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias
    settings = {"stride": layer.stride, "dilation": layer.dilation, "padding": layer.padding}
    if n_axes == 1:
        settings = {key: value if isinstance(value, str) else value[0] for key, value in settings.items()}
    node = getattr(chain.nir, kind.__name__)(
        input_shape=chain.shape[1] if n_axes == 1 else chain.shape[1:],
        weight=_array(layer.weight),
        bias=_array(bias),
        groups=layer.groups,
        **settings,
    )
    _add_with_types(chain, path, node, shape)


def _pool(chain: Chain, path: str, layer: nn.AvgPool2d, folded: bool) -> None:
    sizes = {key: np.broadcast_to(getattr(layer, key), 2).astype(int) for key in ("kernel_size", "stride", "padding")}
    is_sum = layer.divisor_override == 1
    for key, bad, instead in (
        ("ceil_mode", layer.ceil_mode, "False"),
        ("divisor_override", layer.divisor_override not in (None, 1), "None, or 1 for sums"),
        ("count_include_pad", sizes["padding"].any() and not layer.count_include_pad and not is_sum, "True"),
    ):
        if bad:
            raise invalid(
                f"{path}.{key}", f"be {instead}", f"{getattr(layer, key)}", "NIR's pooling has no such option."
            )
    node = (chain.nir.SumPool2d if is_sum else chain.nir.AvgPool2d)(**sizes)
    _add_with_types(chain, path, node, _shape_after(chain, path, layer, nn.AvgPool2d, folded))


def _add_with_types(chain: Chain, path: str, node: nir.NIRNode, shape: tuple[int, ...]) -> None:
    # nir 1.0.8 derives wrong shapes for groups and for kernels that are not square.
    node.input_type, node.output_type = {"input": np.array(chain.shape)}, {"output": np.array(shape)}
    chain.add(path, node, shape=shape)


def _shape_after(chain: Chain, path: str, layer: nn.Module, kind: type[nn.Module], folded: bool) -> tuple[int, ...]:
    if not folded:
        advice = f"Wrap it: snn.nir.FoldTime({kind.__name__}(...))."
        raise invalid(path, "work on sequences (T, B, C, ...)", f"a bare {kind.__name__}", advice)
    n_axes = 1 if kind is nn.Conv1d else 2
    like = next(layer.parameters(), torch.zeros(()))
    try:
        if len(chain.shape) != n_axes + 1:
            raise RuntimeError("the number of axes differs")
        with torch.no_grad():
            return tuple(kind.forward(layer, like.new_zeros(1, *chain.shape)).shape[1:])
    except RuntimeError as error:
        wanted = "fit what reaches it, a step of shape " + ("(C, L)" if n_axes == 1 else "(C, H, W)")
        raise invalid(path, wanted, f"{chain.shape}: {error}") from error


def _flatten(chain: Chain, path: str, layer: nn.Flatten, folded: bool) -> None:
    n_outer = 1 if folded else 2
    n_axes = len(chain.shape) + n_outer
    start, end = (axis % n_axes - n_outer for axis in (layer.start_dim, layer.end_dim))
    if start < 0:
        advice = f"Use nn.Flatten({n_outer})."
        raise invalid(f"{path}.start_dim", "leave the axes of time and batch alone", f"{layer.start_dim}", advice)
    sizes = chain.shape
    shape = (*sizes[:start], int(np.prod(sizes[start : end + 1])), *sizes[end + 1 :])
    # -1 where it is the last axis anyway: the form that all readers know.
    end = -1 if end == len(sizes) - 1 else end
    chain.add(path, chain.nir.Flatten(np.array(sizes), start_dim=start, end_dim=end), shape=shape)


def _check_has_time(path: str, layer: nn.Module, folded: bool) -> None:
    if folded:
        advice = "Take it out of the container that folds time into the batch."
        raise invalid(path, "stand where it sees time, (T, B, C, ...)", f"a {type(layer).__name__} in one", advice)


def _neuron(chain: Chain, path: str, layer: nn.Module, folded: bool) -> None:
    _check_has_time(path, layer, folded)
    chain.add(path, neuron_to_nir(chain.nir, path, layer, chain.shape, chain.dt_s))


def _integrator(chain: Chain, path: str, layer: LeakyIntegrator, folded: bool) -> None:
    _check_has_time(path, layer, folded)
    chain.add(path, integrator_to_nir(chain.nir, path, layer, chain.shape, chain.dt_s))


def _scale(chain: Chain, path: str, layer: Scale, folded: bool) -> None:
    chain.add(path, chain.nir.Scale(np.broadcast_to(_array(layer.scale), chain.shape).copy()))


def _step_delay(chain: Chain, path: str, layer: StepDelay, folded: bool) -> None:
    _check_has_time(path, layer, folded)
    chain.add(path, chain.nir.Delay(np.broadcast_to(_array(layer.steps) * chain.dt_s, chain.shape).copy()))


def _delay_linear(chain: Chain, path: str, layer: nn.Module, folded: bool) -> None:
    """Write a linear layer whose synapses have delays: parameters `weight` and `delay` (steps), (O, I, K)."""
    _check_has_time(path, layer, folded)
    weight = layer.weight.detach().reshape(*layer.weight.shape[:2], -1)
    n_out, n_in, _ = weight.shape
    _check_features(chain, path, n_in)
    dt_ms = getattr(layer, "dt_ms", None)
    if dt_ms is not None and not np.isclose(dt_ms * 1e-3, chain.dt_s):
        raise invalid("dt_ms", f"be that of the layer {path!r}, {dt_ms}", f"{chain.dt_s * 1e3:.4g}")
    steps = _delays(chain, path, layer).expand(weight.shape)
    bias = getattr(layer, "bias", None)
    bias = bias if isinstance(bias, Tensor) else None
    if (steps == steps[:1, :, :1]).all():
        nodes = [_delay_node(chain, steps[0, :, 0]), _weighted(chain, weight.sum(2), bias)]
        return chain.add(path, *nodes, shape=(n_out,))
    if (steps == steps[:, :1, :1]).all():
        branches = [[_weighted(chain, weight.sum(2), None), _delay_node(chain, steps[:, 0, 0])]]
        if bias is not None:
            # The bias is there from the first step on: it must not pass the delay.
            branches.append([_weighted(chain, torch.zeros_like(weight[..., 0]), bias)])
        return chain.split(path, branches, (n_out,))
    distinct = steps.unique().tolist()
    if not chain.expand_delays:
        raise invalid(
            f"{path}.delay",
            "be shared by all synapses of an input, or of an output",
            f"{len(distinct)} delays spread over {n_out} x {n_in} connections",
            "NIR has delays per element only: train with one per axon or per dendrite, or pass expand_delays=True, "
            f"which writes {len(distinct)} Linear nodes instead of one.",
        )
    branches = [
        [
            _delay_node(chain, torch.full((n_in,), delay)),
            _weighted(chain, weight.where(steps == delay, 0).sum(2), bias if delay == distinct[0] else None),
        ]
        for delay in distinct
    ]
    return chain.split(path, branches, (n_out,))


def _delays(chain: Chain, path: str, layer: nn.Module) -> Tensor:
    """Return the delays in whole steps, with axes (O, I, K), of which some may be 1."""
    if getattr(layer, "rounding", "never") != "never":
        # What the layer itself takes in evaluation: nothing is lost.
        delay = layer.delays_in_steps()
    else:
        delay = layer.delay.detach()
        if not chain.round_delays and (hasattr(layer, "sigma") or not torch.equal(delay, delay.round())):
            came = "delays with a width" if hasattr(layer, "sigma") else "fractions"
            advice = "Round them in the layer, or pass round_delays=True."
            raise invalid(f"{path}.delay", "be whole numbers of steps", came, advice)
    if delay.ndim == 1:
        delay = delay.view(-1, 1, 1) if getattr(layer, "share", "") == "dendrite" else delay.view(1, -1, 1)
    return (delay.unsqueeze(2) if delay.ndim == 2 else delay).round().long()


def _delay_node(chain: Chain, steps: Tensor) -> nir.NIRNode:
    return chain.nir.Delay(_array(steps) * chain.dt_s)


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    # HDF5 has no bfloat16.
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy().copy()


# Layer -> what appends its nodes. A name stands for any class of that name.
EXPORTERS: dict[type[nn.Module] | str, Callable[[Chain, str, nn.Module, bool], None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.AvgPool2d: _pool,
    nn.Flatten: _flatten,
    LIF: _neuron,
    PLIF: _neuron,
    IF: _neuron,
    PerNeuron: _neuron,
    LeakyIntegrator: _integrator,
    Scale: _scale,
    StepDelay: _step_delay,
    "DelayLinear": _delay_linear,
}
