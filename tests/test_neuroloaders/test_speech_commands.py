"""Mel spectrograms against numpy in float64 and laws of sound; the split against torchaudio's and the lists."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from fakes.spikes import SSC_KEYS, write_speech_commands
from scipy.io import wavfile

from neuroloaders import ResidentLoader
from neuroloaders.features import FeatureSet, time_first
from neuroloaders.studies import speech_commands
from neuroloaders.studies.mel import MelConfig, mel_features
from neuroloaders.studies.speech_commands import list_recordings, load_speech_commands, read_wav

SMALL = MelConfig(n_mels=12)


def load(folder, config=SMALL, **options):
    return load_speech_commands(config, data_dir=folder, offline=True, progress=False, **options)


@pytest.fixture(scope="module")
def gsc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folder, write_speech_commands(folder / "gsc" / "speech_commands_v0.02")


@pytest.fixture
def own(tmp_path):
    """A folder that a test may damage."""
    write_speech_commands(tmp_path / "gsc" / "speech_commands_v0.02")
    return tmp_path / "gsc" / "speech_commands_v0.02"


# --- the front end ---


def htk_mel(hertz):
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def mel_by_numpy(wave, config):
    """Return frames (T, C) in dB: a periodic Hann window, reflected ends, triangles on the mel scale; float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    padded = np.pad(wave, config.n_fft // 2, mode="reflect")
    starts = range(0, len(wave) + 1, config.hop)
    power = np.abs(np.fft.rfft([padded[start : start + config.n_fft] * window for start in starts])) ** 2
    corners = np.linspace(htk_mel(config.f_min), htk_mel(config.f_max), config.n_mels + 2)
    corners = 700 * (10 ** (corners / 2595) - 1)
    hertz = np.linspace(0, config.resample_hz / 2, config.n_fft // 2 + 1)
    filters = [
        np.interp(hertz, [low, centre, high], [0, 1, 0]) * (hertz > low) * (hertz < high)
        for low, centre, high in zip(corners, corners[1:], corners[2:], strict=False)
    ]
    return 10 * np.log10(np.maximum(power @ np.transpose(filters), 1e-10))


@pytest.mark.parametrize("config", [MelConfig(), MelConfig(compat="dcls-paper"), MelConfig(n_mels=20, f_min=0, hop=50)])
def test_spectrogram_is_that_of_numpy(config):
    config = dataclasses.replace(config, sfreq=8000, n_samples=8000)  # nothing to resample
    waves = np.random.default_rng(0).normal(0, 0.1, (2, 8000))
    ours = mel_features(torch.from_numpy(waves), config)
    assert ours.shape == (2, config.n_times, config.n_mels)
    for mine, wave in zip(ours, waves, strict=True):
        # torchaudio's filters are float32: where two nearly meet, a weight of 1e-5 is off by a percent.
        np.testing.assert_allclose(10 ** (mine / 10), 10 ** (mel_by_numpy(wave, config) / 10), rtol=1e-4, atol=1e-4)


def test_papers_front_end_gives_101_steps_of_140_channels():
    config = MelConfig()
    assert (config.n_times, config.n_mels, config.f_max) == (101, 140, 4000)
    for n in (1, 9000, 16_000, 20_000):
        assert mel_features(torch.zeros(3, n)).shape == (3, 101, 140)


@pytest.mark.parametrize("hertz", [200, 1000, 3000])
def test_tone_is_loudest_in_the_filter_around_it_and_six_db_louder_when_doubled(hertz):
    config = MelConfig(n_mels=30)
    tone = 0.2 * torch.sin(2 * math.pi * hertz * torch.arange(16_000) / 16_000)[None]
    features = mel_features(torch.cat([tone, 2 * tone]), config)
    middle = features[0, 50]
    centre = np.linspace(htk_mel(config.f_min), htk_mel(config.f_max), 32)[1:-1][int(middle.argmax())]
    width = (htk_mel(config.f_max) - htk_mel(config.f_min)) / 31
    assert abs(centre - htk_mel(hertz)) < width
    assert abs(float(features[1, 50].max() - middle.max()) - 20 * math.log10(2)) < 1e-3


def test_what_is_above_4_khz_is_gone_before_the_filters():
    tone = torch.sin(2 * math.pi * 6000 * torch.arange(16_000) / 16_000)[None]
    heard = torch.sin(2 * math.pi * 2000 * torch.arange(16_000) / 16_000)[None]
    middle = slice(10, 90)  # the tone's onset is heard
    assert mel_features(tone)[:, middle].max() < mel_features(heard)[:, middle].max() - 50


def test_silence_is_minus_100_db_and_length_does_not_matter_beyond_one_second():
    assert torch.equal(mel_features(torch.zeros(1, 400)), torch.full((1, 101, 140), -100.0))
    wave = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mel_features(wave), mel_features(wave[:, :16_000]))
    padded = torch.cat([wave[:, :3000], torch.zeros(1, 13_000)], 1)
    assert torch.equal(mel_features(wave[:, :3000]), mel_features(padded))


@pytest.mark.parametrize(("compat", "n_empty"), [(None, 7), ("dcls-paper", 53)])
def test_empty_filters_are_as_many_as_the_notes_say(compat, n_empty):
    noise = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    constant = (mel_features(noise, MelConfig(compat=compat)) == -100).all(1)[0]
    assert int(constant.sum()) == n_empty
    if compat:
        assert constant[87:].all()
        assert not constant[:87].any()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"f_max": 14_000}, ValueError, "`f_max` must be at most 4000 Hz, half of resample_hz, got 14000.*dcls-paper"),
        ({"compat": "paper"}, ValueError, "`compat` must be one of None, 'dcls-paper'"),
        ({"n_mels": 0}, ValueError, "`n_mels` must be a whole number >= 1"),
        ({"hop": 2.5}, TypeError, "`hop` must be a whole number"),
        ({"f_min": 5000}, ValueError, "`f_max` must be a finite number > 5000"),
        ({"n_samples": 100}, ValueError, "`n_samples` must last longer than half a window"),
    ],
)
def test_front_end_refuses_impossible_settings(options, error, text):
    with pytest.raises(error, match=text):
        MelConfig(**options)


def test_paper_compatible_limit_is_the_papers():
    assert MelConfig(compat="dcls-paper").f_max == 14_000
    assert MelConfig(compat="dcls-paper", f_max=6000).f_max == 6000
    with pytest.raises(ValueError, match=r"`waveforms` must have shape \(B, n\)"):
        mel_features(torch.zeros(16_000))


# --- the data set ---


def test_split_is_that_of_the_lists_and_noise_is_left_out(gsc):
    sets = load(gsc[0])
    assert {split: len(part) for split, part in sets.items()} == {"train": 35, "valid": 35, "test": 35}
    assert sets["train"].classes == tuple(sorted(SSC_KEYS))
    for split, speaker in (("train", "a1"), ("valid", "b2"), ("test", "c3")):
        part = sets[split]
        assert part.split == split
        assert part.labels.tolist() == list(range(35))
        assert {part.group_names[group] for group in part.groups} == {speaker}
        assert part.group_names == ("a1", "b2", "c3")


@pytest.mark.reference
def test_split_is_torchaudios(gsc):
    from torchaudio.datasets import SPEECHCOMMANDS

    theirs_of = {"train": "training", "valid": "validation", "test": "testing"}
    for split, recordings in list_recordings(gsc[0] / "gsc" / "speech_commands_v0.02").items():
        theirs = SPEECHCOMMANDS(gsc[0], folder_in_archive="gsc", subset=theirs_of[split])
        metadata = [theirs.get_metadata(i) for i in range(len(theirs))]
        ours = [
            (path.parent.name, speaker) for path, speaker in zip(recordings.files, recordings.speakers, strict=True)
        ]
        assert sorted(ours) == sorted((label, speaker) for _, _, label, speaker, _ in metadata)


def test_features_are_those_of_the_waveforms(gsc):
    folder, waves = gsc
    valid = load(folder)["valid"]
    for label, word in enumerate(valid.classes):
        wave = torch.from_numpy(waves[f"{word}/b2_nohash_0.wav"].astype(np.float32) / 32768)
        # Not bit for bit: sums are taken in another order in a batch of another size.
        torch.testing.assert_close(valid.features[label], mel_features(wave[None], SMALL)[0], rtol=0, atol=1e-3)


def test_features_are_computed_once_for_a_setting(gsc, monkeypatch):
    first = load(gsc[0])
    calls, read = [], speech_commands.read_wav
    monkeypatch.setattr(speech_commands, "read_wav", lambda *args: calls.append(1) or read(*args))
    again = load(gsc[0])
    assert not calls
    assert all(torch.equal(first[split].features, again[split].features) for split in first)
    assert load(gsc[0], MelConfig(n_mels=13))["train"].features.shape == (35, 101, 13)
    assert len(calls) == 105


def test_batches_come_with_time_first(gsc):
    train = load(gsc[0])["train"]
    batches = list(ResidentLoader(train.features, train.labels, batch_size=20, transform=time_first))
    assert [x.shape for x, _ in batches] == [(101, 20, 12), (101, 15, 12)]
    assert torch.equal(torch.cat([x for x, _ in batches], 1).transpose(0, 1), train.features)


def test_wav_is_scaled_to_one(tmp_path):
    wavfile.write(tmp_path / "a.wav", 16_000, np.array([-32768, 0, 16384], np.int16))
    assert read_wav(tmp_path / "a.wav", 16_000).tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.parametrize("n_bytes", [0, 10, 30, 44, 45, 100, 243])
def test_truncated_wav_is_refused(tmp_path, n_bytes):
    wavfile.write(tmp_path / "a.wav", 16_000, np.arange(100, dtype=np.int16))
    content = (tmp_path / "a.wav").read_bytes()
    assert len(content) == 244
    (tmp_path / "a.wav").write_bytes(content[:n_bytes])
    with pytest.raises(ValueError, match=r"a\.wav' cannot be read: it is no whole wav file"):
        read_wav(tmp_path / "a.wav", 16_000)


@pytest.mark.parametrize(
    ("rate", "wave", "came"),
    [
        (8000, np.zeros(9, np.int16), "8000 Hz, int16"),
        (16_000, np.zeros(9, np.float32), "float32"),
        (16_000, np.zeros((9, 2), np.int16), r"shape \(9, 2\)"),
    ],
)
def test_wav_of_another_format_is_refused(own, rate, wave, came):
    wavfile.write(own / "yes" / "a1_nohash_0.wav", rate, wave)
    with pytest.raises(ValueError, match=f"must be 16000 Hz, 16 bits, one channel and not empty, it is .*{came}"):
        load(own.parents[1])
    assert not list((own.parents[1] / "cache").iterdir())


def damage_list(folder, name, text):
    with open(folder / name, "a") as file:
        file.write(text)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            lambda f: damage_list(f, "testing_list.txt", "yes/x_nohash_0.wav\n"),
            "names 'yes/x_nohash_0.wav', which is not",
        ),
        (lambda f: damage_list(f, "testing_list.txt", "yes/b2_nohash_0.wav\n"), r"is in validation_list\.txt as well"),
        (lambda f: (f / "testing_list.txt").unlink(), "testing_list.txt' cannot be read: it is not there"),
        (lambda f: (f / "testing_list.txt").write_text(""), "there are no recordings for 'test' in it"),
        (lambda f: (f / "yes").rename(f / "_yes"), "it has folders for 34 words instead of 35"),
        (lambda f: (f / "yes" / "noise.wav").write_bytes(b""), "name does not say who spoke"),
    ],
)
def test_folder_that_is_not_the_data_set_is_explained(own, damage, text):
    damage(own)
    with pytest.raises(ValueError, match=text):
        load(own.parents[1])


def test_cache_says_what_it_was_made_by(own):
    load(own.parents[1])
    records = [json.loads(path.read_text()) for path in (own.parents[1] / "cache").glob("*/made_from.json")]
    assert sorted(record["source"]["split"] for record in records) == ["test", "train", "valid"]
    assert all(record["fields"] == dataclasses.asdict(SMALL) for record in records)


# --- FeatureSet ---


def make_set(n=30, split="train", **change):
    good = {
        "features": torch.arange(n * 6.0).view(n, 3, 2), "labels": torch.arange(n) % 3, "classes": ("a", "b", "c"),
        "name": "x", "split": split, "groups": torch.arange(n) % 2, "group_names": ("u", "v", "w"),
    }  # fmt: skip
    return FeatureSet(**{**good, **change})


def test_selection_moves_everything_together():
    whole = make_set()
    for part in (whole.select([7, 3]), whole.select(np.array([7, 3])), *whole.holdout(0.2), *whole.hold_group_out("v")):
        row = (part.features[:, 0, 0] / 6).long()
        assert torch.equal(part.labels, row % 3)
        assert torch.equal(part.groups, row % 2)
    assert whole.select([7, 3]).features[:, 0, 0].tolist() == [42, 18]
    mask = torch.zeros(30, dtype=torch.bool)
    mask[4] = True
    assert whole.select(mask, "valid").features[0, 0, 0] == 24


def test_holdouts_share_no_sample():
    for train, valid in (make_set().holdout(0.2, 3), make_set().hold_group_out("u")):
        assert (train.split, valid.split) == ("train", "valid")
        both = torch.cat([train.features, valid.features])[:, 0, 0]
        assert sorted(both.tolist()) == make_set().features[:, 0, 0].tolist()
    assert set(make_set().hold_group_out("u", "test")[1].groups.tolist()) == {0}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"features": torch.zeros(30, 3)}, ValueError, r"`features` must have shape \(N, T, C\)"),
        ({"features": torch.zeros(30, 3, 2).double()}, TypeError, "`features` must be a tensor of torch.float32"),
        ({"labels": torch.zeros(29).long()}, ValueError, "same length"),
        ({"labels": torch.full((30,), 3)}, ValueError, r"`labels` must lie in 0\.\.2, one for each name, got 3\.\.3"),
        ({"groups": torch.full((30,), -1)}, ValueError, r"`groups` must lie in 0\.\.2"),
        ({"groups": np.zeros(30, int)}, TypeError, "`groups` must be a tensor of torch.int64"),
        ({"split": "dev"}, ValueError, "`split` must be one of"),
    ],
)
def test_feature_set_refuses_what_does_not_fit(change, error, text):
    with pytest.raises(error, match=text):
        make_set(**change)


def test_feature_set_explains_impossible_selections():
    with pytest.raises(ValueError, match=r"`rows` must lie in 0\.\.29, got 30\.\.30"):
        make_set().select([30])
    with pytest.raises(ValueError, match="`split` must be 'train' to hold samples out from, got 'test'"):
        make_set(split="test").holdout(0.1)
    with pytest.raises(ValueError, match="'w', which made no samples"):
        make_set().hold_group_out("w")
    with pytest.raises(ValueError, match="`group` must be one of the 3 in group_names, got 'z'"):
        make_set().hold_group_out("z")
    with pytest.raises(ValueError, match="This set does not say who made its samples"):
        make_set(groups=None).hold_group_out("u")
    with pytest.raises(ValueError, match="at least one sample"):
        FeatureSet(features=torch.zeros(0, 3, 2), labels=torch.zeros(0).long(), classes=("a",), name="x", split="train")
    assert repr(make_set()) == "FeatureSet(x train: 30x3x2 float32, 3 classes)"
