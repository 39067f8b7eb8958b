"""The modules that conversion knows, and what each becomes."""

from __future__ import annotations

import operator

from torch import fx, nn
from torch.nn.utils import parametrize

from neuroloaders.checks import invalid
from snn.conversion.qcfs import QCFS
from snn.conversion.refusals import refuse
from snn.models import TimeSharedDropout

__all__ = ["GONE", "MODULES", "NORMS", "WEIGHTED", "computed_weight", "leaf_base", "reads_in_place", "settle"]

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_AVERAGES += (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_MAXIMA += (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_SHAPES = (nn.Flatten, nn.Unflatten, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
# Nothing is left of these in evaluation.
GONE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
GONE += (nn.AlphaDropout, nn.FeatureAlphaDropout, TimeSharedDropout)

# Type -> kind of operation in a plan. What is called "layer" is linear in evaluation, up to a constant: weighting the
# mean of spikes over time and taking the mean of weighted spikes is the same.
MODULES: dict[type[nn.Module], str] = {
    **dict.fromkeys([*WEIGHTED, *NORMS, *_AVERAGES, *_SHAPES], "layer"),
    **dict.fromkeys([nn.ReLU, QCFS], "activation"),
    **dict.fromkeys(_MAXIMA, "max_pool"),
    **dict.fromkeys(GONE, "gone"),
}

_IN_PLACE = (operator.iadd, operator.isub, operator.imul)


def leaf_base(module: nn.Module) -> type[nn.Module] | None:
    """Return the type in `MODULES` that computes what `module` does: its own, or a base whose forward it keeps."""
    for base in type(module).__mro__:
        if base in MODULES:
            return base if type(module).forward is base.forward else None
    return None


def reads_in_place(node: fx.Node, module: nn.Module | None) -> bool:
    """Say whether a traced call writes over its first input."""
    if node.op == "call_module":
        return bool(getattr(module, "inplace", False)) and not isinstance(module, GONE)
    if node.op == "call_method":
        return node.target.endswith("_") and not node.target.endswith("__")
    if node.op != "call_function" or "dropout" in node.name:
        return False
    name = getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or node.target in _IN_PLACE or name.endswith("_")


def computed_weight(name: str, module: nn.Module) -> Exception:
    """Build the error for a weight that a hook computes anew at each call; the caller raises it."""
    advice = "Remove it first, as with torch.nn.utils.remove_weight_norm, or use torch.nn.utils.parametrizations."
    return refuse(name, module, "whose weight is computed by a hook", advice)


def settle(name: str, module: nn.Module) -> nn.Module:
    """Make a module of the copy stand on its own, with plain weights, and refuse options that cannot be converted."""
    base = leaf_base(module)
    if base is None:
        raise refuse(name, module)
    if isinstance(module, nn.ReLU):
        module.inplace = False
    if getattr(module, "return_indices", False):
        raise refuse(name, module, "with return_indices=True", "Leave the indices out: unpooling has no spikes.")
    if isinstance(module, nn.Flatten) and module.start_dim < 1:
        raise refuse(name, module, f"from axis {module.start_dim}", "Use nn.Flatten(1), which keeps the batch axis.")
    if isinstance(module, nn.Unflatten) and (not isinstance(module.dim, int) or module.dim < 1):
        raise refuse(name, module, f"of axis {module.dim!r}", "Count from the front and leave the batch axis alone.")
    if isinstance(module, NORMS) and module.running_var is None:
        advice = "Train it with track_running_stats=True."
        raise invalid(name, "keep running statistics", "none", advice)
    if parametrize.is_parametrized(module):
        # torch's remove_parametrizations would change the class, which the user's own module is of as well.
        values = {key: getattr(module, key).detach().clone() for key in module.parametrizations}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module._modules["parametrizations"]
        module._parameters.update({key: nn.Parameter(value) for key, value in values.items()})
    if isinstance(module, WEIGHTED) and "weight" not in module._parameters:
        raise computed_weight(name, module)
    return module
