"""Convolutions over space in which every weight has its own delay in time."""

# T steps, B batch, C channels in, O channels out, L or H x W space, G groups, K kernels a weight, D lags

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroloaders.checks import check_int, check_option, invalid
from snn.delays.base import SHARES, DelayModule
from snn.delays.lags import dense_kernel
from snn.delays.paths import Choice, calls, check_delay, check_sigma, delay_linear
from snn.delays.streaming import DelayState, step

__all__ = ["DelayConv1d", "DelayConv2d"]


class _DelayConv(DelayModule):
    """What both have in common; N is the number of axes of space."""

    n_axes: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        max_delay: int,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
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
        self.in_channels = check_int("in_channels", in_channels, at_least=1)
        self.out_channels = check_int("out_channels", out_channels, at_least=1)
        self.groups = check_int("groups", groups, at_least=1)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise invalid(name, f"be a multiple of groups = {groups}", f"{channels}")
        self.kernel_size = _per_axis("kernel_size", kernel_size, self.n_axes, 1)
        self.stride = _per_axis("stride", stride, self.n_axes, 1)
        self.padding = _per_axis("padding", padding, self.n_axes, 0)
        self.dilation = _per_axis("dilation", dilation, self.n_axes, 1)
        check_int("kernel_count", kernel_count, at_least=1)
        check_option("share", share, SHARES)
        shape = (out_channels, in_channels // groups, *self.kernel_size, kernel_count)
        ones = (1,) * self.n_axes
        delays = {
            "synapse": shape,
            "axon": (1, shape[1], *ones, kernel_count),
            "dendrite": (shape[0], 1, *ones, kernel_count),
        }[share]
        self._build(
            shape, delays, max_delay, kernel, bias, share, sigma, learn_delay, learn_sigma, rounding, dt_ms,
            backend, generator,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Transmit spikes, shape (T, B, C, *space); return currents, shape (T, B, O, *space)."""
        if self.training:
            self.clamp()
        self._check(x, "T, B")
        space = self._space(x.shape[3:])
        if self._as_convolution(x):
            calls["dense"] += 1
            self.last_choice = Choice("dense", "one convolution over time and space")
            y = self._dense(x, space)
        else:
            y = self._by_patches(x, space)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * self.n_axes)

    def step(self, x: Tensor, state: list[DelayState] | None = None) -> tuple[Tensor, list[DelayState]]:
        """Transmit one time step, shape (B, C, *space); see `DelayLinear.step`."""
        self._check(x, "B")
        if state is not None and (not isinstance(state, list) or len(state) != self.groups):
            raise invalid("state", "be what the last step returned, or None", state, kind=TypeError)
        space = self._space(x.shape[2:])
        patches, states = self._patches(x[None]), []
        parts = []
        for group, (weight, delay, sigma) in enumerate(self._per_group()):
            before = None if state is None else state[group]
            y, after = step(
                patches[group][0], weight, delay, sigma, before, self.max_delay, self.kernel, self.rounds
            )  # fmt: skip
            parts.append(y)
            states.append(after)
        y = self._to_space(torch.cat(parts, -1)[None], x.shape[0], space)[0]
        return (y if self.bias is None else y + self.bias.view(-1, *[1] * self.n_axes)), states

    def _check(self, x: Tensor, leading: str) -> None:
        """Raise if `x` is not (leading axes, C, *space) in floating point."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise invalid("x", "be a floating-point tensor", x, "Convert it with x.float().", kind=TypeError)
        n_leading = len(leading.split(", "))
        if x.ndim != n_leading + 1 + self.n_axes or x.shape[n_leading] != self.in_channels:
            axes = ", ".join(["L"] if self.n_axes == 1 else ["H", "W"])
            raise invalid("x", f"have shape ({leading}, {self.in_channels}, {axes})", f"{tuple(x.shape)}")

    def _as_convolution(self, x: Tensor) -> bool:
        """Say whether time is one more axis of an ordinary convolution: always right, and the best on a GPU."""
        if self.backend != "auto":
            return self.backend == "dense"
        return x.device.type != "cpu" or torch.compiler.is_compiling()

    def _dense(self, x: Tensor, space: tuple[int, ...]) -> Tensor:
        if 0 in x.shape:
            return x.new_zeros((*x.shape[:2], self.out_channels, *space)) + 0 * (x.sum() + self.weight.sum())
        flat = [p.expand(self._full(p)).flatten(1, -2) for p in (self.weight, self.delay, self.sigma)]
        weight, delay, sigma = flat
        check_delay(delay)
        sigma = check_sigma(sigma, delay, self.kernel, needed=not self.rounds)
        inside = delay.clamp(0, self.max_delay - 1)
        kernels = dense_kernel(weight, inside, sigma, self.max_delay, self.kernel, self.rounds)
        taps = kernels[..., : x.shape[0]].flip(-1).unflatten(1, self.weight.shape[1:-1]).movedim(-1, 2)
        space_last = F.pad(x.to(taps.dtype).movedim(0, 2), (0, 0) * self.n_axes + (taps.shape[2] - 1, 0))
        convolve = F.conv2d if self.n_axes == 1 else F.conv3d
        y = convolve(
            space_last, taps, stride=(1, *self.stride), padding=(0, *self.padding), dilation=(1, *self.dilation),
            groups=self.groups,
        )  # fmt: skip
        return y.movedim(2, 0)

    def _full(self, parameter: Tensor) -> tuple[int, ...]:
        """Return the shape of a parameter with its axes of space and input channels written out."""
        return (parameter.shape[0], *self.weight.shape[1:])

    def _by_patches(self, x: Tensor, space: tuple[int, ...]) -> Tensor:
        """Lay the patches that a kernel sees side by side: what is left is a delay layer on each place."""
        patches, parts = self._patches(x), []
        for group, (weight, delay, sigma) in enumerate(self._per_group()):
            y, self.last_choice = delay_linear(
                patches[group], weight, delay, sigma,
                max_delay=self.max_delay, kernel=self.kernel, round_delays=self.rounds, backend=self.backend,
            )  # fmt: skip
            parts.append(y)
        return self._to_space(torch.cat(parts, -1), x.shape[1], space)

    def _per_group(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return weight, delay and sigma of each group with channels and space as one axis of inputs."""
        shared = self.share == "dendrite"
        flat = [self.weight.flatten(1, -2)]
        for p in (self.delay, self.sigma):
            flat.append(p.flatten(1, -2) if shared else p.expand(self._full(p)).flatten(1, -2))
        chunks = [p.chunk(self.groups) if len(p) > 1 else (p,) * self.groups for p in flat]
        return list(zip(*chunks, strict=True))

    def _patches(self, x: Tensor) -> list[Tensor]:
        """Return what each kernel sees, per group, shape (T, B * places, C / G * kernel size)."""
        n_steps, n_batch = x.shape[:2]
        image = x.flatten(0, 1) if self.n_axes == 2 else x.flatten(0, 1).unsqueeze(-2)
        pair = (lambda v: v) if self.n_axes == 2 else (lambda v: (0, *v))
        one = (lambda v: v) if self.n_axes == 2 else (lambda v: (1, *v))
        n_places = math.prod(self._space(x.shape[3:]))
        if 0 in x.shape:
            seen = math.prod(self.kernel_size) * self.in_channels
            columns = x.new_zeros((n_steps * n_batch, seen, n_places)) + 0 * x.sum()
        else:
            columns = F.unfold(
                image, one(self.kernel_size), dilation=one(self.dilation), padding=pair(self.padding),
                stride=one(self.stride),
            )  # fmt: skip
        rows = columns.transpose(1, 2).reshape(n_steps, n_batch * n_places, columns.shape[1])
        return list(rows.chunk(self.groups, dim=-1))

    def _to_space(self, y: Tensor, n_batch: int, space: tuple[int, ...]) -> Tensor:
        return y.view(len(y), n_batch, math.prod(space), self.out_channels).transpose(2, 3).unflatten(-1, space)

    def _space(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the output, or say that the kernel does not fit."""
        sizes = zip(size, self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        space = tuple((n + 2 * pad - dil * (k - 1) - 1) // stride + 1 for n, k, stride, pad, dil in sizes)
        if min(space) < 1:
            raise invalid("x", f"be at least as large as the kernel {self.kernel_size}", f"{tuple(size)}", "Pad it.")
        return space

    def extra_repr(self) -> str:
        """Show sizes and options."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}", super().extra_repr()]
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, name)
            parts += [f"{name}={value}"] if value != (default,) * self.n_axes else []
        return ", ".join(parts + ([f"groups={self.groups}"] if self.groups != 1 else []))


class DelayConv1d(_DelayConv):
    """A convolution over one axis of space in which every weight has its own delay in time.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        As in `torch.nn.Conv1d`; zeros are padded.
    max_delay, kernel_count, kernel, bias, sigma, learn_delay, learn_sigma
        As in `DelayLinear`.
    share : {"synapse", "axon", "dendrite"}
        Per axon, all weights of an input channel have one delay; per dendrite, all weights of an output channel.
    rounding, dt_ms, backend, generator
        As in `DelayLinear`.

    Attributes
    ----------
    weight : Parameter, shape (O, C / groups, kernel_size, K)
    delay, sigma : Parameter
        In steps; shape of `weight`, (1, C / groups, 1, K) per axon, or (O, 1, 1, K) per dendrite.

    Notes
    -----
    Input (T, B, C, L), output (T, B, O, L'). On the CPU the patches that a kernel sees are laid side by side, which
    takes ``kernel_size`` times the memory of the input, and the paths of `DelayLinear` do the rest.

    Examples
    --------
    >>> import torch
    >>> DelayConv1d(2, 4, 3, max_delay=5, padding=1)(torch.rand(10, 8, 2, 16)).shape
    torch.Size([10, 8, 4, 16])
    """

    n_axes = 1


class DelayConv2d(_DelayConv):
    """A convolution over images in which every weight has its own delay in time.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        As in `torch.nn.Conv2d`; zeros are padded.
    max_delay, kernel_count, kernel, bias, share, sigma, learn_delay, learn_sigma
        As in `DelayConv1d`.
    rounding, dt_ms, backend, generator
        As in `DelayLinear`.

    Attributes
    ----------
    weight : Parameter, shape (O, C / groups, kernel_h, kernel_w, K)
    delay, sigma : Parameter
        In steps; shape of `weight`, (1, C / groups, 1, 1, K) per axon, or (O, 1, 1, 1, K) per dendrite.

    Notes
    -----
    Input (T, B, C, H, W), output (T, B, O, H', W').

    Examples
    --------
    >>> import torch
    >>> DelayConv2d(2, 4, 3, max_delay=5, stride=2)(torch.rand(10, 8, 2, 9, 9)).shape
    torch.Size([10, 8, 4, 4, 4])
    """

    n_axes = 2


def _per_axis(name: str, value: int | Sequence[int], n_axes: int, at_least: int) -> tuple[int, ...]:
    if not isinstance(value, Sequence):
        value = (check_int(name, value, at_least=at_least),) * n_axes
    values = tuple(value)
    if len(values) != n_axes:
        raise invalid(name, f"be one number, or {n_axes}", f"{values}")
    return tuple(check_int(name, v, at_least=at_least) for v in values)
