"""Spiking neurons as modules: thin wrappers that own the parameters of `snn.functional`.

All keep no state between calls. Called with a sequence they return its spikes, so that they stand where an
activation stands, also in a spikingjelly network in multi-step mode. Called with one step and its state,
``spk, mem = lif(x, mem)``, they return spikes and the new state, as in a snntorch loop.
"""

# T time, B batch, C channels

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_number, check_option, invalid
from snn import functional
from snn.kernels import BACKENDS
from snn.surrogate import Surrogate, as_surrogate

__all__ = ["IF", "LIF", "PLIF"]


class _Neuron(nn.Module):
    """What all neurons share: the threshold, the reset, the surrogate, and the two ways to call."""

    def __init__(
        self,
        v_threshold: float | Sequence[float] | Tensor,
        v_reset: float | None,
        detach_reset: bool,
        compare: str,
        surrogate: str | Surrogate,
        learn_threshold: bool,
        n_channels: int | None,
        backend: str,
    ) -> None:
        super().__init__()
        self.n_channels = None if n_channels is None else check_int("n_channels", n_channels, at_least=1)
        threshold = _values("v_threshold", v_threshold, self.n_channels, above=0.0)
        if learn_threshold:
            self.v_threshold = nn.Parameter(threshold)
        else:
            self.register_buffer("v_threshold", threshold, persistent=False)
        self.v_reset = None if v_reset is None else check_number("v_reset", v_reset)
        self.detach_reset = detach_reset
        self.compare = check_option("compare", compare, ("ge", "gt"))
        self.surrogate = as_surrogate(surrogate)
        self.backend = check_option("backend", backend, ["auto", *BACKENDS])

    def _run(self, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _common(self) -> dict:
        return {
            "v_threshold": self.v_threshold,
            "v_reset": self.v_reset,
            "detach_reset": self.detach_reset,
            "compare": self.compare,
            "surrogate": self.surrogate,
            "backend": self.backend,
        }

    def forward(self, x: Tensor, v: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Run a sequence, or one step.

        Parameters
        ----------
        x : Tensor, shape (T, B, C, ...), or (B, C, ...) if `v` is given
            Input current.
        v : Tensor, shape (B, C, ...), optional
            Membrane potential before the step. The empty tensor of `init_leaky` stands for zeros.

        Returns
        -------
        spikes : Tensor, shape of `x`
        v : Tensor, shape (B, C, ...)
            Only if `v` was given: the membrane potential after the step.
        """
        if v is None:
            return self._run(x, None)[0]
        spikes, v = self._run(x[None], v if v.numel() else None)
        return spikes[0], v

    def init_leaky(self) -> Tensor:
        """Return the state before the first step, under the name that a snntorch loop calls."""
        return self.v_threshold.new_zeros(0)

    # spikingjelly's set_step_mode assigns this attribute to every module that has it.
    @property
    def step_mode(self) -> str:
        """Always "m": a sequence goes in, a sequence comes out."""
        return "m"

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        if value != "m":
            raise invalid(
                "step_mode",
                "be 'm'",
                repr(value),
                "For single steps call the neuron with its state: spikes, v = neuron(x, v).",
            )

    def extra_repr(self) -> str:
        """Show the options that are not the default."""
        parts = [f"n_channels={self.n_channels}"] if self.n_channels else []
        parts += [f"v_reset={self.v_reset}", f"compare={self.compare!r}", f"surrogate={self.surrogate.name!r}"]
        return ", ".join(parts)


class LIF(_Neuron):
    """Leaky integrate-and-fire neurons.

    Parameters
    ----------
    tau : float or sequence of float, length C
        Membrane time constant in time steps, > 1. From ms: ``tau_ms / dt_ms``.
    v_threshold : float or sequence of float, length C
        Threshold.
    v_reset : float or None
        Potential after a spike; None subtracts the threshold instead.
    decay_input : bool
        Divide the input by `tau` too.
    detach_reset : bool
        Let no gradient through the spike of the reset.
    compare : {"ge", "gt"}
        Whether a membrane exactly at threshold spikes.
    surrogate : str or Surrogate
        Surrogate gradient, a key of `snn.surrogate.SURROGATES`.
    learn_threshold : bool
        Make the threshold a parameter. It is used as it is: keep it positive in your training loop.
    n_channels : int, optional
        C, for a threshold (or time constant) of its own per channel.
    backend : str
        "auto", or a key of `snn.kernels.BACKENDS`.

    Notes
    -----
    spikingjelly's ``LIFNode`` has other defaults: ``decay_input=True, detach_reset=False, surrogate="sigmoid"``.

    Examples
    --------
    >>> import torch
    >>> lif = LIF(tau=2.0)
    >>> lif(torch.full((3, 1, 1), 0.6)).flatten().tolist()
    [0.0, 0.0, 1.0]
    """

    def __init__(
        self,
        tau: float | Sequence[float] | Tensor = 2.0,
        *,
        v_threshold: float | Sequence[float] | Tensor = 1.0,
        v_reset: float | None = 0.0,
        decay_input: bool = False,
        detach_reset: bool = True,
        compare: str = "ge",
        surrogate: str | Surrogate = "atan",
        learn_threshold: bool = False,
        n_channels: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, v_reset, detach_reset, compare, surrogate, learn_threshold, n_channels, backend)
        self.register_buffer("tau", _values("tau", tau, self.n_channels, above=1.0), persistent=False)
        self.decay_input = decay_input

    def _run(self, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        return functional.lif(x, v, tau=self.tau, decay_input=self.decay_input, **self._common())


class PLIF(_Neuron):
    r"""Leaky integrate-and-fire neurons that learn their time constant [1]_.

    The parameters are those of `LIF`; `tau` is where learning starts. The learned parameter is ``w``, with
    :math:`1/\tau = \sigma(w)`, so that :math:`\tau > 1` always; ``tau`` reads the time constant back, in steps.

    References
    ----------
    .. [1] Fang et al., ICCV 2021, arXiv:2007.05785.

    Examples
    --------
    >>> PLIF(tau=4.0).tau.item()
    4.0
    """

    def __init__(
        self,
        tau: float | Sequence[float] | Tensor = 2.0,
        *,
        v_threshold: float | Sequence[float] | Tensor = 1.0,
        v_reset: float | None = 0.0,
        decay_input: bool = False,
        detach_reset: bool = True,
        compare: str = "ge",
        surrogate: str | Surrogate = "atan",
        learn_threshold: bool = False,
        n_channels: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, v_reset, detach_reset, compare, surrogate, learn_threshold, n_channels, backend)
        start = _values("tau", tau, self.n_channels, above=1.0)
        self.w = nn.Parameter(-torch.log(start - 1))
        self.decay_input = decay_input

    @property
    def tau(self) -> Tensor:
        """The time constant in steps, shape () or (C,)."""
        return 1 / torch.sigmoid(self.w)

    def _run(self, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        return functional.lif(x, v, tau=self.tau, decay_input=self.decay_input, **self._common())


class IF(_Neuron):
    """Integrate-and-fire neurons, which do not leak. The parameters are those of `LIF` without the time constant.

    Examples
    --------
    >>> import torch
    >>> IF(v_reset=None)(torch.full((4, 1, 1), 0.5)).flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        *,
        v_threshold: float | Sequence[float] | Tensor = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        compare: str = "ge",
        surrogate: str | Surrogate = "atan",
        learn_threshold: bool = False,
        n_channels: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, v_reset, detach_reset, compare, surrogate, learn_threshold, n_channels, backend)

    def _run(self, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        return functional.if_(x, v, **self._common())


def _values(name: str, value: float | Sequence[float] | Tensor, n_channels: int | None, *, above: float) -> Tensor:
    """Return a number, or one number per channel, as a tensor of shape () or (C,)."""
    if isinstance(value, int | float):
        number = torch.tensor(check_number(name, value, above=above))
        return number if n_channels is None else number.repeat(n_channels)
    values = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
    if n_channels is None or values.shape != (n_channels,):
        wanted = "be a number, or give `n_channels`" if n_channels is None else f"have shape ({n_channels},)"
        raise invalid(name, wanted, f"shape {tuple(values.shape)}", "One value per channel.")
    for number in values.tolist():
        check_number(name, number, above=above)
    return values
