"""Early exit: how much of the steps that are saved becomes time, in batches and one sample at a time.

Networks with random weights and thresholds set from random images: what costs time is the same as after training. The
confidence at which they stop is set so that samples take about two fifths of the T steps on average, some few, some
all. Ours is `DynamicConfidence.predict`; the peer is the same network run for all T, in the same process, by the
quicker of two ways: all steps in one call, or step by step. `bound` is T over the mean steps, what no batch can pass;
`share` is how much of it was reached. At batch 1 the peer is the plain loop over steps that stops as well; and the way
other packages do it, that loop over one sample after the other, is compared with a batch. Results are compared first:
labels and steps of the exits with those that the logits of whole runs give.

    python examples/benchmarks/bench_early_exit.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional as sj_functional
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

import snn
from snn.early_exit import DynamicConfidence
from snn.early_exit.running import run_to_the_end
from snn.stepping import as_stepper

BATCH, WANTED = 256, 0.4


def median_times(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each, called in turn after a warm-up, each round beginning with another one."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for k in range(repeats + 1):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = time.perf_counter()
            calls[name]()
            if k:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def decision(model: object, n_steps: int, logits: Tensor, accumulate: str, **options: object) -> DynamicConfidence:
    """Return a decision that stops after about `WANTED` of the steps on average."""
    scale = logits.double().std().item()
    labels = torch.zeros(logits.shape[1], dtype=torch.int64)
    on_logits = DynamicConfidence(None, n_steps, alpha=4 * scale, accumulate=accumulate)
    low, high = 0.0, 1.0
    for _ in range(12):  # mean steps do not fall as the threshold grows
        middle = (low + high) / 2
        on_logits.threshold = middle
        # Rounded: between two samples, and not on one.
        few = on_logits.predict(logits).mean_steps < WANTED * n_steps
        low, high = (middle, high) if few else (low, middle)
    del labels
    return DynamicConfidence(
        model, n_steps, alpha=on_logits.alpha, threshold=round(high, 3), accumulate=accumulate, **options
    )


def same_exits(decide: DynamicConfidence, logits: Tensor, x: Tensor) -> bool:
    """Compare what a run with exits answers with what the logits of whole runs give."""
    rule = decide.rule_
    replay = DynamicConfidence(
        None,
        rule.n_steps,
        rule.alpha,
        rule.threshold,
        accumulate=rule.accumulate,
        check_every=rule.check_every,
    )
    want, have = replay.predict(logits), decide.predict(x)
    # Convolutions on other batch sizes may round another way and flip single spikes.
    return all((a == b).float().mean() >= 0.99 for a, b in ((want.labels, have.labels), (want.steps, have.steps)))


def plain_loop(stepper: object, x: Tensor, decide: DynamicConfidence) -> tuple[int, int]:
    """Run one sample until it is sure, the way it is written down; return label and steps."""
    rule = decide.rule_
    with torch.no_grad():
        state = stepper.start(x)
        for step in range(1, rule.n_steps + 1):
            logits, state = stepper.run(state, 1)
            if step == 1:
                total = logits[0]
            else:
                total = total + logits[0] if rule.accumulate == "sum" else total.maximum(logits[0])
            if torch.softmax(total / rule.alpha, -1).max() > rule.threshold:
                break
    return int(total.argmax()), step


# --- networks -----------------------------------------------------------------------------------------------------


def images(n: int) -> Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def converted() -> tuple[nn.Module, int, Tensor, str, dict]:
    generator = torch.Generator().manual_seed(0)
    ann = snn.models.vgg(5, 10, in_shape=(1, 28, 28), width=0.5, classifier=(), generator=generator).eval()
    return snn.ann_to_snn(ann, images(64), n_steps=16), 16, images(BATCH), "sum", {}


def folded() -> tuple[nn.Module, int, Tensor, str, dict]:
    generator = torch.Generator().manual_seed(0)
    ann = snn.models.vgg(5, 10, in_shape=(1, 28, 28), width=0.5, classifier=(), generator=generator)
    net = snn.to_spiking(ann, 8)
    snn.calibrate_thresholds(net, images(64))
    return net, 8, images(BATCH), "sum", {}


def delays() -> tuple[nn.Module, int, Tensor, str, dict]:
    generator = torch.Generator().manual_seed(0)
    net = snn.models.delay_mlp(140, 20, hidden=(256, 256), max_delay=25, readout="max", generator=generator).eval()
    x = (torch.rand(100, BATCH, 140, generator=generator) < 0.05).float()
    for norm in net.norms:
        nn.init.constant_(norm.norm.weight, 6.0)  # so that about one neuron in ten spikes
    return net, 100, x, "max", {"check_every": 20}


def spikingjelly_network() -> tuple[nn.Module, int, Tensor, str, dict]:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(1, 32, 3, padding=1),
        neuron.IFNode(v_threshold=0.5, v_reset=None),
        layer.AvgPool2d(2),
        layer.Conv2d(32, 64, 3, padding=1),
        neuron.IFNode(v_threshold=0.2, v_reset=None),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(64 * 49, 10),
    ).eval()
    sj_functional.set_step_mode(net, "s")
    return net, 16, images(BATCH), "sum", {"inputs": "static"}


NETWORKS = {
    "VGG5, converted": converted,
    "VGG5, trained with spikes": folded,
    "delays 140-256-256-20": delays,
    "spikingjelly, two convolutions": spikingjelly_network,
}


def compare(name: str) -> None:
    """Time batches, then single samples."""
    net, n_steps, x, accumulate, options = NETWORKS[name]()
    inputs = options.get("inputs")
    stepper = as_stepper(net, **({"inputs": inputs} if inputs else {}))
    axis = 1 if accumulate == "max" else 0
    ways = {"at once": n_steps, "step by step": 1}

    def full(chunk: int, of: Tensor = x, size: int = BATCH) -> Tensor:
        return run_to_the_end(stepper, of, n_steps, chunk=chunk, batch_size=size, batch_axis=axis)

    logits = full(n_steps)
    decide = decision(net, n_steps, logits, accumulate, **options)
    agree, exits = same_exits(decide, logits, x), decide.predict(x)
    calls = {"ours": lambda: decide.predict(x)} | {way: lambda chunk=chunk: full(chunk) for way, chunk in ways.items()}
    times = median_times(calls, 5)
    best = min(ways, key=times.get)
    bound = n_steps / exits.mean_steps
    ratio = times[best] / times["ours"]
    report(
        f"{name}, T = {n_steps}, batch {BATCH}",
        times["ours"],
        f"all T, {best}",
        times[best],
        agree,
        mean_steps=round(exits.mean_steps, 2),
        bound=round(bound, 2),
        share=round(ratio / bound, 2),
    )
    one_by_one(name, decide, stepper, x, axis)


def one_by_one(name: str, decide: DynamicConfidence, stepper: object, x: Tensor, axis: int) -> None:
    """Compare single samples with the plain loop, and a batch with the plain loop over its samples."""
    if decide.rule_.check_every > 1:  # the plain loop looks at each step
        rule = decide.rule_
        decide = DynamicConfidence(decide.model, rule.n_steps, rule.alpha, rule.threshold, accumulate=rule.accumulate)
    some = [x.narrow(axis, k, 1) for k in range(0, BATCH, BATCH // 16)]
    found = [(int(one.labels), int(one.steps)) for one in map(decide.predict, some)]
    agree = found == [plain_loop(stepper, sample, decide) for sample in some]
    rule = decide.rule_
    ahead = DynamicConfidence(
        decide.model,
        rule.n_steps,
        rule.alpha,
        rule.threshold,
        accumulate=rule.accumulate,
        inputs=decide.inputs,
        look_ahead=4,
    )
    seen = [ahead.predict(sample) for sample in some]
    agree = agree and found == [(int(one.labels), int(one.steps)) for one in seen]
    times = median_times(
        {
            "ours": lambda: [decide.predict(sample) for sample in some],
            "ahead": lambda: [ahead.predict(sample) for sample in some],
            "loop": lambda: [plain_loop(stepper, sample, decide) for sample in some],
        },
        9,
    )
    for case, key in (("batch 1", "ours"), ("batch 1, look_ahead=4", "ahead")):
        report(f"{name}, {case}", times[key] / 16, "plain loop that stops", times["loop"] / 16, agree)
    batch = median_times({"ours": lambda: decide.predict(x)}, 3)["ours"]
    case = f"{name}, {BATCH} samples"
    report(case, batch, "plain loop that stops, sample after sample", times["loop"] / 16 * BATCH, agree)


def report(case: str, ours: float, peer: str, theirs: float, agree: bool, **more: object) -> None:
    line = {"case": case, "ours_s": round(ours, 6), "peer": peer, "peer_s": round(theirs, 6)}
    print(json.dumps(line | {"ratio": round(theirs / ours, 2), "agree": agree} | more), flush=True)


if __name__ == "__main__":
    for network in NETWORKS:
        compare(network)
