"""What a decoder of images is trained on, contrast and squared error together, and what tells its best epoch."""

# B windows, I images, F features

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.clip_loss import FORMS, ClipLoss, candidate_norms, clip_scores
from neurodecode.meeg.gathering import Rows, n_processes
from neuroloaders.checks import check_number

__all__ = ["HEADS", "ImageNetwork", "ImageObjective", "heads_of"]

HEADS = {"clip": "for retrieval: trained by contrast", "mse": "for generation: trained by the squared error"}


def heads_of(clip_weight: float) -> tuple[str, ...]:
    """Return the heads that an objective with this weight trains: one without weight is not there."""
    check_number("clip_weight", clip_weight, at_least=0, at_most=1)
    return tuple(name for name, weight in (("clip", clip_weight), ("mse", 1 - clip_weight)) if weight > 0)


class ImageNetwork(nn.Module):
    """A network with the sensor positions of its recordings and the contrastive loss: all that learns, in one module.

    Parameters
    ----------
    module : Module
        A `BrainModule` with outputs by name, some of `HEADS`.
    clip : ClipLoss
        The contrastive loss.
    positions : Tensor, shape (R, C, 2)
        Places of the sensors of each recording.
    """

    def __init__(self, module: nn.Module, clip: ClipLoss, positions: Tensor) -> None:
        super().__init__()
        self.module, self.clip = module, clip
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor, subjects: Tensor, recordings: Tensor) -> dict[str, Tensor]:
        """Return what each head says, (B, F), of windows (B, C, T)."""
        return self.module(x, subjects, self.positions, recordings)


class ImageObjective:
    r"""Loss and metrics for `snn.training.fit`, of targets that are numbers of images.

    Parameters
    ----------
    network : ImageNetwork
        Whose mode tells training from validation.
    train, valid : Tensor, shape (I, F)
        Features of the images of each part, on the device.
    clip_weight : float
        :math:`\lambda`, from 0 to 1.

    Notes
    -----
    .. math:: L = \lambda L_\mathrm{CLIP} + (1 - \lambda) L_\mathrm{MSE}

    as [1]_, with :math:`L_\mathrm{MSE}` the mean over windows and features. In training, candidates are the images of
    the batch; in validation all validation images, so that scores do not depend on batches. Metrics are of the head
    "clip" if there is one, else of "mse", and by its cosine to the candidates.

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812, equations 1 to 3.
    """

    def __init__(self, network: ImageNetwork, train: Tensor, valid: Tensor, clip_weight: float) -> None:
        self.network, self.clip_weight = network, check_number("clip_weight", clip_weight, at_least=0, at_most=1)
        self.tables = {True: train, False: valid}
        self.norms = {mode: candidate_norms(table) for mode, table in self.tables.items()}
        self.metrics: dict[str, Callable[[dict[str, Tensor], Tensor], Tensor]] = {
            "top_1": lambda output, target: (self._above(output, target) < 1).double(),
            "top_5": lambda output, target: (self._above(output, target) < 5).double(),
            "percentile": self._percentile,
        }

    def __call__(self, output: dict[str, Tensor], target: Tensor) -> Tensor:
        """Return the loss of a batch, the mean over its windows."""
        training = self.network.training
        table, norms = self.tables[training], self.norms[training]
        total = torch.zeros((), device=target.device)
        if "clip" in output:
            total = total + self.clip_weight * self._contrast(output["clip"], target, table, norms, training)
        if "mse" in output:
            error = F.mse_loss(output["mse"].float(), table.index_select(0, target))
            total = total + (1 - self.clip_weight) * error
        return total

    def _contrast(self, estimates: Tensor, target: Tensor, table: Tensor, norms: Tensor, training: bool) -> Tensor:
        clip = self.network.clip
        if not training:
            scores = self._scores(estimates, table, norms)
            return F.cross_entropy(scores if clip.log_scale is None else scores * clip.log_scale.exp(), target)
        loss = clip(estimates, lambda k: table.index_select(0, k), target, norms=lambda k: norms.index_select(0, k))
        if clip.gather and n_processes() > 1:
            # `clip` scales for an average over processes; `fit` weighs each by its share of the batch, and sums.
            rows = Rows(len(target), estimates.device)
            loss = loss * (rows.total / (n_processes() * len(target)))
        return loss

    def _scores(self, estimates: Tensor, table: Tensor, norms: Tensor) -> Tensor:
        return clip_scores(estimates, table, norms=norms, cosine=FORMS[self.network.clip.form].cosine)

    def _above(self, output: dict[str, Tensor], target: Tensor) -> Tensor:
        """Return how many candidates have a larger score, and half of those with the same, shape (B,)."""
        training = self.network.training
        table, norms = self.tables[training], self.norms[training]
        estimates = output.get("clip", output.get("mse"))
        if training:
            rivals = target[:, None] != target[None]
            scores = self._scores(estimates, table.index_select(0, target), norms.index_select(0, target))
            true = scores.diagonal()[:, None]
        else:
            rivals = torch.arange(len(table), device=target.device)[None] != target[:, None]
            scores = self._scores(estimates, table, norms)
            true = scores.gather(1, target[:, None])
        return ((scores > true) & rivals).sum(1) + 0.5 * ((scores == true) & rivals).sum(1)

    def _percentile(self, output: dict[str, Tensor], target: Tensor) -> Tensor:
        n = len(target) if self.network.training else len(self.tables[False])
        return 1 - self._above(output, target).double() / max(n - 1, 1)
