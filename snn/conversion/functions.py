"""The functions that conversion knows, by name, and how a call of each becomes an operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from snn.conversion.plan import look_up_sizes

if TYPE_CHECKING:
    from snn.conversion.reading import Reader

__all__ = ["FUNCTIONS"]

_RESHAPE = "Only axes after the batch can be reshaped: torch.flatten(x, 1), or x.view(x.shape[0], ...)."

_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
# Function -> (its module, names of the arguments after the input).
_POOLS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "avg_pool1d": (nn.AvgPool1d, _AVG),
    "avg_pool2d": (nn.AvgPool2d, (*_AVG, "divisor_override")),
    "avg_pool3d": (nn.AvgPool3d, (*_AVG, "divisor_override")),
    "max_pool1d": (nn.MaxPool1d, _MAX),
    "max_pool2d": (nn.MaxPool2d, _MAX),
    "max_pool3d": (nn.MaxPool3d, _MAX),
    "adaptive_avg_pool1d": (nn.AdaptiveAvgPool1d, ("output_size",)),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "adaptive_avg_pool3d": (nn.AdaptiveAvgPool3d, ("output_size",)),
}


def _arguments(node: fx.Node, *names: str, **defaults: Any) -> dict[str, Any]:
    """Name the arguments after the first; those that a call leaves out have the default or are left out."""
    given = dict(zip(names, node.args[1:], strict=False)) | {key: node.kwargs[key] for key in node.kwargs}
    given.pop("input", None)
    return {**defaults, **given}


def _first(node: fx.Node) -> Any:
    return node.args[0] if node.args else node.kwargs.get("input")


def _same(reader: Reader, node: fx.Node) -> None:
    reader.names[node] = reader.value(node, _first(node))


def _dropout(reader: Reader, node: fx.Node) -> None:
    if _arguments(node, "p", "training", training=True)["training"]:
        raise reader.refuse(node, "that drops in evaluation too")
    _same(reader, node)


def _relu(reader: Reader, node: fx.Node) -> None:
    reader.add_module(node, nn.ReLU(), reader.value(node, _first(node)))


def _flatten(reader: Reader, node: fx.Node) -> None:
    ends = _arguments(node, "start_dim", "end_dim", start_dim=0, end_dim=-1)
    if ends["start_dim"] < 1:
        raise reader.refuse(
            node, f"from axis {ends['start_dim']}", "Use torch.flatten(x, 1), which keeps the batch axis."
        )
    reader.add_module(node, nn.Flatten(**ends), reader.value(node, _first(node)))


def _pool(reader: Reader, node: fx.Node) -> None:
    kind, names = _POOLS[reader.function_name(node)]
    reader.add_module(node, kind(**_arguments(node, *names)), reader.value(node, _first(node)))


def _mean(reader: Reader, node: fx.Node) -> None:
    options = _arguments(node, "dim", "keepdim", dim=(), keepdim=False)
    dims = (options["dim"],) if isinstance(options["dim"], int) else tuple(options["dim"] or ())
    if not dims or 0 in dims or not all(isinstance(dim, int) for dim in dims):
        advice = "Name the axes of the image: x.mean((2, 3))."
        raise reader.refuse(node, "over the batch axis" if dims else "over all axes", advice)
    reader.add(node, "mean", reader.value(node, _first(node)), options={"dims": dims, "keepdim": options["keepdim"]})


def _squeeze(reader: Reader, node: fx.Node) -> None:
    dim = _arguments(node, "dim", dim=None)["dim"]
    if not isinstance(dim, int) or dim == 0:
        advice = "Name the axis, x.squeeze(-1), or use torch.flatten(x, 1): a batch of one would lose its axis."
        raise reader.refuse(node, "without an axis" if dim is None else "of the batch axis", advice)
    reader.add(node, "squeeze", reader.value(node, _first(node)), options={"dim": dim})


def _concat(reader: Reader, node: fx.Node) -> None:
    dim = _arguments(node, "dim", dim=0)["dim"]
    dim = node.kwargs.get("axis", dim)
    parts = node.args[0] if node.args else node.kwargs["tensors"]
    if dim == 0:
        raise reader.refuse(node, "along the batch axis", "Concatenate channels: torch.cat(parts, 1).")
    reader.add(node, "concat", *(reader.value(node, part) for part in parts), options={"dim": dim})


def _add_or_subtract(reader: Reader, node: fx.Node) -> None:
    a, b = _two(reader, node)
    function = "sub" if "sub" in reader.function_name(node) else "add"
    if reader.constant(a) is not None or reader.constant(b) is not None:
        _with_constant(reader, node, function, a, b)
        return
    alpha = node.kwargs.get("alpha", 1)
    if not isinstance(alpha, (int, float)):
        raise reader.refuse(node, "with a factor that is no number")
    factors = (1, -alpha if function == "sub" else alpha)
    reader.add(node, "sum", reader.value(node, a), reader.value(node, b), options={"factors": factors})


def _multiply(reader: Reader, node: fx.Node) -> None:
    a, b = _two(reader, node)
    if all(isinstance(part, int) or part in reader.sizes for part in (a, b)):
        _size_product(reader, node, a, b, is_division=False)
    elif reader.constant(a) is None and reader.constant(b) is None:
        raise reader.refuse(node, "of two values of the network")
    else:
        _with_constant(reader, node, "mul", a, b)


def _divide(reader: Reader, node: fx.Node) -> None:
    a, b = _two(reader, node)
    if reader.constant(b) is None or "rounding_mode" in node.kwargs:
        raise reader.refuse(node, "by a value of the network", "Divide by a number or a buffer.")
    _with_constant(reader, node, "truediv", a, b)


def _floor_divide(reader: Reader, node: fx.Node) -> None:
    a, b = _two(reader, node)
    if not all(isinstance(part, int) or part in reader.sizes for part in (a, b)):
        raise reader.refuse(node)
    _size_product(reader, node, a, b, is_division=True)


def _size_product(reader: Reader, node: fx.Node, a: Any, b: Any, *, is_division: bool) -> None:
    if not reader.row_counts.isdisjoint((a, b)):
        raise reader.refuse(node, "with the size of the batch axis", _RESHAPE)
    parts, names = look_up_sizes([reader.value(node, part) if isinstance(part, fx.Node) else part for part in (a, b)])
    reader.add(node, "product", *names, options={"parts": parts, "is_division": is_division})
    reader.sizes.add(node)


def _two(reader: Reader, node: fx.Node) -> tuple[Any, Any]:
    """Return both operands, by whatever names they were passed."""
    operands = [*node.args, *(node.kwargs[key] for key in ("input", "other") if key in node.kwargs)]
    if len(operands) != 2:
        raise reader.refuse(node, f"with {len(operands)} operands")
    return operands[0], operands[1]


def _with_constant(reader: Reader, node: fx.Node, function: str, a: Any, b: Any) -> None:
    """Add an operation with a number, or with a tensor that the network holds."""
    if "alpha" in node.kwargs:
        raise reader.refuse(node, "with a factor", "Write it as a product: x + 2 * y.")
    constant = reader.constant(a)
    is_swapped = constant is not None
    if not is_swapped:
        constant = reader.constant(b)
    source = reader.value(node, b if is_swapped else a)
    options = {"function": function, "is_swapped": is_swapped, "constant": constant}
    if not isinstance(constant, Tensor):
        reader.add(node, "affine", source, options=options)
        return
    place = (a if is_swapped else b).target
    reader.plan.buffers[place] = constant
    reader.add(node, "affine", source, buffer=place, options={**options, "constant": None})


def _shape(reader: Reader, node: fx.Node) -> None:
    """Read ``x.shape``, ``x.size()`` or ``x.size(axis)``; a whole shape is kept until an axis is asked for."""
    source, axis = node.args[0], _arguments(node, "dim", dim=None)["dim"]
    if node.op == "call_function":
        if axis != "shape":
            raise reader.refuse(node, f"of `{axis}`", _RESHAPE)
        axis = None
    if axis is None:
        reader.value(node, source)
        reader.shapes[node] = source
    else:
        _size(reader, node, source, axis)


def _item(reader: Reader, node: fx.Node) -> None:
    shape, axis = node.args
    if shape not in reader.shapes:
        raise reader.refuse(node, "that takes a part of a value", "Use a convolution or a pooling to select.")
    _size(reader, node, reader.shapes[shape], axis)


def _size(reader: Reader, node: fx.Node, source: Any, axis: Any) -> None:
    if not isinstance(axis, int):
        raise reader.refuse(node, f"of {axis!r}", _RESHAPE)
    reader.add(node, "size", reader.value(node, source), options={"axis": axis})
    reader.sizes.add(node)
    if axis == 0:
        reader.row_counts.add(node)


def _reshape(reader: Reader, node: fx.Node) -> None:
    sizes = list(node.args[1:]) or [node.kwargs.get("shape")]
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = list(sizes[0])
    rows, *rest = sizes
    if rows != -1 and rows not in reader.row_counts:
        raise reader.refuse(node, f"to {rows!s} rows", _RESHAPE)
    if not all(isinstance(size, int) or (size in reader.sizes - reader.row_counts) for size in rest):
        raise reader.refuse(node, "with the size of the batch axis among the others", _RESHAPE)
    if rows == -1 and -1 in rest:
        raise reader.refuse(node, "with two sizes of -1", _RESHAPE)
    names = [reader.value(node, size) if isinstance(size, fx.Node) else size for size in rest]
    known, others = look_up_sizes(names)
    reader.add(node, "reshape", reader.value(node, _first(node)), *others, options={"sizes": known})


# Name of a function or method, without the underscore of the kind in place -> how it is read.
FUNCTIONS: dict[str, Callable[[Reader, fx.Node], None]] = {
    **dict.fromkeys(("relu",), _relu),
    **dict.fromkeys(("flatten",), _flatten),
    **dict.fromkeys(("view", "reshape"), _reshape),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(("mean",), _mean),
    **dict.fromkeys(("squeeze",), _squeeze),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concat),
    **dict.fromkeys(("add", "iadd", "sub", "isub", "subtract"), _add_or_subtract),
    **dict.fromkeys(("mul", "imul", "multiply"), _multiply),
    **dict.fromkeys(("div", "truediv", "itruediv", "divide"), _divide),
    **dict.fromkeys(("floordiv",), _floor_divide),
    **dict.fromkeys(("contiguous", "clone", "detach"), _same),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), _dropout),
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout"), _dropout),
    **dict.fromkeys(("size", "getattr"), _shape),
    **dict.fromkeys(("getitem",), _item),
}
