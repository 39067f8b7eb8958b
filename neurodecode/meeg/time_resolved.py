"""When can it be decoded: a network for each of many windows, all of them trained together."""

# M windows, N events, B batch, C channels, F features, K classes

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from neurodecode.meeg.stacked_module import StackedBrainModule
from neurodecode.meeg.time_config import TimeConfig
from neurodecode.meeg.time_objective import ClassObjective, RetrievalObjective
from neurodecode.meeg.time_spans import SpanDecoder
from neurodecode.meeg.time_training import SpanBatches, groups_of_windows, train_stacked
from neurodecode.meeg.time_windows import TimeWindows, cut_windows
from neuroloaders.checks import check_int, check_option, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.runs import choose_device, generator, spawn_seeds
from neuroloaders.window_targets import StimulusFeatures

__all__ = ["TimeResolvedDecoder"]


class TimeResolvedDecoder(SpanDecoder):
    """A `BrainModule` for each window, trained as one batch of networks, for features or classes.

    Parameters
    ----------
    config : TimeConfig
        Network, span and training.
    windows : TimeWindows
        M windows, from `sliding_windows` or `growing_windows`.

    Attributes
    ----------
    modules_ : list of BrainModule
        `n_networks` of the first window, then of the second, and so on; in evaluation mode.
        ``modules_[m].save(folder)`` writes one. They take windows that are prepared as by ``loader(...)`` and cut.
    temperatures_ : ndarray, one for each module
        1 but for the symmetric loss, which learns them.
    center_, scale_ : ndarray of float32, shape (F,), or None
        What is subtracted from features, and what they are divided by: `candidates` does so.
    classes_ : tuple of str or None
        Where classes are decoded, in the order of probabilities.
    subjects_ : tuple of str
        Whom it knows; others are given the average of subject layers.
    scaler_ : RobustScaler
        Of the training spans.
    ch_names_ : tuple of str or None
        Channels, where all recordings have the same.
    histories_ : list of TimeHistory
        One for each group of windows that were trained together, with `groups_`.

    Notes
    -----
    Each batch is cut once, as the whole span, and the windows are cut from it on the device. **Baseline and scale are
    those of the whole span**, the same for all windows: a window after the event is seen relative to the time before
    it, as in Benchetrit et al. 2023 [1]_. Windows share nothing else: each network sees the samples of its window only,
    has its own best epoch, and has the weights that it would have if it were trained alone on the same batches.

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.
    """

    def __init__(self, config: TimeConfig, windows: TimeWindows) -> None:
        super().__init__(config, windows)

    def fit(
        self,
        recordings: RecordingSet,
        events: EventTable,
        targets: StimulusFeatures | None = None,
        split: Any = None,
        *,
        labels: str | None = None,
        device: str | torch.device | None = None,
        progress: bool = False,
        on_log: Callable[[dict[str, Any]], None] | None = None,
    ) -> TimeResolvedDecoder:
        """Train on the part "train", and choose epochs on the part "valid".

        Parameters
        ----------
        recordings : RecordingSet
            At the rate of the windows. All of them may be given: what is not in a part is not looked at.
        events : EventTable
            N presentations.
        targets : StimulusFeatures, optional
            What is to be decoded: features of the stimuli.
        split : array of str of shape (N,), or object with ``parts_of(events)``
            The part of each event.
        labels : str, optional
            Instead of `targets`: a column of the events whose values are classes, such as "stimulus".
        device : str or torch.device, optional
            By default a GPU if there is one.
        progress : bool
            Show a bar for each group of windows.
        on_log : callable, optional
            Gets the numbers of each epoch of each group.

        Returns
        -------
        TimeResolvedDecoder
            Itself.

        Raises
        ------
        ValueError, TypeError
            If something does not fit together, or a part holds no event.
        """
        config, device = self.config, choose_device(device)
        tables = self._begin(recordings, events, targets, split, labels)
        # All networks of the first window, then all of the second, so that neighbours are of about one length.
        self._stack = TimeWindows(
            first=np.repeat(self.windows.first, config.n_networks).tolist(),
            n_times=np.repeat(self.windows.n_times, config.n_networks).tolist(), sfreq=self.windows.sfreq,
        )  # fmt: skip
        seeds = spawn_seeds(config.seed, "order", *(f"weights {m}" for m in range(len(self._stack))))
        column, candidates = labels or "stimulus", None
        options: dict[str, Any] = {"device": device, "targets": targets, "labels": column, "classes": self.classes_}
        size = min(config.batch_size, len(tables["train"]))
        loaders = {
            "train": self.loader(
                recordings, tables["train"], batch_size=size, shuffle=True, drop_last=True,
                generator=generator(seeds["order"]), **options,
            ),
            "valid": self.loader(recordings, tables["valid"], batch_size=config.batch_size, **options),
        }  # fmt: skip
        self.ch_names_ = loaders["train"].ch_names
        if config.network.n_heads is None and self.ch_names_ is None:
            advice = "Give the loader's channels one order, or use a network with spatial attention."
            raise invalid("recordings", "have the same channels for a network without attention", "others", advice)
        n_outputs: dict[str, int]
        if targets is None:
            n_outputs = {"classes": len(self.classes_)}
        else:
            candidates = torch.from_numpy(self.candidates(targets, loaders["valid"].classes)).to(device)
            n_outputs = dict.fromkeys(self._objective(1).heads, candidates.shape[1])
        batches = {
            part: SpanBatches(one, range(len(self.subjects_)), self.center_, self.scale_)
            for part, one in loaders.items()
        }
        places = torch.from_numpy(self._places(self._stack)).to(device)
        self.modules_, self.histories_, temperatures = [], [], []
        self.groups_ = groups_of_windows(self._stack, config.at_once)
        for group in self.groups_:
            modules = [
                config.network.build(
                    len(self.subjects_), n_outputs, n_times=self._stack.n_times[m],
                    n_channels=None if config.network.n_heads is not None else loaders["train"].n_channels,
                    generator=generator(seeds[f"weights {m}"]),
                )
                for m in range(group.start, group.stop)
            ]  # fmt: skip
            network = StackedBrainModule(modules).to(device)
            objective = self._objective(len(modules)).to(device)
            self.histories_.append(train_stacked(
                network, objective, places[group], batches["train"], batches["valid"], candidates, config,
                progress=progress, on_log=on_log,
            ))  # fmt: skip
            self.modules_ += network.unstack()
            scale = getattr(objective, "log_scale", None)
            temperatures.append(np.ones(len(modules)) if scale is None else (-scale.detach()).exp().cpu().numpy())
        self.temperatures_ = np.concatenate(temperatures)
        return self

    def predict(
        self,
        recordings: RecordingSet,
        events: EventTable,
        *,
        head: str | None = None,
        batch_size: int = 256,
        device: str | torch.device | None = None,
    ) -> np.ndarray:
        """Return what each window says of each event.

        Parameters
        ----------
        recordings : RecordingSet
            Those of the events, known to `scaler_`.
        events : EventTable
            N events; their stimuli are not looked at.
        head : str, optional
            "clip" or "mse", if both were trained; by default the first that there is.
        batch_size : int
            Events at a time.
        device : str or torch.device, optional
            By default where the networks are.

        Returns
        -------
        ndarray of float32, shape (M, N, F) or (M, N, K)
            Estimated features, in the scale of `candidates`; or probabilities of `classes_`.
        """
        self._check_fitted()
        check_int("batch_size", batch_size, at_least=1)
        own = next(self.modules_[0].parameters()).device
        device = own if device is None else choose_device(device)
        heads = tuple(self.modules_[0].heads)
        head = heads[0] if head is None else check_option("head", head, heads)
        loader = self.loader(recordings, events, batch_size=batch_size, device=device)
        if self.config.network.n_heads is None and loader.ch_names != self.ch_names_:
            raise invalid("recordings", f"have the channels {self.ch_names_}", f"{loader.ch_names}")
        batches = SpanBatches(loader, self._subject_numbers(recordings))
        places, out = torch.from_numpy(self._places(self._stack)).to(device), None
        for group in self.groups_:
            network = StackedBrainModule(self.modules_[group]).to(device).eval()
            for batch in batches.batches(0):
                with torch.no_grad():
                    cut = cut_windows(batch.x, places[group], max(network.n_times))
                    found = network(cut, batch.subjects, batches.positions, batch.recordings)[head]
                    found = found if self.classes_ is None else found.softmax(-1)
                if out is None:
                    out = np.empty((len(self._stack), len(events), found.shape[2]), dtype=np.float32)
                out[group, batch.event.cpu().numpy()] = found.cpu().numpy()
        return out.reshape(len(self.windows), -1, *out.shape[1:]).mean(1)

    def _objective(self, n_models: int) -> RetrievalObjective | ClassObjective:
        config = self.config
        if self.classes_ is not None:
            return ClassObjective(config.label_smoothing)
        return RetrievalObjective(
            n_models, config.clip_weight, loss=config.loss, mask_duplicates=config.mask_duplicates
        )
