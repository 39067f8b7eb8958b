"""Losses and metrics of a model over a data set: means over samples, not over batches."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_finite, check_option, check_shape, invalid
from snn.training.batches import check_loader, open_epoch, split_batch
from snn.training.config import AMP
from snn.training.losses import Loss, check_classes, find_loss, find_metrics
from snn.training.processes import Processes

__all__ = ["Scorer", "Sums", "evaluate", "means", "measure"]


def evaluate(
    model: nn.Module,
    loader: Any,
    *,
    device: str | torch.device | None = None,
    loss: str | Loss = "cross_entropy",
    metrics: Mapping[str, str | Loss] | None = None,
    amp: str = "off",
) -> dict[str, float]:
    """Score `model` in evaluation mode; each module's mode and the global generators are then as before.

    Parameters
    ----------
    model : Module
        Moved to `device` if one is given.
    loader : loader
        As for `snn.training.fit`. Under torchrun each process passes its share, and all get the same result.
    device : str or torch.device, optional
        None stays where the model is.
    loss : str or callable
        A key of `snn.training.losses.LOSSES`, or (output, target) -> mean over the samples.
    metrics : dict, optional
        Names and functions (output, target) -> one number a sample, shape (B,). None: accuracy.
    amp : {"off", "bf16", "fp16"}
        Number format of the forward pass.

    Returns
    -------
    dict of str to float
        ``"loss"`` and each metric, as means over all samples.

    Raises
    ------
    TypeError, ValueError
        If the data do not fit the model, or there are none.
    """
    metrics = find_metrics(metrics)
    if device is None:
        device = next(itertools.chain(model.parameters(), model.buffers()), torch.zeros(())).device
    processes = Processes(device)
    check_loader("loader", loader, processes.rank, processes.world_size)
    scorer = Scorer(model.to(processes.device), processes.device, amp, loss, metrics)
    with torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []):
        totals = measure(scorer, "loader", loader, processes)
    return means("loader", totals, metrics)


class Sums:
    """Sums over samples, in float64, as they get long.

    Batches are noted as they come and added up together, to leave the GPU alone in between.

    Parameters
    ----------
    n_metrics : int
        How many there are beside the loss.
    device : torch.device
        Where the sums are.

    Attributes
    ----------
    values : Tensor, shape (2 + n_metrics,), float64
        Number of samples, and the sums of the loss and of each metric, of all batches that `flush` has added.
    noted : list
        Batches that wait for it.
    """

    def __init__(self, n_metrics: int, device: torch.device) -> None:
        self.values = torch.zeros(2 + n_metrics, dtype=torch.float64, device=device)
        self.noted: list[tuple[int, Tensor]] = []

    def note(self, n_samples: int, parts: Tensor) -> None:
        """Note a batch: its size, and what `Scorer` returns for it."""
        self.noted.append((n_samples, parts))

    def flush(self) -> Tensor:
        """Add up what was noted, and return the mean losses of these batches, shape (n_batches,)."""
        sizes = torch.tensor([n for n, _ in self.noted], dtype=torch.float64, device=self.values.device)
        parts = torch.stack([parts for _, parts in self.noted])
        self.noted.clear()
        self.values[0] += sizes.sum()
        self.values[1] += (sizes * parts[:, 0]).sum()
        self.values[2:] += parts[:, 1:].sum(0)
        return parts[:, 0]


class Scorer:
    """One forward pass: the loss to differentiate, and what to log.

    Parameters
    ----------
    model : Module
        On `device`.
    device : torch.device
        Where it computes.
    amp : str
        A key of `snn.training.config.AMP`.
    loss : str or callable
        As for `evaluate`.
    metrics : dict of str to callable
        As `snn.training.losses.find_metrics` returns them.
    label_smoothing : float
        For the cross entropy.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        amp: str,
        loss: str | Loss,
        metrics: Mapping[str, Loss],
        label_smoothing: float = 0.0,
    ) -> None:
        if check_option("amp", amp, AMP) == "fp16" and device.type != "cuda":
            raise invalid("amp", f"be 'off' or 'bf16' on the device {str(device)!r}", "'fp16'")
        self.model, self.device, self.amp = model, device, amp
        self.loss, self.metrics = find_loss(loss, label_smoothing), metrics
        # A loss of one's own may use integer targets for something else.
        self._targets_are_classes = not callable(loss)

    def __call__(
        self, inputs: tuple[Tensor, ...], target: Tensor, *, name: str, is_first: bool
    ) -> tuple[Tensor, Tensor]:
        """Return (loss, parts) of one batch of B samples.

        Parameters
        ----------
        inputs : tuple of Tensor
            What the model takes.
        target : Tensor, shape (B, ...)
            What the loss takes.
        name : str
            The argument that the batch came from, for messages.
        is_first : bool
            Also check the values, not the shapes alone; that waits for the GPU.

        Returns
        -------
        loss : Tensor, shape ()
            Mean over the batch.
        parts : Tensor, shape (1 + n_metrics,), float64
            The loss, and the sum of each metric over the batch; detached.
        """
        if is_first:
            for index, part in enumerate((*inputs, target)):
                check_finite(f"entry {index} of the first batch of `{name}`", part)
        dtype = AMP[self.amp] or torch.bfloat16
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.amp != "off"):
            output = self.model(*inputs)
        if isinstance(output, Tensor) and output.dtype in (torch.float16, torch.bfloat16):
            output = output.float()
        n_samples = target.shape[0]
        if n_samples == 0:
            return output.sum() * 0.0, self.nothing()
        if is_first and self._targets_are_classes and isinstance(output, Tensor):
            check_classes(f"the targets of `{name}`", output, target)
        loss = self.loss(output, target)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise invalid("loss", "return a 0-d tensor, the mean over the samples", loss, kind=TypeError)
        with torch.no_grad():
            parts = [loss.detach().double()]
            for metric_name, metric in self.metrics.items():
                values = metric(output.detach() if isinstance(output, Tensor) else output, target)
                advice = "A metric returns one number a sample."
                check_shape(f"metrics[{metric_name!r}](...)", values, (n_samples,), advice=advice)
                parts.append(values.sum(dtype=torch.float64))
        return loss, torch.stack(parts)

    def nothing(self) -> Tensor:
        """Return the parts of an empty batch."""
        return torch.zeros(1 + len(self.metrics), dtype=torch.float64, device=self.device)


def measure(scorer: Scorer, name: str, loader: Any, processes: Processes) -> Tensor:
    """Return the sums over all samples of `loader` and all processes, in evaluation mode."""
    sums = Sums(len(scorer.metrics), scorer.device)
    with torch.no_grad(), _evaluation_mode(scorer.model):
        for number, batch in enumerate(open_epoch(loader, 0)):
            inputs, target = split_batch(name, batch, scorer.device)
            if len(target):
                sums.note(len(target), scorer(inputs, target, name=name, is_first=number == 0)[1])
        if sums.noted:
            sums.flush()
    return processes.sum(sums.values)


def means(name: str, totals: Tensor, metrics: Mapping[str, Loss]) -> dict[str, float]:
    """Turn sums into means, keys ``"loss"`` and the metrics' names."""
    n_samples, *sums = totals.tolist()
    if n_samples == 0:
        advice = "Is the data set empty, or smaller than a batch with drop_last=True?"
        raise invalid(name, "yield at least one sample", "none", advice)
    return {key: value / n_samples for key, value in zip(("loss", *metrics), sums, strict=True)}


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    # Module by module: a layer that was frozen by eval() inside a model that trains must stay so.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
