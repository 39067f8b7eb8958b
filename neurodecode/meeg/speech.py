"""The decoder of speech, end to end: windows, network, training that can be killed, and estimates for retrieval."""

# R recordings, N windows, B batch, C channels, F features, T samples

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurodecode.meeg.brain_module import BrainModule
from neurodecode.meeg.clip_loss import ClipLoss
from neurodecode.meeg.config import BrainModuleConfig
from neurodecode.meeg.segments import FeatureScale, Segments, fit_feature_scale
from neurodecode.meeg.speech_config import SpeechConfig
from neurodecode.meeg.speech_objective import SpeechNetwork, SpeechObjective
from neurodecode.meeg.speech_training import SpeechBatches, train_speech
from neurodecode.meeg.speech_windows import grid_windows, word_windows
from neurodecode.meeg.spiking import SpikingBrainModule
from neuroloaders.atomic import atomic_write
from neuroloaders.block_splits import BlockSplit
from neuroloaders.checkpoints import as_json, check_same_config, read_json
from neuroloaders.checks import check_int, check_option, corrupt_file, invalid, missing_data
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.robust_scaler import RobustScaler
from neuroloaders.runs import choose_device, generator, spawn_seeds, world
from neuroloaders.window_loader import WindowLoader
from neuroloaders.window_targets import StimulusSequences
from snn.training import History

__all__ = ["SpeechDecoder"]

_FILE, _SCALER, _NETWORK = "decoder.json", "scaler.json", "network"
_RUN = "speech.json"
_VERSION = 1


class SpeechDecoder:
    """Finds what was heard in M/EEG: a network that predicts features of sound, trained by contrast [1]_.

    Parameters
    ----------
    config : SpeechConfig, optional
        By default the published settings.

    Attributes
    ----------
    module_ : BrainModule or SpikingBrainModule
        The network, in evaluation mode.
    subjects_ : tuple of str
        Whom it knows, in the order of its numbers.
    scaler_ : RobustScaler
        Of the recordings it was trained on.
    feature_scale_ : FeatureScale
        Of the training sounds.
    sfreq_ : float
        Rate of the recordings, Hz.
    temperature_ : float
        Scores are divided by it where they become probabilities; 1 for the published loss.
    history_ : snn.training.History
        A row for each epoch: ``train_`` and ``valid_`` scores.

    Notes
    -----
    Under torchrun or ``accelerate launch`` the same call trains on several processes: batches are divided among them
    and candidates are those of all, with numbers exchanged, not features. Fewer training windows than a batch, and the
    last batch of an epoch if it is smaller, are handled by smaller batches, and by leaving it out.

    References
    ----------
    .. [1] Défossez, Caucheteux, Rapin, Kabeli & King, Nature Machine Intelligence 5 (2023),
       doi:10.1038/s42256-023-00714-5.
    """

    def __init__(self, config: SpeechConfig | None = None) -> None:
        config = SpeechConfig() if config is None else config
        if not isinstance(config, SpeechConfig):
            raise invalid("config", "be a SpeechConfig", config, kind=TypeError)
        self.config = config

    def fit(
        self,
        recordings: RecordingSet,
        events: EventTable,
        targets: StimulusSequences,
        split: BlockSplit,
        *,
        run_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        max_device_bytes: int | None = None,
        progress: bool = False,
        on_log: Callable[[dict[str, Any]], None] | None = None,
    ) -> SpeechDecoder:
        """Train on the blocks of the part "train", and keep the epoch that is best on those of "valid".

        Parameters
        ----------
        recordings : RecordingSet
            At one rate, of all subjects.
        events : EventTable
            What was heard: see `neurodecode.meeg.grid_windows`.
        targets : StimulusSequences
            Features of each sound, with their rate.
        split : BlockSplit
            Which blocks are for what; those of "test" are not looked at.
        run_dir : path-like, optional
            Folder of checkpoints, after each epoch: the same call goes on there after it was killed. A run with
            other settings or windows is refused there.
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
        SpeechDecoder
            Itself.

        Raises
        ------
        ValueError, TypeError
            If something does not fit together, or a part holds no window.
        """
        config, device = self.config, choose_device(device)
        rank, _, world_size = world()
        seeds = spawn_seeds(config.seed, "weights", "order")
        self.sfreq_, self.subjects_ = recordings.sfreq, recordings.subjects
        tables = {part: self.windows(recordings, events, split, part) for part in ("train", "valid")}
        n_train = len(tables["train"])
        if n_train < world_size:
            raise invalid("split", f"leave {world_size} training windows, one for each process", f"{n_train}")
        if run_dir is not None and rank == 0:
            self._claim(Path(run_dir), tables)
        shared: dict[str, Any] = {
            "device": device, "max_device_bytes": max_device_bytes, "rank": rank, "world_size": world_size,
            **self._window(), "outside": "drop",
        }  # fmt: skip
        train = WindowLoader(
            recordings, tables["train"], scale="robust", shuffle=True, drop_last=True,
            batch_size=min(config.batch_size, n_train), generator=generator(seeds["order"]), **shared,
        )  # fmt: skip
        self.scaler_ = train.scaler
        valid_size = max(min(config.batch_size, len(tables["valid"])), world_size)
        valid = WindowLoader(recordings, tables["valid"], scale=train.scaler, batch_size=valid_size, **shared)
        self.feature_scale_ = None
        self.feature_scale_ = fit_feature_scale(
            self.segments(tables["train"], targets, device=device), config.feature_scale
        )
        segments = {part: self.segments(table, targets, device=device) for part, table in tables.items()}
        options: dict[str, Any] = {"generator": generator(seeds["weights"])}
        if config.network.n_heads is None:
            options["n_channels"] = train.n_channels
        self.n_features_ = segments["train"].shape[1]
        module = config.network.build(len(self.subjects_), self.n_features_, **options)
        clip = ClipLoss(config.loss, mask_duplicates=config.mask_duplicates, gather=config.gather)
        network = SpeechNetwork(module, clip, train.positions)
        objective = SpeechObjective(network, segments["train"], segments["valid"])
        n_lag, numbers = config.n_lag(self.sfreq_), range(len(self.subjects_))
        batches = {
            "train": SpeechBatches(train, segments["train"].number, n_lag, numbers, config.max_batches),
            "valid": SpeechBatches(valid, segments["valid"].number, n_lag, numbers),
        }
        self.history_ = train_speech(
            network, batches, objective, config, device=device, run_dir=run_dir, progress=progress, on_log=on_log
        )
        self.module_ = module.eval()
        self.temperature_ = 1.0 if clip.log_scale is None else math.exp(-clip.log_scale.item())
        return self

    def windows(
        self, recordings: RecordingSet, events: EventTable, split: BlockSplit, part: str, *, words: bool | None = None
    ) -> EventTable:
        """Return the windows of one part: around words, or at even steps; by default as in training."""
        config = self.config
        ends = {"tmin": config.tmin, "tmax": config.tmax}
        if config.train_on == "words" if words is None else words:
            return word_windows(recordings, events, split, part, **ends)
        return grid_windows(recordings, events, split, part, step_s=config.step_s, **ends)

    def segments(
        self,
        windows: EventTable,
        targets: StimulusSequences,
        *,
        labels: Any = None,
        device: torch.device | str | None = None,
    ) -> Segments:
        """Return the candidates among `windows`, with features as the network estimates them."""
        device = self.device if device is None else device
        return Segments(
            windows, targets, tmin=self.config.tmin, sfreq=self.sfreq_, n_times=self.config.n_times(self.sfreq_),
            scale=self.feature_scale_, labels=labels, device=device,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self._trained().parameters()).device

    def to(self, device: str | torch.device) -> SpeechDecoder:
        """Move the network, and return the decoder itself."""
        self._trained().to(choose_device(device))
        return self

    def subject_numbers(self, recordings: RecordingSet) -> list[int]:
        """Return the network's number of each subject of some recordings; -1 for whom it does not know."""
        known = {name: number for number, name in enumerate(self.subjects_)}
        return [known.get(name, -1) for name in recordings.subjects]

    def estimates(
        self, recordings: RecordingSet, windows: EventTable, *, batch_size: int = 128
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield what the network says of windows, some at a time.

        Parameters
        ----------
        recordings : RecordingSet
            Those of the windows, known to `scaler_`.
        windows : EventTable
            Windows, with any stimuli.
        batch_size : int
            Windows at a time.

        Yields
        ------
        rows : ndarray of int64, shape (B,)
            Places in `windows`.
        estimates : Tensor of float32, shape (B, F, T)
            On the device of the network.
        """
        module = self._trained()
        check_int("batch_size", batch_size, at_least=1)
        loader = self.loader(recordings, windows, batch_size=batch_size)
        numbers = torch.tensor(self.subject_numbers(recordings), device=self.device)
        n_lag = self.config.n_lag(self.sfreq_)
        for batch in loader:
            with torch.no_grad():
                found = module(batch.x[..., n_lag:], numbers[batch.subject], loader.positions, batch.recording)
            # Outside: what is suspended in there would switch gradients off for the caller.
            yield batch.event.cpu().numpy(), found

    def loader(self, recordings: RecordingSet, windows: EventTable, **options: Any) -> WindowLoader:
        """Return a `WindowLoader` of windows as the network is given them, before the lag is cut off."""
        if recordings.sfreq != self.sfreq_:
            came = f"{recordings.sfreq:g} Hz"
            raise invalid("recordings", f"be sampled at {self.sfreq_:g} Hz, as in training", came)
        settings = {"device": self.device, "scale": self.scaler_, **self._window(), **options}
        return WindowLoader(recordings, windows, **settings)

    def scaled_for(self, recordings: RecordingSet, windows: EventTable) -> SpeechDecoder:
        """Return a copy that knows the scale of further recordings, from windows of theirs; no labels are used.

        Parameters
        ----------
        recordings : RecordingSet
            New recordings, such as those of a new subject.
        windows : EventTable
            Windows of them that may be looked at.
        """
        found = self.loader(recordings, windows, scale="robust", device="cpu").scaler
        other = self.copy()
        old = self.scaler_
        other.scaler_ = RobustScaler(
            center={**old.center, **found.center}, scale={**old.scale, **found.scale},
            ch_names={**old.ch_names, **found.ch_names}, baseline=old.baseline,
        )  # fmt: skip
        return other

    def copy(self) -> SpeechDecoder:
        """Return a decoder with a network of its own."""
        other = copy.copy(self)
        other.module_ = copy.deepcopy(self._trained())
        return other

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the decoder to a folder; each file is whole or not there.

        Parameters
        ----------
        folder : path-like
            Made if it is not there. A network of another configuration that lies there is not replaced.
        """
        module, folder = self._trained(), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        module.save(folder / _NETWORK)
        self.scaler_.save(folder / _SCALER)
        record = {
            "version": _VERSION,
            "config": self.config.as_dict(),
            "subjects": list(self.subjects_),
            "sfreq": self.sfreq_,
            "n_features": self.n_features_,
            "temperature": self.temperature_,
            "feature_scale": self.feature_scale_.as_lists(),
            "history": self.history_.rows,
        }
        text = json.dumps(as_json("decoder", record), indent=1, allow_nan=False)
        # Last: a folder without it holds no decoder.
        with atomic_write(folder / _FILE, "w") as file:
            file.write(text)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> SpeechDecoder:
        """Read a decoder that `save` wrote.

        Parameters
        ----------
        folder : path-like
            The folder.
        device : str or torch.device
            Where to put the network.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If a file is damaged.
        """
        folder = Path(folder)
        if not (folder / _FILE).is_file():
            raise missing_data("SpeechDecoder", [_FILE], [folder], "Give the folder that was passed to save().")
        record = read_json(folder / _FILE)
        try:
            check_option("version", record["version"], [_VERSION])
            out = cls(SpeechConfig.from_dict(record["config"]))
            out.subjects_, out.sfreq_ = tuple(record["subjects"]), float(record["sfreq"])
            out.n_features_, out.temperature_ = int(record["n_features"]), float(record["temperature"])
            out.feature_scale_ = FeatureScale.from_lists(record["feature_scale"])
            out.history_ = History(record["history"], out.config.monitor)
        except (KeyError, TypeError, ValueError) as error:
            raise corrupt_file(folder / _FILE, f"it is no decoder of this version ({error})", "Train anew.") from error
        kind = BrainModule if isinstance(out.config.network, BrainModuleConfig) else SpikingBrainModule
        out.module_ = kind.load(folder / _NETWORK, device=choose_device(device))
        out.scaler_ = RobustScaler.load(folder / _SCALER)
        return out

    def _claim(self, run_dir: Path, tables: dict[str, EventTable]) -> None:
        """Write what is trained on what into the folder of a run, or refuse to go on with something else there."""
        record = {"config": self.config.as_dict(), "sfreq": self.sfreq_, "subjects": list(self.subjects_)}
        for part, table in tables.items():
            columns = [table.recording, table.start, table.stimulus, table.extra["stimulus_start"]]
            text = "\n".join(map(str, zip(*(column.tolist() for column in columns), strict=True)))
            record[part] = hashlib.sha256(text.encode()).hexdigest()
        given, path = as_json("run", record), run_dir / _RUN
        if path.exists():
            check_same_config(path, read_json(path), given)
        else:
            run_dir.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, "w") as file:
                json.dump(given, file, indent=1)

    def _window(self) -> dict[str, Any]:
        config = self.config
        return {"tmin": config.tmin, "tmax": config.tmax, "baseline": config.baseline, "clamp": config.clamp}

    def _trained(self) -> nn.Module:
        if not hasattr(self, "module_"):
            raise invalid("decoder", "be trained", "one that is not", "Call fit() first.")
        return self.module_
