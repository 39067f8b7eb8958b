"""Accuracy over time: scores are those of other packages, tests keep their level, what is planted is found."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from neurodecode.meeg.time_curve import permutation_clusters, sign_clusters, time_curve
from neurodecode.meeg.time_scores import TimeScores, class_scores, retrieval_scores
from neurodecode.meeg.time_windows import sliding_windows
from neurodecode.plots.time import plot_time_curve
from neurodecode.scoring import retrieve
from neuroloaders.events_table import EventTable
from neuroloaders.window_targets import StimulusFeatures

WINDOWS = sliding_windows(-0.1, 1.0, width_s=0.1, step_s=0.05, sfreq=120.0)
M = len(WINDOWS)


def shown(n_stimuli, n_repeats, rng):
    names = [f"image {k}" for k in range(n_stimuli)]
    stimulus = rng.permutation(np.repeat(names, n_repeats))
    events = EventTable(start=np.arange(len(stimulus)), recording="r", kind="image", stimulus=stimulus)
    return events, StimulusFeatures(names, rng.standard_normal((n_stimuli, 4)).astype(np.float32))


def correlated_noise(rng, shape):
    """Noise that neighbouring windows share, as overlapping ones do."""
    x = rng.standard_normal((*shape[:-1], shape[-1] + 3))
    return sum(x[..., k : k + shape[-1]] for k in range(4)) / 2


def planted(n_units=8, first=6, last=12, strength=0.2, seed=1):
    """Scores around a chance of 0.5, better from one window to another; permutations know nothing."""
    rng = np.random.default_rng(seed)
    score = 0.5 + 0.05 * correlated_noise(rng, (n_units, M))
    score[:, first : last + 1] += strength * np.sin(np.pi * (np.arange(last - first + 1) + 1) / (last - first + 2))
    null = 0.5 + 0.05 * correlated_noise(rng, (400, n_units, M)).mean(1)
    units = tuple(f"S{k}" for k in range(n_units))
    return TimeScores(score=score, null=null, units=units, chance=0.5, measure="top-5 accuracy")


# --- scores -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", ["cosine", "correlation", "dot"])
@pytest.mark.parametrize("k", [1, 3])
def test_retrieval_scores_are_those_of_retrieve_in_each_window_and_unit(similarity, k):
    rng = np.random.default_rng(0)
    events, targets = shown(6, 4, rng)
    table = targets.for_windows(events, 0.0, 1.0, 1)(torch.arange(len(events))).numpy()
    estimates = table + rng.standard_normal((3, len(events), 4))
    # The same estimate twice, and one of the average image.
    estimates[0, :2], estimates[0, 2] = 1.0 + np.arange(4) // 2, table.mean(0)
    units = np.where(np.arange(len(events)) < 10, "a", "b")
    names, own = np.unique(events.stimulus, return_inverse=True)
    first = [np.flatnonzero(events.stimulus == name)[0] for name in names]
    found = retrieval_scores(
        estimates, events.stimulus, names, table[first], k=k, units=units, similarity=similarity, n_permutations=20,
        rng=rng,
    )  # fmt: skip
    candidates = table[first]
    for m in range(3):
        credit = retrieve(estimates[m], candidates, own, similarity=similarity).top_k(k)
        np.testing.assert_allclose(found.score[:, m], [credit[:10].mean(), credit[10:].mean()])
    assert found.units == ("a", "b")
    assert found.chance == k / 6
    assert found.null.shape == (20, 3)
    # Identities change places as wholes: each permuted score is that of some assignment of images to names.
    assert np.abs(found.null.mean() - found.chance) < 0.1


def test_equal_candidates_share_their_credit():
    events, targets = shown(4, 2, np.random.default_rng(0))
    names = [f"image {k}" for k in range(4)]
    found = retrieval_scores(
        np.ones((2, 8, 4)), events.stimulus, names, np.ones((4, 4)), k=1, n_permutations=5, rng=np.random.default_rng(0)
    )
    np.testing.assert_allclose(found.score, 0.25)
    np.testing.assert_allclose(found.null, 0.25)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_class_scores_are_scikit_learns_area_within_each_unit(n_classes):
    rng = np.random.default_rng(0)
    classes = ["a", "b", "c"][:n_classes]
    labels, units = rng.choice(classes, 90), rng.choice(["r1", "r2"], 90)
    probabilities = rng.dirichlet(np.ones(n_classes), (4, 90)).round(2)
    probabilities[..., -1] = 1 - probabilities[..., :-1].sum(-1)
    found = class_scores(probabilities, labels, classes, units=units, n_permutations=10, rng=rng)
    for u, unit in enumerate(("r1", "r2")):
        own = units == unit
        for m in range(4):
            said = probabilities[m, own]
            wanted = roc_auc_score(labels[own], said[:, 1]) if n_classes == 2 else roc_auc_score(
                labels[own], said, multi_class="ovr", labels=classes
            )  # fmt: skip
            assert found.score[u, m] == pytest.approx(wanted, abs=1e-3)
    assert found.null.shape == (10, 4)
    assert np.abs(found.null.mean() - 0.5) < 0.1


def test_permutations_are_the_same_in_all_windows():
    rng = np.random.default_rng(0)
    events, targets = shown(8, 2, rng)
    estimates = np.repeat(rng.standard_normal((1, 16, 4)), 3, axis=0)
    found = retrieval_scores(
        estimates,
        events.stimulus,
        np.unique(events.stimulus),
        rng.standard_normal((8, 4)),
        k=2,
        n_permutations=30,
        rng=rng,
    )
    assert (found.null == found.null[:, :1]).all()
    assert len(np.unique(found.null)) > 3
    labels = np.tile(["a", "b"], 8)
    said = np.repeat(rng.dirichlet([1, 1], (1, 16)), 3, axis=0)
    found = class_scores(said, labels, ["a", "b"], n_permutations=30, rng=rng)
    assert (found.null == found.null[:, :1]).all()


# --- tests --------------------------------------------------------------------------------------------------------


def test_permuted_labels_keep_the_level_where_windows_share_their_noise():
    """Of studies without any effect, about one in twenty has a cluster; never many."""
    found = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = np.tile(["a", "b"], 20)
        one = 1 / (1 + np.exp(-correlated_noise(rng, (40, M)).T))
        said = np.stack([one, 1 - one], axis=2)
        scores = class_scores(said, labels, ["a", "b"], n_permutations=59, rng=rng)
        found += any(cluster.p <= 0.05 for cluster in permutation_clusters(scores.mean, scores.null))
    # P(X > 8) = 0.002 for 60 studies at a level of 0.05.
    assert found <= 8


def test_clusters_of_permutations_by_hand():
    null = np.zeros((19, 5))
    null[0] = [0, 9, 9, 0, 0]
    null[1:3, 4] = 1.0
    observed = np.array([0.0, 9.0, 9.0, 0.0, 0.2])
    orders = np.concatenate([observed[None], null])
    z = (orders - orders.mean(0)) / np.where(orders.std(0) > 0, orders.std(0), 1)
    # The first permutation has the same cluster; the last window is below the threshold.
    assert z[0, 4] < 1.64 < z[2, 4]
    clusters = permutation_clusters(observed, null)
    assert [(c.first, c.last, round(c.p, 6)) for c in clusters] == [(1, 2, 0.1)]
    with pytest.raises(ValueError, match="permutations"):
        permutation_clusters(observed, null[:10])


def test_sign_clusters_are_those_of_mne_and_need_five_units():
    from mne.stats import permutation_cluster_1samp_test

    scores = planted()
    differences = scores.score - 0.5
    found = sign_clusters(differences, rng=np.random.default_rng(0))
    threshold = stats.t.ppf(0.95, 7)
    # All 256 signs: there is nothing random.
    _, masks, p, _ = permutation_cluster_1samp_test(
        differences, threshold=threshold, tail=1, n_permutations=1024, out_type="indices", verbose=False
    )
    wanted = sorted((int(rows[0].min()), int(rows[0].max()), float(q)) for rows, q in zip(masks, p, strict=True))
    assert [tuple(cluster) for cluster in found] == wanted
    best = min(found, key=lambda cluster: cluster.p)
    assert best.p <= 0.01
    assert abs(best.first - 6) <= 1
    assert abs(best.last - 12) <= 1
    with pytest.raises(ValueError, match="5 units or more"):
        sign_clusters(differences[:4], rng=np.random.default_rng(0))
    assert min(c.p for c in sign_clusters(differences[:5], rng=np.random.default_rng(0))) >= 1 / 32


# --- the curve ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["labels", "units"])
def test_planted_onset_offset_and_peak_are_found(test):
    scores = planted()
    curve = time_curve(scores, WINDOWS, test=test, rng=np.random.default_rng(0))
    ends = WINDOWS.times("end")
    assert abs(curve.onset_s - ends[6]) <= 0.051
    assert abs(curve.offset_s - ends[12]) <= 0.051
    assert abs(curve.peak_s - ends[9]) <= 0.051
    assert curve.peak == scores.score.mean(0).max()
    np.testing.assert_allclose(curve.sem, stats.sem(scores.score, axis=0))
    assert ((curve.low <= curve.mean) & (curve.mean <= curve.high)).all()
    # A bootstrap of the mean is about as wide as its standard error says: 2 x 1.96, and a little less for 8 units.
    np.testing.assert_allclose((curve.high - curve.low) / curve.sem, 3.6, atol=0.6)
    middle = time_curve(scores, WINDOWS, test=test, at="centre", rng=np.random.default_rng(0))
    np.testing.assert_allclose(curve.peak_s - middle.peak_s, 0.05)


def test_one_unit_has_a_test_but_no_interval_and_noise_has_no_onset():
    scores = planted(n_units=1, strength=1.0)
    curve = time_curve(scores, WINDOWS, rng=np.random.default_rng(0))
    assert np.isnan(curve.sem).all()
    assert np.isnan(curve.low).all()
    assert curve.significant[7:12].all()
    silent = dataclasses.replace(scores, score=np.full((1, M), 0.5))
    nothing = time_curve(silent, WINDOWS, rng=np.random.default_rng(0))
    assert np.isnan(nothing.onset_s)
    assert np.isnan(nothing.offset_s)
    assert not nothing.significant.any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"windows": sliding_windows(0, 1, sfreq=120.0)}, "windows"),
        ({"test": "t"}, "test"),
        ({"at": "middle"}, "at"),
        ({"alpha": 0.0}, "alpha"),
        ({"n_resamples": 5}, "n_resamples"),
    ],
)
def test_arguments_of_the_curve_that_cannot_be_are_refused(change, says):
    given = {"windows": WINDOWS, "rng": np.random.default_rng(0), **change}
    with pytest.raises(ValueError, match=says):
        time_curve(planted(), **given)


def test_arguments_of_scores_that_cannot_be_are_refused():
    rng = np.random.default_rng(0)
    events, _ = shown(4, 2, rng)
    names, features = [f"image {k}" for k in range(4)], rng.standard_normal((4, 4))
    with pytest.raises(ValueError, match="estimates"):
        retrieval_scores(np.zeros((2, 7, 4)), events.stimulus, names, features, rng=rng)
    with pytest.raises(TypeError, match="rng"):
        retrieval_scores(np.ones((2, 8, 4)), events.stimulus, names, features)
    with pytest.raises(ValueError, match="image 3"):
        retrieval_scores(np.ones((2, 8, 4)), events.stimulus, names[:3], features[:3], rng=rng)
    with pytest.raises(ValueError, match="each candidate once"):
        retrieval_scores(np.ones((2, 8, 4)), events.stimulus, [*names, "image 0"], np.ones((5, 4)), rng=rng)
    with pytest.raises(ValueError, match="same length"):
        retrieval_scores(np.ones((2, 8, 4)), events.stimulus, names, features[:3], rng=rng)
    said = np.full((2, 8, 2), 0.5)
    with pytest.raises(ValueError, match="labels"):
        class_scores(said, ["c"] * 8, ["a", "b"], rng=rng)
    with pytest.raises(ValueError, match="units"):
        class_scores(said, ["a", "b"] * 4, ["a", "b"], units=["x"] * 7 + ["y"], rng=rng)


# --- the picture --------------------------------------------------------------------------------------------------


def test_picture_shows_curve_chance_stretch_stimulus_and_marks():
    import matplotlib.pyplot as plt

    curve = time_curve(planted(), WINDOWS, rng=np.random.default_rng(0))
    ax = plot_time_curve(curve, stimulus_s=(0.0, 0.5), marks={"planted": 0.3}, units=True)
    lines = {tuple(np.round(np.asarray(line.get_xdata(), dtype=float), 6)) for line in ax.lines}
    assert tuple(np.round(1000 * curve.times_s, 6)) in lines
    ends = 1000 * np.array([curve.onset_s - 0.025, curve.offset_s + 0.025])
    assert tuple(np.round(ends, 6)) in lines
    assert (300.0, 300.0) in lines
    assert any(set(line.get_ydata()) == {0.5} for line in ax.lines)
    assert {"chance", "stimulus", "planted"} <= {text.get_text() for text in ax.texts}
    assert ax.get_ylabel() == "top-5 accuracy"
    plt.close(ax.figure)
    both = plot_time_curve({"network": curve, "ridge": curve}, stimulus_s=None)
    assert [text.get_text() for text in both.get_legend().get_texts()] == ["network", "ridge"]
    plt.close(both.figure)
    with pytest.raises(ValueError, match="curve"):
        plot_time_curve({})


# --- real EEG -----------------------------------------------------------------------------------------------------


@pytest.fixture
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Forty seconds on one core: networks for each of twelve runs that are left out.
@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_faces_and_houses_are_told_apart_after_they_are_seen(shared_data):
    """Four electrodes of a headband, each run left out within its subject: 0.61 at 250 ms, 0.60 by the linear way."""
    from neurodecode.meeg.config import BRAIN_MODULES
    from neurodecode.meeg.preprocessing import bandpass, quiet_windows
    from neurodecode.meeg.run_folds import run_folds
    from neurodecode.meeg.time_config import TimeConfig
    from neurodecode.meeg.time_linear import LinearTimeDecoder
    from neurodecode.meeg.time_resolved import TimeResolvedDecoder
    from neuroloaders.studies.eeg_muse import load_eeg_muse

    if not (shared_data / "eeg_muse" / "n170.npz").is_file():
        pytest.skip(f"no folder eeg_muse in {shared_data}")
    recordings, events = load_eeg_muse(shared_data / "eeg_muse", "n170")
    recordings = bandpass(recordings, 1.0, 30.0, every=3, picks=("TP9", "AF7", "AF8", "TP10"))
    n_all = len(events)
    events = quiet_windows(recordings, events, tmin=-0.1, tmax=0.8, limit=100e-6)
    assert (n_all, len(events)) == (2587, 2399)
    network = dataclasses.replace(
        BRAIN_MODULES["small-images"], n_heads=None, initial_linear=8, hidden=16, depth=2, final_width=None, latent=16
    )
    config = TimeConfig(
        network=network, tmin=-0.1, tmax=0.8, clamp=4.0, scale_by="subject", noise=1.0, label_smoothing=0.1, lr=5e-3,
        weight_decay=0.1, batch_size=64, epochs=25, patience=6,
    )  # fmt: skip
    windows = sliding_windows(-0.1, 0.31, width_s=0.1, step_s=0.1, sfreq=recordings.sfreq)
    area = {}
    for make in (TimeResolvedDecoder, LinearTimeDecoder):
        said = np.full((len(windows), len(events), 2), np.nan)
        for fold in run_folds(recordings, events):
            part = np.full(len(events), "", dtype="<U5")
            for name in ("train", "valid", "test"):
                part[getattr(fold, name)] = name
            decoder = make(config, windows).fit(recordings, events, None, part, labels="stimulus")
            said[:, fold.test] = decoder.predict(recordings, events.select(fold.test))
        tested = np.isfinite(said[0, :, 0])
        area[make] = class_scores(
            said[:, tested], events.stimulus[tested], decoder.classes_, units=events.recording[tested], n_permutations=0
        ).mean
    for mean in area.values():
        # Windows that end at 0 and 0.1 s after the picture, and one around 0.25 s.
        assert np.abs(mean[:2] - 0.5).max() < 0.05
        assert mean[3] > 0.57
    assert area[TimeResolvedDecoder].max() > area[LinearTimeDecoder].max() - 0.02
