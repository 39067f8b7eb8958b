"""The next batch made ready in the background while the current one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

__all__ = ["prefetched"]

Batch = tuple[Tensor, ...]


def prefetched(produce: Callable[[int], Batch], numbers: Iterable[int], device: torch.device) -> Iterator[Batch]:
    """Yield ``produce(number)`` on `device` for each number, one batch ahead.

    Parameters
    ----------
    produce : callable
        Makes a batch in host memory, pinned if `device` is a GPU. Runs in one background thread.
    numbers : iterable of int
        Batch numbers, in order.
    device : torch.device
        Where the batches go. To a GPU they are copied on a stream of their own, beside the computation.

    Yields
    ------
    batch : tuple of Tensor
        In the order of `numbers`. An exception of `produce` is raised where its batch is due.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def work(number: int) -> tuple[Batch, torch.cuda.Event | None]:
        host = produce(number)
        if stream is None:
            return tuple(tensor.to(device) for tensor in host), None
        with torch.cuda.stream(stream):
            # torch keeps the pinned memory until the copy is done, so `host` may go out of scope.
            batch = tuple(tensor.to(device, non_blocking=True) for tensor in host)
            return batch, stream.record_event()

    # Leaving the block waits for the batch under way, also when the caller stops early.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="neuroloaders-prefetch") as pool:
        pending = None
        for number in numbers:
            ahead = pool.submit(work, number)
            if pending is not None:
                yield _received(*pending.result(), device)
            pending = ahead
        if pending is not None:
            yield _received(*pending.result(), device)


def _received(batch: Batch, copied: torch.cuda.Event | None, device: torch.device) -> Batch:
    if copied is not None:
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)  # the stream waits, the program does not
        for tensor in batch:
            tensor.record_stream(current)  # its memory is not reused while `current` still reads it
    return batch
