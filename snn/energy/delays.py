"""What delay layers cost: how many synapses a step passes through, and the memory that holds spikes on their way."""

# T steps, B batch, O outputs, C input channels, K kernels a connection, D lags

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, invalid
from snn.delays import DelayConv1d, DelayConv2d, DelayLinear, DelayModule
from snn.energy.meter import MacRule

__all__ = [
    "BUFFER_COLUMN",
    "BUFFER_MODEL",
    "DELAY_RULES",
    "buffers_of_layers",
    "delay_buffer_bits",
    "longest_delays",
]

# Heading in an `EnergyReport`.
BUFFER_COLUMN = "delay_buffer_bits"
BUFFER_MODEL = (
    f"{BUFFER_COLUMN}: each input of a layer has one shift register as long as the longest delay of its synapses, "
    "1 bit a step for spikes and 32 for analog values; its energy is not counted"
)
_ANALOG_BITS = 32  # as wide as the operations whose energy is counted


def _taps(module: DelayModule) -> int:
    """Return how many lags of an input a connection multiplies: one a kernel, or all where delays are not rounded."""
    return module.kernel_count if module.rounds else module.max_delay


def _linear_macs(module: DelayLinear, output: Tensor) -> int:
    return module.out_features * module.in_features * _taps(module)


def _conv_macs(module: DelayConv1d | DelayConv2d, output: Tensor) -> int:
    per_pixel = math.prod(module.kernel_size) * module.in_channels // module.groups * module.out_channels
    return per_pixel * math.prod(output.shape[3:]) * _taps(module)


# Dense multiply-accumulates of one step: O * C * K, times kernel size and pixels of a convolution.
DELAY_RULES: Mapping[type[nn.Module], MacRule] = {
    DelayLinear: MacRule(_linear_macs, 1, is_sequence=True),
    DelayConv1d: MacRule(_conv_macs, 2, is_sequence=True),
    DelayConv2d: MacRule(_conv_macs, 3, is_sequence=True),
}


@torch.no_grad()
def longest_delays(layer: DelayModule) -> Tensor:
    """Return for each input channel how many steps the slowest of its synapses takes.

    Parameters
    ----------
    layer : DelayLinear, DelayConv1d or DelayConv2d
        A delay layer.

    Returns
    -------
    Tensor of int64, shape (C,)
        On the device of the layer. Synapses of weight 0 do not count: hardware leaves them out. With delays that
        evaluation does not round (``rounding="never"``) a synapse reaches back ``max_delay - 1`` steps.

    Raises
    ------
    TypeError
        If `layer` is no delay layer.

    Examples
    --------
    >>> layer = DelayLinear(2, 3, max_delay=8)
    >>> with torch.no_grad():
    ...     _ = layer.delay.copy_(torch.tensor([[1.0, 7], [4, 0], [2, 2.4]])[..., None])
    >>> longest_delays(layer).tolist()
    [4, 7]
    """
    if not isinstance(layer, DelayModule):
        raise invalid("layer", "be a delay layer", layer, kind=TypeError)
    steps = layer.delays_in_steps().long().expand(layer.weight.shape)
    if layer.rounding == "never":
        steps = torch.full_like(steps, layer.max_delay - 1)
    steps = steps * (layer.weight != 0)
    groups = getattr(layer, "groups", 1)
    # Outputs of a group hear its own channels only: (G, O / G, C / G, everything else).
    return steps.reshape(groups, -1, steps.shape[1], math.prod(steps.shape[2:])).amax((1, 3)).flatten()


def delay_buffer_bits(layer: DelayModule, *, n_positions: int = 1, bits_per_value: int = 1) -> int:
    """Return how much memory a delay layer needs for what is on its way, in bits.

    Parameters
    ----------
    layer : DelayLinear, DelayConv1d or DelayConv2d
        A delay layer.
    n_positions : int
        Places of each input channel: the pixels of a convolution's input.
    bits_per_value : int
        1 for spikes, more for counts and analog values.

    Returns
    -------
    int
        ``n_positions * bits_per_value`` times the sum of `longest_delays`.

    Raises
    ------
    TypeError, ValueError
        If `layer` is no delay layer, or a number is less than 1.

    Notes
    -----
    The model: each input has one shift register (or ring buffer) that all of its synapses read, as long as the
    longest delay among them, and nothing for a delay of 0. Buffers at synapses hold what the same input sent many
    times over, up to O times as much; on chips they cost memory, see [1]_. A queue of events [1]_ holds less than a
    register where spikes are rare. Delays that belong to outputs are counted as those of their synapses. A pixel of a
    convolution is taken to meet every weight of the kernel, as if there were no border and no stride. A bin that
    holds several spikes takes one bit as well.

    References
    ----------
    .. [1] Meijer et al. 2025, Efficient synaptic delay implementation in digital event-driven AI accelerators,
       arXiv:2501.13610.

    Examples
    --------
    >>> layer = DelayLinear(2, 1, max_delay=8)
    >>> with torch.no_grad():
    ...     _ = layer.delay.copy_(torch.tensor([[[3.0], [5.0]]]))
    >>> delay_buffer_bits(layer)
    8
    """
    check_int("n_positions", n_positions, at_least=1)
    check_int("bits_per_value", bits_per_value, at_least=1)
    return int(longest_delays(layer).sum()) * n_positions * bits_per_value


def buffers_of_layers(model: nn.Module, inputs: Mapping[str, tuple[str, int]]) -> dict[str, int]:
    """Return the bits of every delay layer of `model`, by name.

    Parameters
    ----------
    model : nn.Module
        A network.
    inputs : mapping of str to (str, int)
        Kind (a key of `snn.energy.meter.KINDS`) and number of the values that enter each layer in a step.
    """
    bits = {}
    for name, (kind, n_inputs) in inputs.items():
        layer = model.get_submodule(name)
        if isinstance(layer, DelayModule):
            channels = layer.weight.shape[1] * getattr(layer, "groups", 1)
            per_value = 1 if kind == "spikes" else _ANALOG_BITS
            bits[name] = delay_buffer_bits(layer, n_positions=n_inputs // channels, bits_per_value=per_value)
    return bits
