"""Windows cut from continuous recordings: gather, baseline, scale and clamp in one go.

Three ways, equal up to the rounding of float32: "plain" does what the words say, window by window, in float64; "numba"
reads each sample once, from arrays and memory maps where they lie; "torch" reads one long tensor on the device, through
a view whose rows are all windows there could be.
"""

# R recordings, B windows, C channels, T samples of a window

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_option

__all__ = ["GATHERS", "GatherPlan", "make_gather"]

# Samples below which another thread costs more than it saves.
_MIN_WORK = 1 << 17
# Torch gives large blocks of memory back to the system, which clears each page anew at its next use.
_POOLED_BYTES, _MIN_POOLED = 1 << 29, 1 << 20
_FREE = sys.getrefcount(np.empty(0)) + 1


@dataclass(frozen=True, eq=False, kw_only=True)
class GatherPlan:
    """What is done to every window.

    Parameters
    ----------
    n_times : int
        T.
    rows : ndarray of int64, shape (R, C)
        Which channel of each recording stands at each place; -1 for none: zeros there.
    baseline : slice, optional
        Samples of the window whose mean is subtracted, channel by channel.
    center, scale : ndarray of float64, shape (R, C)
        Then ``(x - center) / scale``.
    clamp : float
        Then limited to ± this; infinite for no limit.
    """

    n_times: int
    rows: np.ndarray
    baseline: slice | None
    center: np.ndarray
    scale: np.ndarray
    clamp: float

    @property
    def only_cuts(self) -> bool:
        """Whether samples are left as they are."""
        return self.baseline is None and not self.center.any() and bool((self.scale == 1).all())


class PlainGather:
    """The reference: one window after the other, in float64, rounded at the end."""

    def __init__(self, recordings: Sequence[np.ndarray], plan: GatherPlan, device: torch.device) -> None:
        self._recordings, self._plan = recordings, plan
        self.calls = 0

    def __call__(self, recording: Tensor, first: Tensor) -> Tensor:
        """Cut windows: their recordings and first samples, int64 of shape (B,), give float32 of shape (B, C, T)."""
        self.calls += 1
        plan = self._plan
        out = torch.zeros(len(first), plan.rows.shape[1], plan.n_times)
        for b, (r, begin) in enumerate(zip(recording.tolist(), first.tolist(), strict=True)):
            there = plan.rows[r] >= 0
            stretch = self._recordings[r][plan.rows[r][there], begin : begin + plan.n_times]
            x = np.asarray(stretch, dtype=np.float64)
            if plan.baseline is not None:
                x = x - x[:, plan.baseline].mean(axis=1, keepdims=True)
            x = (x - plan.center[r][there, None]) / plan.scale[r][there, None]
            out[b, torch.from_numpy(there)] = torch.from_numpy(np.clip(x, -plan.clamp, plan.clamp)).float()
        return out


class NumbaGather:
    """On the host: a compiled loop, split among as many threads as PyTorch uses."""

    def __init__(self, recordings: Sequence[np.ndarray], plan: GatherPlan, device: torch.device) -> None:
        from neuroloaders.window_kernel import cut

        self._cut, self._plan, self._pin = cut, plan, device.type == "cuda"
        self._recordings = list(recordings)  # keeps the memory that the addresses point to
        self._addresses = np.array([data.__array_interface__["data"][0] for data in recordings], dtype=np.int64)
        self._lengths = np.array([data.shape[1] for data in recordings], dtype=np.int64)
        self._inverse = 1 / plan.scale
        self._memory = _Memory()
        self.calls = 0

    def __call__(self, recording: Tensor, first: Tensor) -> Tensor:
        """Cut windows: their recordings and first samples, int64 of shape (B,), give float32 of shape (B, C, T)."""
        self.calls += 1
        plan, n = self._plan, len(first)
        shape = (n, plan.rows.shape[1], plan.n_times)
        out = torch.empty(shape, pin_memory=True) if self._pin else self._memory.empty(shape)
        begin, end = (0, 0) if plan.baseline is None else (plan.baseline.start, plan.baseline.stop)
        arrays = (self._addresses, self._lengths, plan.rows, recording.numpy(), first.numpy())
        arguments = (*arrays, begin, end, plan.center, self._inverse, plan.clamp, out.numpy())
        n_threads = max(min(torch.get_num_threads(), n, math.prod(shape) // _MIN_WORK), 1)
        edges = [n * k // n_threads for k in range(n_threads + 1)]
        shares = list(itertools.pairwise(edges))
        others = [_threads(os.getpid()).submit(self._cut, *arguments, *share) for share in shares[1:]]
        self._cut(*arguments, *shares[0])
        for other in others:
            other.result()
        return out


class TorchGather:
    """On any device: all recordings as one long tensor, and one ``index_select`` for a whole batch."""

    def __init__(self, recordings: Sequence[np.ndarray], plan: GatherPlan, device: torch.device) -> None:
        self._plan = plan
        lengths = np.array([data.shape[1] for data in recordings], dtype=np.int64)
        begins = np.concatenate([[0], np.cumsum([data.size for data in recordings])])
        samples = torch.empty(int(begins[-1]), device=device)
        for data, begin in zip(recordings, begins, strict=False):
            # A copy at a time: a memory map is not read as a whole into the host's memory.
            for row, channel in enumerate(data):
                place = int(begin) + row * len(channel)
                samples[place : place + len(channel)] = torch.from_numpy(np.array(channel))
        self._windows = samples.unfold(0, plan.n_times, 1)
        absent = plan.rows < 0
        starts = np.where(absent, 0, begins[:-1, None] + plan.rows * lengths[:, None])
        self._starts, self._absent = torch.from_numpy(starts).to(device), torch.from_numpy(absent).to(device)
        self._any_absent = bool(absent.any())
        # Apple's GPUs have no float64.
        self._wide = torch.float32 if device.type == "mps" else torch.float64
        self._center = torch.from_numpy(plan.center).to(device, self._wide)
        self._inverse = torch.from_numpy(1 / plan.scale).to(device, torch.float32)
        self.calls = 0

    def __call__(self, recording: Tensor, first: Tensor) -> Tensor:
        """Cut windows: their recordings and first samples, int64 of shape (B,), give float32 of shape (B, C, T)."""
        self.calls += 1
        plan = self._plan
        places = self._starts[recording] + first[:, None]
        if self._any_absent:
            # An absent channel reads the first window there is, and is made zero below.
            places.masked_fill_(self._absent[recording], 0)
        x = self._windows.index_select(0, places.reshape(-1)).view(*places.shape, plan.n_times)
        if not plan.only_cuts:
            shift = self._center[recording]
            if plan.baseline is not None:
                shift = shift + x[:, :, plan.baseline].mean(dim=2, dtype=self._wide)
            # What float32 cannot hold of the shift is subtracted after it: amplifiers' offsets are a thousand
            # times larger than the signal.
            high = shift.float()
            x.sub_(high[..., None]).sub_((shift - high).float()[..., None]).mul_(self._inverse[recording][..., None])
        if math.isfinite(plan.clamp):
            x.clamp_(-plan.clamp, plan.clamp)
        if self._any_absent:
            x.masked_fill_(self._absent[recording][..., None], 0)
        return x


GATHERS = {"numba": NumbaGather, "torch": TorchGather, "plain": PlainGather}


def make_gather(
    name: str, recordings: Sequence[np.ndarray], plan: GatherPlan, device: torch.device
) -> PlainGather | NumbaGather | TorchGather:
    """Return what cuts windows.

    Parameters
    ----------
    name : str
        A key of `GATHERS`.
    recordings : sequence of ndarray of float32, shape (C, T)
        In memory, or memory maps; C-contiguous. Windows must lie inside them: this is not checked again here.
    plan : GatherPlan
        What is done to each window.
    device : torch.device
        For "torch" where the samples are put and windows are cut. The others cut in host memory, "numba" in pinned
        memory if this is a GPU.

    Returns
    -------
    gather : callable
        Takes int64 tensors `recording` and `first` of shape (B,), returns float32 of shape (B, C, T); its attribute
        ``calls`` counts.
    """
    check_option("backend", name, GATHERS)
    return GATHERS[name](recordings, plan, device)


class _Memory:
    """Large tensors whose memory is used again once nobody holds them.

    A tensor of ``torch.from_numpy`` keeps a reference to its array while anything shares its storage, so the array's
    reference count tells.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int]) -> Tensor:
        """Return an uninitialised float32 tensor."""
        size = math.prod(shape)
        if not _MIN_POOLED <= 4 * size <= _POOLED_BYTES:
            return torch.empty(tuple(shape))
        with self._lock:
            for k in range(len(self._arrays)):
                if self._arrays[k].size >= size and sys.getrefcount(self._arrays[k]) == _FREE:
                    array = self._arrays.pop(k)
                    break
            else:
                array = np.empty(size, dtype=np.float32)
            self._arrays.append(array)
            while sum(kept.nbytes for kept in self._arrays) > _POOLED_BYTES:
                self._arrays.pop(0)
        return torch.from_numpy(array)[:size].view(tuple(shape))


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Return this process's threads; a child process has none of its parent's."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="neuroloaders-windows")
