"""The reference: the equations of `spec`, step by step, differentiated by torch. Runs everywhere; fast nowhere."""

# T time, B batch, C channels

from __future__ import annotations

import torch
from torch import Tensor

from snn.kernels.spec import NeuronSpec, compute_dtype
from snn.surrogate import spike

__all__ = ["multi_step"]


def multi_step(
    x: Tensor, v: Tensor, decay: Tensor, threshold: Tensor, n_steps: int | None, spec: NeuronSpec
) -> tuple[Tensor, Tensor]:
    """Run the neurons over all steps.

    Parameters
    ----------
    x : Tensor, shape (T, B, ...) or (B, ...)
        Input current; without time axis if `n_steps` is given.
    v : Tensor, shape (B, ...)
        Membrane potential before the first step.
    decay, threshold : Tensor
        Broadcastable to `v`.
    n_steps : int or None
        Repeat the same `x` so often.
    spec : NeuronSpec
        The options.

    Returns
    -------
    spikes : Tensor, shape (T, B, ...), dtype of `x`
    v : Tensor, shape (B, ...), dtype of the membrane
    """
    dtype = compute_dtype(x.dtype)
    current = x.to(dtype)
    inputs = current.unbind(0) if n_steps is None else [current] * n_steps
    spikes = []
    for step_input in inputs:
        if spec.charge == "leak":
            h = decay * v + step_input
        elif spec.charge == "tau":
            h = v - (v - spec.v_reset) / decay + step_input
        else:
            h = v + (step_input - (v - spec.v_reset)) / decay
        distance = h / threshold - 1 if spec.surrogate.normalised else h - threshold
        s = _fire(h, threshold, distance, spec)
        reset = s.detach() if spec.detach_reset else s
        v = (1 - reset) * h + reset * spec.v_reset if spec.hard_reset else h - reset * threshold
        spikes.append(s)
    if not spikes:
        # No steps: x is empty too, and stays part of the graph.
        return x.clone(), v
    return torch.stack(spikes).to(x.dtype), v


def _fire(h: Tensor, threshold: Tensor, distance: Tensor, spec: NeuronSpec) -> Tensor:
    """Decide by h against the threshold, whose rounding is exact; differentiate by the distance."""
    exact = (h > threshold if spec.strict else h >= threshold).to(h.dtype)
    soft = spike(distance, spec.surrogate)
    # soft - soft.detach() is zero forward and carries the surrogate gradient backward.
    return exact + (soft - soft.detach())
