r"""Let neurons give spikes of one, and put the height that they stand for into the weights after them.

In theory a spike of a layer has the height :math:`\theta` of its threshold. Here it is 1, which the kernels write
without a further pass over all spikes, and which makes sums of spikes whole numbers, exact in floating point. A layer
that reads spikes has weights :math:`\theta w` in exchange; where no weights follow, the height is multiplied in.
"""

# C channels

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor, nn

from snn.conversion.modules import WEIGHTED
from snn.conversion.plan import Op, Plan

__all__ = ["put_heights_into_weights"]

# Layers whose output is the height times that for spikes of one. A shift, as that of a normalisation, is not.
_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_POOLS += (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)


def put_heights_into_weights(plan: Plan, thresholds: dict[str, float]) -> None:
    """Change the plan, in place, so that each activation may give spikes of one in place of its threshold.

    Parameters
    ----------
    plan : Plan
        Of the ANN; its weights are replaced.
    thresholds : dict of str to float
        Activation -> its threshold, above 0.
    """
    _Heights(plan, thresholds).run()


class _Heights:
    """Goes through the operations; `height` is what each value is to be multiplied with: a number, or one a channel."""

    def __init__(self, plan: Plan, thresholds: dict[str, float]) -> None:
        self.plan, self.thresholds = plan, thresholds
        self.ops: list[Op] = []
        self.height: dict[str, float | Tensor] = {}
        self.channels: dict[str, int] = {}  # where a layer before tells
        self.flat: set[str] = set()  # values whose axes after the batch have become one
        self.scaled: dict[str, str] = {}  # value -> the same at its true height
        self.uses = Counter(op.module for op in plan.ops)

    def run(self) -> None:
        for op in self.plan.ops:
            self.ops.append(self.adapt(op))
        output = self.true(self.plan.output)
        self.plan.ops, self.plan.output = self.ops, output

    def true(self, name: str) -> str:
        """Return the name of a value at its true height, and add the operation that gives it where there is none."""
        height = self.height[name]
        if not isinstance(height, Tensor) and height == 1:
            return name
        if name not in self.scaled:
            given = self.scaled[name] = f"{name} x height"
            self.height[given] = 1.0
            if isinstance(height, Tensor):
                buffer = f"{name}.heights".replace(".", "_")
                self.plan.buffers[buffer] = height
                self.ops.append(Op(given, "scale", (name,), buffer=buffer))
            else:
                self.ops.append(Op(given, "scale", (name,), options={"height": height}))
        return self.scaled[name]

    def adapt(self, op: Op) -> Op:
        """Return the operation as it must be, after adding what must come before it."""
        layer = self.plan.modules.get(op.module)
        source = op.inputs[0] if op.inputs else ""
        height = self.height.get(source, 1.0)
        if op.kind == "activation":
            self.note(op, self.thresholds[op.name], self.channels.get(source), flat=source in self.flat)
            return replace(op, inputs=(self.true(source),))
        if op.kind == "layer" and isinstance(layer, WEIGHTED):
            is_foldable = self.uses[op.module] == 1 and self.fits(layer, source)
            if is_foldable:
                _multiply_weights(layer, height)
            n_out = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            self.note(op, 1.0, n_out)
            return op if is_foldable else replace(op, inputs=(self.true(source),))
        is_flat = source in self.flat
        is_pool = op.kind == "max_pool" or (op.kind == "layer" and isinstance(layer, _POOLS))
        if is_pool and not (is_flat and isinstance(height, Tensor)):
            self.note(op, height, self.channels.get(source), flat=is_flat)
            return op
        if _flattens(op, layer):
            self.note(op, height, self.channels.get(source), flat=True)
            return op
        if op.kind in ("size", "product"):
            self.note(op, 1.0, None)
            return op
        if op.kind in ("reshape", "squeeze", "mean") and not isinstance(height, Tensor):
            self.note(op, height, None)
            return op
        if op.kind == "sum":
            return self.sum(op)
        if op.kind == "concat":
            return self.concat(op)
        self.note(op, 1.0, self.channels.get(source) if op.kind in ("affine", "layer") else None)
        return replace(op, inputs=tuple(self.true(name) for name in op.inputs))

    def note(self, op: Op, height: float | Tensor, n_channels: int | None, *, flat: bool = False) -> None:
        self.height[op.name] = height
        if n_channels is not None:
            self.channels[op.name] = n_channels
        if flat:
            self.flat.add(op.name)

    def fits(self, layer: nn.Module, source: str) -> bool:
        """Say whether heights can become part of a layer's weights: one number always, one a channel mostly."""
        height = self.height[source]
        if not isinstance(height, Tensor):
            return True
        if isinstance(layer, nn.Linear):
            return source in self.flat and layer.in_features % height.numel() == 0
        return source not in self.flat and layer.in_channels == height.numel()

    def sum(self, op: Op) -> Op:
        """Add two values; a number that multiplies one of them comes with the addition."""
        factors = list(op.options["factors"])
        a, b = op.inputs
        n_channels = self.channels.get(a, self.channels.get(b))
        if any(isinstance(self.height[name], Tensor) for name in op.inputs):
            a, b = self.true(a), self.true(b)
        height = 1.0
        if self.height[a] == self.height[b]:
            height = self.height[a]
        else:
            factors = [factor * self.height[name] for factor, name in zip(factors, (a, b), strict=True)]
        self.note(op, height, n_channels)
        return replace(op, inputs=(a, b), options={"factors": tuple(factors)})

    def concat(self, op: Op) -> Op:
        """Concatenate; channels of several heights have one each from here on."""
        heights = [self.height[name] for name in op.inputs]
        sizes = [self.channels.get(name) for name in op.inputs]
        n_channels = None if None in sizes or op.options["dim"] != 1 else sum(sizes)
        flat = any(name in self.flat for name in op.inputs)
        if not any(isinstance(height, Tensor) for height in heights) and len(set(heights)) == 1:
            self.note(op, heights[0], n_channels if not flat else None, flat=flat)
            return op
        if n_channels is None or flat:
            self.note(op, 1.0, None, flat=flat)
            return replace(op, inputs=tuple(self.true(name) for name in op.inputs))
        parts = [
            height if isinstance(height, Tensor) else torch.full((size,), height, dtype=torch.float64)
            for height, size in zip(heights, sizes, strict=True)
        ]
        self.note(op, torch.cat(parts), n_channels)
        return op


def _flattens(op: Op, layer: nn.Module | None) -> bool:
    """Say whether all axes after the batch become one, channel by channel."""
    if isinstance(layer, nn.Flatten):
        return layer.start_dim == 1 and layer.end_dim == -1
    return op.kind == "reshape" and len(op.options["sizes"]) == 1


@torch.no_grad()
def _multiply_weights(layer: nn.Module, height: float | Tensor) -> None:
    """Multiply a layer's weights with the heights of the spikes it reads. A new parameter: others may share the old."""
    if not isinstance(height, Tensor):
        if height == 1:
            return
        weight = layer.weight * height
    elif isinstance(layer, nn.Linear):
        each = height.repeat_interleave(layer.in_features // height.numel())
        weight = layer.weight * each.to(layer.weight)
    else:
        # Weights are (C_out, C_in / groups, ...): group g of the outputs reads group g of the inputs.
        of_group = height.view(layer.groups, 1, -1, *[1] * len(layer.kernel_size)).to(layer.weight)
        weight = (layer.weight.unflatten(0, (layer.groups, -1)) * of_group).flatten(0, 1)
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
