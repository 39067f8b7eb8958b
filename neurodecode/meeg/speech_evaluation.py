"""How good a decoder of speech is: retrieval of segments and words, by subject, with intervals, p and controls."""

# n trials, S subjects

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neurodecode.meeg.clip_loss import FORMS
from neurodecode.meeg.linear_speech import LinearSpeechDecoder
from neurodecode.meeg.speech import SpeechDecoder
from neurodecode.meeg.speech_controls import CONTROLS, ControlSetting
from neurodecode.meeg.speech_scores import TrialScores, score_estimates, word_frequency
from neurodecode.scoring.intervals import Interval, hierarchical_interval
from neurodecode.scoring.permutation import PermutationTest, permutation_test
from neurodecode.scoring.retrieval import Retrieval
from neuroloaders.atomic import atomic_write
from neuroloaders.block_splits import BlockSplit
from neuroloaders.checks import check_int, check_number, check_option, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.window_targets import StimulusSequences

__all__ = ["SpeechEvaluation", "evaluate_speech", "mean_of_means"]

_KS = (1, 5, 10)


@dataclass(frozen=True, eq=False, kw_only=True)
class SpeechEvaluation:
    """What `evaluate_speech` found.

    Parameters
    ----------
    scores : TrialScores
        Of the decoder.
    controls : dict of str to TrialScores
        Of each control, and of "word frequency".
    skipped : dict of str to str
        Controls that were not run, and why.
    subject, sentence, word : ndarray of str, shape (n,)
        Of each test window.
    segment : ndarray of int64, shape (n,)
        The candidate that is true.
    word_merge : str
        How candidates of the same word became one.
    intervals : dict of str to Interval
        Of "segment top-1", "word top-10" and so on: over subjects and sentences, crossed; with one subject, over
        sentences.
    permutation : PermutationTest or None
        Of the share of segments among the `permutation_k` nearest, when sentences change places; None with fewer than
        two sentences.
    permutation_k : int
        10, or 1 where there are ten candidates at most.
    """

    scores: TrialScores
    controls: Mapping[str, TrialScores]
    skipped: Mapping[str, str]
    subject: np.ndarray
    sentence: np.ndarray
    word: np.ndarray
    segment: np.ndarray
    word_merge: str
    intervals: Mapping[str, Interval] = field(repr=False)
    permutation: PermutationTest | None = field(repr=False)
    permutation_k: int = 10

    def accuracy(self, k: int = 10, *, level: str = "segment", of: str = "decoder") -> float:
        """Return the share of trials with the true answer among the k nearest, the mean over subjects of their means.

        Parameters
        ----------
        k : int
            How many count.
        level : {"segment", "word"}
            Of what.
        of : str
            "decoder", or the name of a control.
        """
        check_option("of", of, ["decoder", *self.controls])
        check_option("level", level, ["segment", "word"])
        scores = self.scores if of == "decoder" else self.controls[of]
        return mean_of_means(getattr(scores, level).top_k(k), self.subject[scores.row])

    def chance(self, k: int = 10) -> float:
        """Return what `accuracy` of segments is for a decoder that knows nothing; of words, see "word frequency"."""
        return self.scores.segment.chance(k)

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each subject and one for all, of the decoder and of each control.

        Returns
        -------
        list of dict
            Keys "of", "subject", "n", "segment top-1" to "word top-10", "segment rank" and "word rank" (medians). In
            rows of the subject "all" scores are means over subjects, medians over all trials. It can be given to
            ``pandas.DataFrame``.
        """
        rows = []
        for name, scores in {"decoder": self.scores, **self.controls}.items():
            subject = self.subject[scores.row]
            for who in [*np.unique(subject).tolist(), "all"]:
                mine = np.ones(len(subject), dtype=bool) if who == "all" else subject == who
                row: dict[str, Any] = {"of": name, "subject": who, "n": int(mine.sum())}
                for level in ("segment", "word"):
                    found: Retrieval = getattr(scores, level)
                    for k in _KS:
                        row[f"{level} top-{k}"] = mean_of_means(found.top_k(k)[mine], subject[mine])
                    row[f"{level} rank"] = float(np.median(found.rank[mine]))
                rows.append(row)
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return all but the trials as JSON holds it."""
        test = self.permutation
        return {
            "n_trials": len(self.scores.row),
            "n_subjects": len(np.unique(self.subject)),
            "n_segments": self.scores.segment.n_candidates,
            "n_words": self.scores.word.n_candidates,
            "word_merge": self.word_merge,
            "table": self.table(),
            "intervals": {
                name: {"estimate": i.estimate, "low": i.low, "high": i.high, "level": i.level, "method": i.method}
                for name, i in self.intervals.items()
            },
            "permutation": None if test is None else {"k": self.permutation_k, "p": test.p, "chance": test.chance},
            "skipped": dict(self.skipped),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `as_dict` as one JSON file, whole or not at all."""
        with atomic_write(path, "w") as file:
            json.dump(self.as_dict(), file, indent=1, allow_nan=False)

    def __str__(self) -> str:
        head = f"{'':24}{'':6}" + "".join(f"{f'{level} top-{k}':>16}" for level in ("segment", "word") for k in _KS)
        lines = [head]
        for row in self.table():
            if row["of"] == "decoder" or row["subject"] == "all":
                numbers = "".join(f"{row[f'{level} top-{k}']:16.3f}" for level in ("segment", "word") for k in _KS)
                lines.append(f"{row['of']:16}{row['subject']:8}{row['n']:6}{numbers}")
        lines += [f"{name}: {interval}" for name, interval in self.intervals.items()]
        if self.permutation is not None:
            lines.append(f"segment top-{self.permutation_k}: p = {self.permutation.p:.4g}, sentences permuted")
        lines += [f"not run: {name} ({why})" for name, why in self.skipped.items()]
        return "\n".join(lines)


def evaluate_speech(
    decoder: SpeechDecoder,
    recordings: RecordingSet,
    events: EventTable,
    targets: StimulusSequences,
    split: BlockSplit,
    *,
    rng: np.random.Generator,
    part: str = "test",
    word_merge: str = "sum",
    controls: Iterable[str] | None = None,
    envelope: StimulusSequences | None = None,
    shift_s: float = 10.0,
    batch_size: int = 128,
    level: float = 0.95,
    n_resamples: int = 2000,
    n_permutations: int = 1000,
    progress: bool = False,
) -> SpeechEvaluation:
    """Find the segment and the word of each test window among all distinct ones.

    Parameters
    ----------
    decoder : SpeechDecoder or LinearSpeechDecoder
        Trained.
    recordings, events, targets, split
        As for `SpeechDecoder.fit`. Recordings may be of some subjects only, and of subjects that the network does not
        know, who are given the average of the others; `SpeechDecoder.scaled_for` makes their scale known.
    rng : numpy.random.Generator
        For intervals and permutations.
    part : {"test", "valid"}
        Which blocks.
    word_merge : {"sum", "max"}
        How candidates of the same word become one: by the sum of their probabilities, as in the reference code of [1]_,
        or by the best of their scores.
    controls : iterable of str, optional
        Keys of `neurodecode.meeg.CONTROLS`; by default all that can be run.
    envelope : StimulusSequences, optional
        Envelope of each sound, for the controls of it.
    shift_s : float
        How far the control "shifted brain" moves the brain away, in s; more than a window.
    batch_size : int
        Windows at a time.
    level : float
        Of the intervals.
    n_resamples, n_permutations : int
        How many.
    progress : bool
        Show a bar.

    Returns
    -------
    SpeechEvaluation

    Notes
    -----
    Windows lie around each word that fits into a test block. Candidates are the distinct windows of sound among them
    [1]_: what several subjects heard is one candidate. Memory grows with the trials, not with trials times candidates.

    Controls. "position": the mean training sound at that place in a sentence, without a brain. "envelope": the envelope
    as a ridge decodes it from the brain, and features from that by another ridge: what follows from the envelope alone.
    "heard envelope": the same from the envelope of the sound itself, the most that an envelope could tell. "shifted
    brain": the decoder with the brain `shift_s` later, or earlier where the recording ends; it must be at chance.
    "word frequency": ranks words by their number of candidates, which is the chance level of words.

    In the permutation test sentences change places, with all of their words and subjects: neighbouring windows overlap
    and share words, and would be independent evidence otherwise. With few sentences p cannot be small.

    References
    ----------
    .. [1] Défossez et al., Nature Machine Intelligence 5 (2023), doi:10.1038/s42256-023-00714-5.
    """
    check_option("part", part, ["test", "valid"])
    check_int("batch_size", batch_size, at_least=1)
    span = decoder.config.tmax - decoder.config.tmin
    check_number("shift_s", shift_s, at_least=span, advice=f"Windows last {span:g} s: the sound would still be there.")
    chosen = list(CONTROLS) if controls is None else [check_option("controls", name, CONTROLS) for name in controls]
    windows = decoder.windows(recordings, events, split, part, words=True)
    words = windows.extra["word"]
    segments = decoder.segments(windows, targets, labels=words)
    options = {
        "cosine": FORMS[decoder.config.loss].cosine and not isinstance(decoder, LinearSpeechDecoder),
        "temperature": decoder.temperature_,
        "word_merge": word_merge,
        "progress": progress,
    }
    found = decoder.estimates(recordings, windows, batch_size=batch_size)
    scores = score_estimates(found, segments, words, **options)
    setting = ControlSetting(
        decoder=decoder, recordings=recordings, events=events, targets=targets, split=split, windows=windows,
        segments=segments, envelope=envelope, shift_s=shift_s, batch_size=batch_size,
    )  # fmt: skip
    controlled, skipped = {}, {}
    for name in chosen:
        run, needs_envelope = CONTROLS[name]
        if needs_envelope and envelope is None:
            if controls is not None:
                raise invalid("envelope", f"be given for the control {name!r}", "None")
            skipped[name] = "no envelope was given"
        else:
            controlled[name] = score_estimates(run(setting), segments, words, **options)
    controlled["word frequency"] = word_frequency(segments, words)
    numbers = recordings.subject_numbers[[recordings.number(name) for name in windows.recording.tolist()]]
    subject, sentence = np.array(recordings.subjects)[numbers], windows.extra["sentence"]
    k = 10 if len(segments) > 10 else 1
    return SpeechEvaluation(
        scores=scores,
        controls=controlled,
        skipped=skipped,
        subject=subject,
        sentence=sentence,
        word=words,
        segment=segments.number,
        word_merge=word_merge,
        intervals=_intervals(scores, subject, sentence, level, n_resamples, rng),
        permutation=_permuted(scores, segments.number, subject, windows, k, n_permutations, rng),
        permutation_k=k,
    )


def mean_of_means(values: np.ndarray, group: np.ndarray) -> float:
    """Return the mean over groups of the means of `values`, shape (n,), so that each group counts the same."""
    names, number = np.unique(group, return_inverse=True)
    return float((np.bincount(number, values) / np.bincount(number)).mean())


def _intervals(
    scores: TrialScores, subject: np.ndarray, sentence: np.ndarray, level: float, n: int, rng: np.random.Generator
) -> dict[str, Interval]:
    """Return intervals over subjects and sentences; over sentences of one subject; none of one sentence."""
    several = len(np.unique(subject)) > 1
    if not several and len(np.unique(sentence)) < 2:
        return {}
    design = {"items": sentence, "design": "crossed"} if several else {"design": "clusters"}
    out = {}
    for name in ("segment", "word"):
        for k in _KS:
            values = getattr(scores, name).top_k(k)
            clusters = subject if several else sentence
            out[f"{name} top-{k}"] = hierarchical_interval(
                values, clusters, **design, level=level, n_resamples=n, rng=rng
            )
    return out


def _permuted(
    scores: TrialScores,
    segment: np.ndarray,
    subject: np.ndarray,
    windows: EventTable,
    k: int,
    n_permutations: int,
    rng: np.random.Generator,
) -> PermutationTest | None:
    sentence = windows.extra["sentence"]
    if len(np.unique(sentence)) < 2:
        return None
    # The k-th trial of a sentence takes the k-th of another: the same place in the sentence, and the same subject.
    order = np.lexsort([subject, windows.extra["stimulus_start"], sentence])
    nearest, segment, subject = scores.nearest[order, :k], segment[order], subject[order]

    def share(rows: np.ndarray) -> float:
        return mean_of_means((nearest == segment[rows][:, None]).any(axis=1).astype(float), subject)

    return permutation_test(share, len(order), groups=sentence[order], n_permutations=n_permutations, rng=rng)
