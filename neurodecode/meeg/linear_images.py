"""The linear decoder of images: ridge regression from all samples of all sensors, one for each subject."""

# N presentations, C channels, T samples, F features

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from neurodecode.meeg.images import ImageDecoder, features_of
from neurodecode.ridge import MultiTargetRidge
from neuroloaders.checks import invalid
from neuroloaders.events_table import EventTable
from neuroloaders.image_splits import ImageSplit
from neuroloaders.recordings import RecordingSet
from neuroloaders.window_loader import WindowLoader
from neuroloaders.window_targets import StimulusFeatures

__all__ = ["LinearImageDecoder"]


class LinearImageDecoder(ImageDecoder):
    """Ridge regression from whole windows to the embedding of the image, the baseline of Benchetrit et al. 2023 [1]_.

    Parameters
    ----------
    config : ImageConfig, optional
        Window, scaling and scale of features, as of the network it is compared with.
    alphas : array, optional
        Penalties to choose from, for each feature by five folds over images.

    Attributes
    ----------
    ridges_ : dict of str to MultiTargetRidge
        For each subject.

    Notes
    -----
    It learns from the images of the parts "train" and "valid", as it chooses no epochs. Whether [1]_ fit one regression
    a subject is not said; one for all would ask sensors of different heads for the same weights.

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.
    """

    def __init__(self, config: Any = None, *, alphas: Any = None) -> None:
        super().__init__(config)
        self.alphas = np.logspace(0, 8, 17) if alphas is None else np.asarray(alphas, dtype=np.float64)

    # No run_dir and no device: nothing is trained step by step. A checker holds that against a subclass.
    def fit(  # type: ignore[override]
        self,
        recordings: RecordingSet,
        events: EventTable,
        targets: StimulusFeatures,
        split: ImageSplit,
        *,
        progress: bool = False,
    ) -> LinearImageDecoder:
        """Fit a ridge to each subject; the parameters are those of `ImageDecoder.fit`."""
        from tqdm.auto import tqdm

        self.sfreq_, self.subjects_ = recordings.sfreq, recordings.subjects
        part = split.parts_of(events)
        self._fit_scale(features_of(targets, np.unique(events.stimulus[part == "train"])))
        known = events.select(np.flatnonzero((part == "train") | (part == "valid")))
        if len(known) == 0:
            raise invalid("split", "leave presentations to learn from", "none")
        loader = WindowLoader(recordings, known, scale="robust", batch_size=256, **self._window(), outside="drop")
        self.scaler_, self.heads_, self.ridges_ = loader.scaler, ("clip",), {}
        subject_of = {recording.name: recording.subject for recording in recordings}
        known = known.select(loader.rows)
        whose = np.array([subject_of[name] for name in known.recording.tolist()])
        for subject in tqdm(self.subjects_, desc="subjects", disable=not progress):
            own = known.select(np.flatnonzero(whose == subject))
            if len(own) == 0:
                continue
            names, number = np.unique(own.stimulus, return_inverse=True)
            y = self.standardised(features_of(targets, names)).numpy()[number.reshape(-1)]
            ridge = MultiTargetRidge(alphas=self.alphas, select="group-kfold", groups=number.reshape(-1))
            self.ridges_[subject] = ridge.fit(self._windows(recordings, own), y)
        return self

    def _trained(self) -> Any:
        if not hasattr(self, "scaler_"):
            raise invalid("self", "be fitted", "a decoder that is not", "Call fit() first.", kind=AttributeError)
        return self.ridges_

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def _windows(self, recordings: RecordingSet, events: EventTable) -> np.ndarray:
        """Return flattened windows, (N, C * T), in the order of the events."""
        loader = self.loader(recordings, events, batch_size=256)
        return torch.cat([batch.x.flatten(1) for batch in loader]).numpy()

    def predict(
        self, recordings: RecordingSet, events: EventTable, *, head: str | None = None, batch_size: int = 128
    ) -> np.ndarray:
        """Return the predicted features of presentations, (N, F); `head` and `batch_size` are those of networks."""
        self._trained()
        subject_of = {recording.name: recording.subject for recording in recordings}
        whose = np.array([subject_of[name] for name in events.recording.tolist()])
        out = np.empty((len(events), len(self.center_)), dtype=np.float32)
        for subject in np.unique(whose).tolist():
            if subject not in self.ridges_:
                raise invalid("recordings", "be of subjects with training presentations", f"{subject!r}")
            rows = np.flatnonzero(whose == subject)
            out[rows] = self.ridges_[subject].predict(self._windows(recordings, events.select(rows)))
        return out
