"""Spiking networks with delays for event sequences: the architecture of DCLS-Delays, and its ablations."""

# T time steps, B batch, C input channels, K classes, D lags

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_number, check_option, invalid
from snn.delays import DelayLinear, DelayState
from snn.neurons import LIF
from snn.sequence import SequenceBatchNorm, SequenceDropout, check_n_steps, leaky_integrate, valid_steps
from snn.surrogate import Surrogate

__all__ = ["DELAYS", "READOUTS", "DelayMLP", "delay_mlp"]

DELAYS = {
    "learned": "every synapse learns its delay",
    "fixed": "random delays, evenly from 0 to the longest, that stay as they are",
    "none": "ordinary linear layers",
}


def _softmax_sum(v: Tensor, valid: Tensor) -> Tensor:
    return (v.softmax(-1) * valid).sum(0)


def _mean(v: Tensor, valid: Tensor) -> Tensor:
    return (v * valid).sum(0) / valid.sum(0).clamp(min=1)


def _log_mean_softmax(v: Tensor, valid: Tensor) -> Tensor:
    return (_softmax_sum(v, valid) / valid.sum(0).clamp(min=1)).clamp(min=1e-12).log()


def _maximum(v: Tensor, valid: Tensor) -> Tensor:
    return v.masked_fill(valid == 0, -torch.inf).amax(0).nan_to_num(neginf=0.0)


# name -> scores (B, K) from the readout's membranes (T, B, K) and what is no padding (T, B, 1)
READOUTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax_sum": _softmax_sum,  # DCLS-Delays; its cross entropy takes a second softmax of this
    "log_mean_softmax": _log_mean_softmax,  # the logarithm of a probability: a cross entropy is a likelihood
    "mean": _mean,
    "max": _maximum,
}


class DelayMLP(nn.Module):
    """A network of delay layers, normalisation, LIF neurons and dropout, with a leaky readout that does not spike.

    Build it with `delay_mlp`.

    Parameters
    ----------
    layers : sequence of Module
        Delay (or linear) layers; the last one feeds the readout.
    norms, neurons, dropouts : sequence of Module
        One of each per hidden layer.
    readout : str
        A key of `READOUTS`.
    readout_leak : float
        Factor on the readout's membranes at each step.
    tail_steps : int
        Every layer lengthens the sequence by so many steps.
    mask_padding : bool
        Leave padding out of statistics and readout, where lengths are given.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        norms: Sequence[nn.Module],
        neurons: Sequence[nn.Module],
        dropouts: Sequence[nn.Module],
        *,
        readout: str,
        readout_leak: float,
        tail_steps: int,
        mask_padding: bool,
    ) -> None:
        super().__init__()
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(norms)
        self.neurons, self.dropouts = nn.ModuleList(neurons), nn.ModuleList(dropouts)
        self.readout = check_option("readout", readout, READOUTS)
        self.readout_leak = readout_leak
        self.tail_steps = tail_steps
        self.mask_padding = mask_padding

    def forward(self, x: Tensor, n_steps: Tensor | None = None) -> Tensor:
        """Return scores of the classes.

        Parameters
        ----------
        x : Tensor, shape (T, B, C)
            Spikes or counts, padded with zeros at the end.
        n_steps : Tensor of int, shape (B,), optional
            Length of each sample; by default all are T steps long.

        Returns
        -------
        Tensor, shape (B, K)
            As `READOUTS` says.
        """
        v, valid = self._membranes(x, n_steps)
        return READOUTS[self.readout](v, valid[..., None].to(v.dtype))

    def step_logits(self, x: Tensor, n_steps: Tensor | None = None) -> Tensor:
        """Return the readout's membranes at every step, shape (T + tail, B, K)."""
        return self._membranes(x, n_steps)[0]

    def hidden_spikes(self, x: Tensor, n_steps: Tensor | None = None) -> list[Tensor]:
        """Return the spikes of each hidden layer, shapes (T + tail, B, C), without dropout."""
        spikes: list[Tensor] = []
        self._membranes(x, n_steps, spikes)
        return spikes

    def _membranes(
        self, x: Tensor, n_steps: Tensor | None, record: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        if x.ndim != 3 or x.shape[2] != self.layers[0].in_features:
            raise invalid("x", f"have shape (T, B, {self.layers[0].in_features})", f"{tuple(x.shape)}")
        check_n_steps(n_steps, x)
        valid = x.new_ones(x.shape[:2], dtype=torch.bool)
        for index, layer in enumerate(self.layers):
            x = F.pad(x, (0, 0, 0, 0, 0, self.tail_steps))
            valid = F.pad(valid, (0, 0, 0, self.tail_steps), value=True)
            if n_steps is not None and self.mask_padding:
                valid = valid_steps(n_steps + (index + 1) * self.tail_steps, len(x))
            x = layer(x)
            if index == len(self.norms):
                break
            x = self.norms[index](x, valid if n_steps is not None and self.mask_padding else None)
            x = self.neurons[index](x)
            if record is not None:
                record.append(x)
            x = self.dropouts[index](x)
        return leaky_integrate(x, self.readout_leak), valid

    def step(self, x: Tensor, state: list | None = None) -> tuple[Tensor, list]:
        """Run one time step, in evaluation mode.

        Parameters
        ----------
        x : Tensor, shape (B, C)
            Spikes of this step.
        state : list, optional
            What the last step returned.

        Returns
        -------
        v : Tensor, shape (B, K)
            The readout's membranes, as `step_logits` gives them at this step.
        state : list
            For the next step.
        """
        if self.training:
            raise invalid("the model", "be in evaluation mode to run step by step", "training mode", "Call .eval().")
        n_hidden = len(self.norms)
        delays: list[DelayState | None]
        delays, membranes, v = state if state is not None else ([None] * (n_hidden + 1), [None] * n_hidden, 0.0)
        for index, layer in enumerate(self.layers):
            if isinstance(layer, DelayLinear):
                x, delays[index] = layer.step(x, delays[index])
            else:
                x = layer(x)
            if index == n_hidden:
                break
            x = self.norms[index](x[None])[0]
            before = self.neurons[index].init_leaky() if membranes[index] is None else membranes[index]
            x, membranes[index] = self.neurons[index](x, before)
        v = self.readout_leak * v + x
        return v, [delays, membranes, v]


def delay_mlp(
    n_inputs: int,
    n_classes: int,
    *,
    hidden: Sequence[int] = (256, 256),
    max_delay: int = 25,
    delays: str = "learned",
    tau: float = 2.0,
    v_threshold: float = 1.0,
    surrogate: str | Surrogate = "atan",
    dropout: float = 0.0,
    kernel_count: int = 1,
    kernel: str = "gauss",
    share: str = "synapse",
    sigma: float | None = None,
    readout: str = "log_mean_softmax",
    tail_steps: int = 0,
    mask_padding: bool = True,
    dt_ms: float | None = None,
    generator: torch.Generator | None = None,
) -> DelayMLP:
    """Build a spiking network with delays, as in DCLS-Delays [1]_.

    Parameters
    ----------
    n_inputs, n_classes : int
        C, K.
    hidden : sequence of int
        Neurons of each hidden layer.
    max_delay : int
        D, in steps.
    delays : {"learned", "fixed", "none"}
        A key of `DELAYS`.
    tau : float
        Membrane time constant in steps, > 1, of hidden neurons and readout.
    v_threshold, surrogate
        As in `snn.LIF`.
    dropout : float
        Share of hidden neurons that are silenced in training, for a whole sample.
    kernel_count, kernel, share, sigma
        As in `snn.DelayLinear`. Fixed delays are whole steps, and have no width.
    readout : str
        How class scores are made of the membranes of the readout, a key of `READOUTS`.
    tail_steps : int
        By how many steps each layer lengthens the sequence, to hear what is still on its way. The paper takes
        ``(max_delay - 1) // 2``.
    mask_padding : bool
        Leave padding out of the normalisation's statistics and of the readout, where samples' lengths are given.
    dt_ms : float, optional
        Length of a step, to read delays in ms.
    generator : torch.Generator, optional
        For weights and delays; by default a new one with a seed from the system.

    Returns
    -------
    DelayMLP

    References
    ----------
    .. [1] Hammouamri, Khalfaoui-Hassani & Masquelier, ICLR 2024, arXiv:2306.17670.

    Examples
    --------
    >>> net = delay_mlp(140, 20)  # SHD: weights, delays, and those of the normalisation
    >>> sum(p.numel() for p in net.parameters() if p.requires_grad)
    214016
    """
    for name, value in (("n_inputs", n_inputs), ("n_classes", n_classes)):
        check_int(name, value, at_least=1)
    check_option("delays", delays, DELAYS)
    check_number("tau", tau, above=1.0)
    check_int("tail_steps", tail_steps, at_least=0)
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    sizes = [n_inputs, *(check_int("hidden", size, at_least=1) for size in hidden), n_classes]
    options = {"kernel_count": kernel_count, "kernel": kernel, "share": share, "dt_ms": dt_ms}
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        if delays == "none":
            layer: nn.Module = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=False)
        else:
            learned = delays == "learned"
            options |= {"learn_delay": learned, "rounding": "eval" if learned else "always"}
            layer = DelayLinear(n_in, n_out, max_delay, sigma=sigma, generator=generator, **options)
        # He et al. 2015, as in the paper: sqrt(6 / fan-in).
        bound = (6 / (n_in * (kernel_count if delays != "none" else 1))) ** 0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
        layers.append(layer)
    return DelayMLP(
        layers,
        [SequenceBatchNorm(size) for size in sizes[1:-1]],
        [LIF(tau, v_threshold=v_threshold, surrogate=surrogate) for _ in sizes[1:-1]],
        [SequenceDropout(dropout) for _ in sizes[1:-1]],
        readout=readout,
        readout_leak=1 - 1 / tau,
        tail_steps=tail_steps,
        mask_padding=bool(mask_padding),
    )
