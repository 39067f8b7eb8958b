"""The one table of tolerances. Tests compare through `close`; spikes and indices exactly, by equality."""

from __future__ import annotations

import torch
from torch import Tensor

# What is compared -> (relative, absolute).
TOLERANCES: dict[str, tuple[float, float]] = {
    "float64": (1e-9, 1e-12),  # across backends
    "float32": (1e-5, 1e-6),  # forward
    "float32 gradient": (1e-4, 1e-5),
    "bfloat16": (1.6e-2, 1e-2),
    "float16": (1e-3, 1e-3),
}


def close(got: Tensor, want: Tensor, kind: str | None = None) -> None:
    """Compare with the tolerance of `kind`, by default that of the dtype of `got`."""
    rtol, atol = TOLERANCES[kind or str(got.dtype).removeprefix("torch.")]
    torch.testing.assert_close(got, want.to(got.dtype), rtol=rtol, atol=atol)
