"""Extraction: each stimulus once, whole rows or none, resumed after a kill, and never another model's features."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from neurodecode.features import Extractor, HistogramConfig, RGBHistogram, extract, extract_unique
from neurodecode.features.store import FeatureStore


@dataclass
class Means:
    """An extractor that is not of this package: the mean of each row of each channel, and a scale."""

    scale: float = 1.0
    name = "means"
    takes = "images"
    batch_size = 4
    shape = (3, 5)
    n_seen = 0
    fails_at: int | None = None

    def fingerprint(self) -> str:
        return f"{self.scale:064.5f}"

    def __call__(self, batch: Any) -> Tensor:
        images = batch if isinstance(batch, Tensor) else torch.stack(list(batch))
        if self.fails_at is not None and self.n_seen + len(images) > self.fails_at:
            raise RuntimeError("the network failed")
        self.n_seen += len(images)
        images = images / 255 if images.dtype == torch.uint8 else images
        return self.scale * images.mean(dim=3)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 3, 5, 6), dtype=np.uint8)


def plain(images: np.ndarray) -> np.ndarray:
    return (images.astype(np.float32) / 255).mean(axis=3)


class Lazy:
    """A sequence that counts what is read."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items, self.read = items, []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        self.read.append(i)
        return self.items[i]


def test_own_extractor_is_one() -> None:
    assert isinstance(Means(), Extractor)
    assert isinstance(RGBHistogram(), Extractor)
    with pytest.raises(TypeError, match="`extractor` must have name"):
        extract(np.zeros((1, 3, 2, 2), np.uint8), lambda batch: batch)


@pytest.mark.parametrize("cached", [False, True])
def test_features_come_in_the_order_asked_for(cached: bool, images: np.ndarray, tmp_path: Path) -> None:
    cache = tmp_path if cached else None
    order = [3, 1, 3, 10, 0, 1]
    got = extract(images[order], Means(), cache=cache)
    np.testing.assert_allclose(got, plain(images)[order], rtol=1e-6)
    assert got.dtype == np.float32
    assert isinstance(got, np.memmap) == cached


@pytest.mark.parametrize("cached", [False, True])
def test_duplicates_are_computed_once(cached: bool, images: np.ndarray, tmp_path: Path) -> None:
    cache, means = tmp_path if cached else None, Means()
    order = np.tile([4, 2, 4, 7], 5)
    features, index = extract_unique(images[order], means, cache=cache)
    assert means.n_seen == 3
    assert index.tolist() == np.tile([0, 1, 0, 2], 5).tolist()
    np.testing.assert_allclose(features, plain(images)[[4, 2, 7]], rtol=1e-6)
    assert (features[index] == extract(images[order], Means(), cache=cache)).all()


def test_cache_is_read_bitwise_and_computes_nothing(images: np.ndarray, tmp_path: Path) -> None:
    first = np.array(extract(images, Means(), cache=tmp_path))
    means = Means()
    again = extract(images, means, cache=tmp_path)
    assert means.n_seen == 0
    assert again.tobytes() == first.tobytes() == extract(images, Means()).tobytes()
    # In the order in which they were computed, nothing is copied.
    assert isinstance(again, np.memmap)
    assert sorted(path.suffix for path in tmp_path.glob("*/*")) == [".journal", ".json", ".rows"]


def test_result_may_be_written_to_without_changing_the_cache(images: np.ndarray, tmp_path: Path) -> None:
    got = extract(images, Means(), cache=tmp_path)
    got[:] = 0
    torch.from_numpy(got).add_(1)
    np.testing.assert_allclose(extract(images, Means(), cache=tmp_path), plain(images), rtol=1e-6)


def test_bytes_floats_tensors_and_lists_are_the_same_stimuli(images: np.ndarray, tmp_path: Path) -> None:
    want = extract(images, Means(), cache=tmp_path)
    means = Means()
    floats = torch.from_numpy(images).float() / 255
    for stimuli in (
        floats,
        floats.double(),
        floats.numpy(),
        torch.from_numpy(images),
        list(images),
        Lazy(list(floats)),
    ):
        assert (extract(stimuli, means, cache=tmp_path) == want).all()
    with h5py.File(tmp_path / "images.hdf5", "w") as file:
        assert (extract(file.create_dataset("x", data=images), means, cache=tmp_path, workers=2) == want).all()
    pillow = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
    assert (extract(pillow, means, cache=tmp_path) == want).all()
    assert means.n_seen == 0
    # Other values between bytes are other stimuli.
    assert not np.array_equal(extract(floats * 0.999, means), want)
    assert means.n_seen == 11


def test_files_are_known_by_their_bytes_and_may_differ_in_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((5, 6, 3), (9, 4, 3), (5, 6))]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for picture, path in zip(pictures, paths, strict=True):
        Image.fromarray(picture).save(path)
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[1].read_bytes())
    histogram = RGBHistogram()
    features, index = extract_unique([*map(str, paths), copy], histogram, cache=tmp_path / "cache", workers=2)
    assert index.tolist() == [0, 1, 2, 1]
    grey = np.repeat(pictures[2][..., None], 3, axis=2)
    for got, picture in zip(features, (*pictures[:2], grey), strict=True):
        want = [np.histogram(picture[..., c], bins=8, range=(0, 255))[0] / picture[..., c].size for c in range(3)]
        np.testing.assert_allclose(got.reshape(3, 8), want, rtol=1e-6)
    paths[0].write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png' cannot be read"):
        extract(paths, histogram, cache=tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match="paths of files"):
        extract([tmp_path / "none.png"], histogram)


@pytest.mark.parametrize("workers", [0, 3])
def test_lazy_sequences_with_keys_are_read_only_where_something_is_missing(
    workers: int, images: np.ndarray, tmp_path: Path
) -> None:
    keys = [f"set/{i}" for i in range(11)]
    first = Lazy(images[:4])
    extract(first, Means(), cache=tmp_path, keys=keys[:4], workers=workers)
    assert sorted(first.read) == [0, 1, 2, 3]
    lazy = Lazy(images)
    got = extract(lazy, Means(), cache=tmp_path, keys=keys, workers=workers)
    assert sorted(lazy.read) == [4, 5, 6, 7, 8, 9, 10]
    np.testing.assert_allclose(got, plain(images), rtol=1e-6)
    # What was added later lies behind what was there: nothing is copied.
    assert len(list(tmp_path.glob("*/*"))) == 3


def test_exception_at_one_batch_keeps_those_before(images: np.ndarray, tmp_path: Path) -> None:
    means = Means()
    means.fails_at = 9
    with pytest.raises(RuntimeError, match="the network failed"):
        extract(images, means, cache=tmp_path)
    assert means.n_seen == 8
    means = Means()
    got = extract(images, means, cache=tmp_path)
    assert means.n_seen == 3
    assert got.tobytes() == extract(images, Means()).tobytes()


THIRTY = (np.arange(30 * 3 * 16, dtype=np.int64).reshape(30, 3, 4, 4) * 37 % 251).astype(np.uint8)

# Each batch of two is synchronised twice, rows first. Which time the kill comes, and what is cut off the file then.
KILLS = {"rows without record": (9, 0), "half a record": (10, 20), "half a row": (9, 50), "whole batch": (10, 0)}

# One process is started, as importing torch takes longer than all the rest, and forks for each run.
CHILD = """
import os, signal, sys, time
import numpy as np
from neurodecode.features import RGBHistogram, extract

images = (np.arange(30 * 3 * 16, dtype=np.int64).reshape(30, 3, 4, 4) * 37 % 251).astype(np.uint8)
real_fsync, real_compute = os.fsync, RGBHistogram.compute

def run(folder, n_kill, n_cut):
    calls = []
    def fsync(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith((".rows", ".journal", ".new")):
            calls.append(descriptor)
            if len(calls) == n_kill:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - n_cut)
                os.kill(os.getpid(), signal.SIGKILL)
        real_fsync(descriptor)
    def compute(self, pixels, originals):
        time.sleep(0.01)
        return real_compute(self, pixels, originals)
    os.fsync, RGBHistogram.compute = fsync, compute
    extract(images, RGBHistogram(), cache=folder, batch_size=2)

children = []
for folder, n_kill, n_cut in [line.split() for line in sys.stdin]:
    children.append(os.fork())
    if children[-1] == 0:
        run(folder, int(n_kill), int(n_cut))
        sys.stdout.flush()
        os._exit(0)
print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache for each kill, and one, "two", that two processes filled at once."""
    if sys.platform != "linux":
        pytest.skip("names of open files are read from /proc")
    root = tmp_path_factory.mktemp("killed")
    folders = {root / where.replace(" ", "-"): kill for where, kill in KILLS.items()}
    lines = [f"{folder} {n} {cut}" for folder, (n, cut) in folders.items()] + [f"{root / 'two'} 0 0"] * 2
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", CHILD], input="\n".join(lines), capture_output=True, text=True, env=env, check=False
    )
    assert ended.stdout.split() == [str(-signal.SIGKILL)] * len(KILLS) + ["0", "0"], ended.stderr
    return root


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call computes."""
    seen: list[int] = []
    real = RGBHistogram.compute
    monkeypatch.setattr(RGBHistogram, "compute", lambda self, x, o: seen.append(len(o)) or real(self, x, o))
    return seen


@pytest.mark.parametrize("where", KILLS)
def test_killed_extraction_goes_on_and_computes_only_what_is_missing(
    where: str, killed: Path, computed: list[int]
) -> None:
    cache = killed / where.replace(" ", "-")
    got = extract(THIRTY, RGBHistogram(), cache=cache)
    assert sum(computed) == 30 - {"half a record": 9, "whole batch": 10}.get(where, 8)
    assert got.tobytes() == extract(THIRTY, RGBHistogram()).tobytes()
    computed.clear()
    assert extract(THIRTY, RGBHistogram(), cache=cache).tobytes() == got.tobytes()
    assert computed == []
    # The same file was gone on with, and so the result is a part of it.
    assert len(list(cache.glob("*/*.rows"))) == 1
    assert not list(cache.glob("*/order-*"))


def test_two_processes_at_once_share_a_cache(killed: Path, computed: list[int]) -> None:
    got = np.array(extract(THIRTY, RGBHistogram(), cache=killed / "two"))
    assert computed == []
    assert got.tobytes() == extract(THIRTY, RGBHistogram()).tobytes()


def test_block_in_use_is_left_alone(images: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    record = {"made": "here"}
    keys = [bytes([k]) * 32 for k in range(5)]
    first = FeatureStore(tmp_path, record, (2,), "float32")
    first.add(keys[:1], np.array([[1, 2]]))
    first.close()
    # Both know of the block, and only one of them gets it.
    stores = [FeatureStore(tmp_path, record, (2,), "float32") for _ in range(2)]
    stores[0].add(keys[1:2], np.array([[3, 4]]))
    stores[1].add(keys[2:3], np.array([[5, 6]]))
    stores[0].add(keys[3:4], np.array([[7, 8]]))
    assert len(list(tmp_path.glob("*.rows"))) == 2
    for store in stores:
        store.close()
    store = FeatureStore(tmp_path, record, (2,), "float32")
    assert all(store.has(key) for key in keys[:4])
    assert not store.has(keys[4])
    assert store.gather([keys[2], keys[3], keys[0], keys[1]]).tolist() == [[5, 6], [7, 8], [1, 2], [3, 4]]
    store.add(keys[4:], np.array([[9, 0]]))
    assert len(list(tmp_path.glob("*.rows"))) == 2
    store.close()
    with pytest.raises(ValueError, match="`made` must be"):
        FeatureStore(tmp_path, {"made": "elsewhere"}, (2,), "float32")


@pytest.mark.parametrize("what", ["row", "journal", "short rows", "no rows"])
def test_damaged_cache_is_computed_again(
    what: str, images: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    want = np.array(extract(images, Means(), cache=tmp_path))
    (rows,), (journal,) = tmp_path.glob("*/*.rows"), tmp_path.glob("*/*.journal")
    path = journal if what == "journal" else rows
    content = bytearray(path.read_bytes())
    if what == "row":
        content[4 * 60 + 3] ^= 1  # a bit of the fifth row
    elif what == "journal":
        content[4 * 48 + 33] ^= 1  # the fifth row's number
    else:
        content = content[: 4 * 60 + 30 if what == "short rows" else 0]
    path.write_bytes(content)
    n_lost = {"row": 1, "journal": 1, "short rows": 7, "no rows": 11}[what]
    for n_computed in (n_lost, 0):
        means = Means()
        with caplog.at_level(logging.WARNING):
            got = extract(images, means, cache=tmp_path)
        assert got.tobytes() == want.tobytes()
        assert means.n_seen == n_computed
    assert ("damaged" in caplog.text) == (what == "row")


def test_damaged_copy_in_order_is_made_again(images: np.ndarray, tmp_path: Path) -> None:
    extract(images, Means(), cache=tmp_path)
    want = np.array(extract(images[::-1], Means(), cache=tmp_path))
    (copy,) = tmp_path.glob("*/order-*.npy")
    before = copy.stat().st_mtime_ns
    extract(images[::-1], Means(), cache=tmp_path)
    assert copy.stat().st_mtime_ns == before
    content = bytearray(copy.read_bytes())
    content[-1] ^= 8
    for damaged in (bytes(content), bytes(content[:-5]), b""):
        copy.write_bytes(damaged)
        assert extract(images[::-1], Means(), cache=tmp_path).tobytes() == want.tobytes()
    np.testing.assert_allclose(want, plain(images)[::-1], rtol=1e-6)


def test_other_settings_and_types_have_folders_of_their_own(images: np.ndarray, tmp_path: Path) -> None:
    first = extract(images, Means(), cache=tmp_path)
    other = Means(scale=2.0)
    assert (extract(images, other, cache=tmp_path) == 2 * first).all()
    half = extract(images, Means(), cache=tmp_path, dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, first, rtol=1e-3)
    assert other.n_seen == 11
    assert len(list(tmp_path.iterdir())) == 3
    extract(images, RGBHistogram(HistogramConfig(bins=4)), cache=tmp_path)
    (folder,) = tmp_path.glob("rgb_histogram-*")
    record = json.loads((folder / "made_by.json").read_text())
    assert record["settings"]["config"] == {"bins": 4, "joint": False}


def test_full_disk_is_one_sentence_and_keeps_what_was_there(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="the disk is full"):
        extract(images, Means(), cache=tmp_path, batch_size=1)
    monkeypatch.undo()
    means = Means()
    assert extract(images, means, cache=tmp_path).tobytes() == extract(images, Means()).tobytes()
    assert 0 < means.n_seen < 11


def test_progress_counts_each_stimulus(images: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract(images[:4], Means(), cache=tmp_path)
    extract(images[[0, 1, 2, 3, 4, 4, 5]], Means(), cache=tmp_path, progress=True)
    assert "7/7" in capsys.readouterr().err
    extract(images, Means(), cache=tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("stimuli", "kind", "message"),
    [
        (np.zeros((0, 3, 2, 2), np.uint8), ValueError, "at least one"),
        (np.zeros((4, 5, 6, 3), np.uint8), ValueError, "Channels come second"),
        (np.zeros((3, 5, 6), np.uint8), ValueError, r"have shape \(N, 3, H, W\)"),
        (np.full((1, 3, 5, 2), 255.0), ValueError, r"stimuli\[0\]` must lie in \[0, 1\].*Divide by 255"),
        (np.full((1, 3, 5, 2), -1.0), ValueError, r"\(x \+ 1\) / 2"),
        (np.full((1, 3, 5, 2), np.nan), ValueError, r"lie in \[0, 1\]"),
        (np.ones((1, 3, 5, 2), np.int64), TypeError, "bytes"),
        ([np.zeros((5, 2), np.uint8)], ValueError, r"stimuli\[0\]"),
        ([3.0], TypeError, r"stimuli\[0\]"),
        ("image.png", TypeError, "make a list"),
        (7, TypeError, "`stimuli`"),
    ],
)
def test_what_is_no_image_is_named(stimuli: Any, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        extract(stimuli, Means())


def test_wrong_options_are_named(images: np.ndarray) -> None:
    for options, kind, message in (
        ({"dtype": "int8"}, ValueError, "'float32', 'float16'"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"workers": -1}, ValueError, "workers"),
        ({"keys": ["a"]}, ValueError, "11 names"),
        ({"keys": list(range(11))}, TypeError, "Name the data set too"),
    ):
        with pytest.raises(kind, match=message):
            extract(images, Means(), **options)


def test_features_that_are_not_finite_are_named_and_not_kept(images: np.ndarray, tmp_path: Path) -> None:
    images[6] = 255
    images[:6] //= 4
    # 0.25 * 2e5 fits into half precision, 2e5 does not.
    with pytest.raises(ValueError, match=r"finite in float16, got NaN or infinity for stimuli\[6\]"):
        extract(images[:7], Means(2e5), cache=tmp_path, dtype="float16")
    wrong = Means()
    wrong.shape = (3, 4)
    with pytest.raises(ValueError, match=r"return a tensor of shape \(4, 3, 4\)"):
        extract(images, wrong)
