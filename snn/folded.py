"""Neurons for networks in which time is folded into the batch.

A network is written once, as an ordinary module on images (N, C, H, W). As an ANN, N is the batch. As a spiking
network of T steps, N is T x B, step-major: convolutions, poolings and linear layers need not know. Only the
activations do: each unfolds time, runs its neurons and folds it back. The first one gets the current of a still
image once, as (B, C, H, W), and repeats it inside (direct encoding), so that the first convolution is computed
once and not T times.
"""

# T time, B batch, C channels

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_number, check_option, invalid
from snn import functional
from snn.kernels import BACKENDS
from snn.surrogate import Surrogate

__all__ = ["IIR_SURROGATE", "Compare", "FoldedLIF"]

# Triangle on h / v_threshold - 1, dampened by 0.3: Bellec et al. 2018 as used by IIR-SNN.
IIR_SURROGATE = Surrogate(name="triangle", scale=0.3, normalised=True)


class FoldedLIF(nn.Module):
    r"""The neuron of IIR-SNN [1]_: one learned threshold and leak for the layer, time folded into the batch.

    Parameters
    ----------
    n_steps : int
        Number of time steps T.
    repeat_input : bool
        The input is the constant current of a still image and has no time: (B, ...) in, (T * B, ...) out.
    v_threshold : float
        Threshold to start from.
    leak : float
        Factor on the membrane from step to step to start from; 1 does not leak.
    surrogate : Surrogate
        Surrogate gradient.
    backend : str
        "auto", or a key of `snn.kernels.BACKENDS`.

    Notes
    -----
    .. math:: h_t = \lambda v_{t-1} + x_t, \quad s_t = \Theta(h_t / \vartheta - 1 > 0), \quad v_t = h_t - \vartheta s_t

    with a strict comparison, a soft reset in the step of the spike, and no gradient through the spike of the reset
    (but one through its threshold). This is what the authors' code does; the paper's text resets one step later, which
    at T = 1 is the same.

    References
    ----------
    .. [1] Chowdhury, Rathi & Roy, ECCV 2022, arXiv:2110.05929.
    """

    def __init__(
        self,
        *,
        n_steps: int = 1,
        repeat_input: bool = False,
        v_threshold: float = 1.0,
        leak: float = 1.0,
        surrogate: Surrogate = IIR_SURROGATE,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.n_steps = check_int("n_steps", n_steps, at_least=1)
        self.repeat_input = repeat_input
        self.v_threshold = nn.Parameter(torch.tensor(check_number("v_threshold", v_threshold, above=0)))
        self.leak = nn.Parameter(torch.tensor(check_number("leak", leak, at_least=0, at_most=1)))
        self.surrogate = surrogate
        self.backend = check_option("backend", backend, ["auto", *BACKENDS])

    def forward(self, x: Tensor) -> Tensor:
        """Turn current (T * B, ...), or (B, ...) with `repeat_input`, into spikes (T * B, ...)."""
        options = {
            "leak": self.leak,
            "v_threshold": self.v_threshold,
            "v_reset": None,
            "compare": "gt",
            "surrogate": self.surrogate,
            "backend": self.backend,
        }
        # One threshold and one leak serve the whole layer, so the order in memory does not matter to the neurons:
        # a channels-last image is handed on as it lies, without a copy.
        if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            return self._spikes(x.permute(0, 2, 3, 1), options).permute(0, 3, 1, 2)
        return self._spikes(x, options)

    def _spikes(self, x: Tensor, options: dict) -> Tensor:
        if self.repeat_input:
            return functional.lif(x, n_steps=self.n_steps, **options)[0].flatten(0, 1)
        if x.shape[0] % self.n_steps:
            raise invalid(
                "x",
                f"have T * B rows with T = {self.n_steps}",
                f"{x.shape[0]} rows",
                "Set `n_steps` on the whole model.",
            )
        return functional.lif(x.unflatten(0, (self.n_steps, -1)), **options)[0].flatten(0, 1)

    def extra_repr(self) -> str:
        """Show steps and the two learned numbers."""
        repeat = ", repeat_input=True" if self.repeat_input else ""
        return f"n_steps={self.n_steps}{repeat}, v_threshold={self.v_threshold.item():.3g}, leak={self.leak.item():.3g}"


class Compare(nn.Module):
    """What a neuron becomes at T = 1: spike where the current exceeds the threshold. For inference; it has no gradient.

    Parameters
    ----------
    v_threshold : float
        Threshold; strict, as in `FoldedLIF`.
    inplace : bool
        Write the spikes over the current, which saves a tensor. Right where nothing else reads the current, as after
        a convolution.
    """

    def __init__(self, v_threshold: float, *, inplace: bool = False) -> None:
        super().__init__()
        self.register_buffer("v_threshold", torch.tensor(check_number("v_threshold", v_threshold)))
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Return 1 where `x` exceeds the threshold and 0 elsewhere, in the dtype of `x`."""
        # `out` of the dtype of x: the comparison writes 0 and 1 at once, without a tensor of booleans in between.
        return torch.gt(x, self.v_threshold, out=x if self.inplace else torch.empty_like(x))

    def extra_repr(self) -> str:
        """Show the threshold."""
        return f"v_threshold={self.v_threshold.item():.3g}" + (", inplace=True" if self.inplace else "")
