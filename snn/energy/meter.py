"""The sums behind :func:`snn.energy.activity.measure_activity`: what one layer was fed, what one neuron layer gave.

Everything is a total over the run divided by the number of samples, so that a layer that runs once (the cached
first convolution), T times in one folded call, or T times in T calls is counted alike.
"""

# T time steps, B samples; a row is one sample at one step (and one position, for Linear on more than two axes)

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuroloaders.checks import invalid

__all__ = ["KINDS", "Activity", "LayerActivity", "MacRule", "Meter", "NeuronActivity"]

KINDS = {
    "analog": "real numbers: each input costs a multiply-accumulate",
    "spikes": "spikes or averages of spikes: each spike costs an accumulate",
}

# Average pooling of k pixels makes inputs j / k; 64 covers windows up to 8 x 8.
_LARGEST_POOL = 64
# Sums of spikes (the residual sums of a spiking ResNet) above this are taken as analog.
_MOST_SPIKES_PER_INPUT = 64


class MacRule(NamedTuple):
    """How to count one type of layer.

    ``macs(module, output)`` gives the multiply-accumulates of one row. ``row_axes`` is the number of trailing axes
    of input and output that belong to one row: 1 for features, 3 for channels and an image. ``is_sequence`` says that
    the axes before are always time and batch, of any length: a layer that needs the past, such as one with delays.
    """

    macs: Callable[[nn.Module, Tensor], int]
    row_axes: int
    is_sequence: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerActivity:
    """One weighted layer over a run; all numbers are per sample.

    Attributes
    ----------
    name : str
        As in ``named_modules``.
    kind : str
        A key of ``KINDS``: what it is fed.
    macs : int
        Multiply-accumulates of one dense evaluation of the layer.
    n_inputs, n_outputs : int
        Values that enter and leave in one evaluation.
    bias : bool
        Whether it adds one.
    steps : int
        Evaluations seen: 1, T, or what the network made of T.
    static : bool
        It runs before the first neuron, on the same input at all steps.
    rate : float
        Spikes per presynaptic neuron, summed over the evaluations seen (mean input value over the height of a
        spike); NaN for an analog input.
    nonzero_rate : float
        Fraction of inputs that are not zero, summed over the evaluations seen.
    """

    name: str
    kind: str
    macs: int
    n_inputs: int
    n_outputs: int
    bias: bool
    steps: int
    static: bool
    rate: float
    nonzero_rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuronActivity:
    """One layer of spiking neurons: how many, and spikes per neuron and sample, summed over T."""

    name: str
    n_neurons: int
    rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """Layers and neurons of one run, in the order in which they ran; `not_run` names layers that did not."""

    n_samples: int
    n_steps: int
    layers: tuple[LayerActivity, ...]
    neurons: tuple[NeuronActivity, ...]
    not_run: tuple[str, ...]


class _LayerSums:
    """Sums over all calls of one layer."""

    def __init__(self) -> None:
        self.macs = self.inputs = self.outputs = self.rows = 0
        self.spikes = self.nonzero = 0.0
        self.bias = self.analog = self.spiking = self.fractions = self.after_neuron = False
        self.static = True
        self.lengths: set[int] = set()  # time steps of the sequences it was fed; T where time is not one axis
        self.first: Tensor | None = None  # input of this pass's first call, to see whether it stays the same
        self.called = False  # in this pass


class _NeuronSums:
    """Sums over all calls of one module that may be a layer of neurons."""

    def __init__(self) -> None:
        self.neurons, self.spikes = Fraction(0), 0  # neurons: of all samples together
        self.analog = self.relays = False


class Meter:
    """Collects the sums of one run.

    Parameters
    ----------
    n_steps : int
        T.
    batch_axis : int
        0, or 1 for inputs ``[T, B, ...]``.
    kinds : mapping of str to str
        Layers whose kind is given, not read from the data.
    """

    def __init__(self, n_steps: int, batch_axis: int, kinds: Mapping[str, str]) -> None:
        self.n_steps, self.batch_axis, self.kinds = n_steps, batch_axis, kinds
        self.samples = 0
        self.layers: dict[str, _LayerSums] = {}
        self.neurons: dict[str, _NeuronSums] = {}

    def start(self, batch: int) -> None:
        """Begin a forward pass of `batch` samples."""
        self.batch = batch
        self.samples += batch
        self.heights: list[float] = []  # of the spikes seen in this pass, most recent first
        self.neuron_ran = False
        self.length = self.n_steps  # of the sequence that the last layer saw
        for sums in self.layers.values():
            sums.first, sums.called = None, False

    def see_layer(self, name: str, module: nn.Module, rule: MacRule, x: Tensor, output: Tensor) -> None:
        """Add one call of a weighted layer."""
        sums = self.layers.setdefault(name, _LayerSums())
        leading = tuple(x.shape[: x.ndim - rule.row_axes])
        rows = math.prod(leading)
        positions, self.length = self._layout(name, leading, rule)
        sums.lengths.add(self.length)
        sums.rows += rows // positions
        one_step = rows == positions * self.batch
        sums.macs += rule.macs(module, output) * rows
        sums.inputs += x.numel()
        sums.outputs += output.numel()
        sums.bias = getattr(module, "bias", None) is not None
        # Asked at the first call only: in a loop over steps all layers run after the neurons of the step before.
        sums.after_neuron |= self.neuron_ran and not sums.called
        sums.called = True
        if x.is_meta:
            sums.analog = True
            sums.nonzero = math.nan
            return
        sums.nonzero += int(torch.count_nonzero(x))
        if name in self.kinds:
            height, binary = (self.heights or [1.0])[0] if self.kinds[name] == "spikes" else None, True
        else:
            counts = rule.is_sequence
            height, binary = _read_spikes(x, self.heights, after_neuron=sums.after_neuron, counts=counts)
        if height is None:
            sums.analog = True
            # What a layer with delays gives changes over time even if its input does not.
            static = not (sums.after_neuron or rule.is_sequence) and self._same_at_all_steps(sums, x, one_step)
            sums.static = sums.static and static
        elif height > 0:
            sums.spiking = True
            sums.fractions |= not binary
            sums.spikes += float(x.abs().sum(dtype=torch.float64)) / height

    def see_neuron(self, name: str, x: Tensor | None, output: Tensor) -> None:
        """Add one call of a module that may be a layer of neurons; `x` is None if it wrote over its input."""
        if output.is_meta or output is x or (x is not None and output.data_ptr() == x.data_ptr()):
            return
        sums = self.neurons.setdefault(name, _NeuronSums())
        height = _two_valued(output)
        if height is None:
            sums.analog = True
            return
        steps = self.length if output.shape[:2] == (self.length, self.batch) else self.n_steps
        sums.neurons += Fraction(output.numel(), steps)
        if height > 0 and x is not None and _two_valued(x) == height:
            sums.relays = True  # passes spikes on, as a max pooling does
            return
        self.neuron_ran = True
        if height > 0:
            sums.spikes += int(torch.count_nonzero(output))
            self.heights = [height, *(other for other in self.heights if other != height)]

    def result(self, layers: Iterable[str]) -> Activity:
        """Divide by the samples and decide what each layer was fed; `layers` are all that could have run."""
        neurons = [name for name, sums in self.neurons.items() if not (sums.analog or sums.relays)]
        # A neuron and its own surrogate module both give the spikes: keep the outer one.
        neurons = [name for name in neurons if not any(name.startswith(f"{other}.") for other in neurons)]
        fires = any(self.neurons[name].spikes for name in neurons)
        return Activity(
            n_samples=self.samples,
            n_steps=self.n_steps,
            layers=tuple(self._layer(name, sums, fires) for name, sums in self.layers.items()),
            neurons=tuple(self._neuron(name, self.neurons[name]) for name in neurons) if fires else (),
            not_run=tuple(name for name in layers if name not in self.layers),
        )

    def _layout(self, name: str, leading: tuple[int, ...], rule: MacRule) -> tuple[int, int]:
        """Return how many rows belong to one sample at one step, and the steps; refuse what could mean two things."""
        n_steps, batch, one_each = self.n_steps, self.batch, rule.row_axes > 1
        in_time = leading[1:2] == (batch,)
        if rule.is_sequence:
            if len(leading) == 2 and leading[1] % batch == 0:
                return leading[1] // batch, leading[0]
            raise invalid(name, f"be fed (T, B, ...) with B = {batch}", f"leading axes {leading}")
        folded = bool(leading) and leading[0] in (batch, n_steps * batch) and not (one_each and len(leading) > 1)
        if in_time and leading[0] == n_steps and (self.batch_axis == 1 or one_each or not folded or batch == 1):
            return math.prod(leading[2:]), n_steps
        # A network may lengthen or shorten its sequences on their way.
        resized = self.batch_axis == 1 and in_time
        if resized and not folded:
            return math.prod(leading[2:]), leading[0]
        clear = n_steps == 1 or leading[:2] != (batch, n_steps)
        if folded and clear and not (resized and batch > 1):
            return math.prod(leading[1:]), n_steps
        raise invalid(
            name,
            f"be fed (B,), (n_steps * B,) or (n_steps, B) rows with n_steps = {n_steps} and B = {batch}",
            f"leading axes {leading}",
            "Pass the true n_steps, batch_axis=1 if x has shape (T, B, ...), and a batch_size other than n_steps.",
        )

    def _same_at_all_steps(self, sums: _LayerSums, x: Tensor, one_step: bool) -> bool:
        if self.length == 1:
            return True
        if one_step:
            sums.first = x if sums.first is None else sums.first
            return torch.equal(sums.first, x)
        steps = x.reshape(self.length, -1)
        return bool((steps == steps[0]).all())

    def _layer(self, name: str, sums: _LayerSums, fires: bool) -> LayerActivity:
        passes, rest = divmod(sums.rows, self.samples)
        if len(sums.lengths) > 1:
            raise invalid(name, "be fed sequences of one length", f"{sorted(sums.lengths)} steps")
        (length,) = sums.lengths
        if rest or (passes != 1 and passes % length):
            raise invalid(
                name,
                f"run once or a multiple of n_steps = {length} times a sample",
                f"{sums.rows / self.samples:g} times",
                "Pass the true n_steps.",
            )
        steps = 1 if passes == 1 else length
        # Spikes that were averaged over time before the layer are no spikes any more.
        averaged = steps < self.n_steps and sums.after_neuron and sums.fractions
        # Binary numbers are no spikes in a network without neurons: one-hot inputs of an ANN, a dead ReLU.
        spikes = fires and not (sums.analog or averaged)
        kind = self.kinds.get(name, "spikes" if spikes else "analog")
        evaluations = self.samples * steps
        return LayerActivity(
            name=name,
            kind=kind,
            macs=sums.macs // evaluations,
            n_inputs=sums.inputs // evaluations,
            n_outputs=sums.outputs // evaluations,
            bias=sums.bias,
            steps=steps,
            static=not sums.after_neuron and (steps == 1 or (sums.analog and sums.static)),
            rate=sums.spikes * steps / sums.inputs if kind == "spikes" else math.nan,
            nonzero_rate=sums.nonzero * steps / sums.inputs,
        )

    def _neuron(self, name: str, sums: _NeuronSums) -> NeuronActivity:
        return NeuronActivity(
            name=name, n_neurons=int(sums.neurons / self.samples), rate=float(sums.spikes / sums.neurons)
        )


def _two_valued(x: Tensor) -> float | None:
    """Return a if `x` holds only 0 and +-a (0 if only 0), else None."""
    if x.dtype == torch.bool:
        return float(x.any())
    if x.numel() == 0:
        return 0.0
    size = x.abs()
    height = size.max()
    return float(height) if bool(((size == 0) | (size == height)).all()) else None


def _read_spikes(x: Tensor, heights: list[float], *, after_neuron: bool, counts: bool) -> tuple[float | None, bool]:
    """Return the height of the spikes that `x` is made of (None if it is analog), and whether it is 0 or 1 spike."""
    height = _two_valued(x)
    if height == 0 or height in heights:
        return height, True
    if not after_neuron:
        # Data are spikes only if binary: 8-bit or 4-bit images are multiples of a small fraction too. What layers
        # with delays are fed are events, though, of which a bin of time may hold several.
        fits = bool((x == x.round()).all()) and float(x.max()) <= _MOST_SPIKES_PER_INPUT if counts else height == 1
        return (1.0, True) if fits and bool((x >= 0).all()) else (None, True)
    values = x[x != 0].to(torch.float32)
    largest = float(values.abs().max())
    precision = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
    for unit in heights:
        if largest > 1.01 * _MOST_SPIKES_PER_INPUT * unit:
            continue
        # Above one spike only whole spikes (residual sums), up to one spike also fractions (average pooling).
        for pool in range(1, 2 if largest > 1.01 * unit else _LARGEST_POOL + 1):
            tolerance = 1e-3 + precision * largest * pool / unit
            # A few values first: most pool sizes are refused without a look at the whole tensor.
            if tolerance < 0.1 and all(_multiples(part, unit / pool, tolerance) for part in (values[:512], values)):
                return unit, False
    return None, True


def _multiples(values: Tensor, unit: float, tolerance: float) -> bool:
    counts = values / unit
    return bool(((counts - counts.round()).abs() <= tolerance).all())
