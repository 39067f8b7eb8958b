"""The decoder of images, end to end: windows, network, training that can be killed, and estimates for retrieval."""

# N presentations, B batch, C channels, T samples, I images, F features

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodecode.meeg.brain_module import BrainModule
from neurodecode.meeg.clip_loss import ClipLoss
from neurodecode.meeg.image_config import ImageConfig
from neurodecode.meeg.image_objective import HEADS, ImageNetwork, ImageObjective, heads_of
from neurodecode.meeg.image_runs import claim_run
from neurodecode.meeg.speech_training import SpeechBatches
from neuroloaders.atomic import atomic_write
from neuroloaders.checkpoints import as_json, read_json
from neuroloaders.checks import check_int, check_option, corrupt_file, invalid, missing_data
from neuroloaders.events_table import EventTable
from neuroloaders.image_splits import ImageSplit
from neuroloaders.recordings import RecordingSet
from neuroloaders.robust_scaler import RobustScaler
from neuroloaders.runs import choose_device, generator, spawn_seeds, world
from neuroloaders.window_loader import WindowLoader
from neuroloaders.window_targets import StimulusFeatures
from snn.training import History, TrainConfig
from snn.training import fit as train_network

__all__ = ["ImageDecoder", "features_of"]

_FILE, _SCALER, _NETWORK = "decoder.json", "scaler.json", "network"
_VERSION = 1


class ImageDecoder:
    """Finds what was seen in M/EEG: a network that predicts an embedding of the image [1]_.

    Parameters
    ----------
    config : ImageConfig, optional
        By default the published settings, for retrieval.

    Attributes
    ----------
    module_ : BrainModule
        The network, in evaluation mode, with the heads of `heads_`.
    heads_ : tuple of str
        Some of "clip" and "mse".
    subjects_ : tuple of str
        Whom it knows, in the order of its numbers.
    scaler_ : RobustScaler
        Of the recordings it was trained on.
    center_, scale_ : ndarray of float32, shape (F,)
        What is subtracted from features, and what they are divided by.
    sfreq_ : float
        Rate of the recordings, Hz.
    clip_weight_ : float
        The weight of the contrastive loss that was kept.
    weight_scores_ : dict of float to float
        The score of each that was tried.
    history_ : snn.training.History
        Of the network that was kept.

    Notes
    -----
    Under torchrun the same call trains on several processes, as `SpeechDecoder` does.

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.
    """

    def __init__(self, config: ImageConfig | None = None) -> None:
        config = ImageConfig() if config is None else config
        if not isinstance(config, ImageConfig):
            raise invalid("config", "be an ImageConfig", config, kind=TypeError)
        self.config = config

    def fit(
        self,
        recordings: RecordingSet,
        events: EventTable,
        targets: StimulusFeatures,
        split: ImageSplit,
        *,
        run_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        max_device_bytes: int | None = None,
        progress: bool = False,
        on_log: Callable[[dict[str, Any]], None] | None = None,
    ) -> ImageDecoder:
        """Train on the images of the part "train", and keep the epoch that is best on those of "valid".

        Parameters
        ----------
        recordings : RecordingSet
            At one rate, of all subjects.
        events : EventTable
            What was seen, a row a presentation.
        targets : StimulusFeatures
            The embedding of each image; further axes are flattened.
        split : ImageSplit
            Which images are for what. Those of "test" and "large" are not looked at, unless
            ``weight_compat="published"`` asks for "large".
        run_dir : path-like, optional
            Folder of checkpoints, after each epoch: the same call goes on there after it was killed.
        device : str or torch.device, optional
            By default a GPU if there is one.
        max_device_bytes : int, optional
            As for `WindowLoader`.
        progress : bool
            Show a bar.
        on_log : callable, optional
            Gets each row of the history.

        Returns
        -------
        ImageDecoder
            Itself.

        Raises
        ------
        ValueError, TypeError
            If something does not fit together, or a part holds no window.
        """
        config, device = self.config, choose_device(device)
        rank, _, world_size = world()
        seeds = spawn_seeds(config.seed, "weights", "order", "dropout")
        self.sfreq_, self.subjects_ = recordings.sfreq, recordings.subjects
        parts = ("train", "valid", "large") if config.weight_compat else ("train", "valid")
        tables = {part: split.select(events, part) for part in parts}
        for part, table in tables.items():
            if len(table) < world_size:
                raise invalid("split", f"leave {world_size} presentations in the part {part!r}", f"{len(table)}")
        names = {part: np.unique(table.stimulus) for part, table in tables.items()}
        if run_dir is not None and rank == 0:
            claim_run(Path(run_dir), self, tables)
        raw = {part: features_of(targets, names[part]) for part in parts}
        self._fit_scale(raw["train"])
        features = {part: self.standardised(values).to(device) for part, values in raw.items()}
        shared: dict[str, Any] = {
            "device": device, "max_device_bytes": max_device_bytes, "rank": rank, "world_size": world_size,
            **self._window(), "outside": "drop",
        }  # fmt: skip
        n_train = len(tables["train"])
        train = WindowLoader(
            recordings, tables["train"], scale="robust", shuffle=True, drop_last=True,
            batch_size=min(config.batch_size, n_train), generator=generator(seeds["order"]), **shared,
        )  # fmt: skip
        self.scaler_ = train.scaler
        held = {
            part: WindowLoader(
                recordings, tables[part], scale=train.scaler, **shared,
                batch_size=max(min(config.batch_size, len(tables[part])), world_size),
            )
            for part in parts[1:]
        }  # fmt: skip
        found: dict[float, tuple[BrainModule, ClipLoss, History, float]] = {}
        for weight in config.weights:
            options: dict[str, Any] = {"generator": generator(seeds["weights"]), "n_times": train.n_times}
            if config.network.n_heads is None:
                options["n_channels"] = train.n_channels
            heads = heads_of(weight)
            n_features = features["train"].shape[1]
            module = config.network.build(len(self.subjects_), dict.fromkeys(heads, n_features), **options)
            clip = ClipLoss(config.loss, mask_duplicates=config.mask_duplicates, gather=config.gather)
            network = ImageNetwork(module, clip, train.positions)
            objective = ImageObjective(network, features["train"], features["valid"], weight)
            batches = {
                part: SpeechBatches(
                    loader, np.searchsorted(names[part], tables[part].stimulus), 0, range(len(self.subjects_))
                )
                for part, loader in (("train", train), ("valid", held["valid"]))
            }
            settings = TrainConfig(
                epochs=config.epochs, lr=config.lr, betas=config.betas, loss=objective, amp=config.amp,
                optimizer="adamw" if config.weight_decay else "adam", weight_decay=config.weight_decay,
                patience=config.patience, monitor=config.monitor, seed=seeds["dropout"],
            )  # fmt: skip
            folder = None if run_dir is None else Path(run_dir) / f"clip_weight={weight:g}"
            history = train_network(
                network, batches["train"], batches["valid"], settings, run_dir=folder, device=device,
                progress=progress, on_log=on_log, metrics=objective.metrics,
            )  # fmt: skip
            part = parts[-1]
            number = np.searchsorted(names[part], tables[part].stimulus)
            score = self._top_5(module, held[part], features[part], number)
            found[weight] = (module.eval(), clip, history, score)
        self.weight_scores_ = {weight: score for weight, (*_, score) in found.items()}
        self.clip_weight_ = max(self.weight_scores_, key=lambda weight: self.weight_scores_[weight])
        self.module_, clip, self.history_, _ = found[self.clip_weight_]
        self.heads_ = heads_of(self.clip_weight_)
        self.temperature_ = 1.0 if clip.log_scale is None else math.exp(-clip.log_scale.item())
        return self

    def _top_5(self, module: BrainModule, loader: WindowLoader, features: Tensor, number: np.ndarray) -> float:
        """Return the share of windows whose image is among the five nearest of a part, by all of its windows."""
        module.eval()
        places = torch.from_numpy(number).to(features.device)
        hits, n = 0.0, 0
        with torch.no_grad():
            # Not the loader's shares: each process looks at all windows, and finds the same.
            whole = WindowLoader(
                loader.recordings, loader.events, scale=loader.scaler, batch_size=256, device=loader.device,
                **self._window(),
            )  # fmt: skip
            kept = torch.from_numpy(loader.rows).to(features.device)
            objective = ImageObjective(
                ImageNetwork(module, ClipLoss(self.config.loss), whole.positions).eval(), features, features, 1.0
            )
            for batch in whole:
                output = module(batch.x, batch.subject, whole.positions, batch.recording)
                hit = objective.metrics["top_5"](output, places[kept[batch.event]])
                hits, n = hits + float(hit.sum()), n + len(hit)
        return hits / n

    def _fit_scale(self, values: Tensor) -> None:
        if self.config.feature_scale == "none":
            self.center_ = np.zeros(values.shape[1], dtype=np.float32)
            self.scale_ = np.ones(values.shape[1], dtype=np.float32)
            return
        spread = values.double().std(0, correction=0)
        self.center_ = values.double().mean(0).numpy().astype(np.float32)
        self.scale_ = torch.where(spread > 0, spread, 1.0).numpy().astype(np.float32)

    def standardised(self, values: Any) -> Tensor:
        """Return features (I, F) as the network predicts them: float32, on the CPU."""
        values = torch.as_tensor(values).float().flatten(1)
        if values.shape[1] != len(self.center_):
            raise invalid("values", f"have {len(self.center_)} features, as in training", f"{values.shape[1]}")
        return (values - torch.from_numpy(self.center_)) / torch.from_numpy(self.scale_)

    def _window(self) -> dict[str, Any]:
        config = self.config
        return {"tmin": config.tmin, "tmax": config.tmax, "baseline": config.baseline, "clamp": config.clamp}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self._trained().parameters()).device

    def to(self, device: str | torch.device) -> ImageDecoder:
        """Move the network, and return the decoder itself."""
        self._trained().to(choose_device(device))
        return self

    def _trained(self) -> Any:
        if not hasattr(self, "module_"):
            raise invalid("self", "be trained", "a decoder that is not", "Call fit() first.", kind=AttributeError)
        return self.module_

    def subject_numbers(self, recordings: RecordingSet) -> list[int]:
        """Return the network's number of each subject of some recordings; -1 for whom it does not know."""
        known = {name: number for number, name in enumerate(self.subjects_)}
        return [known.get(name, -1) for name in recordings.subjects]

    def loader(self, recordings: RecordingSet, events: EventTable, **options: Any) -> WindowLoader:
        """Return a `WindowLoader` of windows as the network is given them."""
        self._trained()
        if recordings.sfreq != self.sfreq_:
            came = f"{recordings.sfreq:g} Hz"
            raise invalid("recordings", f"be sampled at {self.sfreq_:g} Hz, as in training", came)
        return WindowLoader(
            recordings, events, **{"device": self.device, "scale": self.scaler_, **self._window(), **options}
        )

    def predict(
        self, recordings: RecordingSet, events: EventTable, *, head: str | None = None, batch_size: int = 128
    ) -> np.ndarray:
        """Return what the network says of presentations, in the scale of `standardised`.

        Parameters
        ----------
        recordings : RecordingSet
            Known to `scaler_`.
        events : EventTable
            N presentations; what was shown is not looked at.
        head : str, optional
            One of `heads_`; by default "clip" if it is there.
        batch_size : int
            Windows at a time.

        Returns
        -------
        ndarray of float32, shape (N, F)
        """
        check_int("batch_size", batch_size, at_least=1)
        loader = self.loader(recordings, events, batch_size=batch_size)
        numbers = torch.tensor(self.subject_numbers(recordings), device=self.device)
        out = np.empty((len(events), len(self.center_)), dtype=np.float32)
        for batch in loader:
            found = self.predict_windows(batch.x, numbers[batch.subject], loader.positions, batch.recording, head=head)
            out[batch.event.cpu().numpy()] = found.cpu().numpy()
        return out

    def predict_windows(
        self,
        x: Tensor,
        subjects: Tensor,
        positions: Tensor,
        recordings: Tensor | None = None,
        *,
        head: str | None = None,
    ) -> Tensor:
        """Return what the network says of windows that are cut and scaled already, as in live use.

        Parameters
        ----------
        x : Tensor, shape (B, C, T)
            Windows.
        subjects : Tensor of int64, shape (B,)
            Numbers of `subject_numbers`.
        positions : Tensor, shape (C, 2) or (R, C, 2)
            Places of the sensors.
        recordings : Tensor of int64, shape (B,), optional
            Which of several sets of positions.
        head : str, optional
            One of `heads_`.

        Returns
        -------
        Tensor, shape (B, F)
        """
        module = self._trained()
        head = (
            self.heads_[0] if head is None else check_option("head", head, {name: HEADS[name] for name in self.heads_})
        )
        with torch.no_grad():
            return module(x, subjects, positions, recordings)[head]

    def copy(self) -> ImageDecoder:
        """Return a decoder with a network of its own."""
        other = copy.copy(self)
        other.module_ = copy.deepcopy(self._trained())
        return other

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the decoder to a folder; each file is whole or not there."""
        module, folder = self._trained(), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        module.save(folder / _NETWORK)
        self.scaler_.save(folder / _SCALER)
        record = {
            "version": _VERSION,
            "config": self.config.as_dict(),
            "subjects": list(self.subjects_),
            "sfreq": self.sfreq_,
            "heads": list(self.heads_),
            "clip_weight": self.clip_weight_,
            "weight_scores": [[weight, score] for weight, score in self.weight_scores_.items()],
            "temperature": self.temperature_,
            "center": self.center_.tolist(),
            "scale": self.scale_.tolist(),
            "history": self.history_.rows,
        }
        text = json.dumps(as_json("decoder", record), indent=1, allow_nan=False)
        # Last: a folder without it holds no decoder.
        with atomic_write(folder / _FILE, "w") as file:
            file.write(text)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> ImageDecoder:
        """Read a decoder that `save` wrote; the predictions are the same.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If a file is damaged.
        """
        folder = Path(folder)
        if not (folder / _FILE).is_file():
            raise missing_data("ImageDecoder", [_FILE], [folder], "Give the folder that was passed to save().")
        record = read_json(folder / _FILE)
        try:
            check_option("version", record["version"], [_VERSION])
            out = cls(ImageConfig.from_dict(record["config"]))
            out.subjects_, out.sfreq_ = tuple(record["subjects"]), float(record["sfreq"])
            out.heads_, out.clip_weight_ = tuple(record["heads"]), float(record["clip_weight"])
            out.weight_scores_ = {float(weight): float(score) for weight, score in record["weight_scores"]}
            out.temperature_ = float(record["temperature"])
            out.center_, out.scale_ = (np.array(record[name], dtype=np.float32) for name in ("center", "scale"))
            out.history_ = History(record["history"], out.config.monitor)
        except (KeyError, TypeError, ValueError) as error:
            raise corrupt_file(folder / _FILE, f"it is no decoder of this version ({error})", "Train anew.") from error
        out.scaler_ = RobustScaler.load(folder / _SCALER)
        out.module_ = BrainModule.load(folder / _NETWORK, device=device)
        return out


def features_of(targets: StimulusFeatures, names: np.ndarray) -> Tensor:
    """Return the features of images, (I, F), float32."""
    if not isinstance(targets, StimulusFeatures):
        advice = "StimulusFeatures(names, values), one embedding an image."
        raise invalid("targets", "be StimulusFeatures", targets, advice, kind=TypeError)
    asked = EventTable(start=np.zeros(len(names)), recording="none", kind="image", stimulus=names)
    lookup = targets.for_windows(asked, 0.0, 1.0, 1)
    return lookup(torch.arange(len(names))).float().flatten(1)
