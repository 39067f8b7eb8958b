"""The distinct windows of sound that a decoder chooses among, and their features, looked up when they are needed."""

# N windows, S segments, F features, T samples

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurodecode.meeg.clip_loss import candidate_norms
from neuroloaders.checks import check_int, check_option, check_same_length, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.window_targets import StimulusSequences

__all__ = ["FEATURE_SCALES", "FeatureScale", "Segments", "fit_feature_scale"]

_AT_A_TIME = 1 << 25  # numbers of features in memory


class FeatureScale(NamedTuple):
    """What is subtracted from features, and what they are divided by: tensors of shape (F, 1) or (1, 1)."""

    center: Tensor
    scale: Tensor

    def as_lists(self) -> dict[str, list[float]]:
        """Return both as JSON holds them."""
        return {name: value.flatten().tolist() for name, value in self._asdict().items()}

    @classmethod
    def from_lists(cls, values: dict[str, list[float]]) -> FeatureScale:
        """Return what `as_lists` returned as tensors."""
        return cls(*(torch.tensor(values[name], dtype=torch.float64)[:, None] for name in cls._fields))


class Segments:
    """The distinct windows of sound among some events.

    Two windows are the same segment if they have the same features: of one sound, from the same frame on. What several
    subjects hear at the same place of a story is one candidate, not several.

    Parameters
    ----------
    windows : EventTable
        N windows, from `neurodecode.meeg.grid_windows` or `neurodecode.meeg.word_windows`.
    targets : StimulusSequences
        Features of the sounds, with a rate.
    tmin : float
        Begin of the sound's window in s, relative to the event.
    sfreq : float
        Rate of the recordings, Hz.
    n_times : int
        T, at that rate.
    scale : FeatureScale, optional
        Applied to features, by default none.
    labels : array of str, shape (N,), optional
        Windows with other labels are other segments: two words that begin in one frame.
    device : torch.device or str
        Where features are looked up. They must fit there at their own rate; windows are never all made at once.

    Attributes
    ----------
    number : ndarray of int64, shape (N,)
        The segment of each window.
    first : ndarray of int64, shape (S,)
        A window of each segment.
    shape : tuple (S, F, T)

    Notes
    -----
    It is also what `neurodecode.scoring.retrieve` takes as candidates.
    """

    def __init__(
        self,
        windows: EventTable,
        targets: StimulusSequences,
        *,
        tmin: float,
        sfreq: float,
        n_times: int,
        scale: FeatureScale | None = None,
        labels: Any = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(targets, StimulusSequences) or targets.sfreq is None:
            advice = "StimulusSequences(features, sfreq=50.0), with the features of each sound."
            raise invalid("targets", "be StimulusSequences with a rate", targets, advice, kind=TypeError)
        if len(windows) == 0 or "stimulus_start" not in windows.extra:
            advice = "Make them with grid_windows or word_windows."
            raise invalid("windows", "have the column 'stimulus_start' and at least one row", windows, advice)
        frame = np.rint((windows.extra["stimulus_start"] + tmin) * targets.sfreq).astype(np.int64)
        keys = [windows.stimulus, frame]
        if labels is not None:
            labels = np.asarray(labels, dtype=str)
            check_same_length(windows=windows, labels=labels)
            keys.append(labels)
        # Sorted by sound, place and label: the same segments in the same order, whoever heard them first.
        codes = np.stack([np.unique(key, return_inverse=True)[1] for key in keys], axis=1)
        _, first, number = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        self.first, self.number = first, number.reshape(-1)
        self.device = torch.device(device)
        self._lookup = targets.for_windows(windows.select(first), tmin, sfreq, n_times).to(self.device)
        self._scale = None if scale is None else FeatureScale(*(part.float().to(self.device) for part in scale))
        self.dtype = np.dtype(np.float32)
        probe = self.features(torch.zeros(1, dtype=torch.int64, device=self.device))
        self.shape = (len(first), *probe.shape[1:])
        self._norms: Tensor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> Tensor:
        """Return the features of some segments: numbers or a slice."""
        if isinstance(which, slice):
            which = torch.arange(*which.indices(len(self)))
        return self.features(torch.as_tensor(np.asarray(which)).to(self.device))

    def __repr__(self) -> str:
        return (
            f"Segments({len(self)} of {len(self.number)} windows, {self.shape[1]} features x {self.shape[2]} samples)"
        )

    def features(self, numbers: Tensor) -> Tensor:
        """Return the features of segments, of numbers int64 (n,): float32, shape (n, F, T), on the device."""
        found = self._lookup(numbers).float()
        return found if self._scale is None else (found - self._scale.center) / self._scale.scale

    def norms(self, numbers: Tensor) -> Tensor:
        """Return `candidate_norms` of segments, of numbers int64 (n,); all are computed once, piece by piece."""
        if self._norms is None:
            self._norms = torch.cat([candidate_norms(part) for part in self.pieces()])
        return self._norms.index_select(0, numbers)

    def pieces(self, chunk_size: int | None = None) -> Iterator[Tensor]:
        """Yield the features of all segments in order, some at a time.

        Parameters
        ----------
        chunk_size : int, optional
            Segments at a time; by default about 100 MB.
        """
        size = max(1, _AT_A_TIME // (self.shape[1] * self.shape[2])) if chunk_size is None else chunk_size
        check_int("chunk_size", size, at_least=1)
        for first in range(0, len(self), size):
            yield self[first : min(first + size, len(self))]


def _moments(segments: Segments) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each feature, float64, shape (F, 1)."""
    n, total = 0, 0.0
    for part in segments.pieces():
        total = total + part.double().sum(dim=(0, 2))
        n += part.shape[0] * part.shape[2]
    mean = (total / n)[:, None]
    squares = sum(((part.double() - mean) ** 2).sum(dim=(0, 2)) for part in segments.pieces())
    return mean.cpu(), (squares / n)[:, None].cpu()


def _of_all(segments: Segments) -> FeatureScale:
    mean, variance = _moments(segments)
    center = mean.mean()
    return _positive(center.reshape(1, 1), (variance + (mean - center) ** 2).mean().reshape(1, 1))


def _of_each(segments: Segments) -> FeatureScale:
    return _positive(*_moments(segments))


def _none(segments: Segments) -> FeatureScale:
    return FeatureScale(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))


def _positive(center: Tensor, variance: Tensor) -> FeatureScale:
    return FeatureScale(center, torch.where(variance > 0, variance, 1.0).sqrt())


FEATURE_SCALES: dict[str, Callable[[Segments], FeatureScale]] = {
    # One mean and one standard deviation for all features, as Défossez et al. 2023.
    "all": _of_all,
    # Of each feature: then quiet features count as much as loud ones.
    "each": _of_each,
    "none": _none,
}


def fit_feature_scale(segments: Segments, how: str = "all") -> FeatureScale:
    """Return how features are standardised, from those of training segments.

    Parameters
    ----------
    segments : Segments
        Of the training, without a scale.
    how : str
        A key of `FEATURE_SCALES`.

    Returns
    -------
    FeatureScale
        float64, on the CPU. A feature that never changes is divided by 1.
    """
    return FEATURE_SCALES[check_option("how", how, FEATURE_SCALES)](segments)
