"""The spoken digits: who is in which set, on tone sequences; and what the spikes of real recordings are worth."""

import shutil
from itertools import combinations

import numpy as np
import pytest
from fakes.audio import write_fsdd

from neuroloaders.cochlea import CochleaConfig
from neuroloaders.studies.fsdd import FSDD_PROTOCOLS, load_fsdd
from neuroloaders.wav_folder import read_wav, spikes_from_wavs

SMALL = CochleaConfig(n_channels=6)
SPEAKERS = ("ann", "bob", "cy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("data")
    write_fsdd(made, speakers=SPEAKERS)
    return made


def load(folder, **options):
    return load_fsdd(data_dir=folder, config=SMALL, offline=True, progress=False, **options)


def cells(spikes):
    return list(zip(spikes.labels.tolist(), spikes.groups.tolist(), strict=True))


def speakers_of(spikes):
    return {spikes.group_names[group] for group in spikes.groups.tolist()}


def contents(spikes):
    return {tuple(map(tuple, (part.tolist() for part in spikes.sample(i)))) for i in range(len(spikes))}


def test_official_split_tests_on_the_first_five_takes(folder):
    train, valid, test = load(folder, valid=0.34)
    assert [part.split for part in (train, valid, test)] == ["train", "valid", "test"]
    everyone = [(digit, speaker) for digit in range(3) for speaker in range(3)]
    assert sorted(cells(test)) == sorted(5 * everyone)
    assert sorted(cells(valid)) == sorted(everyone)  # one of three takes
    assert sorted(cells(train)) == sorted(2 * everyone)
    assert train.classes == tuple("0123456789")
    assert train.group_names == SPEAKERS
    paths = [folder / "fsdd" / "recordings" / f"{d}_{s}_{t}.wav" for d in range(3) for s in SPEAKERS for t in range(5)]
    want = spikes_from_wavs(paths, [0] * 45, SMALL, cache_dir=folder / "other", progress=False)
    assert contents(want) == contents(test)


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": "takes"},
        {"protocol": "speaker", "test_speaker": "bob"},
        {"protocol": "speaker", "test_speaker": "bob", "valid_speaker": "cy"},
    ],
)
def test_each_recording_is_in_one_set(folder, options):
    parts = load(folder, **options)
    assert sum(map(len, parts)) == 72
    for one, other in combinations(map(contents, parts), 2):
        assert not one & other


def test_held_out_speaker_is_in_the_test_set_only(folder):
    train, valid, test = load(folder, protocol="speaker", test_speaker="bob")
    assert speakers_of(test) == {"bob"}
    assert len(test) == 24
    assert speakers_of(train) == speakers_of(valid) == {"ann", "cy"}
    train, valid, test = load(folder, protocol="speaker", test_speaker="bob", valid_speaker="ann")
    assert (speakers_of(train), speakers_of(valid), speakers_of(test)) == ({"cy"}, {"ann"}, {"bob"})


def test_seed_names_the_validation_set_and_spares_the_test_set(folder):
    first, again, other = (load(folder, valid=0.34, seed=seed) for seed in (0, 0, 1))
    assert contents(first[1]) == contents(again[1]) != contents(other[1])
    assert contents(first[2]) == contents(other[2])


def test_takes_are_sorted_as_numbers(tmp_path):
    write_fsdd(tmp_path, digits=1, speakers=("ann",), takes=12)
    train, valid, test = load(tmp_path)
    assert (len(train), len(valid), len(test)) == (6, 1, 5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"protocol": "random"}, "`protocol` must be one of 'takes', 'speaker'"),
        ({"protocol": "speaker"}, "`test_speaker` must be given with protocol='speaker'"),
        ({"protocol": "speaker", "test_speaker": "dan"}, "`test_speaker` must be one of 'ann', 'bob', 'cy'"),
        ({"protocol": "speaker", "test_speaker": "ann", "valid_speaker": "ann"}, "`valid_speaker` must be another"),
        ({"protocol": "speaker", "test_speaker": "ann", "valid_speaker": "x"}, "`valid_speaker` must be one of 'ann'"),
        ({"test_speaker": "ann"}, "`test_speaker` must be left out with protocol='takes'"),
        ({"valid_speaker": "ann"}, "`valid_speaker` must be left out with protocol='takes'"),
        ({"valid": 1.0}, "`valid` must be a finite number > 0 and < 1"),
    ],
)
def test_mistakes_are_named(folder, options, text):
    with pytest.raises(ValueError, match=text):
        load(folder, **options)


def test_too_few_recordings_are_named(tmp_path):
    write_fsdd(tmp_path, digits=1, speakers=("ann", "bob"), takes=5)
    with pytest.raises(ValueError, match="`protocol` must leave recordings for the set 'train', got 'takes'"):
        load(tmp_path)
    with pytest.raises(ValueError, match="for the set 'train', got 'speaker', which leaves none"):
        load(tmp_path, protocol="speaker", test_speaker="ann", valid_speaker="bob")


def test_folder_without_recordings_is_named(tmp_path):
    (tmp_path / "fsdd" / "recordings").mkdir(parents=True)
    (tmp_path / "fsdd" / "recordings" / "readme.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="Put the recordings there"):
        load(tmp_path)


def test_every_protocol_is_described():
    assert all(FSDD_PROTOCOLS.values())


# --- real recordings ---


@pytest.fixture
def some_digits(shared_data, tmp_path):
    """Takes 3 to 10 of all digits of two speakers: two takes to test on."""
    source = shared_data / "fsdd" / "recordings"
    if not source.is_dir():
        pytest.skip("needs the spoken digits in fsdd/recordings")
    (tmp_path / "fsdd" / "recordings").mkdir(parents=True)
    for path in source.glob("*.wav"):
        digit, speaker, take = path.stem.split("_")
        if speaker in ("jackson", "theo") and 3 <= int(take) <= 10:
            shutil.copy(path, tmp_path / "fsdd" / "recordings")
    return tmp_path


def pooled(spikes):
    """Square roots of the spike counts in 20 bands and 10 equal parts of each recording."""
    rows = []
    for i in range(len(spikes)):
        times, units = (part.numpy() for part in spikes.sample(i))
        bins = (np.linspace(0, times.max() + 1e-3, 11), np.linspace(0, spikes.n_units, 21))
        rows.append(np.sqrt(np.histogram2d(times, units, bins)[0]).ravel())
    return np.array(rows)


def test_real_digits_are_sparse_and_tell_which_digit_they_are(some_digits):
    train, valid, test = load_fsdd(data_dir=some_digits, offline=True, progress=False)
    assert (len(train) + len(valid), len(test)) == (120, 40)
    assert train.group_names == ("jackson", "theo")
    paths = sorted((some_digits / "fsdd" / "recordings").glob("*.wav"))
    seconds = sum(len(wave) / sfreq for wave, sfreq in map(read_wav, paths))
    n_events = sum(len(part.times_ms) for part in (train, valid, test))
    assert 15 < n_events / seconds / train.n_units < 60  # Hz, also over units that are not driven
    # The nearest mean of a digit and speaker, without any training: chance is 0.1.
    x, y, who = pooled(train), train.labels.numpy(), train.groups.numpy()
    means = np.array([x[(y == digit) & (who == voice)].mean(0) for digit in range(10) for voice in range(2)])
    distances = np.linalg.norm(pooled(test)[:, None] - means, axis=2)
    assert (distances.argmin(1) // 2 == test.labels.numpy()).mean() > 0.75
