"""DVS128 Gesture: AEDAT 3.1 against bytes by hand and spikingjelly's reader; the cuts against the tables."""

import itertools
import struct
import tarfile

import numpy as np
import pytest
import torch
from fakes.spikes import AEDAT_HEAD, aedat_packet, random_camera_events, write_aedat, write_dvs_gesture

from neuroloaders.studies.aedat import read_aedat31
from neuroloaders.studies.dvs_gesture import GESTURES, load_dvs_gesture, read_gesture_times


def load(folder, **options):
    return load_dvs_gesture(data_dir=folder, offline=True, progress=False, **options)


@pytest.fixture
def gestures(tmp_path):
    return tmp_path, write_dvs_gesture(tmp_path / "dvs-gesture" / "DvsGesture")


def columns(events):
    return [column.tolist() for column in (events.times_us, events.x, events.y, events.polarity)]


# --- AEDAT 3.1 ---


def test_golden_bytes(tmp_path):
    # Event 1: x 5, y 9, brighter, valid: 5 << 17 | 9 << 2 | 1 << 1 | 1 = 0x000A0027. Event 2: x 127, y 0, darker.
    packet = bytes.fromhex(
        "0100 0100 08000000 04000000 00000000 02000000 02000000 0200000027000A00 40420F000100FE00 41420F00"
    )
    (tmp_path / "a.aedat").write_bytes(AEDAT_HEAD + packet)
    events = read_aedat31(tmp_path / "a.aedat")
    assert columns(events) == [[1_000_000, 1_000_001], [5, 127], [9, 0], [1, 0]]
    assert (events.times_us.dtype, events.x.dtype) == (np.int64, np.int32)


def test_reader_returns_what_the_writer_wrote(tmp_path):
    events = random_camera_events(5000, side=128, duration_us=2**31 - 1)
    cuts = [0, 1, 1, 700, 5000]
    parts = [slice(first, last) for first, last in itertools.pairwise(cuts)]
    write_aedat(tmp_path / "a.aedat", [aedat_packet(*(column[part] for column in events), spare=3) for part in parts])
    assert columns(read_aedat31(tmp_path / "a.aedat")) == [column.tolist() for column in events]


def test_invalid_events_and_packets_of_other_types_are_left_out(tmp_path):
    other = struct.pack("<hhiiiiii", 0, 1, 12, 4, 0, 2, 2, 2) + bytes(24)
    wanted = aedat_packet([1, 2, 3], [1, 2, 3], [4, 5, 6], [0, 1, 0], valid=[1, 0, 1])
    write_aedat(tmp_path / "a.aedat", [other, wanted, other])
    assert columns(read_aedat31(tmp_path / "a.aedat")) == [[1, 3], [1, 3], [4, 6], [0, 0]]


def test_times_go_on_after_31_bits(tmp_path):
    write_aedat(
        tmp_path / "a.aedat",
        [aedat_packet([2**31 - 1], [0], [0], [0]), aedat_packet([5], [0], [0], [0], high=1)],
    )
    assert read_aedat31(tmp_path / "a.aedat").times_us.tolist() == [2**31 - 1, 2**31 + 5]


@pytest.mark.reference
def test_reader_agrees_with_spikingjelly(tmp_path):
    utils = pytest.importorskip("spikingjelly.datasets.utils")
    events = random_camera_events(3000, side=128, duration_us=10_000_000)
    parts = [slice(0, 1000), slice(1000, 3000)]
    write_aedat(tmp_path / "a.aedat", [aedat_packet(*(column[part] for column in events)) for part in parts])
    ours, theirs = read_aedat31(tmp_path / "a.aedat"), utils.load_aedat_v3(tmp_path / "a.aedat")
    for key, mine in (("t", ours.times_us), ("x", ours.x), ("y", ours.y), ("p", ours.polarity)):
        np.testing.assert_array_equal(mine, theirs[key])


PACKET = aedat_packet([1, 2], [0, 0], [0, 0], [0, 1])


def changed_packet(place, value):
    fields = list(struct.unpack_from("<hh6i", PACKET))
    fields[place] = value
    return struct.pack("<hh6i", *fields) + PACKET[28:]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "does not begin like an AEDAT 3.1 file"),
        (AEDAT_HEAD.replace(b"3.1", b"2.0") + PACKET, "does not begin like an AEDAT 3.1 file"),
        (AEDAT_HEAD.replace(b"#!END-HEADER\r\n", b"") + PACKET, "its header does not end"),
        (AEDAT_HEAD, "it holds no polarity events"),
        (AEDAT_HEAD + PACKET[:-1], "it ends within the packet at byte 105"),
        (AEDAT_HEAD + PACKET + PACKET[:27], "it ends within the packet header at byte 149"),
        (AEDAT_HEAD + changed_packet(2, 0), "the packet header at byte 105 makes no sense"),
        (AEDAT_HEAD + changed_packet(5, 1), r"makes no sense \(size 8, 2 of 1 events\)"),
        (AEDAT_HEAD + changed_packet(6, -1), "makes no sense"),
        (AEDAT_HEAD + changed_packet(5, 2**30), "it ends within the packet at byte 105"),
        (AEDAT_HEAD + changed_packet(2, 4), "have 4 bytes instead of 8"),
        (AEDAT_HEAD + aedat_packet([2**31], [0], [0], [0]), "it has a negative time"),
    ],
)
def test_damaged_file_is_refused(tmp_path, content, text):
    (tmp_path / "a.aedat").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.aedat' cannot be read: .*{text}"):
        read_aedat31(tmp_path / "a.aedat")


# --- the data set ---


def test_gestures_are_cut_as_the_tables_say(gestures):
    folder, written = gestures
    sets = load(folder)
    assert list(sets) == ["train", "test"]
    names = {"train": ["user01_fluorescent", "user02_led"], "test": ["user24_lab"]}
    for split, trials in names.items():
        spikes, row = sets[split], 0
        assert spikes.unit_shape == (2, 128, 128)
        for trial in trials:
            (times_us, x, y, polarity), table = written[trial]
            for label, start, end in table.tolist():
                inside = (times_us >= start) & (times_us < end)
                assert inside.sum() > 100
                times_ms, units = spikes.sample(row)
                np.testing.assert_array_equal(times_ms, ((times_us - start)[inside] / 1000).astype(np.float32))
                np.testing.assert_array_equal(units, np.ravel_multi_index((polarity, y, x), (2, 128, 128))[inside])
                assert spikes.labels[row] == label - 1
                assert spikes.group_names[spikes.groups[row]] == trial[:6]
                row += 1
        assert row == len(spikes)
    assert sets["train"].classes == GESTURES
    assert sets["test"].group_names == ("user01", "user02", "user24")


def test_gesture_includes_its_first_microsecond_and_not_its_last(gestures):
    folder = gestures[0] / "dvs-gesture" / "DvsGesture"
    times = [99_999, 100_000, 100_000, 299_999, 300_000]
    write_aedat(folder / "user24_lab.aedat", [aedat_packet(times, [1, 2, 3, 4, 5], [0] * 5, [0] * 5)])
    times_ms, units = load(gestures[0])["test"].sample(0)
    assert units.tolist() == [2, 3, 4]
    assert times_ms.tolist() == [0, 0, np.float32(199.999)]


@pytest.mark.reference
def test_cuts_are_spikingjellys(gestures, tmp_path):
    reference = pytest.importorskip("spikingjelly.datasets.dvs128_gesture")
    folder = tmp_path / "dvs-gesture" / "DvsGesture"
    for label in range(11):
        (tmp_path / "theirs" / str(label)).mkdir(parents=True)
    trial = "user24_lab"
    reference._split_aedat_files_to_np(
        trial, folder / f"{trial}.aedat", folder / f"{trial}_labels.csv", tmp_path / "theirs"
    )
    test = load(tmp_path)["test"]
    table = gestures[1][trial][1]
    for row, (label, start, _) in enumerate(table.tolist()):
        with np.load(tmp_path / "theirs" / str(label - 1) / f"{trial}_0.npz") as theirs:
            times_ms, units = test.sample(row)
            np.testing.assert_array_equal(times_ms, ((theirs["t"] - start) / 1000).astype(np.float32))
            np.testing.assert_array_equal(units, (theirs["p"] * 128 + theirs["y"]) * 128 + theirs["x"])


def test_second_start_does_not_decode(gestures, monkeypatch):
    first = load(gestures[0])
    monkeypatch.setattr("neuroloaders.studies.dvs_gesture.read_aedat31", lambda path: pytest.fail("decoded again"))
    again = load(gestures[0])
    assert torch.equal(first["train"].units, again["train"].units)


def test_archive_is_unpacked_if_it_is_all_there_is(gestures):
    folder, _ = gestures
    with tarfile.open(folder / "dvs-gesture" / "DvsGesture.tar.gz", "w:gz") as tar:
        tar.add(folder / "dvs-gesture" / "DvsGesture", "DvsGesture")
    (folder / "dvs-gesture" / "DvsGesture").rename(folder / "elsewhere")
    assert len(load(folder)["train"]) == 6


def test_data_that_are_not_there_say_where_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Download DvsGesture\.tar\.gz \(3 GB\) in a browser"):
        load(tmp_path)


def test_events_out_of_order_are_refused_or_sorted(gestures):
    folder, written = gestures
    path = folder / "dvs-gesture" / "DvsGesture" / "user24_lab.aedat"
    events, table = written["user24_lab"]
    in_order = load(folder)["test"]
    halves = [aedat_packet(*(column[part] for column in events)) for part in (slice(1000, None), slice(1000))]
    write_aedat(path, halves)
    with pytest.raises(ValueError, match=r"user24_lab\.aedat.*out of order \(event 1000 is before .* pass sort=True"):
        load(folder)
    sets = load(folder, sort=True)
    assert torch.equal(sets["test"].times_ms, in_order.times_ms)
    assert torch.equal(sets["test"].offsets, in_order.offsets)


def test_pixel_outside_of_the_camera_is_refused(gestures):
    path = gestures[0] / "dvs-gesture" / "DvsGesture" / "user02_led.aedat"
    write_aedat(path, [aedat_packet([150_000], [3], [128], [0])])
    with pytest.raises(ValueError, match=r"user02_led\.aedat.*an event at y = 128, outside of 128 x 128"):
        load(gestures[0])


def test_gesture_without_events_is_logged(gestures, caplog):
    path = gestures[0] / "dvs-gesture" / "DvsGesture" / "user24_lab_labels.csv"
    with open(path, "a") as file:
        file.write("3,5000000,6000000\n")
    test = load(gestures[0])["test"]
    assert len(test.sample(3)[0]) == 0
    assert "no event belongs to the gestures in the lines [5]" in caplog.text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("class,start,end\n1,2,3\n", "its columns are"),
        ("", "its columns are"),
        ("class,startTime_usec,endTime_usec\n", r"must have gestures of the classes 1\.\.11"),
        ("class,startTime_usec,endTime_usec\n12,2,3\n", r"1\.\.11, it has \[12\]"),
        ("class,startTime_usec,endTime_usec\n1,2,3\n4,5\n", "line 3 has"),
        ("class,startTime_usec,endTime_usec\n1,2.5,3\n", "line 2 has"),
        ("class,startTime_usec,endTime_usec\n1,2,3\n1,7,7\n", "the gesture in line 3 ends before it begins"),
    ],
)
def test_tables_are_checked(tmp_path, text, error):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=error):
        read_gesture_times(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("trials_to_train.txt", "user99_lab.aedat\n", "it names 'user99_lab.aedat', which is not there"),
        ("trials_to_train.txt", "", "it names no trials"),
        ("trials_to_test.txt", None, "it is not there"),
        ("user01_fluorescent_labels.csv", None, "it is not there"),
    ],
)
def test_missing_files_are_named(gestures, file, text, error):
    path = gestures[0] / "dvs-gesture" / "DvsGesture" / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=f"{file}' cannot be read: {error}"):
        load(gestures[0])
