"""Targets of several kinds in one matrix."""

import numpy as np
import pytest

from neurodecode.ridge import MultiTargetRidge, SideBySide, StandardizedRidge, predict_to_folder


@pytest.fixture
def blocks():
    rng = np.random.default_rng(0)
    return {
        "latents": rng.standard_normal((30, 7)).astype(np.float32),
        "text": rng.standard_normal((30, 3, 4)).astype(np.float16),
        "image": rng.standard_normal((30, 2, 5)).astype(np.float32),
    }


def flat(blocks):
    return np.concatenate([block.reshape(len(block), -1).astype(np.float32) for block in blocks.values()], axis=1)


def test_columns_equal_those_of_the_concatenated_blocks(blocks):
    both, whole = SideBySide(blocks), flat(blocks)
    assert both.shape == whole.shape
    assert both.dtype == np.float32
    for first in range(0, 29, 4):
        for last in (first, first + 1, first + 9, 29, 99):
            np.testing.assert_array_equal(both[:, first:last], whole[:, first:last])


def test_split_gives_each_block_its_shape(blocks):
    both = SideBySide(blocks)
    for name, block in both.layout.split(flat(blocks)).items():
        np.testing.assert_array_equal(block, blocks[name].astype(np.float32))
    assert both.layout.target_groups.tolist() == ["latents"] * 7 + ["text"] * 12 + ["image"] * 10


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_one_fit_of_all_blocks_equals_a_fit_of_each(blocks, chunk_size, tmp_path):
    rng = np.random.default_rng(1)
    X, new = rng.standard_normal((30, 50)).astype(np.float32), rng.standard_normal((4, 50)).astype(np.float32)
    both = SideBySide(blocks)
    alpha = {"latents": 5.0, "text": 50.0, "image": 20.0}
    settings = {"alpha": alpha, "target_groups": both.layout.target_groups, "chunk_size": chunk_size}
    predictions = StandardizedRidge(MultiTargetRidge(**settings)).fit(X, both).predict(new)
    to_folder = predict_to_folder(
        MultiTargetRidge(**settings), X, both, new, tmp_path, standardize="loo", progress=False
    )
    np.testing.assert_allclose(to_folder, predictions, rtol=1e-4, atol=1e-5)
    for name, block in both.layout.split(predictions).items():
        y = blocks[name].reshape(30, -1).astype(np.float32)
        alone = StandardizedRidge(MultiTargetRidge(alpha[name])).fit(X, y).predict(new)
        np.testing.assert_allclose(block.reshape(4, -1), alone, rtol=1e-4, atol=1e-5)


def test_memory_maps_and_paths_are_not_read_before_they_are_asked_for(blocks, tmp_path):
    np.save(tmp_path / "latents.npy", blocks["latents"])
    both = SideBySide({"latents": tmp_path / "latents.npy"})
    part = both[:, 2:4]
    assert isinstance(part, np.memmap)
    np.testing.assert_array_equal(part, blocks["latents"][:, 2:4])


def test_unusable_blocks_are_named(blocks):
    with pytest.raises(ValueError, match="at least one array"):
        SideBySide({})
    with pytest.raises(ValueError, match="latents: 30, text: 29"):
        SideBySide({"latents": blocks["latents"], "text": blocks["text"][:29]})
    with pytest.raises(ValueError, match=r"blocks\['a'\]"):
        SideBySide({"a": np.zeros(5)})
    with pytest.raises(TypeError, match=r"\[:, first:last\]"):
        SideBySide(blocks)[:, ::2]
    with pytest.raises(ValueError, match="29"):
        SideBySide(blocks).layout.split(np.zeros((2, 28)))
