"""Stories of real speech without a corpus of stories: recorded digits of one speaker, strung into sentences."""

# n samples of sound

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neurodecode.meeg.synthetic_speech import Story
from neuroloaders.checks import check_int, check_number, invalid, missing_data
from neuroloaders.wav_folder import read_wav

__all__ = ["tell_digits"]

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_FILE = re.compile(r"([0-9])_([A-Za-z]+)_([0-9]+)\.wav")


def tell_digits(
    folder: str | os.PathLike[str],
    n_stories: int,
    n_sentences: int,
    *,
    digits_per_sentence: Sequence[int] = (4, 8),
    pause_s: float = 0.6,
    rng: np.random.Generator,
) -> list[Story]:
    """String recordings of the Free Spoken Digit Dataset [1]_ into sentences.

    Parameters
    ----------
    folder : path-like
        Holds files named ``DIGIT_SPEAKER_TAKE.wav``, at one rate.
    n_stories : int
        At most as many as speakers: each tells one, speakers in alphabetical order.
    n_sentences : int
        Of each story; there is a pause before each.
    digits_per_sentence : (int, int)
        The fewest and the most.
    pause_s : float
        Between sentences, in s; digits follow one another after 50 ms.
    rng : numpy.random.Generator
        Which digits come when.

    Returns
    -------
    list of Story
        Words are "zero" to "nine". No recording is used twice, so that no sound is on two sides of a split.

    Raises
    ------
    FileNotFoundError
        If the folder holds no such files.
    ValueError
        If there are fewer speakers than stories, or a speaker has too few recordings.

    References
    ----------
    .. [1] Jackson et al., Free Spoken Digit Dataset v1.0.9, doi:10.5281/zenodo.1342401.
    """
    check_int("n_stories", n_stories, at_least=1)
    check_int("n_sentences", n_sentences, at_least=1)
    fewest, most = (check_int("digits_per_sentence", n, at_least=1) for n in digits_per_sentence)
    if most < fewest:
        raise invalid("digits_per_sentence", "be the fewest and the most digits", f"{tuple(digits_per_sentence)}")
    check_number("pause_s", pause_s, at_least=0)
    files: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(Path(folder).glob("*.wav")):
        found = _FILE.fullmatch(path.name)
        if found is not None:
            files.setdefault(found[2], []).append((int(found[1]), path))
    if not files:
        advice = "It is the folder recordings of the data set fsdd: neuroloaders.fetch('fsdd')."
        raise missing_data("Spoken digits", ["DIGIT_SPEAKER_TAKE.wav"], [Path(folder)], advice)
    if n_stories > len(files):
        raise invalid("n_stories", f"be at most {len(files)}, one for each speaker", f"{n_stories}")
    return [_story(name, files[name], n_sentences, (fewest, most), pause_s, rng) for name in sorted(files)[:n_stories]]


def _story(
    speaker: str,
    files: list[tuple[int, Path]],
    n_sentences: int,
    n_digits: tuple[int, int],
    pause_s: float,
    rng: np.random.Generator,
) -> Story:
    lengths = rng.integers(n_digits[0], n_digits[1] + 1, n_sentences)
    if lengths.sum() > len(files):
        advice = "Ask for fewer sentences, or shorter ones."
        came = f"{len(files)} of {speaker!r} for {lengths.sum()} digits"
        raise invalid("folder", "hold a recording for each digit that is told", came, advice)
    drawn = iter(rng.permutation(len(files))[: lengths.sum()].tolist())
    pieces: list[np.ndarray] = []
    length, rate, sentences, words = 0, 0.0, [], []

    def add(sound: np.ndarray) -> None:
        nonlocal length
        pieces.append(sound)
        length += len(sound)

    for n in lengths:
        text, begin = [], 0.0
        for place in range(n):
            digit, path = files[next(drawn)]
            sound, sfreq = read_wav(path)
            if rate not in (0.0, sfreq):
                raise invalid("folder", f"hold recordings at one rate, {rate:g} Hz", f"{path.name} at {sfreq:g} Hz")
            rate = sfreq
            add(np.zeros(round((pause_s if place == 0 else 0.05) * rate)))
            onset = length / rate
            begin = onset if place == 0 else begin
            # As loud as the others: recordings differ, and listeners would turn the volume.
            add(0.1 * sound / max(float(np.sqrt(np.mean(sound**2))), 1e-6))
            words.append((onset, length / rate, _NAMES[digit]))
            text.append(_NAMES[digit])
        sentences.append((begin, length / rate, " ".join(text)))
    add(np.zeros(round(pause_s * rate)))
    wave = np.concatenate(pieces)
    return Story(
        wave=(wave / max(1.0, float(abs(wave).max()))).astype(np.float32), sfreq=float(rate),
        sentences=tuple(sentences), words=tuple(words),
    )  # fmt: skip
