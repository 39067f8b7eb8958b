"""What all tests share. Without a GPU, triton kernels run in triton's interpreter: set before triton is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Matplotlib must not look for a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(42)


@pytest.fixture
def shared_data() -> Path:
    """The real recordings beside a development checkout, or those that NEUROLOADERS_DATA names."""
    for folder in (os.environ.get("NEUROLOADERS_DATA"), ROOT.parent / "shared" / "data"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("no real data: set NEUROLOADERS_DATA to a folder that holds them")


@pytest.fixture(autouse=True)
def _tests_are_independent() -> Iterator[None]:
    """Give torch's global generator back as it was: a test that builds a plain layer draws from it."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture
def global_rng_untouched() -> Iterator[None]:
    """For tests of public calls, none of which may move the global random state."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "torch's global generator was moved"


@pytest.fixture(autouse=True)
def _gpu_only_where_there_is_one(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
