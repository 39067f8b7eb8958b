"""The two modules of a converted network that remember: integrate-and-fire neurons, and the maximum over neighbours."""

# T time, B batch, C channels; rows are T * B, step-major

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_number, check_option
from snn import functional
from snn.kernels import BACKENDS
from snn.surrogate import Surrogate, as_surrogate

__all__ = ["ConvertedIF", "RunningMaxPool"]


class ConvertedIF(nn.Module):
    r"""Integrate-and-fire neurons in place of a ReLU or QCFS: soft reset, a membrane that starts part of the way up.

    Parameters
    ----------
    v_threshold : float
        Threshold :math:`\theta` of the layer, > 0: the value of the activation that a spike at each step stands for.
    start : float
        Membrane before the first step, in units of the threshold. One half rounds to the nearest level, zero down.
    surrogate : str or Surrogate
        Surrogate gradient, a key of `snn.surrogate.SURROGATES`.
    backend : str
        "auto", or a key of `snn.kernels.BACKENDS`.

    Attributes
    ----------
    v_threshold : Tensor, shape ()
        A buffer. The weights of the layers after it hold it too: for another threshold, convert the ANN anew.

    Notes
    -----
    .. math:: h_t = v_{t-1} + x_t, \quad s_t = \Theta(h_t \ge \theta), \quad v_t = h_t - \theta s_t, \quad
              v_0 = \theta / 2

    as in Bu et al. 2022 (arXiv:2303.04347), where a spike carries :math:`\theta`. Deviation: here it is 1, and the
    weights after it are those of the ANN times :math:`\theta`, which is the same network.
    """

    def __init__(
        self,
        v_threshold: float,
        *,
        start: float = 0.5,
        surrogate: str | Surrogate = "atan",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.register_buffer("v_threshold", torch.tensor(check_number("v_threshold", v_threshold, above=0)))
        self.start = check_number("start", start, at_least=0, below=1)
        self.surrogate = as_surrogate(surrogate)
        self.backend = check_option("backend", backend, ["auto", *BACKENDS])

    def forward(
        self, x: Tensor, v: Tensor | None = None, n_steps: int = 1, *, repeat_input: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run `n_steps` steps.

        Parameters
        ----------
        x : Tensor, shape (n_steps * B, C, ...), or (B, C, ...) with `repeat_input`
            Current.
        v : Tensor, shape (B, C, ...), optional
            Membrane before; by default that of the start.
        n_steps : int
            Number of steps.
        repeat_input : bool
            The current is the same at each step and given once.

        Returns
        -------
        spikes : Tensor, shape (n_steps * B, C, ...)
            0 or 1.
        v : Tensor, shape (B, C, ...)
            Membrane after.
        """
        # One threshold serves all: a channels-last image is handed to the kernels as it lies, without a copy.
        if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            v = None if v is None else v.permute(0, 2, 3, 1)
            spikes, v = self._run(x.permute(0, 2, 3, 1), v, n_steps, repeat_input)
            return spikes.permute(0, 3, 1, 2), v.permute(0, 3, 1, 2)
        return self._run(x, v, n_steps, repeat_input)

    def _run(self, x: Tensor, v: Tensor | None, n_steps: int, repeat_input: bool) -> tuple[Tensor, Tensor]:
        n_samples = x.shape[0] if repeat_input else x.shape[0] // n_steps
        if v is None:
            v = (self.start * self.v_threshold).expand(n_samples, *x.shape[1:])
        spikes, v = functional.if_(
            x if repeat_input else x.unflatten(0, (n_steps, n_samples)),
            v,
            v_threshold=self.v_threshold,
            v_reset=None,
            compare="ge",
            surrogate=self.surrogate,
            n_steps=n_steps if repeat_input else None,
            backend=self.backend,
        )
        return spikes.flatten(0, 1), v

    def extra_repr(self) -> str:
        """Show threshold and start."""
        return f"v_threshold={self.v_threshold.item():.3g}, start={self.start:g}"


class RunningMaxPool(nn.Module):
    r"""Max pooling of spikes: at each step, what the largest of the neighbours' sums so far has grown by.

    Parameters
    ----------
    pool : Module
        The pooling of the ANN, ``nn.MaxPool2d`` or the like.

    Notes
    -----
    .. math:: m_t = \max_i S_{t,i} - \max_i S_{t-1,i}, \qquad S_{t,i} = \sum_{u \le t} s_{u,i}

    so that the m of all steps sum up to the maximum of the sums: max pooling of rates is exact. If all inputs are 0 or
    a, so is m, because a maximum grows by no more than its arguments. Choosing at each step the neighbour that is
    ahead (Rueckauer et al. 2017, doi:10.3389/fnins.2017.00682) needs no new values either, but counts too many spikes
    when the lead changes.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor] | None = None, n_steps: int = 1
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run `n_steps` steps.

        Parameters
        ----------
        x : Tensor, shape (n_steps * B, C, ...)
            Spikes, or currents.
        memory : tuple of Tensor, shapes (B, C, ...), optional
            Sums of the inputs so far, and their maxima; none before the first step.
        n_steps : int
            Number of steps.

        Returns
        -------
        grown : Tensor, shape (n_steps * B, C, ...)
            What the maxima have grown by.
        memory : tuple of Tensor
            For the next call.
        """
        check_int("n_steps", n_steps, at_least=1)
        sums = x.unflatten(0, (n_steps, x.shape[0] // n_steps)).cumsum(0)
        if memory is not None:
            sums += memory[0]
        maxima = self.pool(sums.flatten(0, 1)).unflatten(0, sums.shape[:2])
        before = torch.zeros_like(maxima[:1]) if memory is None else memory[1][None]
        grown = maxima - torch.cat((before, maxima[:-1]))
        # Copies, so that a state does not hold on to the sums of all steps.
        return grown.flatten(0, 1), (sums[-1].clone(), maxima[-1].clone())
