"""Delay layers against the DCLS package: training step, inference with rounded delays, memory, long delays.

Both get the same spikes, weights and delays in one process, each in its own layout: ours [T, B, C], DCLS [B, C, T],
padded with zeros on the left, which is not timed. They are compared before they are timed, and called in turn. Memory
is the rise of the peak resident size of a process of its own (Linux), with an allocator that gives back at once what is
freed: by default that depends on what was allocated before, and the peer's figure varies twofold.

    python examples/benchmarks/bench_delays.py
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from DCLS.construct.modules import Dcls1d
from torch import Tensor

import snn
from snn.delays import calls

N_IN, N_OUT, N_STEPS, N_BATCH = 140, 256, 100, 32
SHORT, LONG = 25, 251  # taps; DCLS wants an odd number
DENSITY = 0.1
NARROW, WIDE = 0.5, 12.5


def inputs(n_steps: int = N_STEPS) -> tuple[Tensor, Tensor]:
    """Return spikes [T, B, C] and a gradient at the output."""
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(n_steps, N_BATCH, N_IN, generator=generator) < DENSITY).float()
    return spikes, torch.randn(n_steps, N_BATCH, N_OUT, generator=generator)


def layers(n_taps: int, sigma: float) -> tuple[snn.DelayLinear, Dcls1d]:
    """Return our layer and the peer's with the same weights, delays and widths."""
    ours = snn.DelayLinear(N_IN, N_OUT, n_taps, sigma=sigma, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Exact in both notations: the peer counts from the middle of the kernel.
        ours.delay.copy_((ours.delay * 1024).round() / 1024)
    peer = Dcls1d(N_IN, N_OUT, 1, dilated_kernel_size=n_taps, groups=1, bias=False, version="gauss")
    with torch.no_grad():
        peer.weight.copy_(ours.weight)
        peer.P.copy_(n_taps // 2 - ours.delay[None])
        peer.SIG.fill_(sigma - 0.27)
    peer.SIG.requires_grad_(False)
    return ours, peer


def for_peer(spikes: Tensor, n_taps: int) -> Tensor:
    return F.pad(spikes.permute(1, 2, 0), (n_taps - 1, 0)).contiguous()


def training_step(layer: torch.nn.Module, x: Tensor, grad: Tensor) -> Tensor:
    layer.zero_grad()
    x.grad = None
    y = layer(x)
    y.backward(grad)
    return y.detach()


def round_peer(peer: Dcls1d) -> None:
    """Do what the paper's code does before it evaluates."""
    with torch.no_grad():
        peer.P.round_()
        peer.SIG.zero_()
    peer.version = peer.DCK.version = "max"


def in_turn(first: Callable[[], object], second: Callable[[], object], repeats: int = 15) -> tuple[float, float]:
    """Return the median seconds of both, called alternately after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    n_warm = min(3, repeats // 3)
    for k in range(repeats + n_warm):
        for call, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            if k >= n_warm:
                taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def report(case: str, ours_value: float, peer_value: float, agree: bool, unit: str = "s", **more: object) -> None:
    line = {"case": case, f"ours_{unit}": round(ours_value, 6), "peer": "DCLS", f"peer_{unit}": round(peer_value, 6)}
    print(json.dumps(line | {"ratio": round(peer_value / ours_value, 2), "agree": agree} | more), flush=True)


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Equal to rounding in float32, measured against the largest value."""
    return bool((ours - theirs).abs().max() <= 2e-5 * theirs.abs().max())


def train(n_taps: int, sigma: float, *, n_steps: int = N_STEPS, to_input: bool = False) -> float:
    """Compare and time a training step; return our seconds."""
    spikes, grad = inputs(n_steps)
    ours, peer = layers(n_taps, sigma)
    x, x_peer = spikes.clone().requires_grad_(to_input), for_peer(spikes, n_taps).requires_grad_(to_input)
    grad_peer = grad.permute(1, 2, 0).contiguous()
    y, y_peer = training_step(ours, x, grad), training_step(peer, x_peer, grad_peer)
    pairs = [(y.permute(1, 2, 0), y_peer), (ours.weight.grad, peer.weight.grad), (ours.delay.grad, -peer.P.grad[0])]
    if to_input:
        pairs.append((x.grad.permute(1, 2, 0), x_peer.grad[..., n_taps - 1 :]))
    agree = all(same(*pair) for pair in pairs)
    repeats = 15 if n_taps * n_steps <= SHORT * N_STEPS else 5  # the peer takes seconds
    times = in_turn(lambda: training_step(ours, x, grad), lambda: training_step(peer, x_peer, grad_peer), repeats)
    case = f"training step, {n_taps} taps, sigma {sigma}, T = {n_steps}" + (", gradient to the input" * to_input)
    report(case, *times, agree, path=ours.last_choice.path)
    return times[0]


@torch.no_grad()
def infer(density: float = DENSITY) -> None:
    spikes, _ = inputs()
    spikes *= torch.rand(spikes.shape, generator=torch.Generator().manual_seed(2)) < density / DENSITY
    ours, peer = layers(SHORT, NARROW)
    ours.eval()
    round_peer(peer)
    x_peer = for_peer(spikes, SHORT)
    agree = same(ours(spikes).permute(1, 2, 0), peer(x_peer))
    times = in_turn(lambda: ours(spikes), lambda: peer(x_peer), repeats=31)
    report(f"inference, rounded delays, spike density {density}", *times, agree, path=ours.last_choice.path)


def peak_memory(who: str, sigma: float) -> None:
    """Print by how many MB training steps raise the peak of this process; run in a process of its own."""
    spikes, grad = inputs()
    ours, peer = layers(SHORT, sigma)
    layer = ours if who == "ours" else peer
    x = spikes if who == "ours" else for_peer(spikes, SHORT)
    grad = grad if who == "ours" else grad.permute(1, 2, 0).contiguous()
    # Compile and load everything on a tiny input first.
    training_step(layer, x[:2].contiguous(), grad[:2].contiguous())
    layer.zero_grad(set_to_none=True)
    gc.collect()
    # Linux: writing 5 sets the recorded peak back to the present size.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mb("VmRSS")
    for _ in range(3):
        training_step(layer, x, grad)
    print(resident_mb("VmHWM") - before)


def resident_mb(field: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return float(line.split()[1]) / 1024


def measure_memory(who: str, sigma: float) -> float:
    command = [sys.executable, __file__, "--memory", who, "--sigma", str(sigma)]
    returning = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # of glibc
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=returning).stdout)


def main() -> None:
    for sigma in (NARROW, WIDE):
        for to_input in (False, True):
            train(SHORT, sigma, to_input=to_input)
    for density in (DENSITY, 0.01):
        infer(density)
    for n_steps in (N_STEPS, 400):
        for sigma in (NARROW, WIDE):
            short, long = (train(n_taps, sigma, n_steps=n_steps) for n_taps in (SHORT, LONG))
            case = f"{LONG} taps against {SHORT}, sigma {sigma}, T = {n_steps}: our own cost"
            line = {"case": case, "ours_s": long, "peer": f"ours, {SHORT} taps", "peer_s": short}
            print(json.dumps(line | {"ratio": round(short / long, 2), "agree": None}), flush=True)
    if not Path("/proc/self/clear_refs").exists():
        print("memory is measured on Linux only", file=sys.stderr)
        return
    for sigma in (NARROW, WIDE):
        case = f"training step, {SHORT} taps, sigma {sigma}, peak extra memory"
        report(case, measure_memory("ours", sigma), measure_memory("peer", sigma), True, unit="mb")
    print(f"paths taken: {dict(calls)}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", choices=["ours", "peer"], help="only print the peak extra memory in MB")
    parser.add_argument("--sigma", type=float, default=NARROW)
    arguments = parser.parse_args()
    if arguments.memory:
        peak_memory(arguments.memory, arguments.sigma)
    else:
        main()
