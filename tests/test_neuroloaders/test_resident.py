"""Laws of the loader: coverage, repeatability, shares of ranks, and the same batches from host memory."""

import logging
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset

from neuroloaders import prefetch
from neuroloaders.augment import Compose, HorizontalFlip, RandomCrop, ToFloat
from neuroloaders.resident import ResidentLoader

AUGMENT = Compose([RandomCrop(2), HorizontalFlip(), ToFloat((0.5,), (0.25,))])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n=23):
    """Images whose pixels all hold the row number, and the row numbers."""
    ids = torch.arange(n)
    return ids.to(torch.uint8).view(n, 1, 1, 1).expand(n, 1, 6, 6).contiguous(), ids


def same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)


# Not (50, True): no batch is left, which is refused, see below.
@pytest.mark.parametrize(
    ("batch_size", "drop_last"), [(1, False), (1, True), (5, False), (5, True), (23, False), (23, True), (50, False)]
)
def test_unshuffled_batches_are_those_of_the_dataloader(batch_size, drop_last):
    x, y = data()
    reference = DataLoader(
        TensorDataset(x, y), batch_size, sampler=SequentialSampler(x), drop_last=drop_last, generator=generator()
    )
    ours = ResidentLoader(x, y, batch_size=batch_size, drop_last=drop_last)
    assert len(ours) == len(reference)
    same(ours, map(tuple, reference))


def test_shuffled_epoch_covers_each_row_once_and_keeps_rows_together():
    x, y = data()
    loader = ResidentLoader(x, y, batch_size=5, shuffle=True, generator=generator(1))
    orders = []
    for _ in range(3):
        batches = list(loader)
        assert [len(ids) for _, ids in batches] == [5, 5, 5, 5, 3]
        for images, ids in batches:
            assert torch.equal(images, x[ids])
        orders.append(torch.cat([ids for _, ids in batches]).tolist())
        assert sorted(orders[-1]) == list(range(23))
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != list(range(23))


def test_shuffle_reaches_every_order_equally_often():
    loader = ResidentLoader(torch.arange(3), batch_size=3, shuffle=True)
    counts = {}
    for _ in range(1200):
        ((ids,),) = list(loader)
        counts[tuple(ids.tolist())] = counts.get(tuple(ids.tolist()), 0) + 1
    assert len(counts) == 6
    assert max(abs(count - 200) for count in counts.values()) < 4 * (1200 * 5 / 36) ** 0.5


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 12), epoch=st.integers(0, 5), data_=st.data())
def test_resumed_epoch_is_the_rest_of_the_epoch(n, batch_size, epoch, data_):
    x, y = data(n)
    make = lambda: ResidentLoader(x, y, batch_size=batch_size, shuffle=True, generator=generator(7), transform=AUGMENT)  # noqa: E731
    loader = make()
    start = data_.draw(st.integers(0, len(loader)))
    same(list(loader.batches(epoch))[start:], make().batches(epoch, start))


def test_iterating_counts_epochs():
    x, y = data()
    loader = ResidentLoader(x, y, batch_size=4, shuffle=True, transform=AUGMENT)
    for epoch in range(3):
        same(list(loader), loader.batches(epoch))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    world_size=st.integers(1, 5),
    extra=st.integers(0, 8),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_shares_of_the_ranks_make_the_batch_of_one_process(n, world_size, extra, shuffle, drop_last):
    x, y = data(n)
    batch_size = world_size + extra
    if drop_last and n < batch_size:
        drop_last = False
    options = {"batch_size": batch_size, "shuffle": shuffle, "transform": AUGMENT, "drop_last": drop_last}
    single = list(ResidentLoader(x, y, **options).batches(2))
    ranks = [
        list(ResidentLoader(x, y, rank=rank, world_size=world_size, **options).batches(2)) for rank in range(world_size)
    ]
    for number, batch in enumerate(single):
        shares = [rank[number] for rank in ranks]
        sizes = [len(share[0]) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        same([batch], [tuple(torch.cat(parts) for parts in zip(*shares, strict=True))])
    assert all(len(rank) == len(single) for rank in ranks)


def test_batches_depend_on_the_seed_and_do_not_advance_the_generator():
    x, y = data()
    used = generator(5)
    before = used.get_state()
    first = list(ResidentLoader(x, y, batch_size=4, shuffle=True, generator=used, transform=AUGMENT))
    assert torch.equal(before, used.get_state())
    torch.rand(3, generator=used)  # only the initial seed counts
    same(first, ResidentLoader(x, y, batch_size=4, shuffle=True, generator=used, transform=AUGMENT))
    other = list(ResidentLoader(x, y, batch_size=4, shuffle=True, generator=generator(6)))
    assert any(not torch.equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
    same(first, ResidentLoader(x, y, batch_size=4, shuffle=True, generator=generator(5), transform=AUGMENT))


def test_augmentation_differs_between_epochs_batches_and_samples():
    x = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6).repeat(32, 1, 1, 1)
    loader = ResidentLoader(x, batch_size=16, transform=RandomCrop(2))
    seen = [image for epoch in (0, 1) for (batch,) in loader.batches(epoch) for image in batch.flatten(1).tolist()]
    assert len({tuple(image) for image in seen}) > 15
    first, second = (loader.batches(0) for _ in range(2))
    assert not torch.equal(next(first)[0], next(first)[0])
    assert not torch.equal(next(loader.batches(1))[0], next(second)[0])


@pytest.mark.parametrize("max_bytes", [None, 0])
def test_global_random_states_are_neither_read_nor_changed(max_bytes):
    x, y = data()

    def run():
        loader = ResidentLoader(x, y, batch_size=4, shuffle=True, transform=AUGMENT, max_bytes=max_bytes)
        return [batch for _ in range(2) for batch in loader]

    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = run()
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    with torch.random.fork_rng():
        torch.rand(5)
        same(first, run())


# --- memory ---


def test_unshuffled_batches_are_views_and_bytes_stay_bytes():
    x, y = data()
    for batch, ids in ResidentLoader(x, y, batch_size=4):
        assert batch.dtype == torch.uint8
        assert batch.data_ptr() == x[ids[0]].data_ptr()


def test_arrays_are_shared_and_read_only_ones_are_protected(tmp_path):
    x, y = data()
    writable = x.numpy()
    ((batch,),) = list(ResidentLoader(writable, batch_size=50))
    assert batch.data_ptr() == x.data_ptr()
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    loader = ResidentLoader(mapped, y.numpy(), batch_size=4)
    same(loader, ResidentLoader(x, y, batch_size=4))
    for batch, _ in loader:
        batch += 1  # on a view of the map this would end the process
    np.testing.assert_array_equal(mapped, x)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("transform", [None, AUGMENT])
def test_batches_from_host_memory_are_the_same_bit_for_bit(shuffle, transform, caplog, monkeypatch):
    x, y = data()
    calls, prefetched = [], prefetch.prefetched
    monkeypatch.setattr("neuroloaders.resident.prefetched", lambda *args: calls.append(1) or prefetched(*args))
    options = {"batch_size": 4, "shuffle": shuffle, "transform": transform, "generator": generator(3)}
    resident = ResidentLoader(x, y, **options)
    with caplog.at_level(logging.WARNING):
        host = ResidentLoader(x, y, max_bytes=x.nbytes + y.nbytes - 1, **options)
    assert "they stay in host memory" in caplog.text
    assert (resident.is_resident, host.is_resident) == (True, False)
    assert ResidentLoader(x, y, max_bytes=x.nbytes + y.nbytes, **options).is_resident
    for epoch, start in ((0, 0), (1, 3), (2, 6)):
        same(resident.batches(epoch, start), host.batches(epoch, start))
    assert len(calls) == 3


def test_prefetching_is_one_batch_ahead_and_ends_with_the_consumer():
    made = []
    names = set()

    def produce(number):
        made.append(number)
        names.add(threading.current_thread().name)
        return (torch.tensor([number]),)

    batches = prefetch.prefetched(produce, range(10), torch.device("cpu"))
    assert made == []
    assert next(batches)[0].item() == 0
    batches.close()
    assert made in ([0, 1], [0])
    assert not any(thread.name in names for thread in threading.enumerate())
    assert [b[0].item() for b in prefetch.prefetched(produce, range(3), torch.device("cpu"))] == [0, 1, 2]
    assert list(prefetch.prefetched(produce, [], torch.device("cpu"))) == []


def test_breaking_off_an_epoch_ends_its_background_thread():
    loader = ResidentLoader(*data(), batch_size=2, max_bytes=0)
    for _ in loader:
        break
    assert not any("neuroloaders-prefetch" in thread.name for thread in threading.enumerate())


def test_an_error_in_the_background_is_raised_where_its_batch_is_due():
    def produce(number):
        if number == 1:
            raise RuntimeError("disk gone")
        return (torch.tensor([number]),)

    batches = prefetch.prefetched(produce, range(3), torch.device("cpu"))
    assert next(batches)[0].item() == 0
    with pytest.raises(RuntimeError, match="disk gone"):
        next(batches)


def test_plain_callable_changes_the_first_tensor_only():
    x, y = data()
    batches = list(ResidentLoader(x, y, batch_size=23, transform=lambda images: images.float() / 2))
    assert torch.equal(batches[0][0], x.float() / 2)
    assert batches[0][1] is not None
    assert torch.equal(batches[0][1], y)


# --- arguments ---


def test_attributes_say_what_the_loop_needs():
    loader = ResidentLoader(*data(), batch_size=4, rank=1, world_size=2)
    assert (loader.n_samples, loader.batch_size, len(loader)) == (23, 4, 6)
    assert loader.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("tensors", "options", "error", "text"),
    [
        ((), {}, ValueError, "`tensors` must be given"),
        ((torch.zeros(3), torch.zeros(4)), {}, ValueError, r"same length, got tensors\[0\]: 3, tensors\[1\]: 4"),
        ((torch.zeros(0, 2),), {}, ValueError, "at least one row"),
        ((torch.tensor(1.0),), {}, ValueError, "at least one axis"),
        (([1, 2],), {}, TypeError, r"`tensors\[0\]` must be an array or a tensor"),
        ((np.array(["a"]),), {}, TypeError, "an array that torch can share"),
        ((np.zeros(3, ">f4"),), {}, TypeError, "an array that torch can share"),
        ((np.zeros(3)[::-1],), {}, TypeError, "an array that torch can share"),
        ((torch.zeros(3),), {"batch_size": 0}, ValueError, "`batch_size` must be a whole number >= 1, got 0"),
        ((torch.zeros(3),), {"batch_size": -2}, ValueError, "`batch_size` must be"),
        ((torch.zeros(3),), {"batch_size": 2.0}, TypeError, "`batch_size` must be"),
        ((torch.zeros(3),), {"batch_size": 1, "world_size": 2}, ValueError, "`batch_size` must be a whole number >= 2"),
        ((torch.zeros(3),), {"rank": 2, "world_size": 2}, ValueError, "`rank` must be a whole number >= 0 and <= 1"),
        ((torch.zeros(3),), {"batch_size": 4, "drop_last": True}, ValueError, "No batch is left"),
        ((torch.zeros(3),), {"transform": 3}, TypeError, "`transform` must be"),
        ((torch.zeros(3),), {"generator": 3}, TypeError, "`generator` must be"),
        ((torch.zeros(3),), {"max_bytes": -1}, ValueError, "`max_bytes` must be"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_with_a_reason(tensors, options, error, text):
    with pytest.raises(error, match=text):
        ResidentLoader(*tensors, **{"batch_size": 2, **options})


def test_epoch_and_start_are_checked_at_once_not_at_the_first_batch():
    loader = ResidentLoader(*data(), batch_size=4)
    assert list(loader.batches(0, 6)) == []
    with pytest.raises(ValueError, match="`start` must be a whole number >= 0 and <= 6, got 7"):
        loader.batches(0, 7)
    with pytest.raises(ValueError, match="`epoch` must be"):
        loader.batches(-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("max_bytes", [None, 0])
def test_batches_on_the_gpu_are_those_of_the_cpu_and_never_wait(shuffle, max_bytes):
    x, y = data(200)
    options = {"batch_size": 32, "shuffle": shuffle, "transform": Compose([RandomCrop(2), HorizontalFlip()])}
    expected = list(ResidentLoader(x, y, **options).batches(1))
    loader = ResidentLoader(x, y, device="cuda", max_bytes=max_bytes, **options)
    assert loader.is_resident == (max_bytes is None)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(loader.batches(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    same(expected, [tuple(tensor.cpu() for tensor in batch) for batch in batches])
