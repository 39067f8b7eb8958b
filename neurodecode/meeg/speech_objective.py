"""What a decoder of speech is trained on, and what tells its best epoch: retrieval of the true window of sound."""

# B windows, S segments

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.clip_loss import FORMS, ClipLoss, clip_scores
from neurodecode.meeg.gathering import Rows, n_processes
from neurodecode.meeg.segments import Segments

__all__ = ["SpeechNetwork", "SpeechObjective", "all_scores"]


class SpeechNetwork(nn.Module):
    """A network with the sensor positions of its recordings and the loss, so that all that learns is in one module.

    Parameters
    ----------
    module : Module
        A `BrainModule` or `SpikingBrainModule` with an output at each sample.
    clip : ClipLoss
        The loss.
    positions : Tensor, shape (R, C, 2)
        Places of the sensors of each recording.
    train_mode : bool
        False: `module` stays in evaluation mode while others learn, so that its batch normalisation stays as it is.
    """

    def __init__(self, module: nn.Module, clip: ClipLoss, positions: Tensor, *, train_mode: bool = True) -> None:
        super().__init__()
        self.module, self.clip, self.train_mode = module, clip, train_mode
        self.register_buffer("positions", positions, persistent=False)

    def train(self, mode: bool = True) -> SpeechNetwork:
        """Set the mode; `module` follows if it may."""
        super().train(mode)
        if not self.train_mode:
            self.module.eval()
        return self

    def forward(self, x: Tensor, subjects: Tensor, recordings: Tensor) -> Tensor:
        """Return estimates, shape (B, F, T), of windows (B, C, T)."""
        return self.module(x, subjects, self.positions, recordings)


class _Found(NamedTuple):
    """What was found of the last batch: each metric is read from it."""

    output: Tensor  # held, so that no other batch comes to lie at its place in memory
    loss: Tensor
    above: Tensor  # candidates with a larger score, and half of those with the same
    n_candidates: int


class SpeechObjective:
    """Loss and metrics for `snn.training.fit`, of targets that are numbers of segments.

    Parameters
    ----------
    network : SpeechNetwork
        Whose mode tells training from validation.
    train, valid : Segments
        What the numbers stand for.

    Notes
    -----
    In training, candidates are those of the batch; with several processes, of all their shares [1]_. In validation,
    they are all distinct validation segments, so that the numbers depend neither on the size of batches nor on their
    order. Metrics of training batches are of a process's own share.

    References
    ----------
    .. [1] Défossez et al., Nature Machine Intelligence 5 (2023), doi:10.1038/s42256-023-00714-5.
    """

    def __init__(self, network: SpeechNetwork, train: Segments, valid: Segments) -> None:
        self.network, self.train, self.valid = network, train, valid
        self._found: _Found | None = None
        self.metrics = {"top_1": self._top_1, "top_10": self._top_10, "percentile": self._percentile}

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch, the mean over its windows."""
        if not self.network.training:
            return self._look(output, target).loss
        clip = self.network.clip
        loss = clip(output, self.train.features, target, norms=self.train.norms)
        if clip.gather and n_processes() > 1:
            # `clip` scales for an average over processes; `fit` weighs each by its share of the batch, and sums.
            rows = Rows(len(target), output.device)
            loss = loss * (rows.total / (n_processes() * len(target)))
        return loss

    def _look(self, output: Tensor, target: Tensor) -> _Found:
        if self._found is not None and self._found.output.data_ptr() == output.data_ptr():
            return self._found
        clip = self.network.clip
        if self.network.training:
            scores = clip_scores(output, self.train.features(target), norms=self.train.norms(target))
            rivals = target[:, None] != target[None]
            own = torch.arange(len(target), device=output.device)
        else:
            scores = all_scores(output, self.valid, cosine=FORMS[clip.form].cosine)
            scores = scores if clip.log_scale is None else scores * clip.log_scale.exp()
            own = target
            rivals = torch.arange(scores.shape[1], device=output.device)[None] != own[:, None]
        true = scores.gather(1, own[:, None])
        above = ((scores > true) & rivals).sum(1) + 0.5 * ((scores == true) & rivals).sum(1)
        self._found = _Found(output, F.cross_entropy(scores, own), above, scores.shape[1])
        return self._found

    def _top_1(self, output: Tensor, target: Tensor) -> Tensor:
        return (self._look(output, target).above < 1).double()

    def _top_10(self, output: Tensor, target: Tensor) -> Tensor:
        return (self._look(output, target).above < 10).double()

    def _percentile(self, output: Tensor, target: Tensor) -> Tensor:
        found = self._look(output, target)
        self._found = None
        return 1 - found.above.double() / max(found.n_candidates - 1, 1)


def all_scores(estimates: Tensor, segments: Segments, *, cosine: bool = False) -> Tensor:
    """Return `clip_scores` with all segments, whose features are made piece by piece.

    Parameters
    ----------
    estimates : Tensor, shape (B, F, T)
        What a network says.
    segments : Segments
        S candidates, on the same device.
    cosine : bool
        As for `clip_scores`.

    Returns
    -------
    Tensor, shape (B, S)
    """
    segments.norms(torch.zeros(1, dtype=torch.int64, device=segments.device))
    scores, first = [], 0
    for part in segments.pieces():
        numbers = torch.arange(first, first + len(part), device=segments.device)
        scores.append(clip_scores(estimates, part, norms=segments.norms(numbers), cosine=cosine))
        first += len(part)
    return torch.cat(scores, dim=1)
