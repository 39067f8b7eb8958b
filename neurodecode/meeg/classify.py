"""Which of a few things was seen or heard: a brain module with classes as targets, and linear classifiers beside it."""

# N events, B batch, C channels, T samples, K classes

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neurodecode.meeg.config import BRAIN_MODULES, BrainModuleConfig
from neuroloaders.checks import check_int, check_number, check_option, invalid
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import RecordingSet
from neuroloaders.resident import ResidentLoader
from neuroloaders.runs import choose_device, generator, spawn_seeds
from neuroloaders.window_loader import WindowLoader
from snn.training import History, TrainConfig
from snn.training import fit as train_network

__all__ = ["LINEAR_KINDS", "BrainClassifier", "ClassifierConfig", "LinearClassifier"]

# Few channels, few trials: no spatial attention, one time course for all features.
_NETWORK = dataclasses.replace(
    BRAIN_MODULES["small-images"], n_heads=None, initial_linear=8, hidden=16, depth=2, kernel_size=9,
    final_width=None, latent=32,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Settings of a `BrainClassifier`; the window, baseline and clamp are also those of a `LinearClassifier`.

    Parameters
    ----------
    network : BrainModuleConfig or str
        With an aggregation over time; or a key of `neurodecode.meeg.BRAIN_MODULES`.
    tmin, tmax : float
        Ends of the window in s, relative to the event.
    baseline : (float or None, float or None), optional
        As for `WindowLoader`.
    clamp : float, optional
        Limit of scaled values.
    noise : float
        Standard deviation of the white noise that is added to training windows, in units of scaled channels: what
        keeps a network from learning some hundred trials by heart.
    label_smoothing, lr, weight_decay, epochs, batch_size, patience
        Of the training, with AdamW. The epoch with the least validation loss counts.
    n_networks : int
        So many are trained from different weights and in different order; probabilities are averaged.
    seed : int
        Of weights, order and noise.
    """

    network: Any = _NETWORK
    tmin: float = -0.1
    tmax: float = 0.8
    baseline: tuple[float | None, float | None] | None = (None, 0.0)
    clamp: float | None = 10.0
    noise: float = 1.0
    label_smoothing: float = 0.1
    lr: float = 2e-3
    weight_decay: float = 0.1
    epochs: int = 60
    batch_size: int = 64
    patience: int = 8
    n_networks: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.network, str):
            object.__setattr__(self, "network", BRAIN_MODULES[check_option("network", self.network, BRAIN_MODULES)])
        if not isinstance(self.network, BrainModuleConfig) or self.network.aggregation is None:
            advice = "Such as BRAIN_MODULES['small-images']."
            raise invalid("network", "be a BrainModuleConfig with an aggregation", self.network, advice)
        for name in ("noise", "weight_decay", "label_smoothing"):
            check_number(name, getattr(self, name), at_least=0)
        for name in ("epochs", "batch_size", "n_networks", "patience"):
            check_int(name, getattr(self, name), at_least=1)


class _Windowed:
    """Base: what becomes a window, in training and after it; its scale is that of the subject's training windows."""

    def __init__(self, config: ClassifierConfig | None = None) -> None:
        config = ClassifierConfig() if config is None else config
        if not isinstance(config, ClassifierConfig):
            raise invalid("config", "be a ClassifierConfig", config, kind=TypeError)
        self.config = config

    def _begin(self, recordings: RecordingSet, events: EventTable, labels: str) -> tuple[Tensor, Tensor, Tensor]:
        """Learn classes, subjects and scales from training events, and return windows, subjects and classes."""
        self.sfreq_, self.subjects_, self.labels_ = recordings.sfreq, recordings.subjects, labels
        self.classes_ = tuple(np.unique(events.column(labels)).tolist())
        if len(self.classes_) < 2:
            raise invalid("events", "be of at least two classes", f"{len(self.classes_)} in the column {labels!r}")
        x, subject = self._cut(recordings, events)
        shape = (len(self.subjects_), x.shape[1], 1)
        self.center_, self.scale_ = torch.zeros(shape), torch.ones(shape)
        for number in range(shape[0]):
            own = x[subject == number]
            # Of whom nothing was seen: the scale of all.
            channels = (own if len(own) else x).transpose(0, 1).flatten(1).numpy()
            low, middle, high = np.quantile(channels, [0.25, 0.5, 0.75], axis=1)
            self.center_[number, :, 0] = torch.from_numpy(middle)
            self.scale_[number, :, 0] = torch.from_numpy(np.where(high > low, high - low, 1.0))
        return self._scaled(x, subject), subject, self._numbers(events)

    def _cut(self, recordings: RecordingSet, events: EventTable) -> tuple[Tensor, Tensor]:
        """Return windows with their baseline taken away, (N, C, T), and the numbers of their subjects."""
        if recordings.sfreq != self.sfreq_:
            came = f"{recordings.sfreq:g} Hz"
            raise invalid("recordings", f"be sampled at {self.sfreq_:g} Hz, as in training", came)
        unknown = sorted(set(recordings.subjects) - set(self.subjects_))
        if unknown:
            advice = "A new subject needs training runs of his own."
            raise invalid("recordings", "be of subjects of the training", f"{unknown[0]!r}", advice)
        config = self.config
        loader = WindowLoader(
            recordings, events, tmin=config.tmin, tmax=config.tmax, baseline=config.baseline, batch_size=256
        )
        found = [(batch.x, batch.subject) for batch in loader]
        x, subject = (torch.cat(part) for part in zip(*found, strict=True))
        place = torch.tensor([self.subjects_.index(name) for name in recordings.subjects])
        return x, place[subject]

    def _scaled(self, x: Tensor, subject: Tensor) -> Tensor:
        x = (x - self.center_[subject]) / self.scale_[subject]
        return x if self.config.clamp is None else x.clamp(-self.config.clamp, self.config.clamp)

    def _numbers(self, events: EventTable) -> Tensor:
        values = events.column(self.labels_)
        unknown = sorted(set(values.tolist()) - set(self.classes_))
        if unknown:
            raise invalid("events", f"be of the classes {self.classes_}", f"{unknown[0]!r}")
        return torch.from_numpy(np.searchsorted(np.array(self.classes_), values))

    def predict_proba(self, recordings: RecordingSet, events: EventTable) -> np.ndarray:
        """Return the probability of each class for each event.

        Parameters
        ----------
        recordings : RecordingSet
            Of subjects of the training.
        events : EventTable
            N events; what they are is not looked at.

        Returns
        -------
        ndarray of float64, shape (N, K)
            In the order of `classes_`.
        """
        if not hasattr(self, "classes_"):
            raise invalid("self", "be fitted", "a classifier that is not", "Call fit() first.", kind=AttributeError)
        x, subject = self._cut(recordings, events)
        return self._probabilities(self._scaled(x, subject), subject)

    def _probabilities(self, x: Tensor, subject: Tensor) -> np.ndarray:
        raise NotImplementedError


class _Noisy(nn.Module):
    """A network whose training windows get white noise."""

    def __init__(self, module: nn.Module, positions: Tensor, noise: float) -> None:
        super().__init__()
        self.module, self.noise = module, noise
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor, subject: Tensor) -> Tensor:
        """Return a score for each class, shape (B, K), of windows (B, C, T)."""
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        return self.module(x, subject, self.positions)


class BrainClassifier(_Windowed):
    """A `BrainModule` with classes as targets: the network of the image decoder, with a softmax at its end.

    Parameters
    ----------
    config : ClassifierConfig, optional
        Window, network and training.

    Attributes
    ----------
    classes_ : tuple of str
        In the order of probabilities.
    subjects_ : tuple of str
        Whom it knows.
    modules_ : list of BrainModule
        In evaluation mode.
    center_, scale_ : Tensor, shape (S, C, 1)
        Median and interquartile range of each subject's training windows.
    histories_ : list of snn.training.History

    Notes
    -----
    All recordings must have the same channels. Networks are small, and the windows of all events are in memory.
    """

    def fit(
        self,
        recordings: RecordingSet,
        train: EventTable,
        valid: EventTable,
        *,
        labels: str = "stimulus",
        device: str | torch.device | None = None,
        progress: bool = False,
    ) -> BrainClassifier:
        """Train on some events, and keep the epoch with the least loss on others.

        Parameters
        ----------
        recordings : RecordingSet
            At one rate, with the same channels.
        train, valid : EventTable
            Events to learn from, and to choose epochs on: of other runs, if there are any.
        labels : str
            A column of the events: what is to be told apart.
        device : str or torch.device, optional
            By default a GPU if there is one.
        progress : bool
            Show a bar.

        Returns
        -------
        BrainClassifier
            Itself.
        """
        config, device = self.config, choose_device(device)
        names = {recording.ch_names for recording in recordings}
        if len(names) > 1:
            advice = "Give bandpass(..., picks=...) those that all have."
            raise invalid("recordings", "have the same channels", f"{len(names)} different sets", advice)
        x, subject, target = self._begin(recordings, train, labels)
        held, held_subject = self._cut(recordings, valid)
        held = self._scaled(held, held_subject)
        first = recordings[0]
        positions = torch.zeros(x.shape[1], 2) if first.positions is None else torch.tensor(first.positions)
        self.modules_, self.histories_ = [], []
        for number in range(config.n_networks):
            seeds = spawn_seeds(config.seed + number, "weights", "order", "noise")
            module = config.network.build(
                len(self.subjects_), len(self.classes_), n_times=x.shape[2],
                n_channels=None if config.network.n_heads is not None else x.shape[1],
                generator=generator(seeds["weights"]),
            )  # fmt: skip
            network = _Noisy(module, positions, config.noise)
            size = min(config.batch_size, len(x))
            loaders = (
                ResidentLoader(
                    x, subject, target, batch_size=size, shuffle=True, drop_last=True, device=device,
                    generator=generator(seeds["order"]),
                ),
                ResidentLoader(held, held_subject, self._numbers(valid), batch_size=1024, device=device),
            )  # fmt: skip
            settings = TrainConfig(
                epochs=config.epochs, lr=config.lr, optimizer="adamw", weight_decay=config.weight_decay,
                label_smoothing=config.label_smoothing, patience=config.patience, monitor="loss", seed=seeds["noise"],
            )  # fmt: skip
            history: History = train_network(network, *loaders, settings, device=device, progress=progress)
            self.modules_.append(module.eval())
            self.histories_.append(history)
        self.positions_ = positions
        return self

    def _probabilities(self, x: Tensor, subject: Tensor) -> np.ndarray:
        device = next(self.modules_[0].parameters()).device
        found = []
        with torch.no_grad():
            for first in range(0, len(x), 1024):
                part = slice(first, first + 1024)
                given = (x[part].to(device), subject[part].to(device), self.positions_.to(device))
                found.append(torch.stack([module(*given).double().softmax(1) for module in self.modules_]).mean(0))
        return torch.cat(found).cpu().numpy()


class LinearClassifier(_Windowed):
    """A linear classifier of whole windows for each subject: what a network has to reach.

    Parameters
    ----------
    config : ClassifierConfig, optional
        The window; what belongs to networks is not used.
    kind : str
        A key of `LINEAR_KINDS`.

    Attributes
    ----------
    classes_, subjects_, center_, scale_
        As of `BrainClassifier`.
    estimators_ : dict of int to estimator
        For each subject of the training, by number.
    """

    def __init__(self, config: ClassifierConfig | None = None, *, kind: str = "lda") -> None:
        super().__init__(config)
        self.kind = check_option("kind", kind, LINEAR_KINDS)

    def fit(
        self, recordings: RecordingSet, train: EventTable, valid: EventTable | None = None, *, labels: str = "stimulus"
    ) -> LinearClassifier:
        """Fit one classifier a subject; `valid`, which a network chooses its epochs on, is learned from, too."""
        if valid is not None and len(valid):
            train = concatenate_events([train, valid])
        x, subject, target = self._begin(recordings, train, labels)
        self.estimators_ = {}
        for number in torch.unique(subject).tolist():
            rows = subject == number
            features = LINEAR_KINDS[self.kind].features(x[rows].numpy(), self.sfreq_)
            self.estimators_[number] = LINEAR_KINDS[self.kind].estimator().fit(features, target[rows].numpy())
        return self

    def _probabilities(self, x: Tensor, subject: Tensor) -> np.ndarray:
        out = np.zeros((len(x), len(self.classes_)))
        for number in torch.unique(subject).tolist():
            if number not in self.estimators_:
                advice = "It is fitted within subjects."
                raise invalid("recordings", "be of subjects with training events", self.subjects_[number], advice)
            rows, estimator = (subject == number).numpy(), self.estimators_[number]
            found = estimator.predict_proba(LINEAR_KINDS[self.kind].features(x[rows].numpy(), self.sfreq_))
            out[np.ix_(rows, estimator.classes_)] = found
        return out


class _Linear(NamedTuple):
    features: Callable[[np.ndarray, float], np.ndarray]
    estimator: Callable[[], Any]


def _flat(x: np.ndarray, sfreq: float) -> np.ndarray:
    return x.reshape(len(x), -1)


def _log_power(x: np.ndarray, sfreq: float) -> np.ndarray:
    """Return the logarithm of power at whole Hz up to the rate's two fifths, each channel by itself."""
    from scipy.signal import welch

    n = round(sfreq)
    if x.shape[2] < n:
        raise invalid("tmax", "make windows of at least 1 s, for power at whole Hz", f"{x.shape[2] / sfreq:g} s")
    _, power = welch(x, fs=sfreq, nperseg=n, noverlap=n // 2)
    return np.log(power[..., 1 : int(0.4 * sfreq) + 1] + 1e-12).reshape(len(x), -1)


def _lda() -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=np.logspace(-5, 0, 6), cv=4, scoring="neg_log_loss", max_iter=2000, l1_ratios=(0,),
            use_legacy_attributes=False,
        ),
    )  # fmt: skip


LINEAR_KINDS: dict[str, _Linear] = {
    # Linear discriminant analysis of all samples, with the shrinkage of Ledoit & Wolf.
    "lda": _Linear(_flat, _lda),
    # Logistic regression of the same, its penalty by cross-validation over training windows.
    "logistic": _Linear(_flat, _logistic),
    # The same of the logarithm of power at whole Hz: for rhythms, whose phase is not known.
    "power": _Linear(_log_power, _logistic),
}
