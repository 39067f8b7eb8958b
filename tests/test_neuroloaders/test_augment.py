"""Transforms against NumPy one image at a time, and their laws."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from neuroloaders.augment import Compose, HorizontalFlip, RandomCrop, ToFloat, Transform, share_of_draws


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, channels=3, height=7, width=5, seed=0):
    return torch.randint(0, 256, (n, channels, height, width), generator=generator(seed), dtype=torch.uint8)


ALL = [
    ToFloat(),
    ToFloat((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    RandomCrop(2),
    HorizontalFlip(0.5),
    Compose([RandomCrop(1), HorizontalFlip(), ToFloat()]),
]
everywhere = pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)


@settings(max_examples=40, deadline=None)
@given(padding=st.integers(0, 4), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_crop_agrees_with_numpy_one_image_at_a_time(padding, height, width, seed):
    x = images(5, 2, height, width, seed)
    transform = RandomCrop(padding)
    offsets = transform.draw(len(x), generator(seed))
    cropped = transform.apply(x, offsets)
    assert cropped.dtype == torch.uint8
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    for image, (top, left), result in zip(padded, offsets.tolist(), cropped.numpy(), strict=True):
        np.testing.assert_array_equal(result, image[:, top : top + height, left : left + width])


def test_crop_shifts_are_uniform_and_independent_of_each_other():
    offsets = RandomCrop(1).draw(9000, generator())
    counts = torch.bincount(offsets[:, 0] * 3 + offsets[:, 1], minlength=9)
    assert len(counts) == 9
    assert (counts - 1000).abs().max() < 4 * (1000 * 8 / 9) ** 0.5


def test_flip_agrees_with_numpy_one_image_at_a_time():
    x = images(20)
    flips = HorizontalFlip(0.5).draw(20, generator())
    assert 0 < flips.sum() < 20
    result = HorizontalFlip(0.5).apply(x, flips).numpy()
    for image, flip, flipped in zip(x.numpy(), flips.tolist(), result, strict=True):
        np.testing.assert_array_equal(flipped, image[:, :, ::-1] if flip else image)


@pytest.mark.parametrize(("p", "expected"), [(0, lambda x: x), (1, lambda x: x.flip(-1))])
def test_flip_at_the_ends_is_certain(p, expected):
    assert torch.equal(HorizontalFlip(p)(images(), generator=generator()), expected(images()))


def test_float_agrees_with_torchvision():
    x, mean, std = images(), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    unit = v2.functional.to_dtype(x, torch.float32, scale=True)
    torch.testing.assert_close(ToFloat()(x), unit, rtol=1e-6, atol=0)
    torch.testing.assert_close(ToFloat(mean, std)(x), v2.functional.normalize(unit, mean, std), rtol=1e-6, atol=1e-6)
    exact = (x.double() / 255 - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).double().view(3, 1, 1)
    torch.testing.assert_close(ToFloat(mean, std, dtype=torch.float64)(x), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stats", [(), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))])
def test_short_floats_are_rounded_once(stats):
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(ToFloat(*stats, dtype=dtype)(images()), ToFloat(*stats)(images()).to(dtype))


@everywhere
def test_memory_layout_does_not_matter(transform):
    x = images(8)
    draws = transform.draw(8, generator(1))
    expected = transform.apply(x, draws)
    spread = torch.zeros(8, 3, 7, 10, dtype=torch.uint8)
    spread[..., ::2] = x
    layouts = [x.contiguous(memory_format=torch.channels_last), spread[..., ::2], torch.cat((x, x))[8:]]
    for layout in layouts:
        assert torch.equal(transform.apply(layout, draws), expected)
    assert torch.equal(RandomCrop(0).apply(layouts[1], torch.zeros(8, 2, dtype=torch.int64)), x)
    same_everywhere = x[:1].expand(8, -1, -1, -1)
    assert torch.equal(transform.apply(same_everywhere, draws), transform.apply(same_everywhere.clone(), draws))


def test_float_keeps_the_ends_exact():
    x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    assert ToFloat()(x).flatten().tolist() == [0.0, 1.0]
    assert ToFloat(dtype=torch.float64)(x).dtype == torch.float64


@everywhere
def test_a_share_of_the_batch_is_changed_as_in_the_whole(transform):
    x = images(9)
    draws = transform.draw(9, generator(1))
    whole = transform.apply(x, draws)
    for first, last in ((0, 4), (4, 5), (5, 9), (3, 3)):
        part = transform.apply(x[first:last], share_of_draws(draws, first, last, x.device))
        assert torch.equal(part, whole[first:last])


@everywhere
def test_a_transform_is_pure(transform):
    x = images()
    kept, state = x.clone(), torch.get_rng_state()
    first, second = (transform(x, generator=generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(x, kept)
    assert torch.equal(state, torch.get_rng_state())
    assert first.shape == x.shape
    assert isinstance(transform, Transform)
    assert dataclasses.replace(transform) == transform


def test_compose_is_one_after_the_other():
    x = images()
    parts = [RandomCrop(1), HorizontalFlip(), ToFloat()]
    g = generator(2)
    expected = x
    for part, drawn in [(part, part.draw(len(x), g)) for part in parts]:
        expected = part.apply(expected, drawn)
    assert torch.equal(Compose(parts)(x, generator=generator(2)), expected)
    assert torch.equal(Compose([])(x), x)


@pytest.mark.parametrize("transform", [RandomCrop(1), HorizontalFlip(), Compose([HorizontalFlip()])])
def test_random_transforms_never_use_the_global_generator(transform):
    with pytest.raises(TypeError, match=r"`generator` must be a torch\.Generator"):
        transform(images())


def test_mistakes_are_refused():
    with pytest.raises(TypeError, match=r"`images` must have dtype torch\.uint8.*not divided by 255 a second time"):
        ToFloat()(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"`images` must have shape \(N, 3, H, W\)"):
        ToFloat((0, 0, 0), (1, 1, 1))(images(channels=1))
    with pytest.raises(ValueError, match=r"`images` must have shape \(N, C, H, W\)"):
        HorizontalFlip()(images()[0], generator=generator())
    with pytest.raises(ValueError, match="both be given"):
        ToFloat(mean=(0.5,))
    with pytest.raises(ValueError, match="`std` must be a finite number > 0"):
        ToFloat((0.5,), (0.0,))
    with pytest.raises(ValueError, match="`dtype` must be a floating type"):
        ToFloat(dtype=torch.int64)
    with pytest.raises(ValueError, match="`padding` must be a whole number >= 0"):
        RandomCrop(-1)
    with pytest.raises(ValueError, match="`p` must be"):
        HorizontalFlip(1.5)
    with pytest.raises(TypeError, match=r"`transforms\[1\]` must be a Transform"):
        Compose([ToFloat(), torch.relu])
