"""One meaning, several ways to compute it: which path runs a delay layer, and why."""

# T steps, B batch, D lags, O outputs, I inputs, K kernels a connection, W taps a kernel

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroloaders.checks import check_int, check_option, invalid
from snn.delays import fourier
from snn.delays.lags import dense_kernel, lag_kernel
from snn.delays.taps import SHAPES, rounded, taps, window

if TYPE_CHECKING:
    from snn.delays.census import Census

__all__ = ["PATHS", "Choice", "calls", "choose_path", "delay_linear"]

PATHS = {
    "dense": "all lags of all synapses, by a convolution over time; any device; the reference",
    "banded": "a few taps around each delay, as shifted rows; CPU",
    "fft": "all lags at once in the frequency domain; any device; long or wide kernels",
    "separable": "delays shared per axon or dendrite: a shift of each channel and a matrix product; any device",
    "discrete": "whole-step delays, one tap each, as shifted rows; CPU",
    "packed": "whole-step delays of inputs that are 0 or 1, as bits of words; CPU, no gradients",
    "event": "whole-step delays, with work for the spikes only; CPU, no gradients",
}
# How often each path ran in this process.
calls: Counter[str] = Counter()

_SYNCED = ("cpu",)  # where reading a number off a tensor does not make anyone wait
# Measured on 2 cores: a multiply-add of the shifted rows takes as long as so many of `fourier.blocks`.
_ROW_COST = 0.35
# Below these shares of entries that are not zero, going through the events is quicker than all steps: as shifted rows,
# and as bits.
_EVENT_DENSITY = 0.03
_EVENT_DENSITY_OF_BITS = 0.01
# From so many lags on, transforms beat the convolution on a GPU (estimated from operation counts, not measured).
_LONG_ON_GPU = 64


class Choice(NamedTuple):
    """A path and why it was picked."""

    path: str
    reason: str


def choose_path(
    x: Tensor,
    delay: Tensor,
    sigma: Tensor | None,
    n_synapses: int,
    *,
    max_delay: int,
    kernel: str,
    round_delays: bool,
    backend: str = "auto",
) -> Choice:
    """Say which path would run.

    Parameters
    ----------
    x : Tensor, shape (T, B, I)
        The input.
    delay : Tensor, shape (O, I, K), (1, I, K) or (O, 1, K)
        Delays in steps.
    sigma : Tensor or None
        Widths in steps; None with rounded delays.
    n_synapses : int
        O * I * K.
    max_delay : int
        D.
    kernel : str
        A key of `snn.delays.SHAPES`.
    round_delays : bool
        Whether delays are whole steps, one tap each.
    backend : str
        "auto" or a key of `PATHS`.

    Returns
    -------
    Choice
        Path and reason.

    Raises
    ------
    ValueError
        If the path named cannot do what is asked.
    """
    shared = delay.shape[0] == 1 or delay.shape[1] == 1
    if backend != "auto":
        check_option("backend", backend, ["auto", *PATHS])
        on_cpu = backend in ("banded", "discrete", "packed", "event")
        if on_cpu and x.device.type != "cpu":
            raise invalid("backend", f"run on the device of `x`, {x.device}", repr(backend), "Use 'auto'.")
        if on_cpu and torch.compiler.is_compiling():
            raise invalid("backend", "be one that torch.compile can look into", repr(backend), "Use 'auto' or 'dense'.")
        if backend in ("discrete", "packed", "event") and not round_delays:
            advice = "Call .eval(), or use 'auto', 'dense', 'banded' or 'fft' while delays are learned."
            raise invalid("backend", "compute delays between whole steps", repr(backend), advice)
        if backend == "banded" and round_delays:
            raise invalid("backend", "compute rounded delays", "'banded'", "Use 'discrete', 'auto' or 'dense'.")
        if backend == "separable" and not shared:
            raise invalid("backend", "go with shared delays", "'separable'", "Build with share='axon' or 'dendrite'.")
        if backend == "packed" and not _look(x).binary:
            raise invalid("x", "hold nothing but 0 and 1 for the backend 'packed'", "other numbers", "Use 'discrete'.")
        return Choice(backend, "asked for")
    if shared and n_synapses > delay.numel():
        return Choice("separable", "the delays are shared")
    if x.device.type not in _SYNCED:
        if max_delay >= _LONG_ON_GPU and not round_delays:
            return Choice("fft", f"{max_delay} lags on {x.device.type}")
        return Choice("dense", f"{max_delay} lags on {x.device.type}")
    if torch.compiler.is_compiling():
        return Choice("dense", "torch.compile can look into this one only")
    if round_delays:
        if not torch.is_grad_enabled() and x.numel():
            found = _look(x)
            packs = found.binary and _packs(x, delay.dtype)
            if found.density < (_EVENT_DENSITY_OF_BITS if packs else _EVENT_DENSITY):
                return Choice("event", f"{found.density:.1%} of the input are spikes")
            if packs:
                return Choice("packed", "every input is 0 or 1")
        return Choice("discrete", "one tap a synapse")
    n_steps, n_batch = x.shape[:2]
    width = window(delay.detach()[:1, :1], _widest(sigma, kernel), max_delay, kernel)[1]
    lags = min(max_delay, max(n_steps, 1))
    by_rows = _ROW_COST * width * n_steps * n_batch
    by_fft = fourier.blocks(max(n_steps, 1), max(n_batch, 1), lags).cost
    if by_rows <= by_fft:
        return Choice("banded", f"{width} of {max_delay} taps a kernel matter")
    return Choice("fft", f"{width} of {max_delay} taps a kernel matter")


def _look(x: Tensor) -> Census:
    from snn.delays.census import census

    return census(x)


def _packs(x: Tensor, dtype: torch.dtype) -> bool:
    from snn.delays.packed import fits

    return fits(x.shape[1], torch.promote_types(dtype, torch.float32))


def _widest(sigma: Tensor, kernel: str) -> float:
    return 1.0 if kernel == "linear" else float(sigma.detach().max())


def delay_linear(
    x: Tensor,
    weight: Tensor,
    delay: Tensor,
    sigma: Tensor | None = None,
    *,
    max_delay: int,
    kernel: str = "gauss",
    round_delays: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Choice]:
    """Send spikes through synapses that delay them.

    Parameters
    ----------
    x : Tensor, shape (T, B, I)
        Spikes or any other values.
    weight : Tensor, shape (O, I, K)
        Strengths.
    delay : Tensor, shape (O, I, K); (1, I, K) shared per axon, (O, 1, K) per dendrite
        In steps, 0..max_delay - 1. What lies outside acts like the nearest delay inside.
    sigma : Tensor, broadcastable to `delay`, optional
        Widths of the bumps, in steps. Not needed with `round_delays` or the linear kernel.
    max_delay : int
        D: number of lags, 0 included.
    kernel : str
        A key of `snn.delays.SHAPES`.
    round_delays : bool
        Take each delay as the nearest whole step, with all of the weight on it. `delay` itself is not changed.
    backend : str
        "auto" or a key of `snn.delays.PATHS`.

    Returns
    -------
    y : Tensor, shape (T, B, O)
        ``y[t] = sum over i, k and lags d of weight * bump[d] * x[t - d]``: causal, as long as the input.
    choice : Choice
        The path that ran, and why.

    Raises
    ------
    TypeError, ValueError
        For shapes, options or paths that do not fit.
    """
    check_int("max_delay", max_delay, at_least=1)
    check_option("kernel", kernel, SHAPES)
    _check_shapes(x, weight, delay)
    sigma = check_sigma(sigma, delay, kernel, needed=not round_delays)
    check_delay(delay)
    delay = delay.clamp(0, max_delay - 1)
    choice = choose_path(
        x, delay, sigma, weight.numel(),
        max_delay=max_delay, kernel=kernel, round_delays=round_delays, backend=backend,
    )  # fmt: skip
    if choice.path in ("event", "packed") and torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        raise invalid("backend", "give gradients", repr(choice.path), "Use 'discrete', or torch.no_grad().")
    calls[choice.path] += 1
    dtype = weight.dtype
    if dtype in (torch.float16, torch.bfloat16) and choice.path != "dense":
        # The other paths compute in float32 or float64 only.
        weight, delay, sigma = weight.float(), delay.float(), sigma.float()
    return _RUN[choice.path](x, weight, delay, sigma, max_delay, kernel, round_delays).to(dtype), choice


def check_delay(delay: Tensor) -> None:
    """Raise if a delay is NaN; looked at on the CPU only, where nobody has to wait for it."""
    if delay.device.type in _SYNCED and not torch.compiler.is_compiling() and bool(delay.detach().isnan().any()):
        raise invalid("delay", "hold no NaN", "one", "Look at the learning rate of the delays.")


def check_sigma(sigma: Tensor | None, delay: Tensor, kernel: str, *, needed: bool) -> Tensor:
    """Return widths as a tensor of no axes or of the shape of `delay`; raise if they are too narrow or do not fit."""
    if not needed or kernel == "linear":
        return delay.new_ones(())
    if sigma is None:
        raise invalid("sigma", f"be given for the kernel {kernel!r}", "None", "It is the width of the bump in steps.")
    if not isinstance(sigma, Tensor):
        raise invalid("sigma", "be a tensor", sigma, kind=TypeError)
    if sigma.numel() == 1:
        sigma = sigma.reshape(())
    if sigma.ndim and any(have not in (1, want) for have, want in zip(sigma.shape, delay.shape, strict=False)):
        raise invalid("sigma", f"have the shape of `delay`, {tuple(delay.shape)}", f"{tuple(sigma.shape)}")
    if sigma.ndim not in (0, delay.ndim):
        raise invalid("sigma", f"have the shape of `delay`, {tuple(delay.shape)}", f"{tuple(sigma.shape)}")
    if sigma.device.type in _SYNCED and not torch.compiler.is_compiling() and sigma.numel():
        low, high = (float(bound) for bound in torch.aminmax(sigma.detach()))
        least = SHAPES[kernel].least_sigma
        if not (least * (1 - 1e-6) <= low and high < float("inf")):
            wanted = f"be finite and at least {least} for the kernel {kernel!r}"
            raise invalid("sigma", wanted, f"{low:g} to {high:g}", "Narrower bumps fall between the steps.")
    return sigma.expand(delay.shape) if sigma.ndim else sigma


def _check_shapes(x: Tensor, weight: Tensor, delay: Tensor) -> None:
    if weight.ndim != 3:
        raise invalid("weight", "have shape (O, I, K)", f"{tuple(weight.shape)}", "Add an axis: weight[..., None].")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise invalid("x", "be a floating-point tensor", x, "Convert it with x.float().", kind=TypeError)
    n_outputs, n_inputs, n_kernels = weight.shape
    if x.ndim != 3 or x.shape[2] != n_inputs:
        raise invalid("x", f"have shape (T, B, {n_inputs})", f"{tuple(x.shape)}", "Time comes first, channels last.")
    if tuple(delay.shape) not in {(o, i, n_kernels) for o in (1, n_outputs) for i in (1, n_inputs)}:
        raise invalid(
            "delay",
            f"have the shape of `weight`, {tuple(weight.shape)}, or 1 where it is shared",
            f"{tuple(delay.shape)}",
        )


def _dense(
    x: Tensor, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int, kernel: str, round_delays: bool
) -> Tensor:
    if 0 in x.shape:
        return _nothing(x, weight)
    kernels = dense_kernel(weight, delay, sigma, max_delay, kernel, round_delays, len(x))
    padded = F.pad(x.to(weight.dtype).permute(1, 2, 0), (kernels.shape[-1] - 1, 0))
    return F.conv1d(padded, kernels.flip(-1)).permute(2, 0, 1).contiguous()


def _fft(
    x: Tensor, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int, kernel: str, round_delays: bool
) -> Tensor:
    # Later lags come from before the sequence; none are asked for where there is no step.
    return fourier.convolve(x, lag_kernel(weight, delay, sigma, max_delay, kernel, round_delays, max(len(x), 1)))


def _banded(
    x: Tensor, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int, kernel: str, round_delays: bool
) -> Tensor:
    from snn.delays.shifts import windowed

    start, width = window(delay, _widest(sigma, kernel), max_delay, kernel)
    few = taps(weight, delay, sigma, start, width, max_delay, kernel)
    return windowed(x, few, start.expand(weight.shape))


def _discrete(
    x: Tensor, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int, kernel: str, round_delays: bool
) -> Tensor:
    from snn.delays.shifts import shifted

    return shifted(x, weight, rounded(delay, max_delay).expand(weight.shape))


def _packed(
    x: Tensor, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int, kernel: str, round_delays: bool
) -> Tensor:
    from snn.delays.packed import packed

    return packed(x, weight, rounded(delay, max_delay).expand(weight.shape))


def _event(
    x: Tensor, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int, kernel: str, round_delays: bool
) -> Tensor:
    from snn.delays.events import events

    return events(x, weight, rounded(delay, max_delay).expand(weight.shape))


def _separable(
    x: Tensor, weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int, kernel: str, round_delays: bool
) -> Tensor:
    if 0 in x.shape:
        return _nothing(x, weight)
    x = x.to(weight.dtype)
    parts = []
    for k in range(delay.shape[2]):
        one, width = delay[..., k : k + 1], sigma if sigma.ndim == 0 else sigma[..., k : k + 1]
        unit = dense_kernel(torch.ones_like(one), one, width, max_delay, kernel, round_delays).view(-1, max_delay)
        strength = weight[..., k].T
        before = delay.shape[0] == 1  # per axon: shift, then multiply
        parts.append(_shift_channels(x, unit) @ strength if before else _shift_channels(x @ strength, unit))
    return sum(parts[1:], parts[0])


def _shift_channels(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel of (T, B, C) with its own kernel, (C, D), causally."""
    kernel = kernel[:, : x.shape[0]].expand(x.shape[2], -1)  # one kernel may serve all
    padded = F.pad(x.permute(1, 2, 0), (kernel.shape[1] - 1, 0))
    return F.conv1d(padded, kernel.flip(-1)[:, None], groups=x.shape[2]).permute(2, 0, 1)


def _nothing(x: Tensor, weight: Tensor) -> Tensor:
    """Return the output of no steps, no samples or no inputs, as part of the graph."""
    return x.new_zeros((*x.shape[:2], len(weight)), dtype=weight.dtype) + 0 * (x.sum() + weight.sum())


_RUN = {
    "dense": _dense,
    "banded": _banded,
    "fft": _fft,
    "separable": _separable,
    "discrete": _discrete,
    "packed": _packed,
    "event": _event,
}
