"""What stacked networks are trained on, and what tells the best epoch of each: one number for each model."""

# M models, B batch, N windows, F features, K classes, S candidates

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.clip_loss import EPS, FORMS, MAX_SCALE
from neurodecode.meeg.image_objective import heads_of
from neuroloaders.checks import check_fraction, check_int, check_option

__all__ = ["ClassObjective", "RetrievalObjective"]


class RetrievalObjective(nn.Module):
    r"""Contrastive loss and mean squared error of M models at once [1]_.

    Parameters
    ----------
    n_models : int
        M.
    clip_weight : float
        Share of the contrastive loss.
    loss : {"paper", "symmetric"}
        A key of `neurodecode.meeg.FORMS`; a learned temperature is one for each model.
    mask_duplicates : bool
        As for `neurodecode.meeg.ClipLoss`.
    temperature : float
        Where a learned one starts.

    Attributes
    ----------
    log_scale : Parameter, shape (M,), or None
    heads : tuple of str
        Those of "clip" and "mse" that have a share.

    Notes
    -----
    .. math:: L = w L_\mathrm{CLIP} + (1 - w) L_\mathrm{MSE}

    with the loss of `ClipLoss` over the batch, and the mean over batch and features, as in `ImageObjective`; on one
    process. Models share nothing, so that the gradient of the sum of their losses is that of each alone.

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.
    """

    def __init__(
        self,
        n_models: int,
        clip_weight: float = 1.0,
        *,
        loss: str = "paper",
        mask_duplicates: bool = True,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        check_int("n_models", n_models, at_least=1)
        self.clip_weight = check_fraction("clip_weight", clip_weight)
        self.form, self.mask_duplicates = FORMS[check_option("loss", loss, FORMS)], bool(mask_duplicates)
        self.heads = heads_of(self.clip_weight)
        self.log_scale = None
        if self.form.learned_temperature:
            self.log_scale = nn.Parameter(torch.full((n_models,), -math.log(temperature)))

    def forward(self, estimates: dict[str, Tensor], candidates: Tensor, numbers: Tensor) -> Tensor:
        """Return the loss of each model, shape (M,), in training.

        Parameters
        ----------
        estimates : dict of str to Tensor, shape (M, B, F)
            By head.
        candidates : Tensor, shape (B, F)
            Features of the stimulus of each item.
        numbers : Tensor of int64, shape (B,)
            Numbers of these stimuli.
        """
        own = torch.arange(len(numbers), device=numbers.device)
        same = None
        if self.mask_duplicates:
            same = (numbers[:, None] == numbers[None]) & (own[:, None] != own[None])
        return self._loss(estimates, candidates, candidates, own, same)

    def validate(self, estimates: dict[str, Tensor], candidates: Tensor, own: Tensor) -> dict[str, Tensor]:
        """Return the measures of `TIME_MONITORS` for each model, shape (M,) each.

        Parameters
        ----------
        estimates : dict of str to Tensor, shape (M, N, F)
            By head.
        candidates : Tensor, shape (S, F)
            Features of all distinct stimuli.
        own : Tensor of int64, shape (N,)
            Which of them is the true one.
        """
        scores = self._scores(estimates[self.heads[0]], candidates)
        loss = self._loss(estimates, candidates, candidates[own], own, None)
        return {"loss": loss, "rank": relative_ranks(scores, own)}

    def _loss(
        self, estimates: dict[str, Tensor], candidates: Tensor, true: Tensor, own: Tensor, same: Tensor | None
    ) -> Tensor:
        total: Tensor | float = 0.0
        if "clip" in self.heads:
            scores = self._scores(estimates["clip"], candidates)
            if self.log_scale is not None:
                if self.training:
                    with torch.no_grad():
                        self.log_scale.clamp_(max=math.log(MAX_SCALE))
                scores = scores * self.log_scale.exp()[:, None, None]
            if same is not None:
                scores = scores.masked_fill(same, -math.inf)
            clip = _cross_entropy(scores, own)
            # The other way only in a batch, where estimates and candidates come in pairs.
            if self.form.both_directions and self.training:
                clip = (clip + _cross_entropy(scores.transpose(1, 2), own)) / 2
            total = self.clip_weight * clip
        if "mse" in self.heads:
            total = total + (1 - self.clip_weight) * (estimates["mse"] - true).square().mean((1, 2))
        return total

    def _scores(self, estimates: Tensor, candidates: Tensor) -> Tensor:
        scores = (estimates @ candidates.T) / (EPS + torch.linalg.vector_norm(candidates, dim=1))
        if self.form.cosine:
            scores = scores / (EPS + torch.linalg.vector_norm(estimates, dim=2, keepdim=True))
        return scores


class ClassObjective(nn.Module):
    """Cross entropy of M models at once, of classes; the head is called "classes".

    Parameters
    ----------
    label_smoothing : float
        In training.
    """

    heads = ("classes",)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, estimates: dict[str, Tensor], candidates: None, numbers: Tensor) -> Tensor:
        """Return the loss of each model, shape (M,), of scores (M, B, K) and classes (B,)."""
        return _cross_entropy(estimates["classes"], numbers, self.label_smoothing)

    def validate(self, estimates: dict[str, Tensor], candidates: None, own: Tensor) -> dict[str, Tensor]:
        """Return the measures of `TIME_MONITORS` for each model, shape (M,) each."""
        scores = estimates["classes"]
        return {"loss": _cross_entropy(scores, own), "rank": relative_ranks(scores, own)}


def relative_ranks(scores: Tensor, own: Tensor) -> Tensor:
    """Return the mean relative rank of the true candidate, from 0 to 1, shape (M,); scores (M, N, S), own (N,)."""
    true = scores.gather(2, own[None, :, None].expand(len(scores), -1, 1))
    above = (scores > true).sum(2) + 0.5 * ((scores == true).sum(2) - 1)
    return above.double().mean(1) / max(scores.shape[2] - 1, 1)


def _cross_entropy(scores: Tensor, own: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean over rows for each model, shape (M,), of scores (M, B, S)."""
    rows = own.repeat(len(scores))
    each = F.cross_entropy(scores.flatten(0, 1), rows, reduction="none", label_smoothing=label_smoothing)
    return each.view(scores.shape[:2]).mean(1)
