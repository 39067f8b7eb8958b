"""From a patch-clamp recording to a cell of a network: the Izhikevich parameters that do what a real cell did.

A cell was given steps of current, and its potential was recorded. Which C, k, a, b, c, d fire as it did? A quarter of
the sweeps is kept out of the fit, and these are what is reported. Then the cell that was found makes up a network.

    python examples/reservoir_fit_cell.py                # a real cell, half a minute on one core
    python examples/reservoir_fit_cell.py --recording 2019_07_24_0055_fsi   # a fast-spiking one
    python examples/reservoir_fit_cell.py --form 2003    # the simpler equations on the same cell
    python examples/reservoir_fit_cell.py --fake         # a simulated cell, a small search: does it run?

Recordings of pyABF (S. W. Harden, MIT licence) are looked for in NEUROLOADERS_DATA, or in ../shared/data beside a
checkout; where there are none, a simulated RS cell of Izhikevich 2007 takes their place, whose parameters are known.
The paper on the coincidence factor (Jolivet et al. 2008, doi:10.1016/j.jneumeth.2007.11.006) drives cells with noise;
steps of 500 ms are harder, as a cell does not repeat its own spikes to 4 ms in them.
"""

# %%
from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from neuroloaders.folders import search_folders
from reservoir import Izhikevich, Population, Record, Reservoir, simulate
from reservoir.fitting import IzhikevichFit, fit_figure, fit_izhikevich
from snn import experiment
from snn.plots import save_figure

FILE = Path("patch_clamp") / "pyabf_current_clamp.npz"
SIMULATED = "simulated"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to fit.

    Parameters
    ----------
    recording
        Name in the file of recordings, or 'simulated'; by default 171116sh_0018 if it is found.
    form
        The equations.
    loss
        What is minimised.
    seed
        Of the search.
    data_dir
        Folder of recordings; by default looked for.
    out
        Folder for everything; by default runs/fit-RECORDING-FORM.
    fresh
        Forget the run that is there.
    fake
        A simulated cell and a small search.
    """

    recording: str | None = None
    form: Literal["2007", "2003"] = "2007"
    loss: Literal["features", "gamma", "voltage"] = "features"
    seed: int = 0
    data_dir: Path | None = None
    out: Path | None = None
    fresh: bool = False
    fake: bool = False


# %%
def load(config: Config) -> tuple[str, np.ndarray, np.ndarray, float]:
    """Return name, potentials in mV, currents in pA, and samples a second."""
    folders = search_folders(config.data_dir)
    files = [folder / FILE for folder in folders if (folder / FILE).is_file()]
    name = config.recording or ("171116sh_0018" if files else SIMULATED)
    if config.fake or name == SIMULATED:
        return SIMULATED, *known_cell()
    if not files:
        raise FileNotFoundError(f"{FILE} is in none of {', '.join(map(str, folders))}. Pass --recording simulated.")
    with np.load(files[0], allow_pickle=False) as arrays:
        about = json.loads(str(arrays["info"]))
        if name not in about:
            raise ValueError(f"`recording` must be one of {', '.join(about)}, got {name!r}.")
        return name, arrays[f"{name}_V"], arrays[f"{name}_I"], float(about[name]["fs"])


def known_cell() -> tuple[np.ndarray, np.ndarray, float]:
    """Record an RS cell of Izhikevich 2007 in steps of current, with 0.3 mV of noise from an amplifier."""
    current = np.zeros((9, 8000))
    current[:, 1500:6500] = np.linspace(-50, 200, 9)[:, None]
    net = Reservoir.from_edges(9, [], [], [], Izhikevich("RS", form="2007"), dt_ms=0.1)
    v = simulate(net, current.T, record=Record(traces=("v",))).traces["v"][:, 0].T
    return v + np.random.default_rng(0).normal(0, 0.3, v.shape), current, 10_000.0


def network_of(fit: IzhikevichFit) -> float:
    """Return the mean rate, in Hz, of 200 such cells that excite each other, each with a current of its own."""
    # Less than what takes the cell from rest to its threshold; cells differ in it.
    reach = fit.measured.threshold_mV - fit.measured.rest_mV
    drive = fit.input_gain * 400 * reach / fit.measured.resistance_MOhm
    cells = Population(size=200, neuron=fit.cell, gain=0.02 * drive, bias=(fit.input_bias + drive, drive / 2))
    net = Reservoir(200, populations={"fitted": cells}, dt_ms=fit.dt_ms, v_min=None, generator=0)
    return float(simulate(net, 1000.0).rates_hz().mean())


def main(config: Config) -> None:
    """Fit, or find the finished fit, and print."""
    name, voltage, current, sfreq = load(config)
    out = config.out or Path("runs") / f"fit-{name}-{config.form}{'-fake' if config.fake else ''}"
    settings = {"recording": name, "form": config.form, "loss": config.loss, "seed": config.seed, "fake": config.fake}
    done = experiment.begin(out, settings, fresh=config.fresh)
    picture = out / experiment.FIGURES / "fit.png"
    if done is None:
        print(f"{name}: {len(voltage)} sweeps of {voltage.shape[1] / sfreq:g} s at {sfreq / 1000:g} kHz", flush=True)
        small = {"n_iterations": 60, "n_candidates": 40} if config.fake else {}
        show = sys.stderr.isatty()
        options = {"form": config.form, "loss": config.loss, "generator": config.seed, "progress": show, **small}
        fit = fit_izhikevich(voltage, current, sfreq, **options)
        fit.save(out / "cell.json")
        save_figure(fit_figure(fit, voltage, current, sfreq), picture)
        rows = [{"parameter": p.name, "value": p.value, "unit": p.unit, "at_bound": p.at_bound} for p in fit.parameters]
        done = {"rows": rows, "network_hz": network_of(fit)}
        experiment.finish(out, done, rows)
    else:
        print(f"Found the finished run in {out}. To start anew, add --fresh.")
        fit = IzhikevichFit.load(out / "cell.json")
    print(f"Look at {picture} first.\n\n{fit.table()}\n\n{fit.summary()}")
    if name == SIMULATED and config.form == "2007":
        print(f"The truth: {Izhikevich('RS', form='2007')}")
    print(f"200 such cells, connected: {done['network_hz']:.1f} Hz.\n")
    print(f"Written: {out / 'cell.json'} (IzhikevichFit.load reads it), {picture}, {out / experiment.TABLE}.")
    print("Next: another seed (--seed 1 --out runs/seed1): which parameters stay? Or your own recording:")
    print("reservoir.fitting.fit_izhikevich(voltage_mV, current_pA, sfreq), sweeps as rows or as a list.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"reservoir_fit_cell: {error}")
