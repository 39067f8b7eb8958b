"""Run a compiled kernel on PyTorch's own threads.

PyTorch's OpenMP threads go on spinning for milliseconds after each operation. Threads of our own would have to share
the cores with them and lose about half their speed, so a kernel joins PyTorch's team instead: it is compiled to a C
callback and handed to the OpenMP library that PyTorch has loaded. Where there is none to be found, and in a forked
child, whose team is gone, a thread pool does the same work.

A kernel takes one argument, a C array of int64: the first and last neuron, then whatever it needs, arrays as addresses.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["address", "compile_kernel", "my_range", "run"]

# Below so many neuron-steps a second thread costs more than it saves.
MIN_WORK = 1 << 15
_parent = os.getpid()


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the OpenMP library that PyTorch has loaded, or None."""
    if not sys.platform.startswith("linux"):
        return None
    folder = Path(torch.__file__).parent
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if "libgomp" in path.name and path.parent in (folder / "lib", folder.parent / "torch.libs"):
            library = ctypes.CDLL(str(path))
            return library if hasattr(library, "GOMP_parallel") else None
    return None


@cfunc("int32()")
def _zero() -> int:
    return 0


@cfunc("int32()")
def _one() -> int:
    return 1


def _symbol(name: str, function: str, otherwise: Any) -> types.ExternalFunction:
    """Give a function of the OpenMP library a fixed name: kernels cached on disk hold the name, not the address."""
    library = _openmp()
    pointer = getattr(library, function) if library else otherwise.ctypes
    llvmlite.binding.add_symbol(name, ctypes.cast(pointer, ctypes.c_void_p).value)
    return types.ExternalFunction(name, types.int32())


_thread_number = _symbol("snn_thread_number", "omp_get_thread_num", _zero)
_thread_count = _symbol("snn_thread_count", "omp_get_num_threads", _one)


@intrinsic
def address(typingctx: Any, value: Any) -> Any:
    """Turn an integer into a pointer, for ``numba.carray`` inside a kernel."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@numba.njit(nogil=True, inline="always")
def my_range(start, stop, block):
    """Return this thread's share of the neurons: whole blocks, the same ones however many threads there are."""
    k, count = _thread_number(), _thread_count()
    n_blocks = (stop - start + block - 1) // block
    return start + block * (n_blocks * k // count), min(start + block * (n_blocks * (k + 1) // count), stop)


def compile_kernel(function: Callable[[Any], None], *, fastmath: Collection[str] = ()) -> Any:
    """Compile a kernel, or load it from the cache on disk; `fastmath` names the liberties that LLVM may take."""
    options = {"fastmath": set(fastmath)} if fastmath else {}
    return cfunc(types.void(types.CPointer(types.int64)), cache=True, error_model="numpy", **options)(function)


@cache
def _pool(n_threads: int, pid: int) -> ThreadPoolExecutor:
    # A forked child has none of its parent's threads; the process number makes it start its own.
    return ThreadPoolExecutor(n_threads, thread_name_prefix="snn")


def run(kernel: Any, n: int, block: int, work: int, context: Sequence[int | np.ndarray]) -> None:
    """Run a kernel over `n` neurons in blocks, on ``torch.get_num_threads()`` threads.

    Parameters
    ----------
    kernel : from `compile_kernel`
        What to run.
    n, block : int
        Number of neurons, and how many of them go together.
    work : int
        Neuron-steps in all; little work is not split.
    context : sequence of int or array
        What the kernel reads after the first and last neuron. Arrays must be contiguous; they are passed by address.
    """
    numbers = [item.ctypes.data if isinstance(item, np.ndarray) else int(item) for item in context]
    n_blocks = -(-n // block)
    n_threads = max(1, min(torch.get_num_threads(), work // MIN_WORK, n_blocks))
    whole = np.array([0, n, *numbers], dtype=np.int64)
    pointer = ctypes.POINTER(ctypes.c_int64)
    if n_threads == 1:
        kernel.ctypes(whole.ctypes.data_as(pointer))
        return
    library = _openmp() if os.getpid() == _parent else None
    if library is not None:
        library.GOMP_parallel(
            ctypes.c_void_p(kernel.address),
            whole.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_uint(n_threads),
            ctypes.c_uint(0),
        )
        return
    edges = [min(block * (n_blocks * k // n_threads), n) for k in range(n_threads + 1)]
    parts = [np.array([edges[k], edges[k + 1], *numbers], dtype=np.int64) for k in range(n_threads)]
    jobs = [_pool(n_threads, os.getpid()).submit(kernel.ctypes, part.ctypes.data_as(pointer)) for part in parts]
    for job in jobs:
        job.result()
