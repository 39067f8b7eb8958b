"""One process or several (torchrun): what is summed, shared and collected between them.

In a run of one process every method does nothing, or the obvious. Gradients are summed here, not by
DistributedDataParallel: the shares of an uneven last batch need no padding, and the sum over processes of
sample-weighted gradients is the gradient of the global mean.
"""

from __future__ import annotations

import atexit
import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import invalid
from neuroloaders.runs import choose_device, world

__all__ = ["Processes"]

_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Processes:
    """The processes of this run, as torchrun's environment describes them.

    Parameters
    ----------
    device : str or torch.device, optional
        As for `neuroloaders.runs.choose_device`.

    Attributes
    ----------
    rank, world_size : int
        This process and the number of all.
    device : torch.device
        Where this process computes.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.rank, _, self.world_size = world()
        self.device = choose_device(device)
        if self.world_size > 1:
            _connect(self.device)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over processes; the argument stays as it is."""
        if self.world_size == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    def share(self, value: Any) -> Any:
        """Return rank 0's `value` on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def collect(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order, on every rank."""
        values = [value] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def weight(self, n_samples: int) -> Tensor | None:
        """Return this process's part of the global batch, shape (); None if it is all of it.

        Multiplied by it, the means over the shares add up to the mean over the global batch.
        """
        if self.world_size == 1:
            return None
        own = torch.tensor(float(n_samples), dtype=torch.float64, device=self.device)
        return own / self.sum(own)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give `tensors` rank 0's values, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.data, src=0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over processes; one that no process has stays None."""
        if self.world_size == 1:
            return
        kinds: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            kinds.setdefault(parameter.dtype, []).append(parameter)
        for dtype, group in kinds.items():
            have = torch.tensor([p.grad is not None for p in group], dtype=dtype, device=self.device)
            grads = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group]
            flat = torch.cat([have, *grads])  # one message in place of hundreds
            torch.distributed.all_reduce(flat)
            have, *grads = flat.split([len(group), *(p.numel() for p in group)])
            # Only a process without some gradient needs to ask, and wait for, whether the others had it.
            complete = all(p.grad is not None for p in group)
            used = [True] * len(group) if complete else [count > 0 for count in have.tolist()]
            for parameter, grad, is_used in zip(group, grads, used, strict=True):
                parameter.grad = grad.view_as(parameter) if is_used else None

    @contextlib.contextmanager
    def joint_batchnorm(self, model: nn.Module) -> Iterator[bool]:
        """Let the batch norms of `model` see the global batch, while several processes train it on GPUs.

        Yields
        ------
        bool
            Whether layers talk to each other, so that every process must run every forward pass.
        """
        if self.world_size == 1:
            yield False
            return
        if self.device.type != "cuda":
            if self.rank == 0 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
                warnings.warn(
                    "On CPUs each process normalises its own share of a batch: batch norm statistics differ "
                    "from those of one process, and rank 0's are kept. Train on GPUs, or in one process.",
                    stacklevel=5,
                )
            yield False
            return
        swapped = []
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                # Exact types: a subclass may compute something else.
                if type(child) in _BATCHNORMS:
                    # It holds the same parameters and statistics, so that putting the old one back loses nothing.
                    setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
                    swapped.append((parent, name, child))
        try:
            yield any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
        finally:
            for parent, name, child in swapped:
                child.train(getattr(parent, name).training)
                setattr(parent, name, child)


def _connect(device: torch.device) -> None:
    """Join the group of processes that torchrun described, once a process."""
    from accelerate import PartialState

    was_connected = torch.distributed.is_initialized()
    with warnings.catch_warnings():
        # It reports that it chose a number of threads; torchrun has set one already.
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS/MKL_NUM_THREADS unset")
        state = PartialState(cpu=device.type == "cpu")
    if state.device.type != device.type:
        advice = "All runs of one script use the same kind of device."
        raise invalid(
            "device",
            f"be of type {state.device.type!r}, which its processes share",
            repr(str(device)),
            advice,
        )
    if not was_connected:
        # NCCL complains about groups that are still open when Python ends.
        atexit.register(_disconnect)


def _disconnect() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
