"""Large CPU tensors whose memory is used again.

PyTorch gives the memory of every large CPU tensor back to the system and asks for it anew, and the system clears each
page at first touch: for a kernel that runs at the speed of memory that is as long as the work itself. `BufferPool`
keeps the memory of the last few tensors and hands it out again once nobody refers to it any more.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["BufferPool"]

_ALIGN = 64
# What sys.getrefcount counts for an array that only the pool's list and the call itself hold.
_FREE = sys.getrefcount(np.empty(0)) + 1


class BufferPool:
    """Hand out uninitialised CPU tensors, from memory that was used before where possible.

    A tensor made by ``torch.from_numpy`` keeps a reference to its array for as long as any tensor shares the storage
    (views, saved tensors of a graph); the array's reference count therefore tells when its memory is free.

    Parameters
    ----------
    max_bytes : int
        How much memory the pool may keep; the least recently used is let go first. Tensors in use stay valid.
    min_bytes : int
        Smaller tensors come from torch as usual.
    """

    def __init__(self, max_bytes: int = 1 << 28, min_bytes: int = 1 << 20) -> None:
        self.max_bytes = max_bytes
        self.min_bytes = min_bytes
        self.reused = 0
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a contiguous tensor like ``torch.empty(shape, dtype=dtype)``; thread-safe."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes < self.min_bytes or n_bytes > self.max_bytes:
            return torch.empty(shape, dtype=dtype)
        array = self._take(n_bytes + _ALIGN)
        offset = -array.ctypes.data % _ALIGN
        return torch.from_numpy(array)[offset : offset + n_bytes].view(dtype).view(tuple(shape))

    def _take(self, n_bytes: int) -> np.ndarray:
        with self._lock:
            for k in range(len(self._arrays)):
                # Within a third of what is asked for: a small tensor must not hold on to a large buffer.
                if n_bytes <= self._arrays[k].nbytes <= n_bytes * 4 // 3 and sys.getrefcount(self._arrays[k]) == _FREE:
                    array = self._arrays.pop(k)
                    self.reused += 1
                    break
            else:
                array = np.empty(n_bytes, dtype=np.uint8)
            self._arrays.append(array)
            while sum(kept.nbytes for kept in self._arrays) > self.max_bytes:
                self._arrays.pop(0)
            return array
