"""The few operations in which NumPy and PyTorch differ; the rest of this folder is one code for both.

NumPy and SciPy bring a BLAS each, with threads of its own that go on spinning after each call: a program that uses both
in turn runs several times slower than with either. So factorisations are NumPy's, and triangular systems are solved in
blocks, by its matrix products.
"""

# n rows, p features, m targets

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from neuroloaders.checks import invalid, soft_import

__all__ = ["Library", "is_tensor", "library_of"]

_NOT_DEFINITE = (
    "The ridge system could not be factorised: the penalty is lost in rounding beside the largest eigenvalue. "
    "Raise `alpha`, or scale the features to unit variance."
)

# Rows of a triangular system that are solved together, and below which a triangle is inverted as any matrix.
_BLOCK, _SMALL = 256, 32


class Library(Protocol):
    """What the estimators need of an array library."""

    name: str

    def array(self, x: Any, dtype: str) -> Any:
        """Return `x` here, in `dtype` ("float32" or "float64"); a copy only if needed."""

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an array of zeros."""

    def numpy(self, x: Any) -> np.ndarray:
        """Return `x` as a NumPy array."""

    def eigh(self, matrix: Any) -> tuple[Any, Any]:
        """Return eigenvalues and eigenvectors of a symmetric matrix, of which the lower triangle is read."""

    def cholesky(self, matrix: Any) -> Any:
        """Return the lower Cholesky factor."""

    def solve(self, factor: Any, right: Any) -> Any:
        """Return the solution of the system that `cholesky` factorised."""

    def inverse(self, factor: Any) -> Any:
        """Return the inverse of the matrix that `cholesky` factorised."""


class NumpyLibrary:
    """NumPy."""

    name = "numpy"

    def array(self, x: Any, dtype: str) -> np.ndarray:
        if is_tensor(x):
            x = x.detach().cpu().numpy()
        return np.asarray(x, dtype=dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)

    def numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def eigh(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.linalg.eigh(matrix)

    def cholesky(self, matrix: np.ndarray) -> np.ndarray:
        try:
            return np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError as error:
            raise ValueError(_NOT_DEFINITE) from error

    def solve(self, factor: np.ndarray, right: np.ndarray) -> np.ndarray:
        n = len(factor)
        blocks = [slice(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)]
        inverses = [_inverse_of_triangle(factor[block, block]) for block in blocks]
        out = np.array(right)
        for block, inverse in zip(blocks, inverses, strict=True):
            out[block] = inverse @ (out[block] - factor[block, : block.start] @ out[: block.start])
        for block, inverse in zip(blocks[::-1], inverses[::-1], strict=True):
            out[block] = inverse.T @ (out[block] - factor[block.stop :, block].T @ out[block.stop :])
        return out

    def inverse(self, factor: np.ndarray) -> np.ndarray:
        triangle = _inverse_of_triangle(factor)
        return triangle.T @ triangle


class TorchLibrary:
    """PyTorch on one device."""

    name = "torch"

    def __init__(self, device: Any) -> None:
        import torch

        self.device = torch.device(device)

    @property
    def _torch(self) -> Any:
        """Return the module: not kept, as modules cannot be sent to other processes."""
        import torch

        return torch

    def array(self, x: Any, dtype: str) -> Any:
        wanted = getattr(self._torch, dtype)
        if is_tensor(x):
            return x.detach().to(self.device, wanted)
        # A memory map that may not be written to would make torch warn.
        x = np.ascontiguousarray(x)
        return self._torch.from_numpy(x if x.flags.writeable else x.copy()).to(self.device, wanted)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self._torch.zeros(shape, dtype=getattr(self._torch, dtype), device=self.device)

    def numpy(self, x: Any) -> np.ndarray:
        return x.detach().cpu().numpy() if is_tensor(x) else np.asarray(x)

    def eigh(self, matrix: Any) -> tuple[Any, Any]:
        return self._torch.linalg.eigh(matrix)

    def cholesky(self, matrix: Any) -> Any:
        factor, info = self._torch.linalg.cholesky_ex(matrix)
        if int(info):
            raise ValueError(_NOT_DEFINITE)
        return factor

    def solve(self, factor: Any, right: Any) -> Any:
        return self._torch.cholesky_solve(right, factor)

    def inverse(self, factor: Any) -> Any:
        return self._torch.cholesky_inverse(factor)


def _inverse_of_triangle(factor: np.ndarray) -> np.ndarray:
    """Return the inverse of a lower triangular matrix, by halves."""
    n = len(factor)
    if n <= _SMALL:
        return np.tril(np.linalg.inv(factor))
    half = n // 2
    out = np.zeros_like(factor)
    upper, lower = _inverse_of_triangle(factor[:half, :half]), _inverse_of_triangle(factor[half:, half:])
    out[:half, :half], out[half:, half:] = upper, lower
    out[half:, :half] = -(lower @ (factor[half:, :half] @ upper))
    return out


def is_tensor(x: Any) -> bool:
    """Return whether `x` is a torch tensor, without importing torch."""
    return type(x).__module__.split(".")[0] == "torch" and hasattr(x, "detach")


def library_of(x: Any, device: Any = None) -> Library:
    """Return the library to compute with: that of `x`, or torch on `device`.

    Parameters
    ----------
    x : array or tensor
        The features.
    device : str or torch.device, optional
        Where to compute; NumPy arrays are then copied there chunk by chunk.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    if device is None:
        return TorchLibrary(x.device) if is_tensor(x) else NumpyLibrary()
    torch = soft_import("torch", purpose="`device`")
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise invalid("device", "be one that torch can use in float64", f"{device!r} ({reason})") from error
    return TorchLibrary(device)
