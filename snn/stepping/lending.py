"""A network with the memory of one group of samples in place, and as it was before afterwards, whatever happens."""

# B samples

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from neuroloaders.checks import invalid
from snn.stepping.carriers import Block, Carrier, find_carrier

__all__ = ["Loan", "carriers_of", "kept", "lend", "no_other_memory"]


def carriers_of(model: nn.Module, kinds: tuple[str, ...]) -> dict[str, Carrier]:
    """Return the carrier of each module that remembers, by name."""
    found = {name: find_carrier(name, module, kinds) for name, module in model.named_modules()}
    return {name: carrier for name, carrier in found.items() if carrier is not None}


class Loan:
    """The memories while they are lent."""

    def __init__(self, carriers: dict[str, Carrier], block: Block) -> None:
        self.carriers, self.block = carriers, block

    def rewind(self) -> None:
        """Say that the network is about to be called once more."""
        for carrier in self.carriers.values():
            carrier.rewind()

    def memories(self) -> dict[str, Any]:
        """Return what the modules remember now; each must have a row for each sample."""
        memories = {name: carrier.get() for name, carrier in self.carriers.items()}
        for name, carrier in self.carriers.items():
            carrier.check(memories[name], self.block.n_samples)
        return memories


@contextmanager
def lend(carriers: dict[str, Carrier], memories: dict[str, Any], block: Block) -> Iterator[Loan]:
    """Put the memories into the modules; take them out again and put back what was there.

    Parameters
    ----------
    carriers : dict of str to Carrier
        The modules that remember.
    memories : dict of str to object
        What each is to remember.
    block : Block
        What the network will be run on.
    """
    saved = {name: carrier.save() for name, carrier in carriers.items()}
    try:
        for name, carrier in carriers.items():
            carrier.put(memories[name], block)
        yield Loan(carriers, block)
    finally:
        for name, carrier in carriers.items():
            carrier.restore(saved[name])


def kept(carriers: dict[str, Carrier], memories: dict[str, Any], index: Tensor, n_samples: int) -> dict[str, Any]:
    """Return the memories of the samples `index` only."""
    return {name: carrier.keep(memories[name], index, n_samples) for name, carrier in carriers.items()}


@contextmanager
def no_other_memory(model: nn.Module, carriers: dict[str, Carrier]) -> Iterator[None]:
    """Raise if a module that is no carrier comes to hold another tensor: it would remember what nobody carries.

    What it held before is put back. Numbers and lists that a module counts in are not looked at.
    """
    others = [(name, module) for name, module in model.named_modules() if name not in carriers]
    before = [(name, module, _tensors(module)) for name, module in others]
    yield
    for name, module, had in before:
        now = _tensors(module)
        for place in sorted(now.keys() | had.keys()):
            value, version = had.get(place, (None, 0))
            if now.get(place, (None, 0))[0] is value and now.get(place, (None, 0))[1] == version:
                continue
            holder = module._buffers if place in module._buffers else module.__dict__
            if place in had:
                holder[place] = value
            else:
                del holder[place]
            raise invalid(
                f"{name}.{place}" if name else place,
                "stay as it is while the network runs",
                "another tensor after a step",
                "A module keeps its state where spikingjelly or snntorch do, or write a function step(x, state).",
            )


def _tensors(module: nn.Module) -> dict[str, tuple[Tensor | None, int]]:
    held = {**vars(module), **module._buffers}
    return {
        name: (value, 0 if value is None or value.is_inference() else value._version)
        for name, value in held.items()
        if isinstance(value, Tensor) or value is None
    }
