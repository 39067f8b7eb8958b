"""How moments are decoded: the window that they are cut from, the network of each, the training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurodecode.meeg.clip_loss import FORMS
from neurodecode.meeg.config import BRAIN_MODULES, BrainModuleConfig
from neurodecode.meeg.image_config import IMAGE_SCALES
from neuroloaders.checks import check_fraction, check_int, check_number, check_option, invalid
from neuroloaders.window_times import baseline_samples

__all__ = ["SCALE_BY", "TIME_MONITORS", "TimeConfig"]

SCALE_BY = {
    "recording": "center and scale of each recording, from its own training windows; one without any is refused",
    "subject": "those of each subject, from the training windows of all recordings, also for recordings without any",
}

TIME_MONITORS = {
    "loss": "the loss among all distinct validation stimuli, or the cross entropy of classes",
    "rank": "mean relative rank of the true stimulus or class among all: 0.5 is chance",
}


@dataclass(frozen=True, kw_only=True)
class TimeConfig:
    """Settings of a `TimeResolvedDecoder`; the defaults are those of Benchetrit et al. 2023 [1]_, unless noted.

    Parameters
    ----------
    network : BrainModuleConfig or str
        With an aggregation over time; or a key of `neurodecode.meeg.BRAIN_MODULES`.
    tmin, tmax : float
        Ends in s of the span that all windows lie in, relative to the event. Baseline and scale are those of the span.
    baseline : (float or None, float or None), optional
        As for `WindowLoader`.
    clamp : float, optional
        Limit of scaled values.
    scale_by : {"recording", "subject"}
        What has a center and scale of its own, a key of `SCALE_BY`.
    clip_weight : float
        Share of the contrastive loss, in [0, 1]; the rest is the mean squared error. 1: one head only. Not used for
        classes.
    loss : {"paper", "symmetric"}
        The contrastive one, a key of `neurodecode.meeg.FORMS`.
    mask_duplicates : bool
        As for `neurodecode.meeg.ClipLoss`.
    feature_scale : str
        How features are standardised, a key of `neurodecode.meeg.image_config.IMAGE_SCALES`.
    label_smoothing : float
        For classes, in training.
    n_networks : int
        So many are trained for each window, from different weights; what they say is averaged.
    noise : float
        Standard deviation of white noise that is added to training windows, in units of scaled channels.
    lr, weight_decay : float
        Of AdamW; without decay it is Adam.
    batch_size, epochs : int
        Presentations in a batch; epochs at most.
    patience : int, optional
        Epochs without a better one after which a window has its network. Each window has its own best epoch.
    monitor : {"loss", "rank"}
        What "better" means on validation presentations, lower being better: a key of `TIME_MONITORS`.
    at_once : int, optional
        Windows that are trained together; by default as many as can be without padding their samples by more than a
        quarter. Less takes less memory. The networks are the same, but for rounding.
    seed : int
        Of weights, order, noise and sensor dropout.

    Notes
    -----
    Deviations, as of `ImageConfig`: features are standardised, and for early stopping validation losses are among all
    distinct validation stimuli, not among those of a batch. (`ImageConfig` stops by top-5, which few stimuli saturate.)

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.
    """

    network: Any = BRAIN_MODULES["benchetrit"]
    tmin: float = -0.5
    tmax: float = 1.0
    baseline: tuple[float | None, float | None] | None = (None, 0.0)
    clamp: float | None = 20.0
    scale_by: str = "recording"
    clip_weight: float = 1.0
    loss: str = "paper"
    mask_duplicates: bool = True
    feature_scale: str = "each"
    label_smoothing: float = 0.0
    n_networks: int = 1
    noise: float = 0.0
    lr: float = 3e-4
    weight_decay: float = 0.0
    batch_size: int = 128
    epochs: int = 100
    patience: int | None = 10
    monitor: str = "loss"
    at_once: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.network, str):
            object.__setattr__(self, "network", BRAIN_MODULES[check_option("network", self.network, BRAIN_MODULES)])
        if not isinstance(self.network, BrainModuleConfig) or self.network.aggregation is None:
            advice = "Such as BRAIN_MODULES['small-images']."
            raise invalid("network", "be a BrainModuleConfig with an aggregation", self.network, advice)
        check_number("tmin", self.tmin)
        check_number("tmax", self.tmax, above=self.tmin)
        baseline_samples(self.baseline, self.tmin, self.tmax, 1000.0)
        if self.baseline is not None:
            object.__setattr__(self, "baseline", tuple(self.baseline))
        if self.clamp is not None:
            check_number("clamp", self.clamp, above=0)
        check_option("scale_by", self.scale_by, SCALE_BY)
        check_option("loss", self.loss, FORMS)
        check_option("feature_scale", self.feature_scale, IMAGE_SCALES)
        check_option("monitor", self.monitor, TIME_MONITORS)
        check_fraction("clip_weight", self.clip_weight)
        check_number("label_smoothing", self.label_smoothing, at_least=0, below=1)
        for name in ("noise", "weight_decay"):
            check_number(name, getattr(self, name), at_least=0)
        check_number("lr", self.lr, above=0)
        for name in ("batch_size", "epochs", "n_networks"):
            check_int(name, getattr(self, name), at_least=1)
        for name in ("patience", "at_once"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), at_least=1)
        check_int("seed", self.seed, at_least=0)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        out = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**out, "network": {f.name: getattr(self.network, f.name) for f in dataclasses.fields(self.network)}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TimeConfig:
        """Return what `as_dict` returned as settings."""
        return cls(**{**values, "network": BrainModuleConfig(**values["network"])})
