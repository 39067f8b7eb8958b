"""Fold batch normalisation along the path of the data, whatever the order of registration."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from torch import nn

from snn.conversion.folding import fold_into
from snn.conversion.modules import NORMS, WEIGHTED
from snn.conversion.plan import Plan

__all__ = ["fold_norms"]


def fold_norms(plan: Plan) -> None:
    """Make every batch normalisation part of the layer before it, where that layer feeds nothing else; in place.

    The others stay as they are: in evaluation mode they are a fixed scale and shift, as good for a mean over time.
    """
    uses = Counter(op.module for op in plan.ops)
    readers = plan.readers()
    by_name = {op.name: op for op in plan.ops}
    folded: dict[str, str] = {}
    for op in plan.ops:
        norm = plan.modules.get(op.module)
        if not isinstance(norm, NORMS) or uses[op.module] > 1:
            continue
        before = by_name[op.inputs[0]]
        layer = plan.modules.get(before.module)
        alone = uses[before.module] == 1 and len(readers[before.name]) == 1 and plan.output != before.name
        if before.kind == "layer" and isinstance(layer, WEIGHTED) and alone and _fits(layer, norm):
            fold_into(layer, norm)
            folded[op.name] = before.name
            if isinstance(layer, nn.Linear):
                # On three axes the normalisation would be of another axis than the one that the layer makes.
                by_name[before.name] = replace(before, options={**before.options, "n_axes": 2})
            del plan.modules[op.module]
    plan.ops = [by_name[op.name] for op in plan.ops if op.name not in folded]
    plan.forward_names(folded)


def _fits(layer: nn.Module, norm: nn.Module) -> bool:
    n_out = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return n_out == norm.num_features
