"""Writers of tiny event and speech data sets in the exact formats of the real ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

SHD_KEYS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun",
)  # fmt: skip
SSC_KEYS = (
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "backward", "forward", "follow", "learn",
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "bed", "bird", "cat", "dog",
    "happy", "house", "marvin", "sheila", "tree", "visual", "wow",
)  # fmt: skip


# --- Spiking Heidelberg data sets ---


def random_samples(labels, *, seed=0, max_events=30):
    """Return a list of (times in s as float16, rising; units as uint16), some of them empty."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, max_events, len(labels))
    return [(np.sort(rng.random(n)).astype(np.float16), rng.integers(0, 700, n).astype(np.uint16)) for n in sizes]


def write_heidelberg(path, samples, labels, *, keys=SHD_KEYS, speakers=None):
    """Write one split of SHD or SSC; `samples` is a list of (times in s, units)."""
    import h5py

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for place, (key, dtype) in enumerate((("times", np.float16), ("units", np.uint16))):
            part = file.create_dataset(f"spikes/{key}", (len(samples),), h5py.vlen_dtype(dtype))
            for row, sample in enumerate(samples):
                part[row] = np.asarray(sample[place], dtype)
        file["labels"] = np.asarray(labels, np.uint16)
        file["extra/keys"] = np.array([key.encode() for key in keys])
        if speakers is not None:
            file["extra/speaker"] = np.asarray(speakers, np.uint16)
        file["extra/meta_info/gender"] = np.array([b"female", b"male"])
        file["extra/meta_info/age"] = np.array([30, 40], np.uint16)
        file["extra/meta_info/body_height"] = np.array([170, 180], np.uint16)


def write_shd(folder, *, n_train=120, n_test=40, seed=0):
    """Write shd_train.h5 (speakers 0 to 3) and shd_test.h5 (0 to 5); return the samples and speakers by split."""
    written = {}
    for split, n, n_speakers in (("train", n_train, 4), ("test", n_test, 6)):
        labels = np.arange(n) % 20
        # Twenty samples a speaker and turn, so that every class is said by every speaker.
        speakers = np.arange(n) // 20 % n_speakers if split == "train" else np.arange(n) % n_speakers
        samples = random_samples(labels, seed=seed + n)
        write_heidelberg(Path(folder) / f"shd_{split}.h5", samples, labels, speakers=speakers)
        written[split] = samples, labels, speakers
    return written


def write_ssc(folder, *, n=70, seed=0):
    """Write ssc_{train,valid,test}.h5 without speakers; return the samples by split."""
    written = {}
    for place, split in enumerate(("train", "valid", "test")):
        labels = np.arange(n) % 35
        samples = random_samples(labels, seed=seed + place)
        write_heidelberg(Path(folder) / f"ssc_{split}.h5", samples, labels, keys=SSC_KEYS)
        written[split] = samples, labels
    return written


# --- Google Speech Commands ---


def write_speech_commands(folder, *, n_samples=1600, seed=0):
    """Write 35 folders with three recordings each (speakers a1 train, b2 valid, c3 test), the lists and some noise.

    Returns the waveforms as int16 by "word/file.wav".
    """
    from scipy.io import wavfile

    folder, rng, waves = Path(folder), np.random.default_rng(seed), {}
    lists = {"validation_list.txt": [], "testing_list.txt": []}
    for word in SSC_KEYS:
        (folder / word).mkdir(parents=True)
        for speaker, name in (("a1", None), ("b2", "validation_list.txt"), ("c3", "testing_list.txt")):
            file = f"{word}/{speaker}_nohash_0.wav"
            waves[file] = rng.integers(-3000, 3000, n_samples).astype(np.int16)
            wavfile.write(folder / file, 16_000, waves[file])
            if name:
                lists[name].append(file)
    for name, files in lists.items():
        (folder / name).write_text("".join(f"{file}\n" for file in files))
    (folder / "_background_noise_").mkdir()
    wavfile.write(folder / "_background_noise_" / "pink_noise.wav", 16_000, np.zeros(50_000, np.int16))
    (folder / "README.md").write_text("Speech Commands Data Set v0.02\n")
    return waves


# --- event cameras ---


def aedat_packet(times_us, x, y, polarity, *, valid=None, kind=1, high=0, spare=0):
    """Return a packet of events as bytes; `spare` is room that is not used."""
    n = len(times_us)
    valid = np.ones(n, np.int64) if valid is None else np.asarray(valid)
    head = struct.pack("<hhiiiiii", kind, 1, 8, 4, high, n + spare, n, int(valid.sum()))
    columns = [np.asarray(column, np.int64) for column in (x, y, polarity)]
    data = columns[0] << 17 | columns[1] << 2 | columns[2] << 1 | valid
    words = np.column_stack([data.astype("<u4"), np.asarray(times_us, "<u4")]).astype("<u4")
    return head + words.tobytes() + bytes(8 * spare)


AEDAT_HEAD = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n"
    b"#Start-Time: 2016-09-27 15:14:13 (TZ+0000)\r\n#!END-HEADER\r\n"
)


def write_aedat(path, packets):
    """Write an AEDAT 3.1 file of packets (bytes)."""
    Path(path).write_bytes(AEDAT_HEAD + b"".join(packets))


def random_camera_events(n, *, side, duration_us, seed=0):
    """Return times in us (rising), x, y and polarity."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.integers(0, duration_us, n)), *rng.integers(0, side, (2, n)), rng.integers(0, 2, n)


def write_dvs_gesture(folder, *, n_events=2000, seed=0):
    """Write DvsGesture/ with two trials for training and one for testing, three gestures each.

    Returns (events, gesture table) by the trial's name. The last two gestures of a trial overlap.
    """
    folder, written = Path(folder), {}
    folder.mkdir(parents=True)
    trials = {"trials_to_train.txt": ["user01_fluorescent", "user02_led"], "trials_to_test.txt": ["user24_lab"]}
    for name, trial_names in trials.items():
        (folder / name).write_text("".join(f"{trial}.aedat\n" for trial in trial_names) + "\n")
        for number, trial in enumerate(trial_names):
            events = random_camera_events(
                n_events, side=128, duration_us=1_000_000, seed=seed + 10 * number + len(name)
            )
            table = np.array([[1, 100_000, 300_000], [8, 350_000, 620_000], [11, 600_000, 900_000]])
            table[0, 0] += number
            cut = n_events // 2
            packets = [aedat_packet(*(column[part] for column in events)) for part in (slice(cut), slice(cut, None))]
            write_aedat(folder / f"{trial}.aedat", packets)
            rows = "".join(",".join(map(str, row)) + "\n" for row in table.tolist())
            (folder / f"{trial}_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n{rows}")
            written[trial] = events, table
    return written


def atis_bytes(times_us, x, y, polarity):
    """Return events in the format of N-MNIST: x, y, then one bit of polarity and 23 of time."""
    tail = np.asarray(polarity) << 23 | np.asarray(times_us)
    columns = [np.asarray(x), np.asarray(y), tail >> 16, tail >> 8 & 255, tail & 255]
    return np.column_stack(columns).astype(np.uint8).tobytes()


def write_nmnist(folder, *, n_train=30, n_test=10, seed=0):
    """Write Train/0..9 and Test/0..9; return a list of (label, events) by split, in the order of the file names."""
    written = {}
    for split, name, n in (("train", "Train", n_train), ("test", "Test", n_test)):
        rng, written[split] = np.random.default_rng(seed + n), []
        for label in range(10):
            (Path(folder) / name / str(label)).mkdir(parents=True)
        for number, label in enumerate(rng.permutation(np.arange(n) % 10).tolist(), start=1):
            events = random_camera_events(40 + number, side=34, duration_us=300_000, seed=seed + number)
            path = Path(folder) / name / str(label) / f"{number:05d}.bin"
            path.write_bytes(atis_bytes(*events))
            written[split].append((label, events))
    return written
