"""Training of small VDVAEs, for demonstrations and for images that the released network does not know."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch

from neurodecode.features.pixels import check_images
from neurodecode.fmri.vdvae import VDVAE, VDVAEConfig
from neuroloaders.checks import check_fraction, check_int, check_number, invalid

__all__ = ["VDVAETraining", "train_vdvae"]


@dataclass(frozen=True, kw_only=True)
class VDVAETraining:
    """How a VDVAE is trained.

    Parameters
    ----------
    steps : int
        Steps of the optimiser (AdamW).
    batch_size : int
        Images a step.
    lr : float
        Learning rate, after a warm-up over the first tenth of the steps and falling to 0 along a cosine.
    rate_weight : float
        Weight of the rate against the distortion. 1 is the evidence bound, for which small networks need long
        training before they use their latents. With 0.1, minutes on a CPU give latents from which images can be
        recognised, but what is drawn from the prior then looks like nothing (Higgins et al. 2017).
    rate_warmup : float
        Share of the steps over which the weight rises from 0, so that latents come into use (Sønderby et al. 2016).
    ema : float
        Decay of the moving average of the weights, which is what is returned.
    clip : float
        Largest norm of the gradient.
    skip : float
        Steps with a gradient norm above this are left out, as in the reference: deep hierarchies have rare huge ones.
    seed : int
        Of weights, batches and latents.
    """

    steps: int = 1000
    batch_size: int = 32
    lr: float = 2e-3
    rate_weight: float = 1.0
    rate_warmup: float = 0.5
    ema: float = 0.99
    clip: float = 200.0
    skip: float = 1e6
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            check_int(name, getattr(self, name), at_least=1)
        check_int("seed", self.seed, at_least=0)
        check_fraction("ema", self.ema)
        check_fraction("rate_warmup", self.rate_warmup)
        check_number("rate_weight", self.rate_weight, at_least=0)
        for name in ("lr", "clip", "skip"):
            check_number(name, getattr(self, name), above=0)


def train_vdvae(
    images: Any, config: VDVAEConfig, training: VDVAETraining | None = None, *, progress: bool = False
) -> tuple[VDVAE, list[float]]:
    """Train a network on images.

    Parameters
    ----------
    images : tensor or array, shape (N, 3, H, W)
        Bytes, or floating point in [0, 1]; on the device to train on.
    config : VDVAEConfig
        How the network is built.
    training : VDVAETraining, optional
        How it is trained.
    progress : bool
        Show a progress bar with the loss.

    Returns
    -------
    vdvae : VDVAE
        In evaluation mode, with the averaged weights.
    history : list of float
        Negative evidence bound of each step, bits per dimension, whatever `rate_weight` is.

    Raises
    ------
    ValueError
        If there are no images, they lie outside [0, 1], or the loss is not finite.

    Notes
    -----
    The recipe of Child 2021 [1]_ in short form: AdamW with betas (0.9, 0.9) and weight decay 0.01, clipped gradients,
    steps with huge ones left out, an average of the weights. Deviations: the learning rate falls, the rate may be
    weighted (an annealed [2]_ or smaller [3]_ weight), one process, no augmentation. A seed gives the same network on
    the same machine.

    References
    ----------
    .. [1] Child, ICLR 2021, arXiv:2011.10650.
    .. [2] Sønderby et al., Ladder variational autoencoders, NIPS 2016, arXiv:1602.02282.
    .. [3] Higgins et al., beta-VAE, ICLR 2017.
    """
    from tqdm.auto import tqdm

    training = training or VDVAETraining()
    images = check_images("images", images)
    generator = torch.Generator().manual_seed(training.seed)
    vdvae = VDVAE(config, generator=generator).to(images.device).train()
    averaged = copy.deepcopy(vdvae).eval()
    optimiser = torch.optim.AdamW(vdvae.parameters(), lr=training.lr, betas=(0.9, 0.9), weight_decay=0.01)
    warm = max(training.steps // 10, 1)
    rising = max(training.rate_warmup * training.steps, 1.0)
    history: list[float] = []
    with tqdm(total=training.steps, desc="VDVAE", unit="step", disable=not progress) as bar:
        for step in range(training.steps):
            rows = torch.randint(len(images), (training.batch_size,), generator=generator).to(images.device)
            bound = vdvae.elbo(images[rows], generator=generator)
            weight = training.rate_weight * min((step + 1) / rising, 1.0)
            loss = (bound.distortion + weight * bound.rates.sum(1)).mean()
            if not torch.isfinite(loss):
                raise invalid("lr", "let the loss stay finite", f"{training.lr:g}, at step {step}", "Lower it.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(vdvae.parameters(), training.clip)
            for group in optimiser.param_groups:
                group["lr"] = training.lr * _lr_factor(step, warm, training.steps)
            if norm < training.skip:
                optimiser.step()
            # At the beginning the average follows quickly, or it would hold the weights of the start for long.
            decay = min(training.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                for kept, new in zip(averaged.parameters(), vdvae.parameters(), strict=True):
                    kept.lerp_(new, 1 - decay)
            history.append(bound.bits.mean().item())
            bar.set_postfix(bits=f"{history[-1]:.2f}", refresh=False)
            bar.update()
    return averaged, history


def _lr_factor(step: int, warm: int, steps: int) -> float:
    """Return the learning rate relative to its largest value: up a line, down a cosine."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
