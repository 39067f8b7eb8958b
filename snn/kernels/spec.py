"""What a multi-step neuron kernel is asked to do: the options that all backends share.

The membrane, with time axis t, input current x and spikes s::

    leak              h[t] = decay * v[t-1] + x[t]                                   decay = leak in [0, 1]
    tau               h[t] = v[t-1] - (v[t-1] - v_reset) / decay + x[t]              decay = tau in steps
    tau_decay_input   h[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / decay            decay = tau in steps
    s[t] = h[t] >= threshold   (strict: >)
    v[t] = h[t] - threshold * s[t]   (soft)      or      v_reset where s[t], else h[t]   (hard)

The order of operations is part of the contract: every backend rounds as these lines do, so spikes agree exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from snn.surrogate import Surrogate

__all__ = ["CHARGES", "NeuronSpec", "compute_dtype"]

CHARGES = {"leak": 0, "tau": 1, "tau_decay_input": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuronSpec:
    """Static options of a multi-step neuron; see the equations at the top of this file."""

    charge: str
    hard_reset: bool
    v_reset: float
    strict: bool
    detach_reset: bool
    surrogate: Surrogate


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the membrane: half precision inputs are integrated in float32."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32
