"""N-MNIST against bytes by hand and spikingjelly's reader of the same files."""

import numpy as np
import pytest
import torch
from fakes.spikes import atis_bytes, random_camera_events, write_nmnist

from neuroloaders.studies import nmnist
from neuroloaders.studies.nmnist import decode_atis, load_nmnist


def load(folder, **options):
    return load_nmnist(data_dir=folder, offline=True, progress=False, **options)


@pytest.fixture
def digits(tmp_path):
    return tmp_path, write_nmnist(tmp_path / "nmnist")


def test_golden_bytes():
    # x 3, y 7, brighter, 0x010002 us; x 33, y 0, darker, 0x7FFFFF us.
    content = np.frombuffer(bytes.fromhex("0307810002 21007FFFFF"), np.uint8).reshape(2, 5)
    times, x, y, polarity = decode_atis(content)
    assert times.tolist() == [65538, 2**23 - 1]
    assert (x.tolist(), y.tolist(), polarity.tolist()) == ([3, 33], [7, 0], [1, 0])


@pytest.mark.reference
def test_decoder_agrees_with_spikingjelly(tmp_path):
    utils = pytest.importorskip("spikingjelly.datasets.utils")
    content = atis_bytes(*random_camera_events(500, side=34, duration_us=2**23))
    (tmp_path / "a.bin").write_bytes(content)
    theirs = utils.load_ATIS_bin(tmp_path / "a.bin")
    ours = decode_atis(np.frombuffer(content, np.uint8).reshape(-1, 5))
    for key, mine in zip("txyp", ours, strict=True):
        np.testing.assert_array_equal(mine, theirs[key])


@pytest.mark.parametrize("portion", [1, 7, 1024])
def test_digits_are_what_was_written_in_pieces_of_any_size(digits, monkeypatch, portion):
    folder, written = digits
    monkeypatch.setattr(nmnist, "_PORTION", portion)
    sets = load(folder)
    assert list(sets) == ["train", "test"]
    for split, samples in written.items():
        spikes = sets[split]
        assert len(spikes) == len(samples)
        assert spikes.unit_shape == (2, 34, 34)
        assert spikes.n_units == 2312
        assert spikes.groups is None
        assert spikes.labels.tolist() == [label for label, _ in samples]
        for row, (_, (times_us, x, y, polarity)) in enumerate(samples):
            times_ms, units = spikes.sample(row)
            np.testing.assert_array_equal(times_ms, (times_us / 1000).astype(np.float32))
            np.testing.assert_array_equal(units, np.ravel_multi_index((polarity, y, x), (2, 34, 34)))


def test_second_start_does_not_decode(digits, monkeypatch):
    first = load(digits[0])
    monkeypatch.setattr(nmnist, "decode_atis", lambda content: pytest.fail("decoded again"))
    assert torch.equal(load(digits[0])["train"].units, first["train"].units)


def a_file(folder):
    return next((folder / "nmnist" / "Train").glob("4/*.bin"))


def test_truncated_file_is_named(digits):
    path = a_file(digits[0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{path.name}' cannot be read: its \d+ bytes are no whole number of events"):
        load(digits[0])


def test_pixel_outside_of_the_camera_is_named(digits):
    path = a_file(digits[0])
    path.write_bytes(atis_bytes([1, 2], [33, 3], [240, 4], [0, 1]))  # the first event: the file before ends there
    with pytest.raises(ValueError, match=rf"4/{path.name}'.*an event at \(33, 240\), outside of 34 x 34 pixels"):
        load(digits[0])


def test_events_out_of_order_are_refused_or_sorted(digits):
    path = a_file(digits[0])
    row = int(path.stem) - 1
    path.write_bytes(atis_bytes([2000, 9000, 3000], [1, 2, 3], [0, 0, 0], [0, 0, 0]))
    with pytest.raises(ValueError, match=rf"4/{path.name}'.*the recording are out of order \(event 2"):
        load(digits[0])
    times_ms, units = load(digits[0], sort=True)["train"].sample(row)
    assert (times_ms.tolist(), units.tolist()) == ([2, 3, 9], [1, 3, 2])


def test_recording_without_events_is_an_empty_sample(digits):
    path = a_file(digits[0])
    path.write_bytes(b"")
    assert len(load(digits[0])["train"].sample(int(path.stem) - 1)[0]) == 0


def test_folders_must_be_the_ten_digits(digits):
    (digits[0] / "nmnist" / "Test" / "9").rename(digits[0] / "nmnist" / "Test" / "nine")
    with pytest.raises(ValueError, match="instead of 0 to 9"):
        load(digits[0])


def test_split_without_any_event_is_refused(digits):
    for path in (digits[0] / "nmnist" / "Test").glob("*/*.bin"):
        path.unlink()
    with pytest.raises(ValueError, match="Test' cannot be read: it holds no events"):
        load(digits[0])


def test_missing_files_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data set 'nmnist' \(Train\.zip, Test\.zip\)"):
        load(tmp_path)
