"""Noise: known answers, distribution, and the same numbers in numpy, torch and compiled code."""

import numba
import numpy as np
import pytest
import scipy.stats
import torch

from reservoir.noise import block_normals, normal_pair, normals, philox
from reservoir.noise_kernel import fill_normals

# Known answers of the authors' library Random123 (philox4x32-10): counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_philox_gives_the_known_answers(array, counter, key, result):
    low, high = words(key)
    got = philox(tuple(array([word]) for word in words(counter)), low | high << 32)
    assert [int(word[0]) for word in got] == words(result)


def test_pair_is_that_of_box_and_muller():
    edges = np.array([0, 1, 2**29 - 1, 2**29, 2**30, 3 * 2**29, 2**31, 2**32 - 2**29, 2**32 - 1])
    radius, angle = np.random.default_rng(0).integers(0, 2**32, (2, 50_000))
    radius, angle = np.concatenate([np.repeat(edges, 9), radius]), np.concatenate([np.tile(edges, 9), angle])
    length, turn = np.sqrt(-2 * np.log((radius + 0.5) / 2**32)), 2 * np.pi * (angle + 0.5) / 2**32
    first, second = normal_pair(radius, angle)
    assert np.abs(first - length * np.cos(turn)).max() < 1e-6
    assert np.abs(second - length * np.sin(turn)).max() < 1e-6


@numba.njit
def compiled(seed, step, first, last, out):
    fill_normals(seed, step, 0, first, last, np.empty((5, out.shape[0] + 6)), out)


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
@pytest.mark.parametrize("step", [0, 2**31, 2**32 + 7])
def test_compiled_and_torch_noise_equals_that_of_numpy(seed, step):
    out = np.zeros(1006)
    for first, last in ((0, 448), (448, 1003)):
        compiled(np.uint64(seed), step, first, last, out)
    want = normals(seed, step, 1003)
    assert np.array_equal(out[:1003], want)
    block = torch.arange(251)
    place = [torch.full_like(block, number) for number in (step, step >> 32, 0)]
    got = torch.stack(block_normals(philox((block, *place), seed)), dim=1).reshape(-1)[:1003]
    assert np.array_equal(got.numpy(), want)


def test_first_numbers_do_not_depend_on_how_many_are_asked_for():
    assert np.array_equal(normals(1, 5, 100)[:7], normals(1, 5, 7))


def test_noise_is_normal_and_without_memory():
    z = np.stack([normals(3, step, 200) for step in range(500)])
    assert scipy.stats.kstest(z.ravel(), "norm").pvalue > 0.01
    bound = 4 / np.sqrt(z.size)
    assert abs((z[1:] * z[:-1]).mean()) < bound
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < bound
    assert abs((z * np.stack([normals(4, step, 200) for step in range(500)])).mean()) < bound
    assert abs((normals(3, 0, 10**5) * normals(3, 0, 10**5, stream="rule")).mean()) < 4 / np.sqrt(10**5)
