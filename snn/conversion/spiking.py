"""Place leaky neurons where a network of `snn.models` has its activations, for training at few time steps."""

from __future__ import annotations

from neuroloaders.checks import invalid
from snn.conversion.folding import fold_batchnorm
from snn.folded import IIR_SURROGATE, FoldedLIF
from snn.models import FoldedNetwork
from snn.surrogate import Surrogate

__all__ = ["to_spiking"]


def to_spiking(
    ann: FoldedNetwork,
    n_steps: int,
    *,
    v_threshold: float = 1.0,
    leak: float = 1.0,
    surrogate: Surrogate = IIR_SURROGATE,
    backend: str = "auto",
) -> FoldedNetwork:
    """Return a spiking copy of `ann`: normalisation folded, every activation a `FoldedLIF`, the same weights.

    Parameters
    ----------
    ann : FoldedNetwork
        A network of `snn.models`, or one of your own on the same base.
    n_steps : int
        Number of time steps T.
    v_threshold, leak : float
        Where each layer's threshold and leak start; `calibrate_thresholds` sets the thresholds from data.
    surrogate : Surrogate
        Surrogate gradient of the neurons.
    backend : str
        "auto", or a key of `snn.kernels.BACKENDS`.

    Returns
    -------
    FoldedNetwork
        On the device of `ann`, in evaluation mode.
    """
    if not isinstance(ann, FoldedNetwork):
        advice = "Build it with snn.models.vgg or resnet, or subclass snn.models.FoldedNetwork."
        raise invalid("ann", "be a snn.models.FoldedNetwork", ann, advice, kind=TypeError)
    model = fold_batchnorm(ann)
    place = next(model.parameters())
    for name in model.activation_names:
        neuron = FoldedLIF(
            repeat_input=name == model.first_activation,
            v_threshold=v_threshold,
            leak=leak,
            surrogate=surrogate,
            backend=backend,
        )
        model.set_submodule(name, neuron.to(place))
    model.n_steps = n_steps
    return model.eval()
