"""From the sensors of a recording to channels that mean the same in all: attention, 1x1 layer, subject layer.

All three are linear in the recording and the same at all samples: for one recording and one subject they are one
matrix. In training they run one after the other; at inference the matrix is made once and kept.
"""

# R recordings, B batch, C sensors, H heads, D channels that leave, T samples

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.drawing import blank, draw_layer, own_generator
from neurodecode.meeg.spatial import SpatialAttention
from neurodecode.meeg.subjects import SubjectEmbedding, SubjectLayer
from neuroloaders.checks import check_int, invalid

__all__ = ["SpatialPath", "calls"]

# How often each way was taken: "fused" and "layers"; "matrices" counts those that were made.
calls: Counter[str] = Counter()

# Matrices that are kept at most, 225 kB each for 208 sensors and 270 channels.
MAX_KEPT = 256


class _Kept(NamedTuple):
    """One matrix, and copies of what it was made of."""

    matrix: Tensor
    offset: Tensor | None
    positions: Tensor | None
    subject: Tensor | None


class SpatialPath(nn.Module):
    """Spatial attention, a 1x1 layer and what belongs to subjects; each may be left out.

    Parameters
    ----------
    n_channels : int, optional
        C; needed without attention.
    n_subjects : int
        S.
    n_heads, n_features, dropout_radius
        As in `SpatialAttention`; ``n_heads=None`` leaves it out.
    initial_linear : int, optional
        Outputs of the 1x1 layer; None leaves it out.
    subject : {"layer", "embedding", "none"}
        A key of `neurodecode.meeg.SUBJECT_LAYERS`.
    subject_size : int
        Length of the embedding.
    new_subject, generator, device, dtype
        As in `neurodecode.meeg.SubjectLayer`.

    Attributes
    ----------
    n_outputs : int
        D.
    """

    def __init__(
        self,
        *,
        n_subjects: int,
        n_channels: int | None = None,
        n_heads: int | None = 270,
        n_features: int = 2048,
        dropout_radius: float = 0.2,
        initial_linear: int | None = 270,
        subject: str = "layer",
        subject_size: int = 64,
        new_subject: str = "mean",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.n_subjects_trained = check_int("n_subjects", n_subjects, at_least=1)
        generator, place = own_generator(generator), {"device": device, "dtype": dtype}
        if n_channels is not None:
            check_int("n_channels", n_channels, at_least=1)
        elif n_heads is None:
            advice = "Only attention makes a network independent of it."
            raise invalid("n_channels", "be given without spatial attention", "None", advice)
        self.n_channels = n_channels
        self.attention = self.linear = self.subject = None
        width = n_channels
        if n_heads is not None:
            self.attention = SpatialAttention(
                n_heads, n_features, dropout_radius=dropout_radius, generator=generator, **place
            )
            width = n_heads
        if initial_linear is not None:
            check_int("initial_linear", initial_linear, at_least=1)
            self.linear = draw_layer(blank(nn.Linear, width, initial_linear, **place), generator)
            width = initial_linear
        settings: dict[str, Any] = {"new_subject": new_subject, "generator": generator, **place}
        if subject == "layer":
            self.subject = SubjectLayer(width, n_subjects, **settings)
        elif subject == "embedding":
            self.subject = SubjectEmbedding(width, n_subjects, subject_size, **settings)
        self.n_outputs = width if self.subject is None else self.subject.n_outputs
        self._kept: dict[tuple[int, int], _Kept] = {}
        self._kept_shared: list[Tensor] = []

    # --- what callers see -----------------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        subjects: Tensor | None = None,
        positions: Tensor | None = None,
        recordings: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Map (B, C, T) to (B, D, T); the parameters are those of `neurodecode.meeg.BrainModule`."""
        if not torch.compiler.is_compiling():
            self._check(x, subjects, positions, recordings)
            per_item = positions is not None and positions.ndim == 3 and recordings is None and len(x) > 1
            # Positions of each item by itself give nothing to keep, and a subject layer alone is one matrix anyway.
            one_matrix = not per_item if self.attention is not None else self.linear is not None
            if one_matrix and not (self.training or torch.is_grad_enabled()):
                return self._fused(x, subjects, positions, recordings)
            calls["layers"] += 1
        if self.attention is not None:
            x = self._weights(positions, recordings, len(x), generator) @ x
        if self.linear is not None:
            # As a convolution, which takes two thirds of the time of a matrix product that is broadcast over the batch.
            x = F.conv1d(x, self.linear.weight[..., None], self.linear.bias)
        return x if self.subject is None else self.subject(x, subjects)

    def forget(self) -> None:
        """Drop the matrices that are kept; ``train()`` and moving the module do so too."""
        self._kept, self._kept_shared = {}, []

    def train(self, mode: bool = True) -> SpatialPath:
        """Set training or evaluation mode; training drops the matrices that are kept."""
        if mode:
            self.forget()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpatialPath:
        self.forget()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_kept_shared": []}

    # --- layer by layer -------------------------------------------------------------------------------------------

    def _weights(
        self, positions: Tensor, recordings: Tensor | None, n_batch: int, generator: torch.Generator | None
    ) -> Tensor:
        """Return the weights of the attention, (B, H, C) or (1, H, C)."""
        if positions.ndim == 2:
            return self.attention.weights(positions[None], generator)
        if recordings is None:
            return self.attention.weights(positions, generator)
        if len(positions) > n_batch:
            return self.attention.weights(positions.index_select(0, recordings), generator)
        return self.attention.weights(positions, generator).index_select(0, recordings)

    def _check(self, x: Tensor, subjects: Tensor | None, positions: Tensor | None, recordings: Tensor | None) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise invalid("x", "be a floating-point tensor", x, kind=TypeError)
        if x.ndim != 3:
            raise invalid("x", "have shape (B, C, T)", f"{tuple(x.shape)}")
        own = next(self.parameters(), x)
        if x.dtype != own.dtype and not torch.is_autocast_enabled(x.device.type):
            raise invalid("x", f"be of the dtype of the weights, {own.dtype}", x, f"Convert it: x.to({own.dtype}).")
        n_batch, n_channels, _ = x.shape
        if self.attention is None and n_channels != self.n_channels:
            raise invalid("x", f"have {self.n_channels} channels", f"{n_channels}", "This network has no attention.")
        if self.attention is not None:
            self._check_positions(positions, recordings, n_batch, n_channels)
        if self.subject is not None:
            _check_numbers("subjects", subjects, n_batch, "The number of the subject of each item.")
            self.subject.check(subjects)

    def _check_positions(
        self, positions: Tensor | None, recordings: Tensor | None, n_batch: int, n_channels: int
    ) -> None:
        shapes = f"(B, C, 2) = ({n_batch}, {n_channels}, 2), or ({n_channels}, 2) for one layout"
        if recordings is not None:
            _check_numbers("recordings", recordings, n_batch, "The row of `positions` of each item.")
            shapes = f"(n_recordings, {n_channels}, 2)"
        if not isinstance(positions, Tensor) or not positions.is_floating_point():
            raise invalid("positions", f"be a floating-point tensor of shape {shapes}", positions, kind=TypeError)
        rows = positions.shape[0] if recordings is not None else n_batch
        fits = positions.shape == (rows, n_channels, 2) and positions.ndim == 3
        if not fits and not (recordings is None and positions.shape == (n_channels, 2)):
            advice = "Channels without a place have -0.1 twice: see neurodecode.meeg.position_table."
            raise invalid("positions", f"have shape {shapes}", f"{tuple(positions.shape)}", advice)
        if recordings is not None and not (recordings.is_cuda and self.training) and n_batch:
            low, high = (int(value) for value in recordings.aminmax())
            if low < 0 or high >= rows:
                came = f"{low if low < 0 else high}"
                raise invalid("recordings", f"hold rows of `positions`, 0 to {rows - 1}", came)

    # --- all in one matrix ----------------------------------------------------------------------------------------

    def _fused(self, x: Tensor, subjects: Tensor | None, positions: Tensor | None, recordings: Tensor | None) -> Tensor:
        calls["fused"] += 1
        rows = [0] * len(x) if recordings is None or self.attention is None else recordings.tolist()
        numbers = [0] * len(x) if self.subject is None else subjects.tolist()
        pairs = list(zip(rows, numbers, strict=True))
        if not pairs:
            return x.new_zeros((0, self.n_outputs, x.shape[-1]))
        different = list(dict.fromkeys(pairs))
        table = None if self.attention is None else positions if positions.ndim == 3 else positions[None]
        made = self._matrices(different, table)
        if len(different) == 1:
            matrix, offset = made[0].matrix[None], None if made[0].offset is None else made[0].offset[None]
        else:
            place = {pair: k for k, pair in enumerate(different)}
            index = torch.tensor([place[pair] for pair in pairs], device=x.device)
            matrix = torch.stack([one.matrix for one in made]).index_select(0, index)
            offset = None
            if made[0].offset is not None:
                offset = torch.stack([one.offset for one in made]).index_select(0, index)
        y = matrix @ x
        return y if offset is None else y + offset[..., None].to(y.dtype)

    def _matrices(self, pairs: list[tuple[int, int]], table: Tensor | None) -> list[_Kept]:
        """Return the matrix of each pair of recording and subject, made anew where something has changed."""
        shared = [
            parameter.detach() for part in (self.attention, self.linear) if part for parameter in part.parameters()
        ]
        # By value, not by torch's version counters: writing through .data does not move those, and numbers would be
        # wrong. It reads each weight once, which is little beside the network that follows.
        if not _same(shared, self._kept_shared):
            self._kept, self._kept_shared = {}, [one.clone() for one in shared]
        out = []
        for pair in pairs:
            positions = None if table is None else table[pair[0]]
            subject = None if self.subject is None else self.subject.of(pair[1]).detach()
            kept = self._kept.pop(pair, None)
            parts = [one for one in (positions, subject) if one is not None]
            if kept is None or not _same(parts, [one for one in (kept.positions, kept.subject) if one is not None]):
                kept = self._make(positions, subject)
            # Put back last: the first of the dict is the one not used for longest.
            self._kept[pair] = kept
            out.append(kept)
        while len(self._kept) > max(MAX_KEPT, len(pairs)):
            del self._kept[next(iter(self._kept))]
        return out

    def _make(self, positions: Tensor | None, subject: Tensor | None) -> _Kept:
        calls["matrices"] += 1
        device = (self.attention.heads if self.linear is None else self.linear.weight).device
        # Not under autocast: the matrix would be kept with the precision of the call that happened to come first.
        with torch.autocast(device.type, enabled=False):
            matrix = offset = None
            if self.attention is not None:
                matrix = self.attention.weights(positions)
            if self.linear is not None:
                matrix = self.linear.weight if matrix is None else self.linear.weight @ matrix
                offset = self.linear.bias
            if isinstance(self.subject, SubjectLayer):
                matrix = subject.T @ matrix
                offset = None if offset is None else subject.T @ offset
            elif subject is not None:
                offset = torch.cat([matrix.new_zeros(len(matrix)) if offset is None else offset, subject])
                matrix = torch.cat([matrix, matrix.new_zeros(len(subject), matrix.shape[1])])
        copies = [None if one is None else one.detach().clone() for one in (positions, subject)]
        return _Kept(matrix.detach().clone(), None if offset is None else offset.detach().clone(), *copies)


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(
        a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in pairs
    )


def _check_numbers(name: str, value: Tensor | None, n_batch: int, advice: str) -> None:
    whole = isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool
    if not whole or value.is_complex():
        raise invalid(name, f"be a tensor of whole numbers of shape ({n_batch},)", value, advice, kind=TypeError)
    if value.shape != (n_batch,):
        raise invalid(name, f"have shape ({n_batch},)", f"{tuple(value.shape)}", advice)
