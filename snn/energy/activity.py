"""How often each weighted layer is fed, by what, and how much its neurons fire, measured by forward hooks."""

# T time steps, B samples

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_option, invalid
from snn.energy.delays import DELAY_RULES
from snn.energy.meter import KINDS, Activity, LayerActivity, MacRule, Meter, NeuronActivity

__all__ = [
    "KINDS",
    "MAC_RULES",
    "Activity",
    "LayerActivity",
    "MacRule",
    "NeuronActivity",
    "count_macs",
    "hooks",
    "measure_activity",
    "undisturbed",
    "weighted_layers",
]


def _conv_macs(module: nn.Module, output: Tensor) -> int:
    image = output.shape[output.ndim - len(module.kernel_size) :]
    per_pixel = math.prod(module.kernel_size) * module.in_channels // module.groups * module.out_channels
    return per_pixel * math.prod(image)


def _linear_macs(module: nn.Module, output: Tensor) -> int:
    return module.in_features * module.out_features


# Subclasses are counted as their base. The dense count k_h k_w c_in h_out w_out c_out takes padding as input.
MAC_RULES: dict[type[nn.Module], MacRule] = {
    nn.Linear: MacRule(_linear_macs, 1),
    nn.Conv1d: MacRule(_conv_macs, 2),
    nn.Conv2d: MacRule(_conv_macs, 3),
    nn.Conv3d: MacRule(_conv_macs, 4),
    **DELAY_RULES,
}


def measure_activity(
    model: nn.Module,
    x: Tensor,
    *,
    n_steps: int | None = None,
    batch_axis: int = 0,
    batch_size: int = 64,
    rules: Mapping[type[nn.Module], MacRule] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Activity:
    """Run `model` on `x` in evaluation mode and measure what every weighted layer is fed.

    Parameters
    ----------
    model : nn.Module
        ANN, network with time folded into the batch, or multi-step network. Modes, buffers and plain attributes
        are put back afterwards. Submodules with a method ``reset`` are reset before every batch.
    x : Tensor, shape (B, ...) or (T, B, ...)
        Samples; moved batch by batch to the device of the model.
    n_steps : int, optional
        T. Default: the model's own `n_steps`, or ``x.shape[0]`` if ``batch_axis=1``, or 1. If given, every module
        that has `n_steps` runs with it.
    batch_axis : int
        0, or 1 for ``[T, B, ...]``.
    batch_size : int
        Samples per run.
    rules : mapping of type to MacRule, optional
        More layer types than ``MAC_RULES``.
    kinds : mapping of str to str, optional
        Layer name -> a key of ``KINDS``, instead of what the data say.

    Returns
    -------
    Activity

    Raises
    ------
    ValueError
        If a layer with weights is of an unknown type, or ran on a number of rows that does not fit T and B.

    Notes
    -----
    What is a spike is read from the data. A module that is none of torch's own, holds no weighted layer and gives
    only two values, 0 and +-a, is a layer of neurons with spikes of height a. After it, an input is made of spikes
    if all its values are multiples of a (sums of spikes), or multiples of a / k up to a (average pooling of k <= 64
    pixels); before any neuron, if it is 0 and 1 only, or for a layer with delays whole numbers from 0 to 64 (events
    in a bin of time). All else is analog, so are spikes averaged over time, and so is everything in a network without
    such neurons. Torch's own activations (ReLU, ...) are never neurons.
    With ``batch_axis=1``, a layer that is fed (T', B, ...) is counted for T' steps: networks with delays lengthen
    their sequences. Layers with delays always read their axes so.
    Where this reads a network wrongly, pass `kinds`: activations of several levels a j / k in a network that also
    has neurons with spikes of height a cannot be told from pooled spikes.
    """
    check_option("batch_axis", batch_axis, [0, 1])
    check_int("batch_size", batch_size, at_least=1)
    if not isinstance(x, Tensor) or x.ndim <= batch_axis or x.shape[batch_axis] == 0:
        raise invalid("x", "be a tensor with at least one sample", x)
    layers = weighted_layers(model, {**MAC_RULES, **(rules or {})})
    kinds = dict(kinds or {})
    for name, kind in kinds.items():
        check_option("kinds", name, layers)
        check_option(f"kinds[{name!r}]", kind, KINDS)

    timed = [module for module in model.modules() if hasattr(module, "n_steps")]
    if n_steps is not None:
        check_int("n_steps", n_steps, at_least=1)
    if batch_axis == 1:
        if n_steps not in (None, x.shape[0]):
            raise invalid("n_steps", f"be x.shape[0] = {x.shape[0]} for batch_axis=1", f"{n_steps}")
        n_steps = x.shape[0]
    own_steps = timed[0].n_steps if timed else 1
    device = next((parameter.device for parameter in model.parameters()), x.device)

    meter = Meter(own_steps if n_steps is None else n_steps, batch_axis, kinds)
    with undisturbed(model), hooks(meter, model, layers):
        if n_steps is not None:
            for module in timed:
                module.n_steps = n_steps
        for batch in x.split(batch_size, dim=batch_axis):
            _reset(model)
            meter.start(batch.shape[batch_axis])
            model(batch.to(device))
    return meter.result(layers)


def count_macs(model: nn.Module, x: Tensor, **options) -> dict[str, int]:
    """Return the dense multiply-accumulates per sample and step of every weighted layer.

    Parameters
    ----------
    model : nn.Module
        The network; may live on the device "meta", then only shapes are computed.
    x : Tensor, shape (B, ...)
        Input on any device.
    **options
        As in :func:`measure_activity`.

    Returns
    -------
    dict of str to int
        k_h k_w c_in h_out w_out c_out of a convolution (c_in per group, padding counted as input), f_in f_out of a
        linear layer. Biases are not counted.
    """
    return {layer.name: layer.macs for layer in measure_activity(model, x, **options).layers}


def weighted_layers(model: nn.Module, rules: Mapping[type[nn.Module], MacRule]) -> dict[str, tuple[nn.Module, MacRule]]:
    """Return the layers to count by name; refuse a layer with weights that no rule counts."""
    layers = {}
    for name, module in model.named_modules():
        rule = next((rules[base] for base in type(module).__mro__ if base in rules), None)
        if rule is not None:
            layers[name] = (module, rule)
            continue
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            continue  # its weight may be as large as a sample, but multiplies element by element
        for key, parameter in module.named_parameters(recurse=False):
            if "weight" in key and sum(size > 1 for size in parameter.shape) >= 2:
                raise invalid(
                    "model",
                    f"be made of {', '.join(sorted(base.__name__ for base in rules))} layers",
                    f"a {type(module).__name__} at {name!r}",
                    "Pass rules={its type: MacRule(...)} to count it.",
                )
    if not layers:
        raise invalid("model", "have at least one weighted layer", f"a {type(model).__name__} without")
    return layers


@contextmanager
def hooks(meter: Meter, model: nn.Module, layers: Mapping[str, tuple[nn.Module, MacRule]]) -> Iterator[None]:
    """Let the meter see every call of weighted layers and of modules that may be neurons."""

    def layer_hook(name: str, rule: MacRule):
        def hook(module, args, kwargs, output):
            meter.see_layer(name, module, rule, _first_tensor((args, kwargs)), _first_tensor(output))

        return hook

    def neuronhooks(name: str):
        # A neuron may write its spikes over its input: then torch has counted a change of the input meanwhile.
        version_before = 0

        def version(x: Tensor | None) -> int:
            return 0 if x is None or x.is_inference() else x._version

        def before(module, args, kwargs):
            nonlocal version_before
            version_before = version(_first_tensor((args, kwargs)))

        def hook(module, args, kwargs, output):
            given, x = _first_tensor(output), _first_tensor((args, kwargs))
            if given is not None:
                overwritten = version(x) != version_before
                meter.see_neuron(name, None if overwritten else x, given)

        return before, hook

    handles = []
    try:
        for name, module in model.named_modules():
            around = not name or any(layer.startswith(f"{name}.") for layer in layers)
            if name in layers:
                handles.append(module.register_forward_hook(layer_hook(name, layers[name][1]), with_kwargs=True))
            elif not around and not type(module).__module__.startswith("torch.nn."):
                before, after = neuronhooks(name)
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(module.register_forward_hook(after, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first_tensor(value) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        found = (_first_tensor(part) for part in value)
        return next((tensor for tensor in found if tensor is not None), None)
    return None


def _reset(model: nn.Module) -> None:
    for module in model.modules():
        if callable(getattr(module, "reset", None)):
            module.reset()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluate without gradients; put modes, buffers, plain attributes and spikingjelly's memories back."""
    saved = []
    for module in model.modules():
        plain = {
            key: value
            for key, value in vars(module).items()
            if value is None or isinstance(value, (Tensor, int, float))
        }
        stores = [module._buffers, vars(module).get("_memories", {})]
        saved.append((module, plain, [(store, dict(store)) for store in stores]))
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, plain, stores in saved:
            vars(module).update(plain)
            for store, content in stores:
                store.clear()
                store.update(content)
