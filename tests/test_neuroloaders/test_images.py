"""Readers against files in the real formats, and against torchvision's readers of the same files."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from fakes.images import (
    CIFAR10_NAMES,
    MNIST_FILES,
    idx_bytes,
    write_cifar10_archive,
    write_cifar100_archive,
    write_image_folder,
    write_mnist_idx,
    write_mnist_npz,
)
from torchvision.transforms import v2

from neuroloaders import folders, image_folder
from neuroloaders.archives import unpack
from neuroloaders.bundled import EXAMPLE_DATA, example_data
from neuroloaders.image_files import read_cifar_binary, read_idx, read_mnist
from neuroloaders.image_folder import ImageFolderConfig, class_folders, read_image_folder
from neuroloaders.images import IMAGE_SETS, ImageSet, channel_statistics, load_images
from neuroloaders.registry import datasets_available


def assert_set_holds(image_set, images, labels):
    assert image_set.images.dtype == torch.uint8
    assert image_set.labels.dtype == torch.int64
    np.testing.assert_array_equal(image_set.images, images)
    np.testing.assert_array_equal(image_set.labels, labels)


# --- MNIST ---


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_idx_files_are_read_as_torchvision_reads_them(tmp_path, name, gz):
    folder = tmp_path / name
    x_train, y_train, x_test, y_test = write_mnist_idx(folder, gz=gz)
    if gz:  # without the published checksums only the plain files count as there
        images, labels = read_mnist(folder)[0]
        np.testing.assert_array_equal(images[:, 0], x_train)
        np.testing.assert_array_equal(labels, y_train)
        return
    train, test = load_images(name, data_dir=tmp_path, offline=True)
    assert_set_holds(train, x_train[:, None], y_train)
    assert_set_holds(test, x_test[:, None], y_test)
    reference = torchvision.datasets.mnist.read_image_file(folder / MNIST_FILES[0])
    assert torch.equal(train.images[:, 0], reference)
    assert torch.equal(train.labels, torchvision.datasets.mnist.read_label_file(folder / MNIST_FILES[1]))
    assert len(train.classes) == 10


def test_mnist_npz_is_read_in_its_order(tmp_path):
    x_train, y_train, x_test, y_test = write_mnist_npz(tmp_path / "mnist")
    train, test = load_images("mnist", data_dir=tmp_path)
    assert_set_holds(train, x_train[:, None], y_train)
    assert_set_holds(test, x_test[:, None], y_test)
    assert (train.split, test.split) == ("train", "test")


def test_idx_files_come_before_npz(tmp_path):
    arrays = write_mnist_idx(tmp_path, seed=1)
    write_mnist_npz(tmp_path, seed=2)
    np.testing.assert_array_equal(read_mnist(tmp_path)[0][0][:, 0], arrays[0])


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx_types_follow_the_format(tmp_path, dtype):
    code = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}[dtype]
    array = np.arange(-3, 3).astype(dtype).reshape(2, 3)
    head = bytes([0, 0, code, 2]) + np.array([2, 3], ">u4").tobytes()
    (tmp_path / "x").write_bytes(head + array.astype(array.dtype.newbyteorder(">")).tobytes())
    read = read_idx(tmp_path / "x")
    np.testing.assert_array_equal(read, array)
    assert read.dtype.isnative


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:6], lambda b: b"PK" + b[2:], lambda b: b""]
)
def test_damaged_idx_files_are_refused(tmp_path, damage):
    content = idx_bytes(np.zeros((5, 4, 4), np.uint8))
    (tmp_path / "x").write_bytes(damage(content))
    with pytest.raises(ValueError, match=r"cannot be read: .* Delete it"):
        read_idx(tmp_path / "x")
    (tmp_path / "x.gz").write_bytes(gzip.compress(content)[:-10])
    with pytest.raises(ValueError, match="the compressed data are damaged"):
        read_idx(tmp_path / "x.gz")


def test_damaged_or_foreign_npz_is_refused(tmp_path):
    write_mnist_npz(tmp_path)
    content = (tmp_path / "mnist.npz").read_bytes()
    (tmp_path / "mnist.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"is no mnist\.npz"):
        read_mnist(tmp_path)
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros(3))
    with pytest.raises(ValueError, match=r"is no mnist\.npz"):
        read_mnist(tmp_path)


def test_images_and_labels_must_belong_together(tmp_path):
    write_mnist_idx(tmp_path, gz=False)
    (tmp_path / MNIST_FILES[1]).write_bytes(idx_bytes(np.zeros(7, np.uint8)))
    with pytest.raises(ValueError, match=r"has labels uint8 \(7,\) for 40 images"):
        read_mnist(tmp_path)


def test_real_mnist_has_its_published_statistics():
    shared = folders._beside_checkout()
    if shared is None or not (shared / "mnist").is_dir():
        pytest.skip("needs MNIST in ../shared/data/mnist")
    train, test = load_images("mnist", offline=True)
    assert train.images.shape == (60000, 1, 28, 28)
    assert test.images.shape == (10000, 1, 28, 28)
    # The constants of PyTorch's MNIST example, and the class sizes of the original files.
    assert (round(train.mean[0], 4), round(train.std[0], 4)) == (0.1307, 0.3081)
    assert torch.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# --- CIFAR ---


@pytest.fixture
def cifar10(tmp_path):
    (tmp_path / "cifar10").mkdir()
    arrays = write_cifar10_archive(tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", "cifar-10-batches-bin", tmp_path / "cifar10" / "cifar-10-batches-bin")
    return tmp_path, arrays


def test_cifar10_binary_gives_planes_in_order(cifar10):
    data_dir, (x_train, y_train, x_test, y_test) = cifar10
    train, test = load_images("cifar10", data_dir=data_dir, offline=True)
    assert_set_holds(train, x_train, y_train)
    assert_set_holds(test, x_test, y_test)
    assert train.classes == CIFAR10_NAMES
    assert train.images.is_contiguous()


def test_cifar_record_is_label_then_red_green_blue_rows(tmp_path):
    # The layout in words, https://www.cs.toronto.edu/~kriz/cifar.html, byte by byte.
    record = bytearray(1 + 3072)
    record[0] = 6
    record[1 + 0 * 1024 + 5 * 32 + 7] = 11
    record[1 + 1 * 1024 + 5 * 32 + 7] = 22
    record[1 + 2 * 1024 + 31 * 32 + 31] = 33
    (tmp_path / "b.bin").write_bytes(bytes(record))
    images, labels = read_cifar_binary([tmp_path / "b.bin"], n_label_bytes=1)
    assert labels.tolist() == [6]
    assert images[0, :2, 5, 7].tolist() == [11, 22]
    assert images[0, 2, 31, 31] == 33
    assert images.sum() == 66


def test_cifar100_uses_the_fine_label(tmp_path):
    (tmp_path / "cifar100").mkdir()
    x_train, y_train, x_test, y_test = write_cifar100_archive(tmp_path / "a.tar.gz")
    unpack(tmp_path / "a.tar.gz", "cifar-100-binary", tmp_path / "cifar100" / "cifar-100-binary")
    train, test = load_images("cifar100", data_dir=tmp_path, offline=True)
    assert_set_holds(train, x_train, y_train)
    assert_set_holds(test, x_test, y_test)
    assert train.classes[37] == "fine 37"


def test_truncated_cifar_file_is_refused(cifar10):
    path = cifar10[0] / "cifar10" / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="are no whole number of records of 3073 bytes"):
        load_images("cifar10", data_dir=cifar10[0], offline=True)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="are no whole number of records"):
        load_images("cifar10", data_dir=cifar10[0], offline=True)


def test_wrong_number_of_class_names_is_refused(cifar10):
    (cifar10[0] / "cifar10" / "cifar-10-batches-bin" / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match="2 class names instead of 10"):
        load_images("cifar10", data_dir=cifar10[0], offline=True)


# --- folders of photographs ---

SIZES = ((40, 30), (30, 41), (33, 33), (64, 17))


def torchvision_view(path, config):
    from PIL import Image

    with Image.open(path) as photograph:
        image = v2.Resize(config.resize)(photograph.convert("RGB"))
        return np.asarray(v2.CenterCrop(config.size)(image)).transpose(2, 0, 1)


def test_photographs_are_cut_as_torchvision_cuts_them(tmp_path):
    paths = write_image_folder(tmp_path / "train", n_per_class=4, sizes=SIZES)
    config = ImageFolderConfig(size=16)
    images, labels, counts = read_image_folder(tmp_path / "train", config, cache_dir=tmp_path / "cache", workers=2)
    assert config.resize == 18
    assert labels.tolist() == [0] * 4 + [1] * 4
    for image, path in zip(images, paths, strict=True):
        np.testing.assert_array_equal(image, torchvision_view(path, config))
    for channel in range(3):
        np.testing.assert_array_equal(counts[channel], np.bincount(images[:, channel].ravel(), minlength=256))


def test_photographs_are_decoded_once(tmp_path, monkeypatch):
    paths = write_image_folder(tmp_path / "train", sizes=SIZES)
    calls, decode = [], image_folder._decode
    monkeypatch.setattr(image_folder, "_decode", lambda *args: calls.append(1) or decode(*args))
    read = [
        read_image_folder(tmp_path / "train", ImageFolderConfig(size=8), cache_dir=tmp_path / "c") for _ in range(2)
    ]
    assert len(calls) == len(paths)
    assert isinstance(read[1][0], np.memmap)
    np.testing.assert_array_equal(read[0][0], read[1][0])
    read_image_folder(tmp_path / "train", ImageFolderConfig(size=9), cache_dir=tmp_path / "c")
    assert len(calls) == 2 * len(paths)


def test_imagenet_by_folder_loads_with_the_statistics_of_its_training_images(tmp_path):
    for part, seed in (("train", 0), ("val", 1)):
        write_image_folder(tmp_path / "imagenet" / part, sizes=SIZES, seed=seed)
    train, test = load_images("imagenet", data_dir=tmp_path, size=16)
    assert train.images.shape == test.images.shape == (6, 3, 16, 16)
    assert train.classes == ("n01440764", "n01443537")
    assert (test.mean, test.std) == (train.mean, train.std) == channel_statistics(train.images)


def test_grey_and_cmyk_photographs_become_rgb(tmp_path):
    from PIL import Image

    (tmp_path / "p" / "c").mkdir(parents=True)
    for mode in ("L", "CMYK"):
        Image.new(mode, (20, 20)).save(tmp_path / "p" / "c" / f"{mode}.jpg")
    images, _, _ = read_image_folder(tmp_path / "p", ImageFolderConfig(size=8), cache_dir=tmp_path / "cache")
    assert images.shape == (2, 3, 8, 8)


def test_unreadable_photograph_is_named(tmp_path):
    paths = write_image_folder(tmp_path / "p")
    Path(paths[2]).write_bytes(Path(paths[2]).read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{paths[2].name}.*Remove or replace the image"):
        read_image_folder(tmp_path / "p", ImageFolderConfig(size=8), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_class_folders_must_be_the_same_in_train_and_test(tmp_path):
    write_image_folder(tmp_path / "train", classes=("a", "b"))
    write_image_folder(tmp_path / "val", classes=("a", "c"))
    assert class_folders(tmp_path / "train") == ("a", "b")
    with pytest.raises(ValueError, match="a difference at 'b'"):
        read_image_folder(tmp_path / "val", classes=("a", "b"), cache_dir=tmp_path / "cache")
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="hold one folder for each class"):
        class_folders(tmp_path / "val")


def test_folder_config_refuses_a_cut_larger_than_the_photograph():
    assert ImageFolderConfig().resize == 256
    with pytest.raises(ValueError, match="`resize` must be a whole number >= 64"):
        ImageFolderConfig(size=64, resize=63)


# --- ImageSet ---


def make_set(n=60, channels=2, split="train", seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, channels, 5, 4), generator=generator, dtype=torch.uint8)
    mean, std = channel_statistics(images)
    return ImageSet(
        images=images, labels=torch.arange(n) % 3, classes=("a", "b", "c"), name="x", split=split, mean=mean, std=std
    )


def test_statistics_agree_with_float64_numpy():
    images = make_set(50, 3).images
    mean, std = channel_statistics(images)
    pixels = images.double().numpy() / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-13)


def test_holdout_carries_the_statistics_of_what_is_left_to_train_on():
    whole = make_set()
    train, valid = whole.holdout(0.2, 5)
    assert (train.split, valid.split) == ("train", "valid")
    assert torch.bincount(valid.labels).tolist() == [4, 4, 4]
    assert (valid.mean, valid.std) == (train.mean, train.std) == channel_statistics(train.images)
    assert train.mean != whole.mean
    rows = torch.cat([train.images, valid.images]).flatten(1).tolist()
    assert sorted(rows) == sorted(whole.images.flatten(1).tolist())


def test_holdout_moves_images_and_labels_together():
    images = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1)
    whole = ImageSet(
        images=images,
        labels=torch.arange(60) % 3,
        classes=("a", "b", "c"),
        name="x",
        split="train",
        mean=(0.1,),
        std=(0.1,),
    )
    for part in whole.holdout(0.3):
        assert torch.equal(part.labels, part.images.flatten().long() % 3)


NOTHING = torch.zeros(0, 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize("split", ["test", "valid"])
def test_only_a_training_set_gives_a_holdout(split):
    with pytest.raises(ValueError, match="`split` must be 'train' to hold out images from"):
        make_set(split=split).holdout(0.1)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"images": NOTHING, "labels": torch.zeros(0).long()}, ValueError, "`images` must hold at least one image"),
        ({"images": torch.zeros(3, 1, 2, 2)}, TypeError, "`images` must have dtype torch.uint8"),
        ({"labels": torch.zeros(3, dtype=torch.int32)}, TypeError, "`labels` must have dtype torch.int64"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, ValueError, "same length"),
        ({"labels": torch.tensor([0, 1, 2])}, ValueError, r"`labels` must lie in 0\.\.1"),
        ({"labels": torch.tensor([0, 1, -1])}, ValueError, r"`labels` must lie in 0\.\.1"),
        ({"images": torch.zeros(3, 2, 2, dtype=torch.uint8)}, ValueError, r"shape \(N, C, H, W\)"),
        ({"split": "dev"}, ValueError, "`split` must be one of 'train', 'valid', 'test'"),
        ({"mean": (0.0, 0.0)}, ValueError, "`mean` must have one value for each of 1 channels"),
    ],
)  # fmt: skip
def test_image_set_refuses_what_does_not_fit(change, error, text):
    good = {
        "images": torch.zeros(3, 1, 2, 2, dtype=torch.uint8), "labels": torch.tensor([0, 1, 1]), "classes": ("a", "b"),
        "name": "x", "split": "train", "mean": (0.0,), "std": (1.0,),
    }  # fmt: skip
    assert len(ImageSet(**good)) == 3
    with pytest.raises(error, match=text):
        ImageSet(**{**good, **change})


def test_load_images_refuses_unknown_names_and_sizes():
    with pytest.raises(ValueError, match="`name` must be one of 'mnist'"):
        load_images("cifar11")
    with pytest.raises(ValueError, match="`size` must be left out"):
        load_images("mnist", size=32)
    assert IMAGE_SETS.keys() <= datasets_available().keys()


# --- bundled data ---


def test_digits_are_scikit_learns_in_bytes_with_a_fixed_split():
    from sklearn.datasets import load_digits

    train, test = example_data("digits")
    bunch = load_digits()
    assert (len(train), len(test)) == (1438, 359)
    ours = torch.cat([train.images, test.images])[:, 0].double() * 16 / 255
    assert sorted(ours.round().flatten(1).tolist()) == sorted(bunch.data.tolist())
    assert int(train.images.max()) == 255
    assert (ours - ours.round()).abs().max() < 16 / 255 / 2 + 1e-12
    again = example_data("digits")
    assert torch.equal(again[0].images, train.images)
    assert torch.equal(again[1].labels, test.labels)
    for digit, size in enumerate(np.bincount(bunch.target)):
        assert abs(int((test.labels == digit).sum()) - 0.2 * size) < 1
    assert "UCI" in train.provenance
    with pytest.raises(ValueError, match="`name` must be one of 'digits'"):
        example_data("letters")
    assert list(EXAMPLE_DATA) == ["digits"]
