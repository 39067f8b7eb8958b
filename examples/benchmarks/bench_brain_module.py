"""The network for M/EEG against a plain PyTorch reference, braindecode's module, and its own layers one by one.

The plain reference has the same weights and is written as the papers describe the network: attention for each item of
the batch, every layer in its place. Ours computes attention once a recording, sums over time before the widest layer,
and at inference has one matrix for attention, 1x1 and subject layer. braindecode's ``BrainModule`` is compared on the
part that both have (1x1 layer, convolutions, mean over time, linear layer), with its weights; it is no dependency, and
left out with a line where it is not installed. Results are compared first, calls take turns, times are the best of
several. Prints one JSON line a case:

    {"case", "ours_s", "peer", "peer_s", "ratio", "agree"}      ratio: peer / ours

    python examples/benchmarks/bench_brain_module.py
    python examples/benchmarks/bench_brain_module.py --threads 1
"""

# %%
from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg import BRAIN_MODULES, BrainModule, BrainModuleConfig, ClipLoss, MeanOverTime, spatial_path

N_SUBJECTS, N_RECORDINGS = 4, 8


class Plain(nn.Module):
    """The network as the papers describe it, with the weights of one of ours."""

    def __init__(self, ours: BrainModule) -> None:
        super().__init__()
        self.ours = [ours]  # not a submodule: weights are shared
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(layer[0].out_channels, device=layer[0].weight.device) for layer in ours.convolutions.layers
        )
        for norm, layer in zip(self.norms, ours.convolutions.layers, strict=True):
            norm.load_state_dict(layer[1].state_dict())
        self.train(ours.training)

    def forward(self, x: Tensor, subjects: Tensor, positions: Tensor) -> Tensor:
        """Decode windows (B, C, T) of sensors at positions (B, C, 2)."""
        (ours,) = self.ours
        spatial = ours.spatial
        n = math.isqrt(spatial.attention.heads.shape[1] // 2)
        k = torch.arange(n, dtype=x.dtype, device=x.device)
        across, along = (positions[..., axis, None, None] + 0.2 for axis in (0, 1))
        angle = (2 * math.pi / 1.4 * (k[:, None] * across + k * along)).flatten(2)
        embedding = torch.cat([angle.cos(), angle.sin()], 2)
        x = torch.einsum("hf,bcf->bhc", spatial.attention.heads, embedding).softmax(2) @ x
        x = F.conv1d(x, spatial.linear.weight[..., None], spatial.linear.bias)
        x = torch.einsum("bct,bcd->bdt", x, spatial.subject.weight[subjects])
        stack = ours.convolutions
        for k, (layer, norm) in enumerate(zip(stack.layers, self.norms, strict=True)):
            y = F.gelu(norm(layer[0](x)))
            x = x + y if x.shape == y.shape else y
            if str(k) in stack.gates:
                x = F.glu(stack.gates[str(k)][0](x), dim=1)
        if ours.aggregation is None:
            return ours.heads["output"](x)
        return ours.heads["output"](ours.aggregation(ours.final(x)))


def batch(n_batch: int, n_channels: int, n_times: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return windows, subjects, the table of positions and the recording of each window."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n_batch, n_channels, n_times, generator=generator)
    table = torch.rand(N_RECORDINGS, n_channels, 2, generator=generator)
    recordings = torch.arange(n_batch) % N_RECORDINGS
    return x, recordings % N_SUBJECTS, table, recordings


def in_turn(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the least seconds of both, called alternately."""
    best = [math.inf, math.inf]
    for _ in range(repeats):
        for k, call in enumerate((ours, peer)):
            start = time.perf_counter()
            call()
            best[k] = min(best[k], time.perf_counter() - start)
    return best[0], best[1]


def report(case: str, seconds: tuple[float, float], peer: str, agree: bool, **more: object) -> None:
    ours_s, peer_s = (float(f"{value:.4g}") for value in seconds)
    line = {"case": case, "ours_s": ours_s, "peer": peer, "peer_s": peer_s, "ratio": round(peer_s / ours_s, 2)}
    print(json.dumps(line | {"agree": agree} | more), flush=True)


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Equal to rounding in float32, measured against the largest value."""
    return bool((ours - theirs).abs().max() <= 5e-5 * theirs.abs().max())


def build(config: BrainModuleConfig, n_outputs: int, n_times: int | None = None, **options: int) -> BrainModule:
    return config.build(
        N_SUBJECTS, n_outputs, n_times=n_times, generator=torch.Generator().manual_seed(0), **options
    )  # fmt: skip


# %%
def training_step(name: str, n_outputs: int, n_batch: int, n_channels: int, n_times: int, repeats: int) -> None:
    """Forward and backward; the random disc of sensors is left out, so that both compute the same."""
    config = dataclasses.replace(BRAIN_MODULES[name], dropout_radius=0.0)
    ours = build(config, n_outputs, n_times)
    plain = Plain(ours)
    x, subjects, table, recordings = batch(n_batch, n_channels, n_times)

    def step(call: Callable[[], Tensor]) -> Tensor:
        ours.zero_grad()
        y = call()
        y.square().mean().backward()
        return y.detach()

    calls = lambda: ours(x, subjects, table, recordings), lambda: plain(x, subjects, table[recordings])
    found = []
    for call in calls:
        y = step(call)
        found.append((y, ours.spatial.attention.heads.grad.clone(), ours.convolutions.layers[0][0].weight.grad.clone()))
    agree = all(same(*pair) for pair in zip(*found, strict=True))
    seconds = in_turn(lambda: step(calls[0]), lambda: step(calls[1]), repeats)
    report(f"training step, {name}, {n_batch} windows {n_channels} x {n_times}", seconds, "plain PyTorch", agree)


@torch.no_grad()
def inference(name: str, n_outputs: int, n_batch: int, n_channels: int, n_times: int, repeats: int) -> None:
    """The path of one matrix against the plain network, and against our own layers."""
    ours = build(BRAIN_MODULES[name], n_outputs, n_times).eval().requires_grad_(False)
    plain = Plain(ours)
    x, subjects, table, recordings = batch(n_batch, n_channels, n_times)

    def fused() -> Tensor:
        return ours(x, subjects, table, recordings)

    def layers() -> Tensor:
        # With gradients enabled the layers run; no parameter wants one, so that no graph is kept.
        with torch.enable_grad():
            return ours(x, subjects, table, recordings)

    def reference() -> Tensor:
        return plain(x, subjects, table[recordings])

    before = spatial_path.calls["fused"]
    y = fused()
    ran = spatial_path.calls["fused"] == before + 1
    case = f"inference, {name}, {n_batch} windows {n_channels} x {n_times}"
    for peer, call in (("our layers, one by one", layers), ("plain PyTorch", reference)):
        report(case, in_turn(fused, call, repeats), peer, ran and same(y, call()))
    path = f"spatial path of {name}, {n_batch} windows {n_channels} x {n_times}"

    def path_by_layers() -> Tensor:
        with torch.enable_grad():
            return ours.spatial(x, subjects, table, recordings)

    def path_fused() -> Tensor:
        return ours.spatial(x, subjects, table, recordings)

    agree = same(path_fused(), path_by_layers())
    report(path, in_turn(path_fused, path_by_layers, repeats), "our layers, one by one", agree)


def contrastive(n_batch: int, n_features: int, n_times: int, repeats: int) -> None:
    """The loss, forward and backward, against the formula written out."""
    generator = torch.Generator().manual_seed(0)
    estimates, candidates = (torch.randn(n_batch, n_features, n_times, generator=generator) for _ in range(2))
    estimates.mul_(0.01).requires_grad_()
    loss = ClipLoss()

    def ours() -> Tensor:
        estimates.grad = None
        value = loss(estimates, candidates)
        value.backward()
        return value.detach()

    def plain() -> Tensor:
        estimates.grad = None
        unit = candidates / (1e-8 + candidates.norm(dim=(1, 2), p=2, keepdim=True))
        value = F.cross_entropy(torch.einsum("bft,oft->bo", estimates, unit), torch.arange(n_batch))
        value.backward()
        return value.detach()

    first, gradient = ours(), estimates.grad.clone()
    agree = same(first, plain()) and same(gradient, estimates.grad)
    case = f"contrastive loss, {n_batch} windows {n_features} x {n_times}"
    report(case, in_turn(ours, plain, repeats), "plain PyTorch", agree)


def against_braindecode(n_batch: int, n_channels: int, n_times: int, repeats: int) -> None:
    """A training step of the part that both have: 1x1 layer, convolutions, mean over time, linear layer."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of its own optional parts
            import braindecode
            from braindecode.models import BrainModule as Peer
    except ImportError as error:
        print(f"braindecode is left out ({error})", flush=True)
        return
    config = dataclasses.replace(BRAIN_MODULES["small"], n_heads=None, subject="none", final_width=None)
    config = dataclasses.replace(config, initial_linear=config.hidden)
    ours = build(config, 16, n_channels=n_channels)
    peer = Peer(
        n_chans=n_channels, n_outputs=16, n_times=n_times, sfreq=120, hidden_dim=config.hidden, depth=config.depth
    )  # fmt: skip
    # Both hold the same weights in the same order, up to the axis of the 1x1 convolution.
    with torch.no_grad():
        for mine, theirs in zip(weights_in_order(ours), weights_in_order(peer), strict=True):
            theirs.copy_(mine.view(theirs.shape))
    x = batch(n_batch, n_channels, n_times)[0]
    last = ours.heads["output"].last

    def step(net: nn.Module, call: Callable[[], Tensor]) -> Tensor:
        net.zero_grad()
        y = call()
        y.square().mean().backward()
        return y.detach()

    def our_step() -> Tensor:
        pool = MeanOverTime().projected
        return step(ours, lambda: pool(ours.convolutions(ours.spatial(x)), last.weight[..., 0], last.bias))

    def peer_step() -> Tensor:
        return step(peer, lambda: peer(x))

    agree = same(our_step(), peer_step())
    pairs = zip(weights_in_order(ours), weights_in_order(peer), strict=True)
    agree = agree and all(same(a.grad.view(b.shape), b.grad) for a, b in pairs if b.grad.abs().max() > 1e-6)
    case = f"training step, small without attention and subjects, {n_batch} windows {n_channels} x {n_times}"
    report(case, in_turn(our_step, peer_step, repeats), f"braindecode {braindecode.__version__} BrainModule", agree)


def weights_in_order(net: nn.Module) -> list[nn.Parameter]:
    """Return 1x1 layer, convolutions, gates and last layer; each network lists its own in this order."""
    return list(net.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, help="threads of PyTorch; by default as many as there are cores")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    training_step("small", 64, 32, 60, 120, args.repeats)
    training_step("small-images", 768, 32, 60, 120, args.repeats)
    against_braindecode(32, 60, 120, args.repeats)
    inference("small", 64, 16, 60, 120, args.repeats)
    inference("benchetrit", 768, 1, 272, 181, args.repeats)
    inference("defossez", 1024, 1, 208, 343, args.repeats)
    contrastive(32, 1024, 343, args.repeats)


if __name__ == "__main__":
    main()
