"""Speech-like sound of a small vocabulary: words are chains of vowel-like syllables, no token like another.

For simulations that need no corpus. Nobody understands it; its envelope and its spectrum move as those of speech do.
"""

# n samples of sound

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_int, check_number, invalid

__all__ = ["Lexicon", "Story", "make_lexicon", "tell_story"]

# Means and spreads of three formants in Hz: the range of vowels of adults.
_FORMANTS = ((500.0, 150.0), (1500.0, 450.0), (2600.0, 350.0))
_BANDWIDTH = 120.0
_HIGHEST = 4000.0


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words by their syllables.

    Parameters
    ----------
    words : tuple of str
        Their names.
    syllables : tuple of ndarray, shape (k, 4)
        Of each word the k syllables: three formants in Hz, and a length in s.
    """

    words: tuple[str, ...]
    syllables: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Story:
    """Sentences after one another, with pauses.

    Parameters
    ----------
    wave : ndarray of float32, shape (n,)
        The sound, at `sfreq`.
    sfreq : float
        Its rate, Hz.
    sentences : tuple of (float, float, str)
        Begin and end in s, and text.
    words : tuple of (float, float, str)
        Begin and end in s, and the word.
    """

    wave: np.ndarray
    sfreq: float
    sentences: tuple[tuple[float, float, str], ...]
    words: tuple[tuple[float, float, str], ...]


def make_lexicon(n_words: int, *, rng: np.random.Generator) -> Lexicon:
    """Draw a vocabulary.

    Parameters
    ----------
    n_words : int
        How many words.
    rng : numpy.random.Generator
        Where they come from.
    """
    check_int("n_words", n_words, at_least=1)
    syllables = []
    for _ in range(n_words):
        k = int(rng.integers(1, 4))
        formants = np.stack([rng.normal(mean, spread, k) for mean, spread in _FORMANTS], axis=1)
        syllables.append(np.column_stack([formants.clip(200.0, _HIGHEST - 200), rng.uniform(0.1, 0.22, k)]))
    return Lexicon(tuple(f"word{k:03d}" for k in range(n_words)), tuple(syllables))


def tell_story(
    lexicon: Lexicon,
    n_sentences: int,
    *,
    words_per_sentence: Sequence[int] = (5, 9),
    pause_s: float = 0.6,
    sfreq: int = 16_000,
    rng: np.random.Generator,
) -> Story:
    """Speak random sentences.

    Parameters
    ----------
    lexicon : Lexicon
        What words there are; all are equally likely.
    n_sentences : int
        How many sentences; there is a pause before each.
    words_per_sentence : (int, int)
        The fewest and the most words.
    pause_s : float
        Between sentences, in s.
    sfreq : int
        Rate of the sound, Hz.
    rng : numpy.random.Generator
        Where words, pitch, loudness and pace come from.
    """
    check_int("n_sentences", n_sentences, at_least=1)
    fewest, most = (check_int("words_per_sentence", n, at_least=1) for n in words_per_sentence)
    if most < fewest:
        raise invalid("words_per_sentence", "be the fewest and the most words", f"{tuple(words_per_sentence)}")
    check_number("pause_s", pause_s, at_least=0)
    check_int("sfreq", sfreq, at_least=2 * int(_HIGHEST))
    pieces: list[np.ndarray] = []
    length, sentences, words = 0, [], []

    def silence(seconds: float) -> None:
        nonlocal length
        pieces.append(np.zeros(round(seconds * sfreq)))
        length += len(pieces[-1])

    for _ in range(n_sentences):
        silence(pause_s)
        begin, text = length / sfreq, []
        for number in rng.integers(0, len(lexicon.words), int(rng.integers(fewest, most + 1))):
            onset = length / sfreq
            sound = _spoken(lexicon.syllables[number], sfreq, rng)
            pieces.append(sound)
            length += len(sound)
            words.append((onset, length / sfreq, lexicon.words[number]))
            text.append(lexicon.words[number])
            silence(rng.uniform(0.02, 0.08))
        sentences.append((begin, length / sfreq, " ".join(text)))
    silence(pause_s)
    wave = np.concatenate(pieces)
    return Story(
        wave=(0.5 * wave / abs(wave).max()).astype(np.float32),
        sfreq=float(sfreq),
        sentences=tuple(sentences),
        words=tuple(words),
    )


def _spoken(syllables: np.ndarray, sfreq: int, rng: np.random.Generator) -> np.ndarray:
    """Return one token of a word: harmonics of a gliding pitch under the formants of each syllable."""
    pace, pitch, loudness = rng.uniform(0.85, 1.15), rng.uniform(95.0, 130.0), rng.uniform(0.6, 1.0)
    out = []
    for *formants, seconds in syllables:
        n = round(seconds * pace * sfreq)
        phase = 2 * np.pi * np.cumsum(np.linspace(pitch, 0.9 * pitch, n)) / sfreq
        harmonics = np.arange(1, int(_HIGHEST / pitch) + 1)
        shifted = np.array(formants) * rng.normal(1.0, 0.02)
        distance = (harmonics[:, None] * pitch - shifted) / _BANDWIDTH
        weight = (np.exp(-0.5 * distance**2) * [1.0, 0.6, 0.4]).sum(axis=1) + 0.01
        out.append(np.hanning(n) * (weight @ np.sin(harmonics[:, None] * phase)))
    return loudness * np.concatenate(out)
