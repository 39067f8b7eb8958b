"""Identification of categories in a block design: real fMRI, the closed forms, and what must not leak."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut

from neurodecode.fmri.block_design import detrended_runs, find_blocks, identify_categories, simplex_embeddings


def design(n_runs: int = 4, n_categories: int = 3, length: int = 4, gap: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels, runs = [], []
    for run in range(n_runs):
        row = [0] * gap
        for category in rng.permutation(n_categories) + 1:
            row += [int(category)] * length + [0] * gap
        labels += row
        runs += [run] * len(row)
    return np.array(labels), np.array(runs)


def simulated(*, lag: int, strength: float, p: int = 20, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, runs = design()
    rng = np.random.default_rng(seed)
    patterns = rng.standard_normal((4, p))
    patterns[0] = 0
    bold = rng.standard_normal((len(labels), p))
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        late = np.concatenate([np.zeros(lag, int), labels[rows][: len(rows) - lag]])
        bold[rows] += strength * patterns[late] + np.linspace(0, 5, len(rows))[:, None] + 100
    return bold, labels, runs


@pytest.fixture
def haxby(shared_data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    folder = shared_data / "haxby"
    if not folder.is_dir():
        pytest.skip(f"no folder haxby of Haxby et al. 2001 in {shared_data}")
    mask = np.asanyarray(nib.load(folder / "mask.nii.gz").dataobj) > 0
    bold = np.asanyarray(nib.load(folder / "bold.nii.gz").dataobj)[mask].T
    labels, runs = np.loadtxt(folder / "attributes.txt", dtype=int).T
    return bold, labels, runs


def test_categories_of_haxby_are_identified_in_runs_left_out(haxby: tuple) -> None:
    # Chance is 0.125; a linear support vector machine reaches 0.82 for blocks and 0.62 to 0.64 for volumes.
    got = identify_categories(*haxby)
    assert len(got.truth) == 96
    assert got.accuracy >= 0.82
    assert got.accuracy == got.block_accuracy
    volumes = identify_categories(*haxby, unit="volume", lags=(0, 1))
    assert len(volumes.truth) == 864
    assert volumes.accuracy >= 0.64
    assert volumes.block_accuracy >= 0.82


def test_haxby_with_shuffled_blocks_is_at_chance(haxby: tuple) -> None:
    bold, labels, runs = haxby
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(3):
        shuffled = labels.copy()
        for run in np.unique(runs):
            blocks = find_blocks(np.where(runs == run, labels, 0), runs)
            for start, stop, name in zip(blocks.start, blocks.stop, rng.permutation(blocks.labels), strict=True):
                shuffled[start:stop] = name
        rates.append(identify_categories(bold, shuffled, runs, lags=(1,)).accuracy)
    # 288 blocks at 1/8: the 99.9 % bound is 0.19.
    assert np.mean(rates) < 0.19


def test_lag_is_found_in_the_training_runs() -> None:
    got = identify_categories(*simulated(lag=2, strength=1.5), unit="volume")
    assert set(got.lags.values()) == {2}
    assert got.accuracy == 1.0
    assert (got.confusion() == 4 * 4 * np.eye(3)).all()
    assert got.block_accuracy == 1.0


def test_ridge_equals_scikit_learn_for_the_same_choices() -> None:
    bold, labels, runs = simulated(lag=1, strength=0.3)
    got = identify_categories(bold, labels, runs, lags=(1,), alphas=[30.0])
    x, blocks = detrended_runs(bold, runs), find_blocks(labels, runs)
    rows = np.array([x[a + 1 : b + 1].mean(0) for a, b in zip(blocks.start, blocks.stop, strict=True)])
    truth, codes = blocks.labels - 1, simplex_embeddings(3)
    for train, test in LeaveOneGroupOut().split(rows, groups=blocks.runs):
        predicted = Ridge(30.0).fit(rows[train], codes[truth[train]]).predict(rows[test])
        want = np.corrcoef(predicted, codes)[: len(test), len(test) :]
        np.testing.assert_allclose(got.scores[test], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("decoder", ["ridge", "svm"])
@pytest.mark.parametrize("unit", ["block", "volume"])
def test_what_a_left_out_run_shows_does_not_change_its_scores(decoder: str, unit: str) -> None:
    bold, labels, runs = simulated(lag=1, strength=0.4)
    other = labels.copy()
    last = runs == 3
    other[last] = np.where(labels[last] == 0, 0, labels[last] % 3 + 1)
    a, b = (identify_categories(bold, y, runs, decoder=decoder, unit=unit, lags=(0, 1)) for y in (labels, other))
    rows = a.runs == 3
    assert (a.scores[rows] == b.scores[rows]).all()
    assert (a.truth[rows] != b.truth[rows]).all()
    assert a.lags[3] == b.lags[3]


def test_support_vector_machine_of_two_categories_answers_both() -> None:
    bold, labels, runs = simulated(lag=1, strength=1.5)
    got = identify_categories(bold, np.where(labels == 3, 0, labels), runs, decoder="svm")
    assert got.accuracy == 1.0


def test_embeddings_of_ones_own_are_centred_and_used() -> None:
    bold, labels, runs = simulated(lag=1, strength=1.5)
    words = np.random.default_rng(0).standard_normal((3, 6))
    a, b = (identify_categories(bold, labels, runs, embeddings=w, lags=(1,)) for w in (words, words + 7))
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-9, atol=1e-12)
    assert a.accuracy == 1.0
    assert not np.allclose(a.scores, identify_categories(bold, labels, runs, lags=(1,)).scores)


def test_detrended_runs_have_no_trend_and_unit_spread() -> None:
    bold, _, runs = simulated(lag=0, strength=0.0)
    got = detrended_runs(bold, runs, order=2)
    for run in range(4):
        x = got[runs == run]
        t = np.arange(len(x))
        np.testing.assert_allclose(np.polyfit(t, x, 2), 0, atol=1e-9)
        np.testing.assert_allclose(x.std(axis=0), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": lambda b, y, r: r[:-1]}, r"`labels`, `runs` must have the same length"),
        ({"labels": lambda b, y, r: y * 0}, r"name a category besides rest=0"),
        ({"labels": lambda b, y, r: np.where((y == 2) & (r > 0), 1, y)}, r"show each category in 2 runs, got 2 in 0"),
        ({"labels": lambda b, y, r: np.where(r > 1, 0, y)}, r"at least 3 runs with blocks, got 2"),
        ({"labels": lambda b, y, r: (y > 0) * 1}, r"name at least 2 categories"),
        ({"bold": lambda b, y, r: np.where(np.arange(20) == 4, 7.0, b)}, r"constant ones in run 0, the first 4"),
        ({"bold": lambda b, y, r: np.where(np.arange(20) == 4, np.nan, b)}, r"hold finite numbers only"),
        ({"lags": lambda b, y, r: (9,)}, r"leave each block a volume in its run, got 9 for the block at"),
        ({"lags": lambda b, y, r: ()}, r"name at least one lag"),
        ({"embeddings": lambda b, y, r: np.eye(4)}, r"`embeddings` must have shape \(3, d\)"),
        ({"decoder": lambda b, y, r: "lda"}, r"be one of 'ridge', 'svm', got 'lda'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    bold, labels, runs = simulated(lag=1, strength=1.0)
    given = {"bold": bold, "labels": labels, "runs": runs}
    given |= {name: make(bold, labels, runs) for name, make in change.items()}
    with pytest.raises(ValueError, match=message):
        identify_categories(**given)
