"""How speech is decoded: the window, the network, the training; the published settings are the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neurodecode.meeg.clip_loss import FORMS
from neurodecode.meeg.config import BRAIN_MODULES, BrainModuleConfig
from neurodecode.meeg.segments import FEATURE_SCALES
from neurodecode.meeg.spiking import SpikingBrainConfig
from neuroloaders.checks import check_int, check_number, check_option, invalid
from neuroloaders.window_times import baseline_samples, n_samples
from snn.training.config import AMP

__all__ = ["MONITORS", "NETWORKS", "TRAIN_ON", "SpeechConfig"]

# Name in files -> configuration of a network.
NETWORKS: dict[str, type] = {"BrainModule": BrainModuleConfig, "SpikingBrainModule": SpikingBrainConfig}

TRAIN_ON = {
    "grid": "windows at even steps through the blocks, as Défossez et al. 2023",
    "words": "windows around words, as those that are tested",
}

MONITORS = {
    "top_1": "share of validation windows whose segment is the nearest of all distinct ones",
    "top_10": "is among the ten nearest",
    "percentile": "share of other segments that are less near: 0.5 is chance",
    "loss": "cross entropy over all distinct validation segments",
}


@dataclass(frozen=True, kw_only=True)
class SpeechConfig:
    """Settings of a `SpeechDecoder`; the defaults are those of Défossez et al. 2023 [1]_.

    Parameters
    ----------
    network : BrainModuleConfig, SpikingBrainConfig or str
        The network, with an output at each sample; or a key of `neurodecode.meeg.BRAIN_MODULES`.
    tmin, tmax : float
        Ends of the window of brain data in s, relative to a word or a step.
    lag_s : float
        How much later than sound the brain is: the network sees the window from ``tmin + lag_s`` on, the sound is that
        from `tmin` to ``tmax - lag_s``.
    baseline : (float or None, float or None), optional
        As for `neuroloaders.window_loader.WindowLoader`.
    clamp : float, optional
        Limit of scaled values.
    step_s : float
        Distance of training windows, in s.
    train_on : {"grid", "words"}
        Which windows are trained and validated on, a key of `TRAIN_ON`.
    feature_scale : {"all", "each", "none"}
        How features are standardised, a key of `neurodecode.meeg.FEATURE_SCALES`.
    loss : {"paper", "symmetric"}
        A key of `neurodecode.meeg.FORMS`.
    mask_duplicates, gather : bool
        As for `neurodecode.meeg.ClipLoss`.
    lr : float
        Learning rate of Adam.
    betas : (float, float)
        Of Adam.
    epochs : int
        At most.
    max_batches : int, optional
        Batches of an epoch, at most.
    batch_size : int
        Windows in a batch of all processes together.
    patience : int, optional
        Epochs without a better one after which training ends.
    monitor : str
        What "better" means on the validation windows, a key of `MONITORS`.
    amp : {"off", "bf16", "fp16"}
        Number format of the network.
    seed : int
        Of weights, order and sensor dropout.

    Notes
    -----
    Deviations: [1]_ watches the validation loss within batches; here it is the mean rank among all distinct validation
    segments, which the size of batches does not change and which does not reach its limit as top-10 does.
    ``monitor="loss"`` is the loss over all of them.
    Duplicates in a batch are not taken for wrong answers; ``mask_duplicates=False`` does, as the reference code.

    References
    ----------
    .. [1] Défossez, Caucheteux, Rapin, Kabeli & King, Nature Machine Intelligence 5 (2023),
       doi:10.1038/s42256-023-00714-5.

    Examples
    --------
    >>> config = SpeechConfig()
    >>> config.n_lag(120.0), config.n_times(120.0)
    (18, 343)
    """

    network: Any = BRAIN_MODULES["defossez"]
    tmin: float = -0.5
    tmax: float = 2.5
    lag_s: float = 0.15
    baseline: tuple[float | None, float | None] | None = (None, 0.0)
    clamp: float | None = 20.0
    step_s: float = 0.5
    train_on: str = "grid"
    feature_scale: str = "all"
    loss: str = "paper"
    mask_duplicates: bool = True
    gather: bool = True
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    epochs: int = 200
    max_batches: int | None = 1200
    batch_size: int = 256
    patience: int | None = 10
    monitor: str = "percentile"
    amp: str = "off"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.network, str):
            object.__setattr__(self, "network", BRAIN_MODULES[check_option("network", self.network, BRAIN_MODULES)])
        if not isinstance(self.network, tuple(NETWORKS.values())):
            advice = "BRAIN_MODULES holds some."
            raise invalid(
                "network", "be a BrainModuleConfig or SpikingBrainConfig", self.network, advice, kind=TypeError
            )
        if self.network.aggregation is not None:
            advice = "dataclasses.replace(network, aggregation=None)"
            raise invalid(
                "network", "have an output at each sample", f"aggregation={self.network.aggregation!r}", advice
            )
        for name in ("tmin", "tmax", "lag_s"):
            check_number(name, getattr(self, name))
        if not 0 <= self.lag_s < self.tmax - self.tmin:
            raise invalid("lag_s", f"lie in the window, from 0 to {self.tmax - self.tmin:g} s", f"{self.lag_s:g}")
        baseline_samples(self.baseline, self.tmin, self.tmax, 1000.0)
        if self.baseline is not None:
            object.__setattr__(self, "baseline", tuple(self.baseline))
        if self.clamp is not None:
            check_number("clamp", self.clamp, above=0)
        check_number("step_s", self.step_s, above=0)
        options = {
            "train_on": TRAIN_ON,
            "feature_scale": FEATURE_SCALES,
            "loss": FORMS,
            "monitor": MONITORS,
            "amp": AMP,
        }
        for name, allowed in options.items():
            check_option(name, getattr(self, name), allowed)
        check_number("lr", self.lr, above=0)
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("epochs", "batch_size"):
            check_int(name, getattr(self, name), at_least=1)
        for name in ("max_batches", "patience"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), at_least=1)
        check_int("seed", self.seed, at_least=0)

    def n_lag(self, sfreq: float) -> int:
        """Return the lag in samples."""
        return round(self.lag_s * sfreq)

    def n_times(self, sfreq: float) -> int:
        """Return T, the samples that the network sees and the sound has."""
        n = n_samples(self.tmin, self.tmax, sfreq) - self.n_lag(sfreq)
        if n < 1:
            raise invalid("lag_s", "leave a sample of the window", f"{self.lag_s:g} s at {sfreq:g} Hz")
        return n

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        out = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kind = next(name for name, cls in NETWORKS.items() if isinstance(self.network, cls))
        settings = {f.name: getattr(self.network, f.name) for f in dataclasses.fields(self.network)}
        return {**out, "network": {"kind": kind, "settings": settings}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpeechConfig:
        """Return what `as_dict` returned as settings."""
        network = NETWORKS[values["network"]["kind"]](**values["network"]["settings"])
        return cls(**{**values, "network": network})
