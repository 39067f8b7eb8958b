"""How does a synapse know that the reward is for it, seconds later? STDP with dopamine, Izhikevich 2007.

1000 neurons with 100 synapses each fire at random. One synapse of 80 000 is chosen: whenever its two neurons fire one
after the other within 10 ms, dopamine comes to all synapses, one to three seconds later. By then all have fired again,
but a coincidence leaves a mark that lasts a second (the eligibility), and dopamine turns marks into weight. Figure 1 of
Cerebral Cortex 17 (2007), doi:10.1093/cercor/bhl152. As a control each network gets the same number of rewards at times
that have nothing to do with it: those of another network.

    python examples/reservoir_dopamine_stdp.py                       # an hour of three networks and controls: a minute
    python examples/reservoir_dopamine_stdp.py --delay-ms 5000 6000  # too late: nothing is learned
    python examples/reservoir_dopamine_stdp.py --fake                # two minutes of two networks: does it run?

Paper: the synapse, from 0, meets the bound of 4 mV, and the others stay low. (A minute on two cores; 100 s on one.)
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
from reservoir import Record, Recording, Reservoir, simulate
from reservoir.distal_reward import DistalReward, distal_reward_network
from reservoir.plasticity import Plasticity
from reservoir.rules import DopamineSTDP
from snn import experiment
from snn.plots import save_figure

RULE = DopamineSTDP()
# The synapse that is rewarded, and some beside it, all from the first neuron; weights are kept every 50 ms.
CHOSEN, N_WATCHED, EVERY_MS = 0, 40, 50
BLUE, RED, GREY = "#0072B2", "#D55E00", "#555555"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to run.

    Parameters
    ----------
    duration_s
        How long, simulated seconds.
    networks
        How many networks, each with a control; at least 2.
    delay_ms
        Bounds of the delay of a reward, at least 1000.
    seed
        Of the first network.
    out
        Folder for figure and table.
    fresh
        Forget the run that is there.
    fake
        Two networks, two minutes.
    """

    duration_s: float = 3600.0
    networks: int = 3
    delay_ms: tuple[float, float] = (1000.0, 3000.0)
    seed: int = 0
    out: Path = Path("runs/dopamine_stdp")
    fresh: bool = False
    fake: bool = False


# %%
def networks(config: Config) -> list[Reservoir]:
    """Draw the networks; the chosen synapse starts at 0."""
    nets = [distal_reward_network(generator=config.seed + k) for k in range(config.networks)]
    for net in nets:
        net.wiring.weight[CHOSEN] = 0.0
    return nets


def run(config: Config, nets: list[Reservoir], **rewards: Any) -> tuple[Plasticity, Recording]:
    """Run all networks side by side."""
    plasticity = Plasticity(RULE, watch=range(N_WATCHED), watch_every=EVERY_MS, **rewards)
    seeds = [config.seed + k for k in range(len(nets))]
    recording = simulate(
        nets, 1000 * config.duration_s, plasticity=plasticity, seed=seeds, record=Record(spikes="none"), progress=True
    )
    return plasticity, recording


def learn(config: Config) -> list[dict[str, float]]:
    """Reward the chosen synapse of each network; reward the controls at the times of the next one; draw."""
    nets = networks(config)
    teachers = [
        DistalReward(0, int(net.wiring.post[CHOSEN]), delay_ms=config.delay_ms, generator=config.seed + k)
        for k, net in enumerate(nets)
    ]
    learned, recording = run(config, nets, on_spikes=lambda *heard: teachers[heard[2]](*heard), every_ms=1000.0)
    times = [[(time, teacher.amount) for time, _ in teacher.rewards] for teacher in teachers]
    control, _ = run(config, nets, rewards=times[1:] + times[:1])
    rows = []
    for k in range(len(nets)):
        w, synapses = learned.weights[:, k, CHOSEN], recording.state.synapses
        others = synapses.weights(k)[synapses.is_plastic[k] != 0][1:]
        full = np.flatnonzero(w >= RULE.w_max - 0.01)
        rows.append(
            {
                "seed": config.seed + k,
                "rewards": len(times[k]),
                "weight (mV)": w[-1],
                "highest (mV)": w.max(),
                "at the bound after (s)": learned.t_ms[full[0]] / 1000 if len(full) else None,
                "others, mean (mV)": others.mean(),
                "others below it (%)": 100 * (others < w[-1]).mean(),
                "control (mV)": control.weights[-1, k, CHOSEN],
                "control, highest (mV)": control.weights[:, k, CHOSEN].max(),
            }
        )
    draw(config, learned, control, teachers[0], recording)
    return [{name: None if x is None else float(x) for name, x in row.items()} for row in rows]


def draw(config: Config, learned: Plasticity, control: Plasticity, teacher: DistalReward, recording: Recording) -> Path:
    """Draw one reward from near, the weights over the whole run, and where they end."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplot_mosaic(
        [["near", "end"], ["course", "course"]], figsize=(9.0, 6.4), layout="constrained", width_ratios=[1.5, 1]
    )
    near, t_s, w = axes["near"], learned.t_ms / 1000, learned.weights[:, :, CHOSEN]
    # Where the weight gained most in the second after a reward.
    given_s = np.array([time / 1000 for time, _ in teacher.rewards[:20]])
    given_s = given_s[given_s + 1.5 < t_s[-1]]
    if len(given_s):
        gained = np.interp(given_s + 1, t_s, w[:, 0]) - np.interp(given_s, t_s, w[:, 0])
        k = int(gained.argmax())
        when, given = teacher.coincidences[k][0] / 1000, given_s[k]
        inside = (t_s > when - 0.7) & (t_s < given + 1.5)
        parts = (
            ("eligibility (mV)", learned.eligibility[:, 0, CHOSEN], GREY, 0.0),
            ("dopamine (uM)", learned.dopamine[:, 0], RED, 1.5),
            ("weight (mV)", w[:, 0], BLUE, 3.0),
        )
        for name, values, colour, base in parts:
            y = values[inside]
            low, high = min(0.0, y.min()), max(y.max(), 1e-12)
            near.plot(t_s[inside] - when, base + (y - low) / (high - low), color=colour)
            label = f"{name}, {low:.2g} to {high:.2g}"
            near.text(-0.68, base + 1.08, label, color=colour, fontsize=8, bbox={"color": "white", "pad": 1})
        near.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
        near.axvline(given - when, color=RED, linewidth=0.8, linestyle=":")
        near.set(xlabel="time after the coincidence (s)", yticks=[], ylim=(-0.1, 4.4))
    near.set_title("The most effective of the first 20 rewards", fontsize=10)
    course, minutes = axes["course"], t_s / 60
    course.plot(minutes[::20], learned.weights[::20, 0, 1:], color="black", alpha=0.15, linewidth=0.6)
    for lane in range(w.shape[1]):
        course.plot(minutes[::20], w[::20, lane], color=BLUE, linewidth=1.5, alpha=1 - 0.25 * lane)
        course.plot(minutes[::20], control.weights[::20, lane, CHOSEN], color=RED, linewidth=1.1, linestyle="--")
    for label, style in {
        "rewarded synapse, each network": {"color": BLUE},
        "the same, rewarded at others' times": {"color": RED, "linestyle": "--"},
        f"{N_WATCHED - 1} synapses beside it": {"color": "black", "alpha": 0.3, "linewidth": 0.8},
    }.items():
        course.plot([], [], label=label, **style)
    course.set(xlabel="time (min)", ylabel="weight (mV)", xlim=(0, minutes[-1]), ylim=(-0.05, RULE.w_max * 1.22))
    course.legend(loc="upper left", ncols=3, fontsize=8, frameon=False)
    synapses = recording.state.synapses
    axes["end"].hist(synapses.weights()[synapses.is_plastic[0] != 0], bins=40, color=GREY)
    axes["end"].axvline(w[-1, 0], color=BLUE, linewidth=2, label="rewarded")
    axes["end"].set(xlabel="weight at the end (mV)", ylabel="synapses", yscale="log", xlim=(0, RULE.w_max * 1.02))
    axes["end"].legend(fontsize=8, frameon=False, loc="upper right")
    axes["end"].set_title("All plastic synapses of one network", fontsize=10)
    for ax in axes.values():
        ax.spines[["top", "right"]].set_visible(False)
    return save_figure(fig, config.out / experiment.FIGURES / "rewarded_synapse.png")


# %%
def table(rows: list[Mapping[str, Any]]) -> str:
    """Return a column for each network."""
    lines = [f"{'':24}" + "".join(f"{'seed ' + format(row['seed'], '.0f'):>9}" for row in rows)]
    for name in rows[0]:
        if name != "seed":
            digits = 0 if name in ("rewards", "at the bound after (s)") else 2
            cells = ("never" if row[name] is None else f"{row[name]:.{digits}f}" for row in rows)
            lines.append(f"{name:24}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def main(config: Config) -> None:
    """Run, or find the finished run, and print."""
    check_int("networks", config.networks, at_least=2)
    check_number("duration_s", config.duration_s, at_least=10)
    check_number("delay_ms", config.delay_ms[0], at_least=1000, advice="Coincidences are looked for once a second.")
    if config.fake:
        config = replace(config, networks=2, duration_s=120.0)
    settings = {name: value for name, value in asdict(config).items() if name not in ("out", "fresh")}
    settings["delay_ms"] = list(config.delay_ms)
    done = experiment.begin(config.out, settings, fresh=config.fresh)
    if done is None:
        rows = learn(config)
        experiment.finish(config.out, {"rows": rows}, rows)
    else:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
        rows = done["rows"]
    print(f"Look at {config.out / experiment.FIGURES / 'rewarded_synapse.png'} first.\n\n{table(rows)}\n")
    print("control: the same synapse in the same network, with the rewards of another one.")
    print(f"Written: {config.out / experiment.FIGURES}, {config.out / experiment.TABLE}.")
    print(
        "Next: --delay-ms 5000 6000 --out runs/late (the mark lasts a second); reservoir.rules.STDP, the same without"
    )
    print("dopamine; Plasticity(on_spikes=...) to reward whatever a network does.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"reservoir_dopamine_stdp: {error}")
