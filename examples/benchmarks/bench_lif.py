"""LIF neurons, [T=100, B=256, N=256] float32: ours against spikingjelly and snntorch, in one process on one input.

Prints one JSON line per case. ``ours_s`` and ``peer_s`` are medians of repeated calls, taken in turn so that a busy
machine slows both; ``agree`` says that spikes are equal and gradients within 1e-4. Memory is the growth of the peak
resident size of a process of its own (Linux), above what the input and the gradient at the output take.

    python examples/benchmarks/bench_lif.py
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from snn import functional, kernels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import snntorch
    import snntorch.surrogate
    from spikingjelly.activation_based import functional as sj
    from spikingjelly.activation_based import neuron, surrogate

SHAPE = (100, 256, 256)
# A leak of one half is exact in both notations, so that even snntorch's spikes must be equal.
TAU, BETA = 2.0, 0.5


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)


def ours(compare: str) -> Callable[[Tensor], Tensor]:
    return lambda x: functional.lif(x, tau=TAU, compare=compare)[0]


def spikingjelly() -> Callable[[Tensor], Tensor]:
    node = neuron.LIFNode(
        tau=TAU, decay_input=False, detach_reset=True, surrogate_function=surrogate.ATan(), step_mode="m"
    )

    def run(x: Tensor) -> Tensor:
        sj.reset_net(node)
        return node(x)

    return run


def snntorch_loop(*, unbind: bool = False) -> Callable[[Tensor], Tensor]:
    """The loop of snntorch's tutorials, ``x[step]``; or over ``x.unbind()``, whose gradient is gathered only once."""
    leaky = snntorch.Leaky(beta=BETA, reset_mechanism="zero", spike_grad=snntorch.surrogate.atan(2.0))

    def run(x: Tensor) -> Tensor:
        mem, spikes = leaky.init_leaky(), []
        steps = x.unbind() if unbind else None
        for t in range(len(x)):
            spk, mem = leaky(x[t] if steps is None else steps[t], mem)
            spikes.append(spk)
        return torch.stack(spikes)

    return run


# snntorch compares strictly; each peer meets ours with its own comparison.
PEERS = {
    "spikingjelly": (spikingjelly, "ge"),
    "snntorch": (snntorch_loop, "gt"),
    "snntorch, x.unbind()": (lambda: snntorch_loop(unbind=True), "gt"),
}


def forward(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return run(x)


def forward_backward(run: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    spikes = run(leaf)
    spikes.backward(grad)
    return spikes.detach(), leaf.grad


def in_turn(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the median seconds of both, called alternately after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for k in range(repeats + 2):
        for call, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            if k >= 2:
                taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def report(case: str, peer: str, ours_value: float, peer_value: float, agree: bool, unit: str = "s") -> None:
    line = {"case": case, f"ours_{unit}": round(ours_value, 6), "peer": peer, f"peer_{unit}": round(peer_value, 6)}
    print(json.dumps(line | {"ratio": round(peer_value / ours_value, 2), "agree": agree}), flush=True)


def peak_memory(who: str) -> None:
    """Print by how many MB forward and backward raise the peak of this process; run in a process of its own."""
    x, grad = inputs()
    make = {"ours": lambda: ours("ge"), **{name: peer[0] for name, peer in PEERS.items()}}[who]
    run = make()
    # Compile and load everything on a tiny input first.
    forward_backward(run, x[:, :1].contiguous(), grad[:, :1].contiguous())
    gc.collect()
    # Linux: writing 5 sets the recorded peak back to the present size.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mb("VmRSS")
    for _ in range(3):
        result = forward_backward(run, x, grad)
        del result
    print(resident_mb("VmHWM") - before)


def resident_mb(field: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return float(line.split()[1]) / 1024


def measure_memory(who: str) -> float:
    done = subprocess.run([sys.executable, __file__, "--memory", who], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    x, grad = inputs()
    for name, (make, compare) in PEERS.items():
        us, them = ours(compare), make()
        kernels.calls.clear()
        got, want = forward_backward(us, x, grad), forward_backward(them, x, grad)
        agree = torch.equal(got[0], want[0]) and torch.allclose(got[1], want[1], rtol=1e-4, atol=1e-5)
        agree = agree and kernels.calls["numba"] == 1
        repeats = 21 if name == "spikingjelly" else 11
        times = in_turn(lambda r=us: forward(r, x), lambda r=them: forward(r, x), repeats)
        report("lif forward, no gradient [100, 256, 256]", name, *times, agree)
        times = in_turn(lambda r=us: forward_backward(r, x, grad), lambda r=them: forward_backward(r, x, grad), repeats)
        report("lif forward + backward [100, 256, 256]", name, *times, agree)
    if not Path("/proc/self/clear_refs").exists():
        print("memory is measured on Linux only", file=sys.stderr)
        return
    ours_mb = measure_memory("ours")
    for name in PEERS:
        report("lif forward + backward, peak extra memory", name, ours_mb, measure_memory(name), True, unit="mb")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", choices=["ours", *PEERS], help="only print the peak extra memory in MB")
    arguments = parser.parse_args()
    if arguments.memory:
        peak_memory(arguments.memory)
    else:
        main()
