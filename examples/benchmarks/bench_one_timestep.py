"""Inference of a VGG9 on 32 x 32 images: one step against five, against its ANN, and against spikingjelly at five.

Prints one JSON line per case. All run the same weights on the same images, in turn; medians of repeated calls.
``agree`` says that the network of one step gives the answers of the spiking network at T = 1 exactly (it is the same
function), and that spikingjelly's network of five steps predicts the same classes as ours for at least 99 % of the
images (its convolutions see other batch sizes, which may round another way and flip single spikes).

    python examples/benchmarks/bench_one_timestep.py
"""

from __future__ import annotations

import copy
import json
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import snn
from snn.models import vgg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from spikingjelly.activation_based import functional as sj
    from spikingjelly.activation_based import layer, neuron

BATCH, STEPS = 32, 5


def in_turn(calls: dict[str, Callable[[], object]], repeats: int = 15) -> dict[str, float]:
    """Return the median seconds of each, called alternately after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for k in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if k >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


class SpikingjellyVGG(nn.Module):
    """The same layers and thresholds in spikingjelly's way: the image is fed at every step, IF with soft reset."""

    def __init__(self, model: snn.models.FoldedNetwork) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for part in (model.features, model.classifier):
            for module in part:
                if isinstance(module, snn.FoldedLIF):
                    layers.append(neuron.IFNode(v_threshold=module.v_threshold.item(), v_reset=None, step_mode="m"))
                elif not isinstance(module, nn.Identity):
                    layers.append(layer.SeqToANNContainer(copy.deepcopy(module)))
            if part is model.features:
                layers.append(nn.Flatten(2))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (B, K), of images, shape (B, C, H, W)."""
        sj.reset_net(self.layers)
        return self.layers(x.expand(STEPS, *x.shape)).sum(0)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    ann = vgg(9, 10, in_shape=(3, 32, 32), classifier=(1024,), generator=generator).eval()
    x = torch.randn(BATCH, 3, 32, 32, generator=generator)
    with torch.no_grad():
        # Batch statistics as training leaves them, so that the thresholds are those of a network that is alive.
        ann.train()(torch.randn(256, 3, 32, 32, generator=generator))
        ann.eval()
        spiking = snn.to_spiking(ann, STEPS)
        snn.calibrate_thresholds(spiking, torch.randn(64, 3, 32, 32, generator=generator))
        at_one = copy.deepcopy(spiking)
        at_one.n_steps = 1
        plain = snn.one_step_network(at_one)
        folded_ann = snn.fold_batchnorm(ann)
        theirs = SpikingjellyVGG(spiking).eval()
        same_function = torch.equal(plain(x), at_one(x))
        same_classes = (theirs(x).argmax(1) == spiking(x).argmax(1)).float().mean().item()
        times = in_turn(
            {
                "ANN": lambda: ann(x),
                "ANN, normalisation folded": lambda: folded_ann(x),
                "T=5": lambda: spiking(x),
                "T=1": lambda: plain(x),
                "spikingjelly, T=5": lambda: theirs(x),
            }
        )
    for peer, agree in (
        ("T=5", same_function),
        ("ANN", same_function),
        ("ANN, normalisation folded", same_function),
        ("spikingjelly, T=5", same_function and same_classes >= 0.99),
    ):
        line = {
            "case": f"VGG9, T=1, batch {BATCH}",
            "ours_s": round(times["T=1"], 6),
            "peer": peer,
            "peer_s": round(times[peer], 6),
            "ratio": round(times[peer] / times["T=1"], 2),
            "agree": agree,
        }
        print(json.dumps(line), flush=True)
    line = {
        "case": f"VGG9, T=5, batch {BATCH}",
        "ours_s": round(times["T=5"], 6),
        "peer": "spikingjelly, T=5",
        "peer_s": round(times["spikingjelly, T=5"], 6),
        "ratio": round(times["spikingjelly, T=5"] / times["T=5"], 2),
        "agree": same_classes >= 0.99,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
