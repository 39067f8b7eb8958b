"""Handcrafted features against scikit-image, SciPy, NumPy, and against plain loops."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import fft
from tolerances import close

from neurodecode.features import (
    FEATURES,
    FFT2D,
    HOG,
    LBP,
    HistogramConfig,
    HOGConfig,
    LBPConfig,
    LogPSD,
    RGBHistogram,
    SpectrumConfig,
    hog,
    local_binary_patterns,
)
from neurodecode.features.patterns import grey

LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
HANDCRAFTED = ["rgb_histogram", "hog", "lbp", "fft2d", "log_psd"]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Two images in bytes, 40 x 48; the second is flat."""
    rng = np.random.default_rng(0)
    flat = np.full((3, 40, 48), 90, np.uint8)
    return torch.from_numpy(np.stack([rng.integers(0, 256, (3, 40, 48), dtype=np.uint8), flat]))


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    """A grey image from a formula, for numbers that were computed elsewhere."""
    row, column = np.mgrid[:24, :32]
    return np.round(127 + 80 * np.sin(0.5 * row + 0.02 * column**2) + 40 * np.cos(0.3 * column))


def plain_hog(image: np.ndarray, n: int, cell: int, block: int) -> np.ndarray:
    """Votes of one pixel at a time."""
    down, across = image.shape[0] // cell, image.shape[1] // cell
    cells = np.zeros((down, across, n))
    for r in range(down * cell):
        for c in range(across * cell):
            gr = image[r + 1, c] - image[r - 1, c] if 0 < r < image.shape[0] - 1 else 0.0
            gc = image[r, c + 1] - image[r, c - 1] if 0 < c < image.shape[1] - 1 else 0.0
            angle = math.degrees(math.atan2(gr, gc)) % 180
            cells[r // cell, c // cell, int(angle // (180 / n))] += math.hypot(gr, gc) / cell**2
    out = np.zeros((down - block + 1, across - block + 1, block, block, n))
    for r in range(len(out)):
        for c in range(out.shape[1]):
            v = cells[r : r + block, c : c + block]
            v = np.minimum(v / math.sqrt((v**2).sum() + 1e-10), 0.2)
            out[r, c] = v / math.sqrt((v**2).sum() + 1e-10)
    return out


def plain_lbp(image: np.ndarray, points: int, radius: float) -> np.ndarray:
    """The code of one pixel at a time."""
    codes = np.zeros(image.shape, dtype=np.int64)
    padded = np.pad(image, 5)
    for r, c in np.ndindex(image.shape):
        for k in range(points):
            y = r + 5 - round(radius * math.sin(2 * math.pi * k / points), 5)
            x = c + 5 + round(radius * math.cos(2 * math.pi * k / points), 5)
            top, left = math.floor(y), math.floor(x)
            square = padded[top : top + 2, left : left + 2]
            value = np.array([top + 1 - y, y - top]) @ square @ np.array([left + 1 - x, x - left])
            codes[r, c] |= int(value >= image[r, c] - 1e-9) << k
    return codes


@pytest.mark.parametrize(("orientations", "cell", "block"), [(8, 8, 2), (9, 6, 3), (5, 7, 1)])
def test_hog_is_the_plain_loop(orientations: int, cell: int, block: int, images: torch.Tensor) -> None:
    image = grey(images.double())
    got = hog(image, orientations=orientations, cell=cell, block=block)
    want = [plain_hog(one, orientations, cell, block) for one in image.numpy()]
    close(got, torch.from_numpy(np.stack(want)))
    assert (got[1] == 0).all()


def test_hog_of_a_ramp_has_one_direction() -> None:
    ramp = torch.arange(32.0).expand(32, 32)
    got = hog(torch.stack([ramp, ramp.T]))
    # Brightness grows to the right (0 degrees), and downwards (90).
    for votes, direction in zip(got, (0, 4), strict=True):
        assert (votes[..., direction] > 0.4).all()
        assert votes.sum() == votes[..., direction].sum()


def test_hog_keeps_the_numbers_of_scikit_image(wave: np.ndarray) -> None:
    # skimage 0.26.0: hog(wave, orientations=8, pixels_per_cell=(8, 8), cells_per_block=(2, 2), feature_vector=False)
    got = hog(torch.from_numpy(wave)[None])[0]
    assert got.shape == (2, 3, 2, 2, 8)
    want = [0.044207, 0.461046, 0.118981, 0.007114, 0.005823, 0.0, 0.0, 0.004314]
    want += [0.117999, 0.461046, 0.048722, 0.0, 0.079443, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(got[1, 2, 0].flatten(), want, atol=1e-6)


def test_patterns_keep_the_counts_of_scikit_image(wave: np.ndarray) -> None:
    # skimage 0.26.0: bincount of local_binary_pattern(wave.astype("u1"), 8, 1, "uniform"); sum of codes of "default"
    codes, n_codes = local_binary_patterns(torch.from_numpy(wave)[None])
    assert torch.bincount(codes.flatten(), minlength=n_codes).tolist() == [32, 61, 39, 56, 391, 58, 26, 29, 29, 47]
    codes, n_codes = local_binary_patterns(torch.from_numpy(wave)[None], pattern="default")
    assert (n_codes, int(codes.sum())) == (256, 89943)


@pytest.mark.reference
def test_hog_and_patterns_are_those_of_scikit_image(images: torch.Tensor) -> None:
    feature = pytest.importorskip("skimage.feature")
    image = grey(images.double()).round().numpy()
    for one in image[:1]:
        want = feature.hog(one, orientations=8, pixels_per_cell=(8, 8), cells_per_block=(2, 2), feature_vector=False)
        np.testing.assert_allclose(hog(torch.from_numpy(one)[None])[0], want, atol=1e-6)
        for pattern in ("default", "uniform"):
            want = feature.local_binary_pattern(one.astype(np.uint8), 8, 1, method=pattern)
            assert (local_binary_patterns(torch.from_numpy(one)[None], pattern=pattern)[0][0].numpy() == want).all()


@pytest.mark.parametrize(("points", "radius"), [(8, 1), (8, 2.5), (5, 1.5)])
def test_patterns_are_the_plain_loop(points: int, radius: float, images: torch.Tensor) -> None:
    image = grey(images.double()).round()[:, :20, :18]
    want = np.stack([plain_lbp(one, points, radius) for one in image.numpy()])
    codes, n_codes = local_binary_patterns(image, points=points, radius=radius, pattern="default")
    assert n_codes == 2**points
    assert (codes.numpy() == want).all()
    got, n_codes = local_binary_patterns(image, points=points, radius=radius)
    bits = want[..., None] >> np.arange(points) & 1
    changes = (bits != np.roll(bits, 1, axis=-1)).sum(-1)
    assert n_codes == points + 2
    assert (got.numpy() == np.where(changes <= 2, bits.sum(-1), points + 1)).all()


def test_turning_an_image_keeps_its_uniform_patterns(images: torch.Tensor) -> None:
    image = torch.nn.functional.pad(grey(images[:1].double()).round(), (3, 3, 3, 3))
    counts = [
        torch.bincount(local_binary_patterns(image.rot90(k, (1, 2)))[0].flatten(), minlength=10) for k in range(4)
    ]
    assert all(torch.equal(counts[0], other) for other in counts)


def test_histogram_is_that_of_numpy(images: torch.Tensor) -> None:
    got = RGBHistogram()(images)
    assert got.shape == (2, 24)
    close(got.sum(1), torch.full((2,), 3.0))
    for one, image in zip(got, images.numpy() / 255, strict=True):
        want = [np.histogram(channel, bins=8, range=(0, 1))[0] / channel.size for channel in image]
        close(one, torch.from_numpy(np.concatenate(want)))
    joint = RGBHistogram(HistogramConfig(bins=4, joint=True))
    want, _ = np.histogramdd(images[0].numpy().reshape(3, -1).T / 255, bins=4, range=[(0, 1)] * 3)
    close(joint(images)[0], torch.from_numpy(want.ravel() / images[0, 0].numel()))
    assert joint.shape == (64,)
    # The whole range is counted, 1 too.
    assert RGBHistogram()(torch.ones(1, 3, 2, 2))[0].nonzero().flatten().tolist() == [7, 15, 23]


def test_spectra_are_those_of_scipy(images: torch.Tensor) -> None:
    image = np.einsum("bchw,c->bhw", images[..., 4:44].numpy() / 255, LUMINANCE)
    want = fft.rfft2(image, norm="ortho")
    config = {"size": 40}
    close(FFT2D(SpectrumConfig(**config))(images), torch.from_numpy(abs(want)))
    close(FFT2D(SpectrumConfig(**config, part="complex"))(images)[:, 1], torch.from_numpy(want.imag))
    phase = FFT2D(SpectrumConfig(**config, part="phase"))(images)[0]
    close(phase.cos(), torch.from_numpy(np.cos(np.angle(want[0]))), "float32 gradient")
    power = LogPSD(SpectrumConfig(**config))(images)
    close(power[0], torch.from_numpy(np.log10(abs(want[0]) ** 2 + 1e-10)))
    # Parseval: both halves of the spectrum have the energy of the image.
    full = 10 ** power.double()[0]
    energy = full[:, 0].sum() + full[:, -1].sum() + 2 * full[:, 1:-1].sum()
    assert abs(energy / (image[0] ** 2).sum() - 1) < 1e-5


@pytest.mark.parametrize("name", HANDCRAFTED)
def test_handcrafted_features_have_their_shape_and_take_bytes_and_floats(name: str, images: torch.Tensor) -> None:
    extractor = FEATURES[name]()
    got = extractor(images)
    assert got.shape == (2, *extractor.shape)
    assert got.dtype == torch.float32
    assert torch.isfinite(got).all()
    assert torch.equal(got, extractor(images / 255))
    assert torch.equal(got, extractor(list(images)))
    mixed = extractor([images[0], images[1, :, :30, :20]])
    close(mixed[0], got[0])


def test_settings_change_shapes_and_fingerprints(images: torch.Tensor) -> None:
    every = [
        HOG(),
        HOG(HOGConfig(size=64)),
        HOG(HOGConfig(orientations=9, cell=16, block=3)),
        HOG(HOGConfig(fit="squash")),
        LBP(),
        LBP(LBPConfig(pattern="default")),
        LBP(LBPConfig(histogram=False, size=32)),
        LBP(LBPConfig(radius=2)),
        RGBHistogram(),
        RGBHistogram(HistogramConfig(bins=4)),
        FFT2D(),
        LogPSD(),
    ]
    assert len({extractor.fingerprint() for extractor in every}) == len(every)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for extractor in every:
            assert extractor(images).shape[1:] == extractor.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HOGConfig(size=15), "`size` must be a whole number >= 16"),
        (lambda: HOGConfig(cell=0), "`cell`"),
        (lambda: LBPConfig(pattern="ror"), "'default', 'uniform'"),
        (lambda: LBPConfig(points=20, pattern="default"), "Or 'uniform'"),
        (lambda: SpectrumConfig(part="power"), "'magnitude', 'complex', 'phase'"),
        (lambda: HistogramConfig(bins=100), "`bins`"),
        (lambda: hog(torch.zeros(1, 15, 40)), "at least 16 pixels a side"),
        (lambda: local_binary_patterns(torch.zeros(5, 5)), r"shape \(B, H, W\)"),
    ],
)
def test_wrong_settings_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
