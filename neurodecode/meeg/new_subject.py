"""A subject that comes after the training: only what belongs to it is fitted, to some minutes of its recordings."""

# N windows

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from neurodecode.meeg.clip_loss import ClipLoss
from neurodecode.meeg.segments import Segments
from neurodecode.meeg.speech import SpeechDecoder
from neurodecode.meeg.speech_evaluation import mean_of_means
from neurodecode.meeg.speech_objective import SpeechNetwork, SpeechObjective
from neurodecode.meeg.speech_scores import TrialScores, score_estimates
from neurodecode.meeg.speech_training import SpeechBatches, train_speech
from neuroloaders.block_splits import BlockSplit
from neuroloaders.checks import check_fraction, check_int, check_number, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.runs import choose_device, generator, spawn_seeds
from neuroloaders.window_targets import StimulusSequences
from snn.training import evaluate as evaluate_network

__all__ = ["Calibration", "CalibrationCurve", "calibrate_subject", "calibration_curve", "first_minutes"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """A decoder that knows one more subject.

    Parameters
    ----------
    decoder : SpeechDecoder
        With the new subject; for the others it is as it was.
    minutes : float
        Of recording that were used, fitting and choosing together.
    start_loss, loss : float
        On the part that chose: with the average of the other subjects, and as kept.
    kept_start : bool
        Whether no epoch was better than the average of the others, which then stayed.
    rows : list of dict
        The history.
    """

    decoder: SpeechDecoder
    minutes: float
    start_loss: float
    loss: float
    kept_start: bool
    rows: list[dict[str, Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibrationCurve:
    """Accuracy of new subjects against minutes of calibration.

    Parameters
    ----------
    minutes : ndarray, shape (m,)
        What was asked for; the first is 0, the average of the other subjects without any fit.
    used : ndarray, shape (m, S)
        Minutes that there were.
    top_1, top_5, top_10 : ndarray, shape (m, S)
        Share of test windows with the true segment among the nearest, for each subject.
    subjects : tuple of str
        Whose.
    n_segments : int
        Candidates.
    """

    minutes: np.ndarray
    used: np.ndarray
    top_1: np.ndarray
    top_5: np.ndarray
    top_10: np.ndarray
    subjects: tuple[str, ...]
    n_segments: int

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each subject and number of minutes, as ``pandas.DataFrame`` takes it."""
        return [
            {
                "subject": subject,
                "minutes": float(minutes),
                "used": float(self.used[k, s]),
                **{f"top-{n}": float(getattr(self, f"top_{n}")[k, s]) for n in (1, 5, 10)},
            }
            for s, subject in enumerate(self.subjects)
            for k, minutes in enumerate(self.minutes)
        ]


def first_minutes(windows: EventTable, minutes: float | None, *, tmin: float, tmax: float) -> tuple[EventTable, float]:
    """Return the windows that the first minutes of recording hold, and how many minutes they cover.

    Parameters
    ----------
    windows : EventTable
        Windows, which may overlap.
    minutes : float, optional
        Of recording that is covered by windows: what lies between blocks of the part does not count. Recordings come in
        the order of their names. None: all.
    tmin, tmax : float
        Ends of a window in s.

    Returns
    -------
    EventTable
        In the order of time.
    float
        Minutes that they cover; less than asked for where there are no more.
    """
    limit = np.inf if minutes is None else check_number("minutes", minutes, above=0)
    order = np.lexsort([windows.start, windows.recording])
    start, recording = windows.start[order], windows.recording[order]
    same = np.concatenate([[False], recording[1:] == recording[:-1]])
    # What a window adds to those before it.
    added = np.where(same, np.minimum(np.diff(start, prepend=-np.inf), tmax - tmin), tmax - tmin)
    covered = np.cumsum(added)
    n = int(np.searchsorted(covered, limit * 60 + 1e-6, side="right"))
    if n == 0:
        raise invalid("minutes", f"hold a window of {tmax - tmin:g} s", f"{limit:g}")
    return windows.select(order[:n]), float(covered[n - 1] / 60)


def calibrate_subject(
    decoder: SpeechDecoder,
    recordings: RecordingSet,
    events: EventTable,
    targets: StimulusSequences,
    split: BlockSplit,
    *,
    minutes: float | None = None,
    choose: float = 0.2,
    lr: float = 1e-3,
    epochs: int = 100,
    patience: int = 10,
    batch_size: int = 64,
    seed: int = 0,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Calibration:
    """Fit the layer of a new subject, and nothing else.

    Parameters
    ----------
    decoder : SpeechDecoder
        Trained on others; it stays as it is.
    recordings : RecordingSet
        Of the new subject alone.
    events, targets, split
        As for `SpeechDecoder.fit`: the training blocks are calibrated on. Use the split of the other subjects, so that
        test sentences are new to the network too.
    minutes : float, optional
        How much of the training blocks is used, from the beginning on; by default all.
    choose : float
        Share of these minutes, the last ones, that the layer is not fitted to: they choose the epoch.
    lr, epochs, patience, batch_size
        Of Adam; as in `SpeechConfig`.
    seed : int
        Of the order of windows.
    on_log : callable, optional
        Gets each row of the history.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        If there are several subjects, one that is known, no subject layer, or too little data.

    Notes
    -----
    The layer starts from the average of those of the training. The network stays in evaluation mode, its batch
    normalisation as it was. If no epoch has a smaller loss on the minutes that choose than the start has, the start is
    kept: little data cannot make it worse than the average subject there. The scale of sensors comes from the same
    minutes; that of recordings which these do not reach from their own training windows, without labels.
    """
    if len(recordings.subjects) != 1:
        raise invalid(
            "recordings", "be of one subject", f"{len(recordings.subjects)}", "recordings.of_subjects([name])"
        )
    name = recordings.subjects[0]
    if name in decoder.subjects_:
        raise invalid("recordings", "be of a subject that the decoder does not know", repr(name))
    if not 0 < check_fraction("choose", choose) < 1:
        raise invalid("choose", "lie between 0 and 1", f"{choose:g}")
    check_int("batch_size", batch_size, at_least=1)
    base = decoder.config
    ends = {"tmin": base.tmin, "tmax": base.tmax}
    windows = decoder.windows(recordings, events, split, "train", words=False)
    everything = windows
    windows, used = first_minutes(everything, minutes, **ends)
    tables = dict(zip(("train", "valid"), _cut(windows, choose, **ends), strict=True))
    calibrated = decoder.scaled_for(recordings, windows)
    later = np.flatnonzero(~np.isin(everything.recording, windows.recording))
    if len(later):
        calibrated = calibrated.scaled_for(recordings, everything.select(later))
    device = choose_device(decoder.device)
    module = calibrated.module_
    number = module.add_subject()
    segments = {part: calibrated.segments(table, targets) for part, table in tables.items()}
    numbers, n_lag = [number], base.n_lag(decoder.sfreq_)
    order = generator(spawn_seeds(seed, "order")["order"])
    loaders = {
        "train": calibrated.loader(
            recordings, tables["train"], shuffle=True, generator=order, batch_size=min(batch_size, len(tables["train"]))
        ),
        "valid": calibrated.loader(recordings, tables["valid"], batch_size=batch_size),
    }
    batches = {part: SpeechBatches(loaders[part], segments[part].number, n_lag, numbers) for part in loaders}
    clip = ClipLoss(base.loss, mask_duplicates=base.mask_duplicates)
    if clip.log_scale is not None:
        clip.log_scale.data.fill_(-np.log(decoder.temperature_))
    clip.requires_grad_(False)
    network = SpeechNetwork(module, clip, loaders["train"].positions, train_mode=False).to(device)
    objective = SpeechObjective(network, segments["train"], segments["valid"])
    scored = {"device": device, "loss": objective, "metrics": objective.metrics}
    start = module.subject_parameter(number).detach().clone()
    start_loss = evaluate_network(network, batches["valid"], **scored)["loss"]
    settings = dataclasses.replace(
        base,
        lr=lr,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        max_batches=None,
        monitor="loss",
        seed=seed,
    )
    history = train_speech(network, batches, objective, settings, device=device, on_log=on_log)
    loss = history.rows[history.kept_epoch]["valid_loss"]
    kept_start = not loss < start_loss
    if kept_start:
        with torch.no_grad():
            module.subject_parameter(number).copy_(start)
    module.eval()
    calibrated.subjects_ = (*decoder.subjects_, name)
    return Calibration(
        decoder=calibrated,
        minutes=used,
        start_loss=start_loss,
        loss=start_loss if kept_start else loss,
        kept_start=kept_start,
        rows=history.rows,
    )


def calibration_curve(
    decoder: SpeechDecoder,
    recordings: RecordingSet,
    events: EventTable,
    targets: StimulusSequences,
    split: BlockSplit,
    minutes: Iterable[float],
    *,
    part: str = "test",
    progress: bool = False,
    **options: Any,
) -> CalibrationCurve:
    """Calibrate new subjects with more and more data, and test each time on the same blocks.

    Parameters
    ----------
    decoder, events, targets, split
        As for `calibrate_subject`.
    recordings : RecordingSet
        Of one or several new subjects; each is calibrated by itself.
    minutes : iterable of float
        How much, rising.
    part : {"test", "valid"}
        Which blocks are tested on.
    progress : bool
        Show a bar.
    **options
        Keyword arguments of `calibrate_subject`.

    Returns
    -------
    CalibrationCurve
        Its first point, 0 minutes, is the average of the subjects of the training; sensors are scaled by all training
        windows of the new subject there, which takes no labels.
    """
    minutes = [check_number("minutes", value, above=0) for value in minutes]
    if not minutes or any(b <= a for a, b in itertools.pairwise(minutes)):
        raise invalid("minutes", "hold rising numbers", f"{minutes}")
    from tqdm.auto import tqdm

    names = recordings.subjects
    shape = (len(minutes) + 1, len(names))
    used, tops, n_segments = np.zeros(shape), {k: np.zeros(shape) for k in (1, 5, 10)}, 0
    with tqdm(total=shape[0] * shape[1], desc="calibration", disable=not progress) as bar:
        for s, name in enumerate(names):
            own = recordings.of_subjects([name])
            tested = decoder.windows(own, events, split, part, words=True)
            whole = decoder.scaled_for(own, decoder.windows(own, events, split, "train", words=False))
            for k, amount in enumerate([None, *minutes]):
                ready = whole
                if amount is not None:
                    found = calibrate_subject(decoder, own, events, targets, split, minutes=amount, **options)
                    ready, used[k, s] = found.decoder, found.minutes
                scores = _tested(ready, own, tested, targets)
                n_segments = scores.segment.n_candidates
                for n, table in tops.items():
                    table[k, s] = mean_of_means(scores.segment.top_k(n), np.zeros(len(tested), dtype=int))
                bar.update()
    return CalibrationCurve(
        minutes=np.array([0.0, *minutes]),
        used=used,
        top_1=tops[1],
        top_5=tops[5],
        top_10=tops[10],
        subjects=names,
        n_segments=n_segments,
    )


def _tested(
    decoder: SpeechDecoder, recordings: RecordingSet, windows: EventTable, targets: StimulusSequences
) -> TrialScores:
    words = windows.extra["word"]
    segments: Segments = decoder.segments(windows, targets, labels=words)
    return score_estimates(decoder.estimates(recordings, windows), segments, words)


def _cut(windows: EventTable, choose: float, *, tmin: float, tmax: float) -> tuple[EventTable, EventTable]:
    """Return the first windows and the last ones, which share no sample."""
    n = len(windows)
    first_held = n - max(1, round(choose * n))
    held = windows.select(slice(first_held, n))
    begin = held.start[0] + tmin
    apart = (windows.recording != held.recording[0]) | (windows.start + tmax < begin)
    kept = np.flatnonzero(apart & (np.arange(n) < first_held))
    if len(kept) < 2 or len(held) < 2:
        came = f"{len(kept)} and {len(held)}"
        raise invalid("minutes", "leave at least 2 windows to fit to and 2 to choose by", came, "Give more minutes.")
    return windows.select(kept), held
