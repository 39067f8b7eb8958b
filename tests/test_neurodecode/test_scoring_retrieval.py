"""Ranks against all pairs, whatever the chunks; ties that rounding cannot break."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.metrics import top_k_accuracy_score

from neurodecode.scoring import rank, retrieve, similarity_matrix, top_k
from neurodecode.scoring.similarity import SIMILARITIES

CHUNKS = [None, 1, 4, 7, 33]
KINDS = {"numpy": np.asarray, "torch": torch.as_tensor}


def counts(scores, own):
    """Return the candidates above and beside the true one, from all scores."""
    return (scores > own[:, None]).sum(1), (scores == own[:, None]).sum(1) - 1


@pytest.fixture(scope="module")
def whole_numbers():
    rng = np.random.default_rng(0)
    queries, candidates = rng.integers(-2, 3, (40, 6)), rng.integers(-2, 3, (33, 6))
    return queries, candidates, rng.integers(0, 33, 40), rng.integers(0, 9, 33)


@pytest.fixture(scope="module")
def with_twins():
    """float32 vectors of which some are copies, and some multiples, of others; how many equal each query's own."""
    rng = np.random.default_rng(1)
    base = rng.standard_normal((30, 257)).astype(np.float32)
    which = rng.integers(0, 30, 90)
    candidates = base[which] * rng.choice([1.0, 2.0, 3.0, 0.7], 90).astype(np.float32)[:, None]
    return rng.standard_normal((50, 257)).astype(np.float32), base, which, candidates, rng.integers(0, 90, 50)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_rank_of_whole_numbers_equals_that_of_all_pairs(whole_numbers, chunk_size, kind):
    queries, candidates, target, labels = whole_numbers
    put, scores = KINDS[kind], queries @ candidates.T
    greater, equal = counts(scores, scores[np.arange(40), target])
    assert equal.max() > 3
    found = retrieve(put(queries), put(candidates), target, similarity="dot", chunk_size=chunk_size)
    assert (np.asarray(found.greater) == greater).all()
    assert (np.asarray(found.equal) == equal).all()
    assert found.n_candidates == 33
    best = np.stack([scores[:, labels == label].max(1) for label in range(9)], axis=1)
    greater, equal = counts(best, best[np.arange(40), labels[target]])
    merged = retrieve(
        put(queries), put(candidates), target, similarity="dot", labels=put(labels), chunk_size=chunk_size
    )
    assert (np.asarray(merged.rank) == 1 + greater + equal / 2).all()
    assert merged.n_candidates == 9


@pytest.mark.parametrize("kind", KINDS)
def test_ties_of_equal_directions_are_found_in_any_chunks_and_order(with_twins, kind):
    queries, base, which, candidates, target = with_twins
    put = KINDS[kind]
    q, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries.astype(np.float64), base.astype(np.float64)))
    # float32 rounds a multiple of a vector anew, so that only powers of two are the same direction to the last digit.
    exact = np.isin(np.linalg.norm(candidates, axis=1) / np.linalg.norm(base[which], axis=1), [1.0, 2.0])
    candidates, which = candidates[exact], which[exact]
    target = target % len(candidates)
    scores = (q @ b.T)[:, which]
    greater, equal = counts(scores, scores[np.arange(50), target])
    assert equal.max() > 1
    order = np.random.default_rng(2).permutation(len(candidates))
    place = np.argsort(order)
    for chunk_size in (None, 1, 3, 8, 50):
        found = retrieve(put(queries), put(candidates), target, chunk_size=chunk_size)
        assert (np.asarray(found.greater) == greater).all()
        assert (np.asarray(found.equal) == equal).all()
        moved = rank(put(queries), put(candidates[order]), place[target], chunk_size=chunk_size)
        assert (np.asarray(moved) == np.asarray(found.rank)).all()


def test_multiples_and_shifts_are_ties_where_the_measure_does_not_see_them():
    rng = np.random.default_rng(3)
    base, queries = rng.standard_normal(200), rng.standard_normal((8, 200))
    scaled, shifted = np.stack([base * f for f in (1, 3, 0.1, 7.7)]), np.stack([base * 3 + s for s in (0, 1e4, -77)])
    assert (retrieve(queries, scaled, [1] * 8).equal == 3).all()
    assert (retrieve(queries, scaled, [1] * 8, similarity="dot").equal == 0).all()
    assert (retrieve(queries, shifted, [0] * 8, similarity="correlation").equal == 2).all()
    assert (retrieve(queries, shifted, [0] * 8).equal == 0).all()


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rank_of_floats_equals_scipys(dtype, similarity):
    rng = np.random.default_rng(4)
    queries, candidates = rng.standard_normal((30, 20)).astype(dtype), rng.standard_normal((25, 20)).astype(dtype)
    target = rng.integers(0, 25, 30)
    q, c = queries.astype(np.float64), candidates.astype(np.float64)
    if similarity == "correlation":
        scores = np.corrcoef(q, c)[:30, 30:]
    else:
        scores = q @ c.T / (np.linalg.norm(c, axis=1) if similarity == "cosine" else 1)
    want = 26 - rankdata(scores, axis=1)[np.arange(30), target]
    found = retrieve(queries, candidates, target, similarity=similarity, chunk_size=6)
    assert (found.rank == want).all()
    np.testing.assert_allclose(found.relative_rank, (want - 1) / 24)
    for k in (1, 5):
        ours = top_k(queries, candidates, target, k=k, similarity=similarity)
        assert ours == pytest.approx(top_k_accuracy_score(target, scores, k=k, labels=np.arange(25)))


def test_rank_of_segments_follows_the_scores_of_the_contrastive_loss():
    # shared/research/neurodecode.md, F.1: [[1.314, 1.326, .843], [.741, -.348, -1.259], [-1.529, -1.225, -.476]].
    estimates, candidates = np.sin(np.arange(24)).reshape(3, 2, 4), np.cos(0.7 * np.arange(24)).reshape(3, 2, 4)
    assert rank(estimates, candidates).tolist() == [2, 2, 1]


def test_a_decoder_that_cannot_tell_scores_chance_exactly():
    found = retrieve(np.random.default_rng(5).standard_normal((6, 4)), np.ones((20, 4)), np.arange(6))
    assert found.rank.tolist() == [10.5] * 6
    assert [found.accuracy(k) for k in (1, 5, 20, 30)] == pytest.approx([1 / 20, 5 / 20, 1, 1], rel=1e-12)
    assert found.chance(5) == 0.25
    assert found.relative_rank.tolist() == [0.5] * 6


def test_words_that_were_heard_often_count_once():
    candidates = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0.7, 0.7]])
    words = ["the", "the", "cat", "sat"]
    query = np.array([[0.8, 0.6]])
    assert rank(query, candidates, [2]).tolist() == [4]
    assert rank(query, candidates, [2], labels=words).tolist() == [3]
    assert rank(query, candidates, [0], labels=words).tolist() == [2]


def test_memory_does_not_grow_with_the_pairs(tmp_path):
    rng = np.random.default_rng(6)
    np.save(tmp_path / "candidates.npy", rng.standard_normal((4000, 16)))
    candidates = np.load(tmp_path / "candidates.npy", mmap_mode="r")
    queries = candidates + rng.standard_normal((4000, 16))
    tracemalloc.start()
    found = retrieve(queries, candidates, chunk_size=250)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 4000 * 8 / 20
    scores = queries @ (candidates / np.linalg.norm(candidates, axis=1, keepdims=True)).T
    assert (found.greater == (scores > np.diag(scores)[:, None]).sum(1)).all()


def test_similarity_matrix_equals_the_block_of_corrcoef():
    rng = np.random.default_rng(7)
    real, made = rng.standard_normal((12, 3, 5)).astype(np.float32), rng.standard_normal((9, 3, 5)).astype(np.float32)
    want = np.corrcoef(real.reshape(12, -1).astype(float), made.reshape(9, -1).astype(float))[:12, 12:]
    for chunk_size in (None, 4):
        got, width = similarity_matrix(real, torch.from_numpy(made), chunk_size=chunk_size)
        assert isinstance(got, torch.Tensor)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-9, atol=1e-12)
        assert 0 < width < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": np.eye(4, 3)}, "`predicted` must have 3 features a row, as `candidates`"),
        ({"candidates": np.eye(5, 4)}, "`target` must be given where they are not as many, got 4 queries and 5"),
        ({"target": [0, 1, 2, 4]}, "`target` must hold numbers from 0 to 3, got 4 for query 3"),
        ({"target": [0, 1]}, "`target` must have shape"),
        ({"candidates": np.eye(4) * [1, 1, 0, 1]}, "rows that are not all zero.*1 such rows, the first of them 2"),
        ({"similarity": "correlation", "predicted": np.ones((4, 4)) / 3}, "`predicted` must be rows that are not cons"),
        ({"similarity": "euclid"}, "`similarity` must be one of 'cosine'"),
        ({"predicted": np.full((4, 4), np.nan)}, "`predicted` must hold finite numbers only"),
        ({"labels": ["a"]}, "`labels` must have shape"),
        ({"predicted": np.ones(4)}, "`predicted` must have shape"),
        ({"chunk_size": 0}, "`chunk_size` must be a whole number >= 1"),
    ],
)
def test_retrieve_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        retrieve(**{"predicted": np.eye(4), "candidates": np.eye(4), **change})
