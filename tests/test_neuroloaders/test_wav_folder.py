"""Wav files of every format, damaged ones, and the cache of their spikes."""

import os
import struct

import numpy as np
import pytest
import torch
from fakes.audio import WAV_FORMATS, tone, wav_bytes, write_wav

from neuroloaders import wav_folder
from neuroloaders.cochlea import CochleaConfig, cochlea_spikes
from neuroloaders.wav_folder import read_wav, spikes_from_wavs

SMALL = CochleaConfig(n_channels=8)


@pytest.fixture
def files(tmp_path):
    """Three recordings, of two sampling rates."""
    kinds = (("a", 500, 8000), ("b", 1500, 16000), ("c", 2500, 8000))
    return [write_wav(tmp_path / f"{name}.wav", tone(f, rate), rate) for name, f, rate in kinds]


# --- reading ---


@pytest.mark.parametrize("kind", WAV_FORMATS)
def test_every_sample_format_is_read_at_full_scale(tmp_path, kind):
    wave = tone(440, 11025, amplitude=0.9)
    read, sfreq = read_wav(write_wav(tmp_path / "x.wav", wave, 11025, kind))
    assert (sfreq, read.dtype, read.shape) == (11025, np.float64, wave.shape)
    tag, bits = WAV_FORMATS[kind]
    precision = 2.0 ** -(bits if tag == 1 else {32: 24, 64: 52}[bits])
    np.testing.assert_allclose(read, wave, atol=1.01 * precision)


def test_chunks_beside_the_sound_are_passed_over(tmp_path):
    note = b"LIST" + struct.pack("<I", 8) + b"INFOabcd" + b"xyz " + struct.pack("<I", 4) + b"1234"
    read, _ = read_wav(write_wav(tmp_path / "x.wav", tone(440), extra=note))
    assert len(read) == 800


def test_missing_pad_byte_is_forgiven(tmp_path):
    whole = wav_bytes(tone(440)[:799], kind="8-bit")
    (tmp_path / "x.wav").write_bytes(whole[:-1])
    assert len(read_wav(tmp_path / "x.wav")[0]) == 799


def test_several_channels_are_refused_or_averaged(tmp_path):
    path = write_wav(tmp_path / "x.wav", np.stack([tone(440), 0.5 * tone(440)], 1), kind="float64")
    with pytest.raises(ValueError, match=r"several channels, got 2 in '.*x\.wav'\. Pass stereo='mean'"):
        read_wav(path)
    np.testing.assert_allclose(read_wav(path, stereo="mean")[0], 0.75 * tone(440))
    with pytest.raises(ValueError, match="`stereo` must be one of 'error', 'mean'"):
        read_wav(path, stereo="left")


WHOLE = wav_bytes(tone(440))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b"RIFF", "it is no wav file"),
        (b"ID3" + WHOLE, "it is no wav file"),
        (WHOLE[:-2], "it has 1642 of the 1644 bytes that its header promises"),
        (WHOLE[:20], "it has 20 of the 1644 bytes"),
        (wav_bytes(np.zeros(0)), "it holds no samples"),
        (wav_bytes(np.array([0.0, np.nan]), kind="float32"), "it holds NaN or infinite samples"),
        (wav_bytes(tone(440), tag=7, kind="8-bit"), "Unknown wave file format"),
        (wav_bytes(tone(440), sfreq=0), "its sampling rate is 0 Hz"),
        (WHOLE[:22] + b"\0\0" + WHOLE[24:], ""),  # no channels
        (WHOLE[:12] + WHOLE[36:], ""),  # no description of the format
        (WHOLE[:36], "promises"),
        (b"RIFF" + struct.pack("<I", 28) + WHOLE[8:36], ""),  # no sound
    ],
)
def test_damaged_files_are_named(tmp_path, content, text):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.wav' cannot be read: .*{text}.*\. (Get|Convert)"):
        read_wav(tmp_path / "x.wav")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be a wav file that exists, got .*x\.wav"):
        read_wav(tmp_path / "x.wav")


# --- encoding ---


def test_set_holds_the_spikes_of_each_file_in_order(files, tmp_path):
    spikes = spikes_from_wavs(
        files, ["no", "yes", "no"], SMALL, groups=["z", "z", "a"], name="words", cache_dir=tmp_path / "c"
    )
    assert (spikes.classes, spikes.group_names, spikes.unit_shape) == (("no", "yes"), ("a", "z"), (8, 2))
    assert spikes.labels.tolist() == [0, 1, 0]
    assert spikes.groups.tolist() == [1, 1, 0]
    assert (spikes.n_units, spikes.name, spikes.split) == (16, "words", "train")
    for i, path in enumerate(files):
        wave, sfreq = read_wav(path)
        for got, want in zip(spikes.sample(i), cochlea_spikes(wave, sfreq, SMALL), strict=True):
            np.testing.assert_array_equal(got, want)
            assert len(got) > 0


def test_numbers_are_classes_in_the_order_of_numbers(files, tmp_path):
    options = {"config": SMALL, "cache_dir": tmp_path / "c", "progress": False}
    assert spikes_from_wavs(files, [10, 9, 10], **options).classes == ("9", "10")
    some = spikes_from_wavs(files, torch.tensor([1, 0, 1]), classes=["0", "1", "2"], **options)
    assert some.labels.tolist() == [1, 0, 1]
    assert some.groups is None


@pytest.fixture
def reads(monkeypatch):
    """The files that were read."""
    calls, read = [], read_wav
    monkeypatch.setattr(wav_folder, "read_wav", lambda path, **options: calls.append(path) or read(path, **options))
    return calls


def test_files_are_encoded_once(files, tmp_path, reads):
    options = {"cache_dir": tmp_path / "c", "progress": False}
    first, again = (spikes_from_wavs(files, [0, 1, 2], SMALL, **options) for _ in range(2))
    assert len(reads) == 3
    for key in ("times_ms", "units", "offsets"):
        assert torch.equal(getattr(first, key), getattr(again, key))
    spikes_from_wavs(files, [1, 1, 0], SMALL, **options)  # labels are not stored
    assert len(reads) == 3
    spikes_from_wavs(files, [0, 1, 2], CochleaConfig(n_channels=9), **options)
    assert len(reads) == 6
    spikes_from_wavs(files[::-1], [0, 1, 2], SMALL, **options)
    assert len(reads) == 9
    os.utime(files[0], ns=(1, 1))
    spikes_from_wavs(files, [0, 1, 2], SMALL, **options)
    assert len(reads) == 12


def test_silent_files_are_samples_without_events(tmp_path):
    path = write_wav(tmp_path / "x.wav", np.zeros(400))
    for _ in range(2):
        spikes = spikes_from_wavs([path, path], ["a", "a"], SMALL, cache_dir=tmp_path / "c", progress=False)
        assert len(spikes) == 2
        assert len(spikes.times_ms) == 0


def test_damaged_file_leaves_nothing_in_the_cache(files, tmp_path):
    files[1].write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.wav' cannot be read: it is empty"):
        spikes_from_wavs(files, [0, 1, 2], SMALL, cache_dir=tmp_path / "c", progress=False)
    assert not list((tmp_path / "c").iterdir())


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"config": CochleaConfig(f_max_hz=4000)}, ValueError, r"`f_max_hz` must be below 4000 Hz, half of .*a\.wav'"),
        ({"labels": [0, 1]}, ValueError, "`paths`, `labels` must have the same length"),
        ({"labels": [0.5, 1.0, 2.0]}, TypeError, "`labels` must be one text or whole number for each file"),
        ({"groups": ["x"]}, ValueError, "`paths`, `labels`, `groups` must have the same length"),
        ({"classes": [0, 1]}, ValueError, "`labels` must be among the classes 0, 1, got '2'"),
        ({"paths": [], "labels": []}, ValueError, "`paths` must name at least one wav file"),
        ({"split": "dev"}, ValueError, "`split` must be one of"),
        ({"stereo": "left"}, ValueError, "`stereo` must be one of"),
    ],
)
def test_mistakes_are_named(files, tmp_path, change, error, text):
    good = {"paths": files, "labels": [0, 1, 2], "config": SMALL, "cache_dir": tmp_path / "c", "progress": False}
    with pytest.raises(error, match=text):
        spikes_from_wavs(**{**good, **change})
