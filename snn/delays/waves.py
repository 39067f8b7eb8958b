"""Between time and frequency, in real numbers: products with tables of cosines and sines, or the fast transform.

Matrix products of real numbers are what a CPU does best, so a spectrum is kept as planes of real numbers: real parts
and imaginary parts. A table gives the planes at once, for as many operations a point as the kernel has lags; the fast
transform takes log n of them, but its complex numbers have to be sorted into planes. Short kernels want tables, long
ones the transform.
"""

# n points, F = n // 2 + 1 frequencies, D lags, C columns

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["WAVES", "FastTransform", "Tables"]


class Tables:
    """Products with tables.

    Parameters
    ----------
    n : int
        Points, even.
    n_lags : int
        D, of kernels.
    length : int
        Points at the end of a block whose values are asked for.
    dtype, device
        Of the tables.
    """

    def __init__(self, n: int, n_lags: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n_lags, self.length = n_lags, length
        turns = torch.arange(n // 2 + 1)[:, None] * torch.arange(n)[None] % n
        angle = 2 * math.pi / n * turns.double()
        real, imag = angle.cos(), -angle.sin()
        # Every frequency but the first and the last stands for itself and its mirror image.
        count = torch.full((n // 2 + 1, 1), 2.0 / n, dtype=torch.double)
        count[0] = count[-1] = 1 / n

        def rows(planes: list[Tensor], axis: int) -> Tensor:
            return torch.stack(planes, axis).flatten(0, 1).to(device, dtype)

        self._of_signal = rows([-imag, real, imag], 1)  # (F * 3, n)
        self._of_kernel = rows([real, imag], 0)[:, :n_lags].contiguous()  # (2 * F, D)
        self._to_signal = rows([count * real, count * imag], 1).T.contiguous()  # (n, F * 2)
        self._to_kernel = rows([count * real, count * imag], 0)[:, :n_lags].T.contiguous()  # (D, 2 * F)

    def spectrum(self, rows: Tensor, at: int, out: Tensor) -> None:
        """Write minus the imaginary, the real and the imaginary parts of a block into `out`, shape (F, 3, C).

        The block is zero but for `rows`, shape (up to n, C), which begin at point `at`. The first two axes of `out`
        must be one in memory.
        """
        torch.mm(self._of_signal[:, at : at + len(rows)], rows, out=out.view(-1, rows.shape[1]))

    def kernel_spectrum(self, kernel: Tensor) -> Tensor:
        """Return real and imaginary parts, shape (2, F, C), of kernels (D, C)."""
        return torch.mm(self._of_kernel, kernel).view(2, -1, kernel.shape[1])

    def steps(self, planes: Tensor, *, whole: bool = False) -> Tensor:
        """Return the last `length` points, or all, of blocks whose real and imaginary parts are given, (F, 2, C)."""
        table = self._to_signal if whole else self._to_signal[-self.length :]
        return torch.mm(table, planes.flatten(0, 1))

    def lags(self, planes: Tensor, out: Tensor) -> None:
        """Write the first D points of what real and imaginary parts, shape (2, F, C), belong to; `out` is (D, C)."""
        out.copy_(torch.mm(self._to_kernel, planes.flatten(0, 1)))


class FastTransform:
    """The fast transform; the parameters and methods are those of `Tables`."""

    def __init__(self, n: int, n_lags: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n, self.n_lags, self.length = n, n_lags, length

    def spectrum(self, rows: Tensor, at: int, out: Tensor) -> None:
        """Write minus the imaginary, the real and the imaginary parts of a block: see `Tables`."""
        block = torch.cat([rows.new_zeros(at, rows.shape[1]), rows]) if at else rows
        whole = torch.fft.rfft(block, self.n, dim=0)
        out[:, 1], out[:, 2] = whole.real, whole.imag
        torch.neg(whole.imag, out=out[:, 0])

    def kernel_spectrum(self, kernel: Tensor) -> Tensor:
        """Return real and imaginary parts, shape (2, F, C), of kernels (D, C)."""
        return torch.view_as_real(torch.fft.rfft(kernel, self.n, dim=0)).movedim(-1, 0).contiguous()

    def steps(self, planes: Tensor, *, whole: bool = False) -> Tensor:
        """Return the last `length` points, or all, of blocks whose real and imaginary parts are given, (F, 2, C)."""
        points = torch.fft.irfft(torch.complex(planes[:, 0], planes[:, 1]), self.n, dim=0)
        return points if whole else points[-self.length :]

    def lags(self, planes: Tensor, out: Tensor) -> None:
        """Write the first D points of what real and imaginary parts, shape (2, F, C), belong to; `out` is (D, C)."""
        out.copy_(torch.fft.irfft(torch.complex(planes[0], planes[1]), self.n, dim=0)[: self.n_lags])


# name -> how to get from time to frequency and back
WAVES = {"tables": lru_cache(maxsize=16)(Tables), "fast": FastTransform}
