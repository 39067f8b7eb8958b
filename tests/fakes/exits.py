"""Networks that answer over time, with their state outside, and logits whose calibration is known."""

from dataclasses import dataclass

import torch

from snn import functional


@dataclass
class State:
    current: torch.Tensor  # of the first layer, which a static input gives once
    v: list
    step: int


class TinyNetwork:
    """Two layers of neurons and a readout on a static input [B, 6].

    Weights and inputs are multiples of 1/8, so that all sums are exact and no result depends on the batch's size.
    """

    def __init__(self, n_classes=4, seed=0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        sizes = [(6, 12), (12, 10), (10, n_classes)]
        self.weights = [torch.randint(-4, 5, size, generator=generator).to(dtype) / 8 for size in sizes]
        self.runs, self.kept, self.first_layer_rows = [], [], 0

    def start(self, x):
        self.first_layer_rows += len(x)
        return State(x @ self.weights[0], [None, None], 0)

    def run(self, state, n_steps):
        self.runs.append((n_steps, len(state.current)))
        spikes, v0 = functional.if_(state.current, state.v[0], v_reset=None, n_steps=n_steps)
        spikes, v1 = functional.if_(spikes @ self.weights[1], state.v[1], v_reset=None)
        # What was handed in may be written over: nobody may look at it again.
        for v in state.v:
            if v is not None:
                v.fill_(torch.nan)
        return spikes @ self.weights[2], State(state.current, [v0, v1], state.step + n_steps)

    def keep(self, state, index):
        self.kept.append(len(index))
        assert index.dtype == torch.int64
        assert index.ndim == 1
        return State(state.current[index], [v[index] for v in state.v], state.step)


def inputs(n, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 17, (n, 6), generator=generator).to(dtype) / 8


class Sequences:
    """A leaky readout of sequences [T, B, 5], summed in float64; samples are on axis 1."""

    inputs = "sequence"

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randint(-4, 5, (5, 3), generator=generator).double() / 8

    def start(self, x):
        return x, x.new_zeros(x.shape[1], 3)

    def run(self, state, n_steps):
        x, v = state
        logits = []
        for part in x[:n_steps]:
            v = v / 2 + part @ self.weight
            logits.append(v)
        return torch.stack(logits), (x[n_steps:], v)

    def keep(self, state, index):
        x, v = state
        return x[:, index], v[index]


def noisy_logits(n_steps, n, n_classes, *, signal=0.5, seed=0, dtype=torch.float64):
    """Evidence that grows: each step's logits are the class plus noise. Returns logits [T, N, K] and classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(n_classes, (n,), generator=generator)
    noise = torch.randn(n_steps, n, n_classes, generator=generator, dtype=dtype)
    return noise + signal * torch.nn.functional.one_hot(y, n_classes), y


def calibrated_logits(n, n_classes, *, seed=0, scale=2.0):
    """Logits [N, K] and classes drawn from their softmax: the right temperature is 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, n_classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]


def valid_and_test(n_steps):
    """Return logits of validation and of test samples with their classes, (n_steps, 600, 6) and (600,) each."""
    logits, y = noisy_logits(n_steps, 1200, 6, signal=0.9, dtype=torch.float32)
    return {"valid": (logits[:, :600], y[:600]), "test": (logits[:, 600:], y[600:])}
