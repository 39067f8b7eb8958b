"""A thousand neurons that find rhythms by themselves: the network of Izhikevich 2003.

800 neurons that excite and 200 that inhibit, no two alike, all connected to all, driven by noise. Nothing in them
oscillates, and the network does: at about 10 Hz (alpha) and about 40 Hz (gamma), as in figure 3 of the paper
(IEEE Transactions on Neural Networks 14, 2003, doi:10.1109/TNN.2003.820440), whose program net.m this is.

    python examples/reservoir_izhikevich_2003.py               # 20 networks, under 20 seconds
    python examples/reservoir_izhikevich_2003.py --gain 1.2    # stronger synapses: what becomes of the rhythms?
    python examples/reservoir_izhikevich_2003.py --fake        # two networks: does it run?

The paper shows one run and gives no numbers; net.m itself, over 20 seeds, fires at 7.58 (E) and 7.33 Hz (I), with 19 %
of the power between 7 and 13 Hz and 34 % between 30 and 60 Hz.
"""

# %%
from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from neuroloaders.checks import check_int, check_number
from reservoir import Izhikevich, Recording, Reservoir, Synapse, simulate
from reservoir.analysis import BANDS, Spectrum, firing_rates, population_rate, power_spectrum, spike_trains
from reservoir.plots import raster
from snn import experiment
from snn.plots import save_figure

N_EXCITE, N_INHIBIT = 800, 200
SHOWN = ("alpha", "gamma")
# net.m over 20 seeds.
NET_M = {"rate E (Hz)": 7.58, "rate I (Hz)": 7.33, "alpha": 0.19, "gamma": 0.34}
SETTLED_MS = 100.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to run.

    Parameters
    ----------
    networks
        How many networks, each from a seed of its own.
    duration_ms
        How long each runs.
    gain
        Factor on all weights.
    seed
        The first seed.
    out
        Folder for figure and table.
    fresh
        Forget the run that is there.
    fake
        Two networks.
    """

    networks: int = 20
    duration_ms: float = 1000.0
    gain: float = 1.0
    seed: int = 0
    out: Path = Path("runs/izhikevich_2003")
    fresh: bool = False
    fake: bool = False


# %%
def network(seed: int, gain: float) -> Reservoir:
    """Draw a network as net.m does: neurons between two published kinds, weights up to 0.5 and down to -1."""
    rng = np.random.default_rng(seed)
    e, i = rng.random(N_EXCITE), rng.random(N_INHIBIT)
    neuron = Izhikevich(
        a=np.concatenate([np.full(N_EXCITE, 0.02), 0.02 + 0.08 * i]),
        b=np.concatenate([np.full(N_EXCITE, 0.2), 0.25 - 0.05 * i]),
        c=np.concatenate([-65 + 15 * e**2, np.full(N_INHIBIT, -65.0)]),
        d=np.concatenate([8 - 6 * e**2, np.full(N_INHIBIT, 2.0)]),
    )
    weights = gain * rng.random((N_EXCITE + N_INHIBIT,) * 2)
    weights[:N_EXCITE] *= 0.5
    weights[N_EXCITE:] *= -1.0
    noise = np.repeat([5.0, 2.0], [N_EXCITE, N_INHIBIT])
    # A current that lasts one step; v is free, as published.
    return Reservoir.from_weights(weights, neuron, synapse=Synapse(0.0), noise=noise, v_min=None)


def rhythms(recording: Recording) -> Spectrum:
    """Return the spectrum of the rate of all neurons, once the network has settled: one periodogram, no taper."""
    settled = spike_trains(recording, start_ms=SETTLED_MS)
    return power_spectrum(settled, segment_ms=settled.duration_ms, window="boxcar")


def measure(recording: Recording, spectrum: Spectrum) -> dict[str, float | None]:
    """Return rates, where the power is, and where it peaks in each band; None where it has no peak in it."""
    rates = firing_rates(recording)
    found = {"rate E (Hz)": rates[:N_EXCITE].mean(), "rate I (Hz)": rates[N_EXCITE:].mean()}
    for name in SHOWN:
        found[name] = spectrum.band_fraction(*BANDS[name])
        found[f"{name} peak (Hz)"] = spectrum.peak_hz(*BANDS[name])
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def draw(recording: Recording, mean: Spectrum, out: Path) -> Path:
    """Draw who fired, how many fired together, and the rhythms in that, the mean of all networks."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(3, figsize=(6.4, 7.2), layout="constrained", height_ratios=[3, 1, 1.5])
    populations = {"E": slice(0, N_EXCITE), "I": slice(N_EXCITE, N_EXCITE + N_INHIBIT)}
    raster(recording, populations=populations, ax=axes[0])
    axes[0].set_title("One network", fontsize=10)
    axes[0].set_xlabel("")
    rate = population_rate(recording)
    axes[1].plot(np.arange(len(rate)), rate, "k", linewidth=0.8)
    axes[1].set(xlabel="time (ms)", ylabel="rate (Hz)", xlim=axes[0].get_xlim())
    hz, power = mean.frequency_hz, mean.power
    shown = (hz >= 1) & (hz <= 80)
    axes[2].plot(hz[shown], 100 * power[shown], color="#0072B2")
    for name in SHOWN:
        axes[2].axvspan(*BANDS[name], color="#D55E00", alpha=0.15, linewidth=0)
        axes[2].text(np.mean(BANDS[name]), 0.91, name, ha="center", transform=axes[2].get_xaxis_transform())
    axes[2].set(xlabel="frequency (Hz)", ylabel="power (%)", xlim=(0, 80), ylim=(0, 120 * power[shown].max()))
    axes[2].set_title("Rate of all neurons, mean spectrum of all networks", fontsize=10)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return save_figure(fig, out / experiment.FIGURES / "rhythms.png")


# %%
def run(config: Config) -> list[dict[str, float | None]]:
    """Run the networks one after the other, draw, and return what each did."""
    rows, spectra, first = [], [], None
    for seed in range(config.seed, config.seed + config.networks):
        recording = simulate(network(seed, config.gain), config.duration_ms, seed=seed)
        spectrum = rhythms(recording)
        rows.append({"seed": seed, **measure(recording, spectrum)})
        hz, power = spectrum.frequency_hz, spectrum.power
        spectra.append(power / power[(hz >= 1) & (hz <= 200)].sum())
        first = recording if first is None else first
    draw(first, Spectrum(frequency_hz=hz, power=np.mean(spectra, axis=0)), config.out)
    return rows


def table(rows: list[Mapping[str, Any]]) -> str:
    """Return mean and standard deviation over the networks, beside those of net.m."""
    lines = [f"{'':18} {'mean':>7} {'sd':>6} {'net.m':>7}"]
    for name in rows[0]:
        if name != "seed":
            values = np.array([row[name] for row in rows if row[name] is not None])
            if not len(values):
                continue
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            known = f"{NET_M[name]:7.2f}" if name in NET_M else ""
            lines.append(f"{name:18} {values.mean():7.2f} {spread:6.2f} {known}".rstrip())
    return "\n".join(lines)


def main(config: Config) -> None:
    """Run, or find the finished run, and print."""
    check_int("networks", config.networks, at_least=1)
    check_number("duration_ms", config.duration_ms, at_least=2 * SETTLED_MS)
    networks = 2 if config.fake else config.networks
    settings = {"networks": networks, "duration_ms": config.duration_ms, "gain": config.gain, "seed": config.seed}
    done = experiment.begin(config.out, settings, fresh=config.fresh)
    if done is None:
        rows = run(Config(**settings, out=config.out))
        experiment.finish(config.out, {"rows": rows}, rows)
    else:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
        rows = done["rows"]
    print(f"Look at {config.out / experiment.FIGURES / 'rhythms.png'} first.\n\n{table(rows)}\n")
    print("alpha (7 to 13 Hz) and gamma (30 to 60 Hz): share of the power from 1 to 200 Hz.")
    print("White noise would have 3 % and 15 %.")
    print(f"Written: {config.out / experiment.FIGURES}, {config.out / experiment.TABLE}.")
    print("Next: --gain 0.5 --out runs/weak (what is left of the rhythms?); examples/notebooks/reservoir_raster.ipynb,")
    print("the same network while it runs; examples/reservoir_what_when.py, where one learns.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"reservoir_izhikevich_2003: {error}")
