"""What cannot be converted to spikes, by name, and what to use instead."""

from __future__ import annotations

from torch import nn

from neuroloaders.checks import invalid

__all__ = ["ADVICE", "SPIKING", "refuse"]

_ACTIVATION = (
    "Use nn.ReLU or snn.conversion.QCFS in its place, and train again: IF neurons give rectified, clipped values."
)
_NORM = (
    "Use nn.BatchNorm in its place: in evaluation it is a fixed scale and shift, which become part of the layer before."
)
_PROBABILITY = "Leave it out and return the logits: labels are those of the summed logits, and losses take logits."
_PRODUCT = "Spikes can be weighted and added, not multiplied with each other. Use a sum or a concatenation."
_AXES = "Keep axes in the order (B, C, ...): time is folded into the first one. To flatten, use torch.flatten(x, 1)."
_EXTREMUM = "Use nn.MaxPool1d, 2d or 3d for a maximum over neighbours, or nn.ReLU for one with zero."
_SPIKES = "It spikes already. Convert the ANN, with nn.ReLU or snn.conversion.QCFS in its place."
_WEIGHTS = "Use the module in its place (nn.Conv2d, nn.Linear, nn.BatchNorm2d), which holds its own weights."
_RECURRENT = "Only feed-forward networks are converted. Train a recurrent network with spikes: snn.neurons, snn.fit."

# Names of modules, of this package and of others, whose output is spikes already.
SPIKING = (
    "foldedlif",
    "compare",
    "lif",
    "plif",
    "if",
    "ifnode",
    "lifnode",
    "parametriclifnode",
    "leaky",
    "convertedif",
)

# What to do -> names of modules' classes and of functions, in small letters.
_GROUPS: dict[str, tuple[str, ...]] = {
    _ACTIVATION: (
        *(
            "celu",
            "elu",
            "gelu",
            "glu",
            "hardshrink",
            "hardsigmoid",
            "hardswish",
            "hardtanh",
            "leakyrelu",
            "leaky_relu",
        ),
        *("logsigmoid", "mish", "prelu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink"),
        *("softsign", "swish", "tanh", "tanhshrink", "threshold", "clamp", "clamp_min", "clip", "exp"),
    ),
    _NORM: (
        *("groupnorm", "group_norm", "layernorm", "layer_norm", "rmsnorm", "rms_norm", "normalize", "instance_norm"),
        *("instancenorm1d", "instancenorm2d", "instancenorm3d", "localresponsenorm", "local_response_norm"),
    ),
    _PROBABILITY: ("softmax", "softmax2d", "softmin", "logsoftmax", "log_softmax", "logsumexp", "argmax"),
    _PRODUCT: (
        *("mul", "multiply", "matmul", "bmm", "mm", "einsum", "bilinear", "prod", "pow", "square"),
        *("multiheadattention", "multi_head_attention_forward", "scaled_dot_product_attention"),
        *("transformerencoder", "transformerencoderlayer"),
    ),
    _AXES: (
        "permute",
        "transpose",
        "swapaxes",
        "movedim",
        "t",
        "chunk",
        "split",
        "unbind",
        "stack",
        "expand",
        "repeat",
    ),
    _EXTREMUM: (
        "max",
        "amax",
        "min",
        "amin",
        "maximum",
        "minimum",
        "abs",
        "sort",
        "topk",
        "median",
        "fractional_max_pool2d",
    ),
    _SPIKES: SPIKING,
    _WEIGHTS: ("conv1d", "conv2d", "conv3d", "linear", "batch_norm"),
    _RECURRENT: ("rnn", "lstm", "gru", "rnncell", "lstmcell", "grucell"),
    "Use nn.Conv2d; to enlarge an image, convert the part before it only.": ("convtranspose1d", "convtranspose2d"),
    "Pass training=self.training, so that it is off in evaluation, or use nn.Dropout.": (
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    ),
}
# Name of a class or function -> what to do instead.
ADVICE: dict[str, str] = {name: advice for advice, names in _GROUPS.items() for name in names}

_DEFAULT = (
    "Build the network from Conv, Linear, BatchNorm, AvgPool, MaxPool, ReLU or QCFS, Flatten, Dropout, sums of two "
    "branches and concatenations."
)


def refuse(where: str, thing: nn.Module | str, why: str = "", advice: str = "") -> Exception:
    """Build the error for a module or a function that cannot be converted; the caller raises it.

    Parameters
    ----------
    where : str
        Name of the module, or of the module in which a function is called; "" is the network itself.
    thing : Module or str
        The module, or the name of the function.
    why : str
        What is wrong with it, if not that it is unknown.
    advice : str
        What to do; by default that of `ADVICE`.
    """
    is_module = isinstance(thing, nn.Module)
    name = type(thing).__name__ if is_module else thing
    if not advice:
        advice = ADVICE.get(name.lower().rstrip("_").removeprefix("adaptive_"), _DEFAULT)
    came = f"a {name}" if is_module else f"a call of `{name}`"
    required = "be made of what spikes can compute"
    return invalid(where or "model", required, f"{came}{f' {why}' if why else ''}", advice)
