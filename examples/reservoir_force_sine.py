"""A chaotic spiking network learns to hum 5 Hz, and goes on when its teacher has left: FORCE, Nicola & Clopath 2017.

Izhikevich neurons, wired at random so strongly that they fire irregularly. A readout is fed back into the network, and
recursive least squares (RLS) keeps it at the sine while the network finds an order of its own; then learning stops. The
constants are those of the paper's sine example (Nature Communications 8, 2208, doi:10.1038/s41467-017-01827-3, ModelDB
190565), with 1000 neurons in place of 2000.

    python examples/reservoir_force_sine.py                     # three networks, under 90 seconds
    python examples/reservoir_force_sine.py --frequency 8       # another song
    python examples/reservoir_force_sine.py --fake              # 300 neurons, coarse steps: does it run?

The paper shows the sine by a figure. The published equations in C, three seeds of 1000 neurons: error (RMSE) at the end
of training 0.020 to 0.029; after it, 4.98 to 5.00 Hz, amplitude 0.976 to 1.003, purity 0.992 to 0.995; 5 Hz of spikes
before, 37 after. Of the output after training the phase drifts, so an error against the teacher would say nothing.
"""

# %%
from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from neuroloaders.checks import check_int, check_number
from reservoir import FORCE, Izhikevich, Readout, Reservoir, State, Synapse, initial_state, simulate
from snn import experiment
from snn.plots import save_figure

# The published constants: gains of the recurrent and of the fed-back weights, pA; the bias is the rheobase.
GAIN, FEEDBACK, BIAS, P_CONNECT = 5e3, 5e3, 1000.0, 0.1
B, K, V_REST = -2.0, 2.5, -60.0
# What the same equations gave in C, for the table.
IN_C = {
    "training RMSE": "0.020 .. 0.029",
    "frequency (Hz)": "4.98 .. 5.00",
    "amplitude": "0.976 .. 1.003",
    "purity": "0.992 .. 0.995",
    "rate before (Hz)": "5.1",
    "rate after (Hz)": "37",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to run.

    Parameters
    ----------
    n
        Number of neurons.
    frequency
        Of the sine, Hz.
    part_ms
        How long the network runs freely, then learns, then is left alone: as long for each.
    dt_ms
        Time step.
    every_ms
        How often the weights are changed.
    seeds
        One network for each.
    out
        Folder for figure and table.
    fresh
        Forget the run that is there.
    fake
        300 neurons, steps of 0.5 ms, one seed, 2 s a part.
    """

    n: int = 1000
    frequency: float = 5.0
    part_ms: float = 5000.0
    dt_ms: float = 0.04
    every_ms: float = 0.8
    seeds: tuple[int, ...] = (1, 2, 3)
    out: Path = Path("runs/force_sine")
    fresh: bool = False
    fake: bool = False


# %%
def network(config: Config, seed: int) -> tuple[Reservoir, Readout, State]:
    """Draw a network, its readout with feedback, and where it starts."""
    n, rng = config.n, np.random.default_rng(seed)
    weights = GAIN * rng.standard_normal((n, n)) * (rng.random((n, n)) < P_CONNECT) / (P_CONNECT * np.sqrt(n))
    neuron = Izhikevich(
        form="2007", a=0.01, b=B, c=-65.0, d=200.0, v_peak=30.0, capacitance=250.0, k=K, v_rest=V_REST,
        v_threshold=V_REST + 40.0 - B / K,
    )  # fmt: skip
    synapse = Synapse(20.0, 2.0)
    net = Reservoir.from_weights(
        weights, neuron, synapse=synapse, dale=False, bias=BIAS, dt_ms=config.dt_ms, v_min=None
    )
    fed = rng.uniform(-FEEDBACK, FEEDBACK, (n, 1))
    readout = Readout(n, 1, tau_ms=20.0, rise_ms=2.0, feedback=fed, clip=(-np.inf, np.inf))
    return net, readout, initial_state(net, v=V_REST + 90.0 * rng.random(n), u=0.0)


def sine(config: Config, first_ms: float) -> np.ndarray:
    """Return the teacher of the part that begins then."""
    t_ms = first_ms + config.dt_ms * np.arange(round(config.part_ms / config.dt_ms))
    return np.sin(2 * np.pi * config.frequency * t_ms / 1000)


def pitch(z: np.ndarray, dt_ms: float) -> dict[str, float]:
    """Return the strongest frequency, the amplitude of the sine there, and the share of power within 1 Hz of it."""
    window, finer = np.hanning(len(z)), 8
    fine = np.abs(np.fft.rfft((z - z.mean()) * window, finer * len(z)))
    fine[:finer] = 0
    hz = np.fft.rfftfreq(finer * len(z), dt_ms / 1000)[fine.argmax()]
    angle = 2 * np.pi * hz * np.arange(len(z)) * dt_ms / 1000
    basis = np.stack([np.sin(angle), np.cos(angle), np.ones(len(z))], axis=1)
    a, b, _ = np.linalg.lstsq(basis, z, rcond=None)[0]
    power = np.abs(np.fft.rfft((z - z.mean()) * window)) ** 2
    near = np.abs(np.fft.rfftfreq(len(z), dt_ms / 1000) - hz) < 1
    return {"frequency (Hz)": hz, "amplitude": np.hypot(a, b), "purity": power[near].sum() / power.sum()}


def learn(config: Config, seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Run freely, learn, run alone; return numbers, and what there is to draw."""
    net, readout, state = network(config, seed)
    teacher = sine(config, config.part_ms)
    lessons = (None, FORCE(alpha=2.0, every_ms=config.every_ms).teach(teacher[:, None]), None)
    z, spikes, rates = [], [], []
    for lesson in lessons:
        recording = simulate(net, config.part_ms, readout=readout, rule=lesson, state=state, progress=True)
        state = recording.state
        z.append(readout.outputs[:, 0, 0])
        rates.append(recording.rates_hz().mean())
        t_ms, neurons = recording.spikes()
        spikes.append(np.stack([t_ms, neurons])[:, neurons < 30])
    last = round(1000 / config.dt_ms)
    found = {"training RMSE": np.sqrt(np.mean((z[1][-last:] - teacher[-last:]) ** 2)), **pitch(z[2], config.dt_ms)}
    found |= {"rate before (Hz)": rates[0], "rate after (Hz)": rates[2]}
    every = max(1, round(1 / config.dt_ms))
    shown = {"z": np.concatenate(z)[::every], "t_ms": np.arange(sum(map(len, z)))[::every] * config.dt_ms}
    return {name: float(value) for name, value in found.items()}, shown | {"spikes": np.concatenate(spikes, axis=1)}


def draw(config: Config, shown: Mapping[str, np.ndarray], out: Path) -> Path:
    """Draw output and spikes where learning begins, where it ends, and at the very end."""
    import matplotlib.pyplot as plt

    part, width = config.part_ms, min(1000.0, config.part_ms / 2)
    views = {
        "left alone, learning begins": part - width / 3,
        "learning ends": 2 * part - 2 * width / 3,
        "alone for a while": 3 * part - width,
    }
    fig, axes = plt.subplots(2, 3, figsize=(9.6, 4.4), layout="constrained", sharex="col", sharey="row")
    for (title, first), column in zip(views.items(), axes.T, strict=True):
        inside = (shown["t_ms"] >= first) & (shown["t_ms"] < first + width)
        t_ms = shown["t_ms"][inside]
        teaching = (t_ms >= part) & (t_ms < 2 * part)
        teacher = np.sin(2 * np.pi * config.frequency * t_ms / 1000)
        column[0].plot(t_ms[teaching] / 1000, teacher[teaching], color="#D55E00", linewidth=4, alpha=0.4)
        column[0].plot(t_ms / 1000, shown["z"][inside], color="#0072B2", linewidth=1.3)
        column[0].set_title(title, fontsize=10)
        when, who = shown["spikes"]
        here = (when >= first) & (when < first + width)
        column[1].plot(when[here] / 1000, who[here], "|", color="black", markersize=4)
        column[1].set(xlabel="time (s)", xlim=(first / 1000, (first + width) / 1000))
    axes[0, 0].set(ylabel="output", ylim=(-1.7, 1.7))
    axes[1, 0].set(ylabel="neuron", ylim=(-1, 30))
    axes[0, 1].plot([], [], color="#D55E00", linewidth=4, alpha=0.4, label="teacher")
    axes[0, 1].plot([], [], color="#0072B2", label="network")
    axes[0, 1].legend(loc="upper right", ncols=2, fontsize=8, frameon=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return save_figure(fig, out / experiment.FIGURES / "sine.png")


# %%
def table(rows: list[Mapping[str, Any]]) -> str:
    """Return a column for each network, and one of what was measured in C."""
    lines = [f"{'':17}" + "".join(f"{'seed ' + str(row['seed']):>9}" for row in rows) + "   in C (5 Hz)"]
    for name, known in IN_C.items():
        lines.append(f"{name:17}" + "".join(f"{row[name]:9.3f}" for row in rows) + f"   {known}")
    return "\n".join(lines)


def main(config: Config) -> None:
    """Run, or find the finished run, and print."""
    check_int("n", config.n, at_least=10)
    check_number("frequency", config.frequency, above=0)
    check_number("part_ms", config.part_ms, at_least=1000)
    if config.fake:
        config = replace(config, n=300, dt_ms=0.5, every_ms=1.0, part_ms=2000.0, seeds=config.seeds[:1])
    settings = {name: value for name, value in asdict(config).items() if name not in ("out", "fresh")}
    settings["seeds"] = list(config.seeds)
    done = experiment.begin(config.out, settings, fresh=config.fresh)
    if done is None:
        rows = []
        for seed in config.seeds:
            found, shown = learn(config, seed)
            rows.append({"seed": seed, **found})
            if seed == config.seeds[0]:
                draw(config, shown, config.out)
        experiment.finish(config.out, {"rows": rows}, rows)
    else:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
        rows = done["rows"]
    print(f"Look at {config.out / experiment.FIGURES / 'sine.png'} first.\n\n{table(rows)}\n")
    print("Purity: share of the power within 1 Hz of the strongest frequency, after learning has stopped.")
    print(f"Written: {config.out / experiment.FIGURES}, {config.out / experiment.TABLE}.")
    print("Next: --frequency 8 --out runs/faster; --every-ms 4 --out runs/lazy (how rarely may it learn?);")
    print("examples/reservoir_what_when.py, where FORCE meets a world that changes.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"reservoir_force_sine: {error}")
