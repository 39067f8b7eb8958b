"""Writers of tiny image data sets in the exact formats of the real ones. Each returns what it wrote."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def random_images(n, shape, n_classes, seed):
    """Random bytes and labels; every class occurs if n >= n_classes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return images, rng.permutation(np.arange(n) % n_classes).astype(np.uint8)


def idx_bytes(array):
    """The idx format: two zero bytes, type code (8 = unsigned byte), number of axes, sizes, data."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist_idx(folder, *, n_train=40, n_test=20, gz=True, seed=0):
    """Write the four idx files of MNIST or Fashion-MNIST; return (x_train, y_train, x_test, y_test)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (*random_images(n_train, (28, 28), 10, seed), *random_images(n_test, (28, 28), 10, seed + 1))
    for name, array in zip(MNIST_FILES, arrays, strict=True):
        content = idx_bytes(array)
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return arrays


def write_mnist_npz(folder, *, n_train=40, n_test=20, seed=0):
    """Write mnist.npz; return (x_train, y_train, x_test, y_test)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (*random_images(n_train, (28, 28), 10, seed), *random_images(n_test, (28, 28), 10, seed + 1))
    np.savez_compressed(
        folder / "mnist.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True))
    )
    return arrays


def write_cifar10_archive(path, *, n_per_batch=20, seed=0):
    """Write cifar-10-binary.tar.gz; return (x_train, y_train, x_test, y_test)."""
    batches = [random_images(n_per_batch, (3, 32, 32), 10, seed + i) for i in range(6)]
    files = {
        f"cifar-10-batches-bin/{name}": _records(images, labels)
        for name, (images, labels) in zip(
            [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"], batches, strict=True
        )
    }
    files["cifar-10-batches-bin/batches.meta.txt"] = ("\n".join(CIFAR10_NAMES) + "\n\n").encode()
    files["cifar-10-batches-bin/readme.html"] = b"<html></html>"
    write_tar(path, files)
    x = [images for images, _ in batches]
    y = [labels for _, labels in batches]
    return np.concatenate(x[:5]), np.concatenate(y[:5]), x[5], y[5]


def write_cifar100_archive(path, *, n_train=200, n_test=100, seed=0):
    """Write cifar-100-binary.tar.gz; return (x_train, fine_train, x_test, fine_test)."""
    train, test = random_images(n_train, (3, 32, 32), 100, seed), random_images(n_test, (3, 32, 32), 100, seed + 1)
    files = {}
    for part, (images, fine) in (("train", train), ("test", test)):
        files[f"cifar-100-binary/{part}.bin"] = _records(images, fine // 5, fine)
    files["cifar-100-binary/fine_label_names.txt"] = "".join(f"fine {i}\n" for i in range(100)).encode()
    files["cifar-100-binary/coarse_label_names.txt"] = "".join(f"coarse {i}\n" for i in range(20)).encode()
    write_tar(path, files)
    return *train, *test


def write_image_folder(folder, *, n_per_class=3, classes=("n01440764", "n01443537"), sizes=((40, 30),), seed=0):
    """Write class folders of JPEG files, (width, height) taken in turn from `sizes`; return the paths in order."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    paths = []
    for name in classes:
        (Path(folder) / name).mkdir(parents=True)
        for i in range(n_per_class):
            width, height = sizes[len(paths) % len(sizes)]
            # Smooth, as photographs are: JPEG would mangle noise.
            small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            path = Path(folder) / name / f"{name}_{i}.JPEG"
            small.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=95)
            paths.append(path)
    return paths


def write_tar(path, files):
    """Write a .tar.gz of (path inside, bytes)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _records(images, *labels):
    return np.column_stack([*labels, images.reshape(len(images), -1)]).tobytes()
