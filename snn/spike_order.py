"""A task that cannot be solved without delays: to tell which of two spikes came first."""

# N samples, T time steps, C channels

from __future__ import annotations

import torch
from torch import Tensor

from neuroloaders.checks import check_int, invalid

__all__ = ["spike_order"]


def spike_order(
    n_samples: int,
    *,
    n_steps: int = 50,
    gap: tuple[int, int] = (10, 10),
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw pairs of spikes whose order tells the class.

    Channels 0 and 1 spike once each, `gap` steps apart, at a random time. Class 0: channel 0 first; class 1: channel 1
    first. Spike counts, the times of the spikes, and the gaps are the same in both classes. Neurons that forget within
    a few steps never see the two spikes together, unless the first one is delayed.

    Parameters
    ----------
    n_samples : int
        N; half of them, rounded, of each class.
    n_steps : int
        T.
    gap : tuple of two int
        Smallest and largest gap, both included, in steps.
    generator : torch.Generator, optional
        Where the numbers come from; by default a new one with seed 0.

    Returns
    -------
    spikes : Tensor of uint8, shape (N, T, 2)
    labels : Tensor of int64, shape (N,)

    Raises
    ------
    ValueError
        If the gaps do not fit into the steps.

    Examples
    --------
    >>> spikes, labels = spike_order(4, n_steps=30)
    >>> spikes.sum(1).tolist()
    [[1, 1], [1, 1], [1, 1], [1, 1]]
    """
    check_int("n_samples", n_samples, at_least=1)
    check_int("n_steps", n_steps, at_least=2)
    shortest, longest = gap
    check_int("gap", shortest, at_least=1)
    if not shortest <= longest < n_steps:
        raise invalid("gap", f"be two numbers, smaller first, below n_steps = {n_steps}", f"{gap}")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n_samples) % 2
    labels = labels[torch.randperm(n_samples, generator=generator)]
    gaps = torch.randint(shortest, longest + 1, (n_samples,), generator=generator)
    room = n_steps - gaps
    first = (torch.rand(n_samples, generator=generator, dtype=torch.float64) * room).long()
    spikes = torch.zeros(n_samples, n_steps, 2, dtype=torch.uint8)
    rows = torch.arange(n_samples)
    spikes[rows, first, labels] = 1
    spikes[rows, first + gaps, 1 - labels] = 1
    return spikes, labels
