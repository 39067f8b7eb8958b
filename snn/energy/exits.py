"""Energy of inferences that end early: what was computed until each sample's exit, and no more."""

# T time steps, k steps of one call, B samples in the batch, N samples

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from neuroloaders.checks import check_int, invalid
from snn.energy.activity import MAC_RULES, hooks, undisturbed, weighted_layers
from snn.energy.meter import LayerActivity, MacRule, Meter, NeuronActivity

if TYPE_CHECKING:
    from snn.early_exit import DynamicConfidence, Exit
    from snn.stepping.protocol import Stepper

__all__ = ["ExitActivity", "measure_exits"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExitActivity:
    """What a network with exits computed.

    Attributes
    ----------
    exit : Exit
        Answers and steps.
    layers : tuple of LayerActivity
        Rates are sums up to the exit, means over the samples. Layers that run once, before the first neuron, are
        `static`; of the others `steps` is 0, and `evaluations` says more.
    evaluations : tuple of float
        How often each layer ran, mean over the samples.
    neurons : tuple of NeuronActivity
        Spikes per neuron up to the exit.
    """

    exit: Exit
    layers: tuple[LayerActivity, ...]
    evaluations: tuple[float, ...]
    neurons: tuple[NeuronActivity, ...]


class _ExitMeter(Meter):
    """Sums over calls of different lengths on different numbers of samples."""

    def __init__(self, batch_axis: int, kinds: Mapping[str, str]) -> None:
        super().__init__(1, batch_axis, kinds)
        self.seen: dict[str, int] = {}  # layer of neurons -> samples of the calls in which it ran

    def start_call(self, n_steps: int, batch: int) -> None:
        """Begin a call of `n_steps` steps on `batch` samples."""
        self.n_steps = n_steps
        self.start(batch)

    def see_neuron(self, name: str, x: Tensor | None, output: Tensor) -> None:
        """Add one call of a module that may be a layer of neurons."""
        super().see_neuron(name, x, output)
        self.seen[name] = self.seen.get(name, 0) + self.batch

    def layer(self, name: str, n_samples: int, fires: bool) -> tuple[LayerActivity, float]:
        """Return one layer as means over `n_samples` inferences, and how often it ran in each."""
        sums = self.layers[name]
        kind = self.kinds.get(name, "spikes" if fires and not sums.analog else "analog")
        evaluations = sums.rows / n_samples
        # Inputs of one evaluation, times the evaluations of an inference, times the mean: the sum over an inference.
        activity = LayerActivity(
            name=name,
            kind=kind,
            macs=sums.macs // sums.rows,
            n_inputs=sums.inputs // sums.rows,
            n_outputs=sums.outputs // sums.rows,
            bias=sums.bias,
            steps=0,
            static=False,
            rate=sums.spikes / sums.inputs * evaluations if kind == "spikes" else math.nan,
            nonzero_rate=sums.nonzero / sums.inputs * evaluations,
        )
        return activity, evaluations

    def neuron(self, name: str, n_samples: int) -> NeuronActivity:
        """Return one layer of neurons."""
        sums = self.neurons[name]
        count = float(sums.neurons) / self.seen[name]
        return NeuronActivity(name=name, n_neurons=round(count), rate=sums.spikes / (n_samples * count))


class _Counted:
    """A stepper whose calls are counted: what runs in `start` apart from what runs from step to step."""

    def __init__(self, stepper: Stepper, batch_axis: int, kinds: Mapping[str, str]) -> None:
        self.stepper, self.batch_axis = stepper, batch_axis
        self.once, self.each = (_ExitMeter(batch_axis, kinds) for _ in range(2))
        self.now, self.n_samples = self.once, 0

    def start(self, x: Tensor) -> Any:
        self.now, self.n_samples = self.once, x.shape[self.batch_axis]
        self.now.start_call(1, self.n_samples)
        return self.stepper.start(x)

    def run(self, state: Any, n_steps: int) -> tuple[Tensor, Any]:
        self.now = self.each
        self.now.start_call(n_steps, self.n_samples)
        return self.stepper.run(state, n_steps)

    def keep(self, state: Any, index: Tensor) -> Any:
        self.n_samples = len(index)
        return self.stepper.keep(state, index)

    # What the hooks of layers and neurons call.

    def see_layer(self, *seen: Any) -> None:
        self.now.see_layer(*seen)

    def see_neuron(self, *seen: Any) -> None:
        self.now.see_neuron(*seen)


def measure_exits(
    decide: DynamicConfidence,
    x: Tensor,
    *,
    batch_size: int = 64,
    rules: Mapping[type[nn.Module], MacRule] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> ExitActivity:
    """Let each sample leave when it is sure, and measure what every layer was fed until then.

    Parameters
    ----------
    decide : DynamicConfidence
        Fitted, with a model.
    x : Tensor
        N samples, as for `DynamicConfidence.predict`.
    batch_size : int
        Samples that start together. Each one is taken out of the batch at its exit, so that nothing is computed for it
        afterwards: as on hardware that has no batches.
    rules, kinds
        As in `snn.energy.measure_activity`.

    Returns
    -------
    ExitActivity

    Raises
    ------
    TypeError, ValueError
        If there is no network to look into, or a layer cannot be counted.
    """
    from snn.early_exit.running import run_until_sure

    check_int("batch_size", batch_size, at_least=1)
    rule, model = decide.rule_, decide.model
    network = decide.open(x)
    if not isinstance(model, nn.Module):
        model = getattr(model, "model", None)
    if not isinstance(model, nn.Module):
        advice = "Logits and functions do not show what computed them: pass the network."
        raise invalid("decide.model", "be a network of modules", decide.model, advice, kind=TypeError)
    if network.n_samples == 0:
        raise invalid("x", "have at least one sample", "none")
    layers = weighted_layers(model, {**MAC_RULES, **(rules or {})})
    counted = _Counted(network.stepper, network.batch_axis, dict(kinds or {}))
    with undisturbed(model), hooks(counted, model, layers):
        answers = run_until_sure(
            counted, x, rule, batch_size=batch_size, compact_below=1.0, batch_axis=network.batch_axis,
            device=network.device,
        )  # fmt: skip
    return _collect(counted, answers, len(answers))


def _collect(counted: _Counted, answers: Exit, n_samples: int) -> ExitActivity:
    once, each = counted.once, counted.each
    # A neuron and its own surrogate module both give the spikes: keep the outer one.
    found = [name for name, sums in each.neurons.items() if not (sums.analog or sums.relays)]
    found = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    fires = any(each.neurons[name].spikes for name in found)
    layers, evaluations = [], []
    for meter in (once, each):
        for name in meter.layers:
            activity, count = meter.layer(name, n_samples, fires)
            if meter is once:
                activity, count = dataclasses.replace(activity, static=True, steps=1), 1.0
            layers.append(activity)
            evaluations.append(count)
    return ExitActivity(
        exit=answers,
        layers=tuple(layers),
        evaluations=tuple(evaluations),
        neurons=tuple(each.neuron(name, n_samples) for name in found) if fires else (),
    )
