"""Which thread goes on with which lane: all threads are to end at the same time, whatever the numbers of both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heapify, heappop, heapreplace
from typing import Any, Protocol

__all__ = ["work_through"]


class Lane(Protocol):
    """What is done a chunk at a time, by one thread at a time.

    Attributes
    ----------
    t : int
        How far it has come.
    is_done : bool
        Whether it has come to its end.
    """

    t: int
    is_done: bool

    def advance(self, desk: Any) -> None:
        """Do a chunk.

        Parameters
        ----------
        desk : object
            What the thread has for itself.
        """


def work_through(lanes: Sequence[Lane], n_threads: int, make_desk: Callable[[], Any]) -> None:
    """Advance lanes until all are done.

    A thread stays with its lane, whose weights are in the cache of its core, as long as there is a lane left for each
    thread. After that the lanes take turns, the one that is furthest behind first: three lanes on two threads are done
    after one and a half times one lane, not after two.

    Parameters
    ----------
    lanes : sequence of Lane
        What is to be done.
    n_threads : int
        How many work on them; one is the caller's.
    make_desk : callable
        Called once a thread; its result is handed to `advance`, and closed.

    Raises
    ------
    Exception
        The error of a lane, if several failed that of the first of them. The other lanes stop at their next chunk.
    """
    turns = _Turns(lanes, n_threads)
    if n_threads == 1:
        turns.work(make_desk())
    else:
        with ThreadPoolExecutor(n_threads, thread_name_prefix="reservoir") as pool:
            try:
                for job in [pool.submit(turns.work, make_desk()) for _ in range(n_threads)]:
                    job.result()
            except BaseException:
                # An interrupt reaches this thread only.
                turns.stop.set()
                raise
    if turns.errors:
        raise turns.errors[min(turns.errors)]


class _Turns:
    """The lanes that wait, and who is next."""

    def __init__(self, lanes: Sequence[Lane], n_threads: int) -> None:
        self.n_threads, self.lock = n_threads, threading.Lock()
        self.stop, self.errors = threading.Event(), {}
        # Rows of neighbouring lanes meet in a line of cache: let lanes be far apart that run at the same time.
        share = -(-len(lanes) // n_threads)
        self.waiting = [(lane.t, number % share, number, lane) for number, lane in enumerate(lanes)]
        heapify(self.waiting)

    def work(self, desk: Any) -> None:
        """Do what there is to do, on the calling thread."""
        try:
            entry = self.next(None)
            while entry is not None:
                try:
                    entry[-1].advance(desk)
                except BaseException as error:
                    self.errors[entry[-2]] = error
                    self.stop.set()
                entry = self.next(entry)
        finally:
            desk.close()

    def next(self, entry: tuple | None) -> tuple | None:
        """Return what a thread goes on with after a chunk of the lane of `entry`."""
        with self.lock:
            if self.stop.is_set():
                return None
            if entry is None or entry[-1].is_done:
                return heappop(self.waiting) if self.waiting else None
            now = (entry[-1].t, *entry[1:])
            if 0 < len(self.waiting) < self.n_threads and self.waiting[0][0] < now[0]:
                return heapreplace(self.waiting, now)
            return now
