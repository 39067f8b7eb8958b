"""A tiny THINGS-EEG2: dictionaries in npy files, raw and preprocessed, with a response for each image."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import numpy as np

CATEGORIES, EXEMPLARS, TEST = 6, 2, 3  # of the test one image each, of other categories
TRAIN_FILES = [f"thing{c}_{e + 1:02d}s.jpg" for c in range(CATEGORIES) for e in range(EXEMPLARS)]
TEST_FILES = [f"other_thing{c}_04b.jpg" for c in range(TEST)]
NAMES = ("Fp1", "F3", "Cz", "Pz", "Oz")
SFREQ, SCALE = 1000.0, 1e-5
REPEATS = {"training": 2, "test": 3}


def pattern(image):
    """Return the response of an image over electrodes, of standard normal numbers."""
    return np.random.default_rng(zlib.crc32(image.encode())).standard_normal(len(NAMES))


def bump(times):
    """Return the time course of responses at times in s after the onset."""
    return np.exp(-0.5 * ((np.asarray(times) - 0.08) / 0.02) ** 2)


def save_dict(path, content, protocol=4):
    """Write what ``np.save(path, content)`` writes, in another protocol of pickle if one is given."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(np.array(content, dtype=object), file, protocol=protocol)
    return path


def onsets(subject, session, part):
    """Return (sample, number) of what is shown; 99999 is a target."""
    rng = np.random.default_rng([int(subject), int(session), len(part)])
    n = len(TRAIN_FILES if part == "training" else TEST_FILES)
    numbers = [*np.repeat(np.arange(1, n + 1), REPEATS[part]).tolist(), 99_999, 99_999]
    return [(500 + 200 * k, int(number)) for k, number in enumerate(rng.permutation(numbers))]


def write_metadata(path):
    """Write image_metadata.npy."""
    concepts = {
        "train": [f"{k // EXEMPLARS + 1:05d}_{name.rsplit('_', 1)[0]}" for k, name in enumerate(TRAIN_FILES)],
        "test": [f"{k + 1:05d}_{name.rsplit('_', 1)[0]}" for k, name in enumerate(TEST_FILES)],
    }
    files = {"train": TRAIN_FILES, "test": TEST_FILES}
    content = {}
    for part in ("test", "train"):
        content[f"{part}_img_concepts"] = content[f"{part}_img_concepts_THINGS"] = concepts[part]
        content[f"{part}_img_files"] = files[part]
    return save_dict(path, content)


def write_things_eeg2(root, *, subjects=("01", "02"), sessions=("01",), protocol=4, metadata=True):
    """Write raw recordings: a training and a test file in each session, the stimulus channel last."""
    root = Path(root)
    if metadata:
        write_metadata(root / "image_set/image_metadata.npy")
    for subject in subjects:
        for session in sessions:
            for part in REPEATS:
                shown, files = onsets(subject, session, part), TRAIN_FILES if part == "training" else TEST_FILES
                times = np.arange(shown[-1][0] + 1500) / SFREQ
                data = np.zeros((len(NAMES) + 1, len(times)))
                for sample, number in shown:
                    data[-1, sample] = number
                    if number != 99_999:
                        data[:-1] += SCALE * pattern(files[number - 1])[:, None] * bump(times - sample / SFREQ)
                content = {
                    "raw_eeg_data": data, "ch_names": [*NAMES, "stim"], "ch_types": ["eeg"] * len(NAMES) + ["stim"],
                    "sfreq": 1000, "highpass": 0.01, "lowpass": 100,
                }  # fmt: skip
                save_dict(root / f"sub-{subject}/ses-{session}/raw_eeg_{part}.npy", content, protocol)
    return root


def write_things_eeg2_epochs(root, *, subjects=("01", "02")):
    """Write preprocessed epochs, and return them: subject -> (training, test), each (I, R, C, T)."""
    root, times = Path(root), (np.arange(100) - 20) / 100.0
    write_metadata(root / "image_set/image_metadata.npy")
    out = {}
    for subject in subjects:
        rng = np.random.default_rng(int(subject))
        made = []
        for part, files, repeats in (("training", TRAIN_FILES, 4), ("test", TEST_FILES, 7)):
            x = np.stack([pattern(name)[:, None] * bump(times) for name in files])[:, None]
            x = x + 0.3 * rng.standard_normal((len(files), repeats, len(NAMES), 100))
            content = {"preprocessed_eeg_data": x, "ch_names": list(NAMES), "times": times}
            save_dict(root / f"preprocessed_data/sub-{subject}/preprocessed_eeg_{part}.npy", content)
            made.append(x)
        out[subject] = tuple(made)
    return out
