"""Multi-step neuron kernels: one contract (`spec`), one reference (`torch`), and the fast backends proved equal to it.

Backends are modules with one function, ``multi_step``. They are imported when first used: ``import snn`` loads none.
"""

from __future__ import annotations

import importlib
from collections import Counter
from functools import cache

# Names from torch, not torch itself: the submodule snn.kernels.torch becomes the attribute `torch` of this package.
from torch import Tensor, compiler, cuda

from neuroloaders.checks import check_option, invalid
from snn.kernels.spec import NeuronSpec
from snn.kernels.torch import multi_step as reference

__all__ = ["BACKENDS", "available_backends", "calls", "choose_backend", "multi_step"]

BACKENDS = {
    "torch": "the reference: a loop of torch operations; any device, any dtype",
    "numba": "compiled for the CPU: all steps of a block of neurons while it is in cache",
    "triton": "compiled for CUDA: all steps of a block of neurons in registers",
}
# How often each backend ran in this process, so that a test or a user can see which one did.
calls: Counter[str] = Counter()


@cache
def _why_missing(backend: str) -> str | None:
    """Return why a backend cannot run here, or None."""
    if backend == "torch":
        return None
    try:
        importlib.import_module(f"snn.kernels.{backend}")
    except ImportError as error:
        return f"{error}"
    return None


def available_backends() -> dict[str, str]:
    """Return each backend with "available", or with the reason why it cannot run here.

    Examples
    --------
    >>> available_backends()["torch"]
    'available'
    """
    reasons = {name: _why_missing(name) for name in BACKENDS}
    if reasons["triton"] is None and not cuda.is_available():
        reasons["triton"] = "no CUDA device"
    return {name: reason or "available" for name, reason in reasons.items()}


def choose_backend(backend: str, x: Tensor) -> str:
    """Return the name of the backend that will run on `x`.

    Parameters
    ----------
    backend : str
        "auto" or a key of `BACKENDS`. "auto" takes "triton" on CUDA and "numba" on the CPU, where they can run, and
        "torch" elsewhere and under ``torch.compile``, which can look into that one only.
    x : Tensor
        The input.

    Raises
    ------
    ValueError
        If the name is unknown, or the backend cannot run on the device of `x`.
    ImportError
        If the backend's package is missing.
    """
    if backend == "auto":
        if compiler.is_compiling():
            return "torch"
        fast = {"cuda": "triton", "cpu": "numba"}.get(x.device.type, "torch")
        return fast if _why_missing(fast) is None else "torch"
    check_option("backend", backend, ["auto", *BACKENDS])
    if (reason := _why_missing(backend)) is not None:
        raise ImportError(f"The {backend!r} backend cannot run here: {reason}. Use backend='auto' or 'torch'.")
    if backend == "numba" and x.device.type != "cpu":
        raise invalid("backend", f"run on the device of `x`, which is {x.device}", "'numba'", "Use 'triton' or 'auto'.")
    if backend == "triton" and x.device.type != "cuda" and not _interpreting():
        raise invalid("backend", f"run on the device of `x`, which is {x.device}", "'triton'", "Use 'numba' or 'auto'.")
    return backend


def _interpreting() -> bool:
    """Say whether triton kernels run in triton's interpreter, which works on CPU tensors."""
    return importlib.import_module("snn.kernels.triton").INTERPRETED


def multi_step(
    x: Tensor, v: Tensor, decay: Tensor, threshold: Tensor, n_steps: int | None, spec: NeuronSpec, backend: str
) -> tuple[Tensor, Tensor]:
    """Run `backend`, a name from `choose_backend`; the rest is the contract of `snn.kernels.torch.multi_step`."""
    if compiler.is_compiling() and backend == "torch":
        return reference(x, v, decay, threshold, n_steps, spec)
    calls[backend] += 1
    module = importlib.import_module(f"snn.kernels.{backend}")
    return module.multi_step(x, v, decay, threshold, n_steps, spec)
