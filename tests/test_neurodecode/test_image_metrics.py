"""The eight metrics against scikit-image, SciPy and plain loops; what must hold of perfect and of random images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import correlation

from neurodecode.fmri.image_baseline import NEAREST_TO, nearest_training_image
from neurodecode.fmri.image_metrics import METRICS, image_metrics
from neurodecode.fmri.image_networks import tiny_image_networks
from neurodecode.fmri.image_pixels import as_bytes, pixel_correlation, resize, ssim, to_grey
from neurodecode.fmri.published import PAPER_TABLE

QUICK = {"n_resamples": 200, "n_permutations": 99, "size": 32}


def pictures(n, seed, side=32):
    """Smooth random images in [0, 1]: a few waves in each colour."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = [
        rng.standard_normal((n, 3, 1, 1)) * np.sin(2 * np.pi * (fx * x + fy * y) + rng.uniform(0, 6, (n, 3, 1, 1)))
        for fx in range(4)
        for fy in range(4)
    ]
    out = np.sum(waves, axis=0)
    return ((out - out.min()) / np.ptp(out)).astype(np.float32)


@pytest.fixture(scope="module")
def pair():
    """Two colour images by a formula, bytes of shape (1, 3, 48, 64)."""
    y, x = np.mgrid[:48, :64]
    first = np.stack([128 + 90 * np.sin(x / 3 + c) * np.cos(y / 5 - c) for c in range(3)]).round()
    second = np.clip(first + 60 * np.sin(x * y / (11.0 + np.arange(3)[:, None, None])), 0, 255).round()
    return first[None].astype(np.uint8), second[None].astype(np.uint8)


@pytest.fixture(scope="module")
def networks():
    return tiny_image_networks(seed=0)


@pytest.fixture(scope="module")
def scored(networks):
    real = pictures(24, 0)
    made = np.clip(0.6 * real + 0.4 * pictures(24, 1), 0, 1)
    categories = np.repeat([0, 1], 12)
    return real, made, image_metrics(real, made, networks=networks, categories=categories, **QUICK)


# --- pixels ---------------------------------------------------------------------------------------------------------


def test_ssim_gives_scikit_images_numbers(pair):
    # scikit-image 0.26: rgb2gray, then structural_similarity(gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False, data_range=1.0), for "columns" with channel_axis=1.
    first, second = map(to_grey, pair)
    np.testing.assert_allclose(ssim(first, second), 0.475949749403193, rtol=1e-9)
    np.testing.assert_allclose(ssim(first, second, mode="columns"), 0.2733118155203788, rtol=1e-9)


@pytest.mark.reference
def test_ssim_equals_scikit_image_where_it_is_installed(pair):
    metrics = pytest.importorskip("skimage.metrics")
    first, second = (to_grey(image)[0] for image in pair)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    want = metrics.structural_similarity(first, second, **options)
    np.testing.assert_allclose(ssim(first, second), want, rtol=1e-9)
    want = metrics.structural_similarity(first, second, channel_axis=1, **options)
    np.testing.assert_allclose(ssim(first, second, mode="columns"), want, rtol=1e-9)


def windows(image, height, width):
    return np.lib.stride_tricks.sliding_window_view(image, (height, width)).reshape(-1, height * width)


@pytest.mark.parametrize(("mode", "width"), [("2d", 11), ("columns", 1)])
def test_ssim_equals_the_definition_window_by_window(pair, mode, width):
    first, second = (to_grey(image)[0, :20, :25] for image in pair)
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line if width == 11 else [1.0]).reshape(-1)
    weights = weights / weights.sum()
    scores = []
    for a, b in zip(windows(first, 11, width), windows(second, 11, width), strict=True):
        m, n = weights @ a, weights @ b
        va, vb, cov = weights @ (a - m) ** 2, weights @ (b - n) ** 2, weights @ ((a - m) * (b - n))
        scores.append((2 * m * n + 1e-4) * (2 * cov + 9e-4) / ((m**2 + n**2 + 1e-4) * (va + vb + 9e-4)))
    np.testing.assert_allclose(ssim(first, second, mode=mode), np.mean(scores), rtol=1e-8)


def test_pixel_correlation_equals_corrcoef(pair):
    first, second = pair
    want = np.corrcoef(first.reshape(-1) / 255, second.reshape(-1) / 255)[0, 1]
    np.testing.assert_allclose(pixel_correlation(first, second), want, rtol=1e-9)
    assert want == pytest.approx(0.7350134279978113)


def test_images_are_resampled_as_pillow_does_with_png_files(pair):
    made = pair[0]
    want = np.asarray(Image.fromarray(made[0].transpose(1, 2, 0)).resize((40, 40))).transpose(2, 0, 1)
    np.testing.assert_array_equal(resize(made, 40, "bicubic")[0], want)
    big = np.asarray(Image.fromarray(made[0].transpose(1, 2, 0)).resize((425, 425))).transpose(2, 0, 1)
    found = image_metrics(np.stack([big, big[::-1]]), np.repeat(made, 2, axis=0) / 255, n_resamples=100)
    assert found.values["pixcorr"][0] == pytest.approx(1)
    assert found.values["ssim_2d"][0] == pytest.approx(1)


def test_bytes_and_their_floats_are_the_same_images(pair):
    for floats in (pair[0] / 255, (pair[0] / 255).astype(np.float32), torch.from_numpy(pair[0]).float() / 255):
        np.testing.assert_array_equal(as_bytes("made", floats), pair[0])


# --- the eight ------------------------------------------------------------------------------------------------------


def test_perfect_reconstructions_score_perfectly(networks):
    real = pictures(20, 2)
    found = image_metrics(real, real, networks=networks, **QUICK)
    assert list(found.scores) == list(METRICS)
    for name, score in found.scores.items():
        assert score == pytest.approx(0 if METRICS[name].kind == "distance" else 1, abs=1e-12)
    assert {test.p for test in found.tests.values()} == {0.01}


def test_reconstructions_of_something_else_are_at_chance(networks):
    found = image_metrics(pictures(60, 3), pictures(60, 4), networks=networks, **QUICK)
    for name, metric in METRICS.items():
        if metric.kind == "identification":
            assert found.scores[name] == pytest.approx(0.5, abs=0.13)
            assert found.tests[name].p > 0.02
            assert found.tests[name].chance == pytest.approx(0.5, abs=0.03)
    assert abs(found.scores["pixcorr"]) < 0.1


def test_feature_metrics_equal_corrcoef_and_scipy(scored, networks):
    real, made, found = scored
    a, b = networks.features(real), networks.features(made)
    for name, metric in METRICS.items():
        if metric.kind == "identification":
            r = np.corrcoef(a[name].astype(float), b[name].astype(float))[:24, 24:]
            np.testing.assert_allclose(found.values[name], (r < np.diag(r)).sum(0) / 23)
        elif metric.kind == "distance":
            want = [correlation(u.astype(float), v.astype(float)) for u, v in zip(a[name], b[name], strict=True)]
            np.testing.assert_allclose(found.values[name], want, rtol=1e-9)
            assert found.scores[name] == pytest.approx(np.mean(want))


def test_each_score_has_an_interval_and_identification_a_test_and_matched_foils(scored):
    *_, found = scored
    for key, interval in found.intervals.items():
        assert interval.low <= interval.estimate == found.values[key].mean() <= interval.high
    kinds = {name for name, metric in METRICS.items() if metric.kind == "identification"}
    assert set(found.tests) == set(found.matched) == kinds
    for name in kinds:
        assert found.tests[name].observed == pytest.approx(found.scores[name])
        assert (found.matched[name].n_foils == 11).all()
        assert found.tests[name].p <= 0.05


def test_metrics_do_not_depend_on_batches_or_on_the_kind_of_array(scored, networks, global_rng_untouched):
    real, made, found = scored
    again = image_metrics(torch.from_numpy(real), torch.from_numpy(made), networks=networks, batch_size=5, **QUICK)
    for key, values in found.values.items():
        np.testing.assert_allclose(again.values[key], values, rtol=1e-5, atol=1e-6)


def test_without_networks_pixels_alone_are_scored():
    real = pictures(4, 5)
    found = image_metrics(real, real[::-1], ssim="columns", **QUICK)
    assert list(found.scores) == ["pixcorr", "ssim"]
    assert found.scores["ssim"] == found.values["ssim_columns"].mean() != found.values["ssim_2d"].mean()
    assert found.networks == "none"
    assert not found.comparable


def test_table_sets_the_paper_beside_this_run_and_says_what_is_not_comparable(scored):
    *_, found = scored
    lines = found.table().splitlines()
    assert sum(line.startswith(tuple(metric.title for metric in METRICS.values())) for line in lines) == 9 + 4
    (clip,) = (line for line in lines if line.startswith("CLIP "))
    assert clip.split()[1:3] == ["0.915", f"{found.scores['clip']:.3f}"]
    columns, two_d = (next(line for line in lines if line.startswith(f"SSIM ({m})")) for m in ("columns", "2d"))
    assert "0.356" in columns
    assert "0.356" not in two_d
    assert "not comparable" in lines[-1]
    assert "from memory" in found.table("Gu et al. 2022")
    with pytest.raises(ValueError, match="`paper` must be one of 'Brain-Diffuser'"):
        found.table("ours")


def test_scores_are_saved_as_json(scored, tmp_path):
    *_, found = scored
    found.save(tmp_path / "metrics.json")
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert read["scores"] == found.scores
    assert read["values"]["clip"] == found.values["clip"].tolist()
    assert read["comparable"] is False


def test_published_numbers_are_shares_and_name_their_source():
    for row in PAPER_TABLE.values():
        numbers = [getattr(row, name) for name in METRICS]
        assert all(number is None or 0 < number < 1 for number in numbers)
        assert row.source
        assert row.ssim_mode in ("columns", "2d", "unknown")
    paper = PAPER_TABLE["Brain-Diffuser"]
    assert [getattr(paper, name) for name in METRICS] == [0.254, 0.356, 0.942, 0.962, 0.872, 0.915, 0.775, 0.423]


# --- what retrieval would reach -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nearest_to", NEAREST_TO)
def test_nearest_training_image_equals_a_search_in_all(networks, nearest_to):
    real, made, train = pictures(10, 6), pictures(10, 7), pictures(50, 8)
    found = nearest_training_image(real, made, train, networks=networks, nearest_to=nearest_to, batch_size=7, **QUICK)
    a = networks.features({"made": made, "real": real}[nearest_to], ["clip"])["clip"].astype(float)
    r = np.corrcoef(a, networks.features(train, ["clip"])["clip"].astype(float))[:10, 10:]
    np.testing.assert_array_equal(found.index, r.argmax(1))
    np.testing.assert_allclose(found.correlation, r.max(1), rtol=1e-6)
    want = image_metrics(real, train[found.index], networks=networks, **QUICK)
    for key, values in found.metrics.values.items():
        np.testing.assert_allclose(values, want.values[key], rtol=1e-5, atol=1e-6)


def test_twin_among_the_training_images_is_found_and_scores_perfectly(networks):
    real = pictures(6, 9)
    train = np.concatenate([pictures(20, 10), real[::-1], real])
    found = nearest_training_image(real, real, train, networks=networks, **QUICK)
    # Of the two copies, the first.
    np.testing.assert_array_equal(found.index, 25 - np.arange(6))
    assert found.metrics.scores["pixcorr"] == pytest.approx(1)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"made": pictures(4, 0) * 255}, r"`made` must lie in \[0, 1\], got values from .* to 255"),
        ({"made": pictures(4, 0).transpose(0, 2, 3, 1)}, "`made` must have shape .* Colour comes before height"),
        ({"made": pictures(3, 0)}, "`real`, `made` must have the same length"),
        ({"made": np.full((4, 3, 32, 32), 0.5)}, "`made` must differ from pixel to pixel.*pixcorr of image 0"),
        ({"real": pictures(1, 0), "made": pictures(1, 0)}, "`real` must hold at least 2 images"),
        ({"ssim": "3d"}, "`ssim` must be one of 'columns', '2d'"),
        ({"size": None, "real": pictures(4, 0)[..., :20]}, "`real` must be square for size=None"),
        ({"size": 8}, "`size` must be a whole number >= 11"),
    ],
)
def test_image_metrics_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        image_metrics(**{"real": pictures(4, 0), "made": pictures(4, 1), **QUICK, **change})


def test_image_metrics_refuses_what_are_no_networks_or_images():
    real = pictures(4, 0)
    with pytest.raises(TypeError, match="`networks` must come from load_image_networks"):
        image_metrics(real, real, networks="weights/", **QUICK)
    with pytest.raises(TypeError, match="`real` must be floating point in"):
        image_metrics(real.astype(int), real, **QUICK)
