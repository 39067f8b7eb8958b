"""Small layers, spikes and histories to draw, and what a drawing holds."""

import numpy as np
import torch

from snn import DelayLinear, History


def make_layer(weight, delay, max_delay=16, **options):
    """Build a layer of given weights and delays, (O, I) or (O, I, K)."""
    weight, delay = (torch.as_tensor(values, dtype=torch.float32) for values in (weight, delay))
    weight, delay = (values if values.ndim == 3 else values[..., None] for values in (weight, delay))
    n_out, n_in, count = weight.shape
    layer = DelayLinear(n_in, n_out, max_delay, kernel_count=count, **options)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.delay.copy_(delay)
    return layer.eval()


def make_spikes(n_steps, n_units, *places):
    spikes = torch.zeros(n_steps, n_units)
    for step, unit in places:
        spikes[step, unit] += 1
    return spikes


def make_history(n_epochs, valid=True):
    rows = [{"epoch": k, "train_loss": 1.0, "train_accuracy": 0.5 + 0.1 * k} for k in range(n_epochs)]
    if valid:
        rows = [row | {"valid_accuracy": row["train_accuracy"] - 0.05} for row in rows]
    return History(rows)


def points(collection):
    return np.asarray(collection.get_offsets()).tolist()


def stroke(collection):
    """Return begin and end of each line, as rows (x0, y0, x1, y1)."""
    return [segment.ravel().tolist() for segment in collection.get_segments()]


def legend(holder):
    (found,) = [holder.get_legend()] if hasattr(holder, "get_legend") else holder.legends
    return [text.get_text() for text in found.get_texts()]
