"""A cluster of Dask on this machine: processes of its own, spoken to over the loopback."""

from contextlib import contextmanager

import distributed
import joblib


@contextmanager
def cluster(n_workers, *, threads=1):
    """Run Dask with so many processes."""
    options = {"n_workers": n_workers, "threads_per_worker": threads, "processes": True, "dashboard_address": None}
    processes = distributed.LocalCluster(**options, silence_logs=50)
    with processes, distributed.Client(processes), joblib.parallel_config("dask"):
        yield
