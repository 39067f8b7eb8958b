"""`DelayLinear`: a `torch.nn.Linear` over time in which every synapse has its own delay."""

# T steps, B batch, O outputs, I inputs, K kernels a connection, D lags

from __future__ import annotations

import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_option
from snn.delays.base import SHARES, DelayModule
from snn.delays.paths import delay_linear
from snn.delays.streaming import DelayState, step

__all__ = ["DelayLinear"]


class DelayLinear(DelayModule):
    """A linear layer whose synapses delay what they transmit, and learn by how much [1]_.

    In training each synapse is a bump of width `sigma` around its delay, so that the delay has a gradient. In
    evaluation it is a single tap at the nearest whole step. Rounding happens in memory: parameters stay as they are.

    Parameters
    ----------
    in_features, out_features : int
        I, O.
    max_delay : int
        D, in steps: delays lie in 0..max_delay - 1. From ms: `snn.delays.ms_to_steps`.
    kernel_count : int
        Synapses, each with its own weight and delay, between each pair of neurons.
    kernel : {"gauss", "triangle", "linear"}
        The bump, a key of `snn.delays.SHAPES`.
    bias : bool
        Add a learned number to each output.
    share : {"synapse", "axon", "dendrite"}
        Whether delays belong to synapses, inputs or outputs; a key of `snn.delays.SHARES`.
    sigma : float, optional
        Width at first, in steps. By default half of `max_delay`, which `SigmaSchedule` then shrinks.
    learn_delay, learn_sigma : bool
        Whether delays and widths are trained. In the paper delays are and widths are not.
    rounding : {"eval", "always", "never"}
        When delays are taken as whole steps, a key of `snn.delays.ROUNDING`.
    dt_ms : float, optional
        Length of a step, to read delays in ms.
    backend : str
        "auto", or a key of `snn.delays.PATHS`.
    generator : torch.Generator, optional
        For the first weights and delays; by default the global one.

    Attributes
    ----------
    weight : Parameter, shape (O, I, K)
    delay, sigma : Parameter, shape (O, I, K); (1, I, K) per axon, (O, 1, K) per dendrite
        In steps.
    bias : Parameter, shape (O,), or None
    last_choice : Choice or None
        Path of the last forward pass, and why.

    Notes
    -----
    The DCLS package counts positions from the middle of the kernel and backwards in time. With its odd kernel of D
    taps, ``delay = D // 2 - P``, and ``sigma = |SIG| + 0.27`` (gauss) or ``|SIG| + 1`` (max). Its output is longer
    than its input where the input is padded on the right; this layer's never is.

    References
    ----------
    .. [1] Hammouamri, Khalfaoui-Hassani & Masquelier, ICLR 2024, arXiv:2306.17670.

    Examples
    --------
    >>> import torch
    >>> layer = DelayLinear(1, 1, max_delay=4).eval()
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(1), layer.delay.fill_(1.8)
    ...     layer(torch.tensor([1.0, 0, 0, 0]).view(4, 1, 1)).flatten().tolist()
    [0.0, 0.0, 1.0, 0.0]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        max_delay: int,
        *,
        kernel_count: int = 1,
        kernel: str = "gauss",
        bias: bool = False,
        share: str = "synapse",
        sigma: float | None = None,
        learn_delay: bool = True,
        learn_sigma: bool = False,
        rounding: str = "eval",
        dt_ms: float | None = None,
        backend: str = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_int("in_features", in_features, at_least=1)
        self.out_features = check_int("out_features", out_features, at_least=1)
        check_int("kernel_count", kernel_count, at_least=1)
        check_option("share", share, SHARES)
        shape = (out_features, in_features, kernel_count)
        delays = {"synapse": shape, "axon": (1, *shape[1:]), "dendrite": (shape[0], 1, shape[2])}[share]
        self._build(
            shape, delays, max_delay, kernel, bias, share, sigma, learn_delay, learn_sigma, rounding, dt_ms,
            backend, generator,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Transmit spikes, shape (T, B, I); return currents, shape (T, B, O)."""
        if self.training:
            self.clamp()
        y, self.last_choice = delay_linear(
            x, self.weight, self.delay, self.sigma,
            max_delay=self.max_delay, kernel=self.kernel, round_delays=self.rounds, backend=self.backend,
        )  # fmt: skip
        return y if self.bias is None else y + self.bias

    def step(self, x: Tensor, state: DelayState | None = None) -> tuple[Tensor, DelayState]:
        """Transmit one time step.

        Parameters
        ----------
        x : Tensor, shape (B, I)
            Spikes of this step.
        state : DelayState, optional
            What the last step returned; None before the first. It is written to: keep no copies of it.

        Returns
        -------
        y : Tensor, shape (B, O)
            Currents of this step, as ``forward`` gives them for the sequence up to here.
        state : DelayState
            For the next step.
        """
        y, state = step(x, self.weight, self.delay, self.sigma, state, self.max_delay, self.kernel, self.rounds)
        return y if self.bias is None else y + self.bias, state

    def extra_repr(self) -> str:
        """Show sizes and options."""
        return f"{self.in_features}, {self.out_features}, {super().extra_repr()}"
