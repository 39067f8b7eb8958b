"""Layers on sequences of different lengths in one batch: what is padding counts for nothing.

Sequences are ``[T, B, C]``, padded with zeros at the end; sample b is ``n_steps[b]`` steps long.
"""

# T time steps, B batch, C channels

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroloaders.checks import check_number, check_shape, invalid

__all__ = ["SequenceBatchNorm", "SequenceDropout", "leaky_integrate", "valid_steps"]


def valid_steps(n_steps: Tensor, length: int) -> Tensor:
    """Return which steps are no padding, bool, shape (length, B), from the samples' lengths, shape (B,)."""
    return torch.arange(length, device=n_steps.device)[:, None] < n_steps


class SequenceBatchNorm(nn.Module):
    """Batch normalisation over the steps of all samples, one mean and variance a channel.

    Parameters
    ----------
    n_channels : int
        C.
    eps, momentum : float
        As in `torch.nn.BatchNorm1d`.

    Notes
    -----
    With a mask, padding enters no statistic and leaves as zeros, so that a sample's output does not depend on how far
    its batch is padded. Without, padding counts as silence, as in the code of Hammouamri et al. 2023.
    """

    def __init__(self, n_channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        # A plain BatchNorm1d, so that training on several GPUs can make it a synchronised one.
        self.norm = nn.BatchNorm1d(n_channels, eps=eps, momentum=momentum)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise (T, B, C); `valid`, bool (T, B), says what is no padding."""
        rows = x.flatten(0, 1)
        if valid is None:
            return self.norm(rows).view(x.shape)
        if not self.training:
            return self.norm(rows).view(x.shape) * valid[..., None].to(x.dtype)
        kept = valid.flatten().nonzero()[:, 0]
        return torch.zeros_like(rows).index_copy(0, kept, self.norm(rows[kept])).view(x.shape)


class SequenceDropout(nn.Module):
    """Dropout that silences the same channels of a sample at all steps.

    Parameters
    ----------
    p : float
        Probability, in [0, 1).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_number("p", p, at_least=0, below=1)

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels of (T, B, C) in training; what is kept is scaled by 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return x
        return x * F.dropout(torch.ones_like(x[:1]), self.p)

    def extra_repr(self) -> str:
        """Show `p`."""
        return f"p={self.p}"


def leaky_integrate(x: Tensor, leak: float) -> Tensor:
    """Return ``v[t] = leak * v[t - 1] + x[t]`` at every step: a neuron that never spikes.

    Parameters
    ----------
    x : Tensor, shape (T, B, C)
        Input current.
    leak : float
        In [0, 1]; ``1 - 1 / tau``.

    Returns
    -------
    Tensor, shape (T, B, C)
    """
    check_number("leak", leak, at_least=0, at_most=1)
    check_shape("x", x, ("T", "B", "C"))
    if x.shape[0] == 0:
        return x
    steps = torch.arange(x.shape[0], dtype=x.dtype, device=x.device)
    age = steps[:, None] - steps[None]
    # One matrix product in place of T small operations; T is at most some hundreds where labels are per sequence.
    memory = torch.where(age >= 0, leak ** age.clamp(min=0), torch.zeros_like(age))
    return (memory @ x.flatten(1)).view(x.shape)


def check_n_steps(n_steps: Tensor | None, x: Tensor) -> None:
    """Raise if lengths do not fit the sequences, shape (T, B, ...)."""
    if n_steps is None:
        return
    if not isinstance(n_steps, Tensor) or n_steps.is_floating_point() or n_steps.shape != x.shape[1:2]:
        raise invalid("n_steps", f"be whole numbers of shape ({x.shape[1]},), one a sample", n_steps)
    if x.device.type == "cpu" and n_steps.numel() and not 0 <= int(n_steps.min()) <= int(n_steps.max()) <= len(x):
        raise invalid("n_steps", f"lie in 0..{len(x)}, the steps of `x`", f"{int(n_steps.min())}..{int(n_steps.max())}")
