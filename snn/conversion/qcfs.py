"""The activation that spikes can match: quantisation, clip, floor, shift."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from neuroloaders.checks import check_int, check_number, invalid

__all__ = ["QCFS", "qcfs"]


class _QCFS(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, levels: int) -> Tensor:
        # In the order of the equation: x L is exact where L is a power of two, so that ties stay ties.
        level = x.mul(levels).div_(threshold).add_(0.5).floor_().clamp_(0, levels)
        y = level.div_(levels).mul_(threshold)
        # The layer that follows keeps y for its own gradient: saving it costs no memory.
        ctx.save_for_backward(x, threshold, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, threshold, y = ctx.saved_tensors
        above = x >= threshold
        grad_x = grad_threshold = None
        if ctx.needs_input_grad[0]:
            grad_x = grad * ((x > 0) & ~above)
        if ctx.needs_input_grad[1]:
            error = (y - x.clamp(min=0).minimum(threshold.to(x.dtype))).div_(threshold).add_(above)
            grad_threshold = (grad * error).sum(dtype=threshold.dtype).reshape(threshold.shape)
        return grad_x, grad_threshold, None


def qcfs(x: Tensor, threshold: float | Tensor, levels: int) -> Tensor:
    r"""Clip `x` to [0, threshold] and round it to `levels` steps: what IF neurons give in `levels` time steps.

    Parameters
    ----------
    x : Tensor, any shape
        Input current.
    threshold : float or Tensor with one element
        Height :math:`\theta` of the upper level, > 0, in units of `x`; may require grad.
    levels : int
        Number of steps L between 0 and `threshold`.

    Returns
    -------
    Tensor, shape of `x`
        Multiples of ``threshold / levels``.

    Raises
    ------
    ValueError
        If an option is out of bounds, or `threshold` has more than one element.
    TypeError
        If `x` is no floating-point tensor.

    Notes
    -----
    Bu et al. 2022 [1]_, with their shift of one half:

    .. math:: y = \theta \, \mathrm{clip}(\lfloor x L / \theta + 1/2 \rfloor / L, 0, 1)

    An integrate-and-fire neuron with soft reset that starts at :math:`\theta / 2` and is fed the constant current x
    gives in T = L steps exactly :math:`L y / \theta` spikes.

    The gradient is that of the straight-through rule: rounding counts as the identity, which leaves
    :math:`y = \theta\,\mathrm{clip}(x/\theta, 0, 1) + \theta e` with the rounding error e held fixed. Hence

    .. math:: \partial y / \partial x = [0 < x < \theta], \qquad \partial y / \partial \theta =
              \begin{cases} 0 & x \le 0 \\ (y - x) / \theta & 0 < x < \theta \\ 1 & x \ge \theta \end{cases}

    Away from the steps the staircase itself has the slope :math:`y / \theta` in the threshold: inside, it is the slope
    above plus :math:`x / \theta`, because it takes the level for fixed while x passes with gradient one.

    References
    ----------
    .. [1] Bu et al., Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks,
       ICLR 2022, arXiv:2303.04347.

    Examples
    --------
    >>> import torch
    >>> qcfs(torch.tensor([-1.0, 0.2, 0.3, 0.6, 5.0]), 1.0, 4).tolist()
    [0.0, 0.25, 0.25, 0.5, 1.0]
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise invalid("x", "be a floating-point tensor", x, "Convert it with x.float().", kind=TypeError)
    check_int("levels", levels, at_least=1)
    if not isinstance(threshold, Tensor):
        threshold = torch.tensor(check_number("threshold", threshold, above=0), dtype=x.dtype, device=x.device)
    elif threshold.numel() != 1:
        raise invalid("threshold", "be one number for the layer", threshold)
    return _QCFS.apply(x, threshold.reshape(()), levels)


class QCFS(nn.Module):
    """The activation :func:`qcfs` with a threshold that is learned, one for the layer.

    Parameters
    ----------
    levels : int
        Number of steps L between 0 and the threshold.
    threshold : float
        Where learning starts; 8 in the code of Bu et al. `snn.conversion.quantise_activations` takes it from data.

    Attributes
    ----------
    threshold : Parameter, shape ()
        Must stay positive: `snn.conversion.ann_to_snn` refuses a layer whose threshold is not.

    Examples
    --------
    >>> import torch
    >>> QCFS(levels=4, threshold=1.0)(torch.tensor([0.3, 0.9])).tolist()
    [0.25, 1.0]
    """

    def __init__(self, levels: int = 8, threshold: float = 8.0) -> None:
        super().__init__()
        self.levels = check_int("levels", levels, at_least=1)
        self.threshold = nn.Parameter(torch.tensor(check_number("threshold", threshold, above=0)))

    def forward(self, x: Tensor) -> Tensor:
        """Clip and round `x`, any shape."""
        return qcfs(x, self.threshold, self.levels)

    def extra_repr(self) -> str:
        """Show levels and threshold."""
        return f"levels={self.levels}, threshold={self.threshold.item():.3g}"
