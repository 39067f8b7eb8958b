"""Recorded digits become sentences: each recording once, at the times that are told."""

import numpy as np
import pytest
from scipy.io import wavfile

from neurodecode.meeg.spoken_digits import tell_digits

RATE = 8000


def write(folder, speakers=("anna", "bert"), takes=4, rate=RATE):
    """A tone of its own for each recording, so that it can be found again in a story."""
    for s, speaker in enumerate(speakers):
        for digit in range(10):
            for take in range(takes):
                t = np.arange(1600 + 40 * digit) / rate
                tone = 0.2 * np.sin(2 * np.pi * (300 + 70 * digit + 9 * take + 3 * s) * t)
                wavfile.write(folder / f"{digit}_{speaker}_{take}.wav", rate, (tone * 32767).astype(np.int16))
    (folder / "notes.txt").write_text("not a recording", encoding="utf-8")
    return folder


def test_each_recording_is_told_once_where_the_words_say(tmp_path):
    stories = tell_digits(write(tmp_path), 2, 6, rng=np.random.default_rng(0))
    for story, speaker in zip(stories, ("anna", "bert"), strict=True):
        used = []
        for start, stop, word in story.words:
            piece = story.wave[round(start * RATE) : round(stop * RATE)].astype(float)
            for path in tmp_path.glob(f"*_{speaker}_*.wav"):
                sound = wavfile.read(path)[1].astype(float)
                if len(sound) == len(piece) and np.corrcoef(sound, piece)[0, 1] > 0.999:
                    used.append(path.name)
                    digit = int(path.name[0])
            assert word == ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][digit]
        assert len(used) == len(set(used)) == len(story.words)
        # Between the words it is silent.
        told = np.zeros(len(story.wave), dtype=bool)
        for start, stop, _ in story.words:
            told[round(start * RATE) : round(stop * RATE)] = True
        assert not story.wave[~told].any()


def test_sentences_are_their_words(tmp_path):
    (story,) = tell_digits(write(tmp_path), 1, 5, digits_per_sentence=(3, 4), rng=np.random.default_rng(1))
    assert len(story.sentences) == 5
    for start, stop, text in story.sentences:
        inside = [word for word in story.words if start <= word[0] and word[1] <= stop]
        assert " ".join(word for _, _, word in inside) == text
        assert 3 <= len(inside) <= 4
        assert (inside[0][0], inside[-1][1]) == (start, stop)


def test_the_same_generator_tells_the_same_story(tmp_path):
    write(tmp_path)
    one, same, other = (tell_digits(tmp_path, 1, 4, rng=np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    assert np.array_equal(one.wave, same.wave)
    assert one.words != other.words


def test_mistakes_are_named(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(FileNotFoundError, match="fsdd"):
        tell_digits(tmp_path, 1, 1, rng=rng)
    write(tmp_path)
    with pytest.raises(ValueError, match="at most 2"):
        tell_digits(tmp_path, 3, 1, rng=rng)
    with pytest.raises(ValueError, match="fewer sentences"):
        tell_digits(tmp_path, 1, 30, rng=rng)
    with pytest.raises(ValueError, match="digits_per_sentence"):
        tell_digits(tmp_path, 1, 1, digits_per_sentence=(3, 2), rng=rng)
    write(tmp_path, speakers=("anna",), takes=1, rate=16000)
    with pytest.raises(ValueError, match="one rate"):
        tell_digits(tmp_path, 1, 6, rng=rng)


def test_recordings_of_the_data_set(shared_data):
    folder = shared_data / "fsdd" / "recordings"
    if not folder.is_dir():
        pytest.skip(f"no folder fsdd in {shared_data}")
    stories = tell_digits(folder, 5, 50, rng=np.random.default_rng(0))
    for story in stories:
        assert story.sfreq == 8000
        assert 60 < len(story.wave) / story.sfreq < 300
        assert len({word for _, _, word in story.words}) == 10
