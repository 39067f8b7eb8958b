"""From fMRI to the seen image: Brain-Diffuser (Ozcelik & VanRullen 2023, doi:10.1038/s41598-023-42891-8).

Betas -> latents of a VDVAE, of CLIP text and of CLIP vision, by one ridge regression; the VDVAE's decoder makes a first
guess of them, and Versatile Diffusion, guided by text and image, the image.

    python examples/neurodecode_brain_diffuser.py                        # a simulated subject, three minutes
    python examples/neurodecode_brain_diffuser.py --nsd PATH --subject 1 # NSD, with the released networks

Without data a subject is simulated: photographs are shown in a scanner (spm HRF, autocorrelated noise, known ceiling),
and every network is a small one that learns these photographs first. What comes out says whether the path works, not
how well brains can be decoded. With --nsd the networks are the released ones; nothing is downloaded here:

    --vdvae       folder with OpenAI's imagenet64-iter-1600000-model-ema.th, or its path
    --generator   shi-labs/versatile-diffusion, a folder or a name in the Hugging Face cache
    --metrics     folder with the weights of the networks of the eight metrics (optional)

A subject of NSD takes 30 GB of memory with regions, and an hour and more on a GPU, most of it diffusion.
"""

# %%
from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from neurodecode import MultiTargetRidge
from neurodecode.features import VdvaeLatents
from neurodecode.fmri import (
    PAPER_ALPHA,
    BrainDiffuser,
    evaluate_decoder,
    image_study,
    load_image_networks,
    region_preference,
    roi_scene,
    tiny_image_networks,
    voxel_weights,
)
from neurodecode.fmri.fake_study import FAKE_SETTINGS, FakeStudyConfig, fake_study
from neurodecode.generate import GenerationSettings, load_backend
from neurodecode.report import report, save_report
from neurodecode.scoring import score_targets
from neuroloaders import open_study
from neuroloaders.checks import invalid
from neuroloaders.studies import paper_regions
from snn import experiment


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to decode.

    Parameters
    ----------
    nsd
        Folder of NSD; without it a subject is simulated.
    subject
        Number of the subject.
    alpha
        Penalties: chosen for each target by cross-validation, or the paper's, which suppose NSD.
    standardize
        Statistics of predictions: from leave-one-out predictions, or from the test set as in the paper.
    vdvae, generator, metrics
        Where the networks are.
    n_test
        Decode only so many test images, for a first look.
    n_images, steps
        Of the simulated study: photographs, and training steps of each small network.
    seed
        Of the simulation and of the images.
    out
        Folder for everything; by default runs/brain-diffuser-SUBJECT.
    fresh
        Forget the run that is there.
    """

    nsd: Path | None = None
    subject: int = 1
    alpha: Literal["gcv", "paper"] = "gcv"
    standardize: Literal["loo", "test"] = "loo"
    vdvae: Path | None = None
    generator: str = "shi-labs/versatile-diffusion"
    metrics: Path | None = None
    n_test: int | None = None
    n_images: int = 500
    steps: int = 250
    seed: int = 0
    out: Path | None = None
    fresh: bool = False


# %%
def simulated(config: Config, out: Path) -> tuple[Any, dict[str, Any], Any, dict[str, Any]]:
    """Return study, what BrainDiffuser is made of, networks of the metrics, and how to generate."""
    fake = FakeStudyConfig(n_images=config.n_images, steps=config.steps, seed=config.seed)
    study, networks = fake_study(out, fake, progress=True)
    parts = {**networks.extractors, "backend": networks.backend}
    how = {"settings": FAKE_SETTINGS, "size": fake.image_size, "rois": lambda study: study.rois}
    return study, parts, tiny_image_networks(), how


def real(config: Config, out: Path) -> tuple[Any, dict[str, Any], Any, dict[str, Any]]:
    """The same for NSD."""
    if config.vdvae is None:
        raise invalid("vdvae", "be given with --nsd", "nothing", "Download it: see `--help`.")
    path = config.vdvae
    path = next(path.glob("*.th"), path) if path.is_dir() and not (path / "config.json").exists() else path
    backend = load_backend("versatile", config.generator)
    nsd, subject = open_study(config.nsd), f"subj{config.subject:02d}"
    study = image_study(nsd, subject, progress=True)
    networks = None if config.metrics is None else load_image_networks(config.metrics)
    parts = {"low_level": VdvaeLatents.load(path, device=backend.device), **backend.extractors, "backend": backend}
    how = {"settings": GenerationSettings(), "size": 425}
    how["rois"] = lambda study: paper_regions(nsd, subject, study.train.betas.mask)
    return study, parts, networks, how


def planted_score(study: Any) -> dict[str, float]:
    """Return how close ridge regression from the betas comes to the best linear decoder of what was planted."""
    model = MultiTargetRidge().fit(study.train.betas.betas, study.truth.train)
    found = score_targets(study.truth.test, model.predict(study.test.betas.betas)).r2
    ceiling = study.truth.decoder_ceiling()
    return {"r2": float(found.mean()), "ceiling": float(ceiling.mean()), "share": float((found / ceiling).mean())}


def decode(config: Config, out: Path) -> dict[str, Any]:
    """Fit, decode the test set, and write report, decoder and images."""
    study, parts, networks, how = (simulated if config.nsd is None else real)(config, out)
    print(
        f"{study.name}: {len(study.train)} + {len(study.test)} images, {study.train.betas.n_voxels} voxels", flush=True
    )
    ridge = MultiTargetRidge(alpha=PAPER_ALPHA) if config.alpha == "paper" else MultiTargetRidge()
    decoder = BrainDiffuser(**parts, ridge=ridge, standardize=config.standardize, cache=out / "features", progress=True)
    train, test = study.train, study.test.first(config.n_test)
    decoder.fit(train.betas, train.images, train.captions)
    decoder.save(out / "decoder")
    given = {"settings": how["settings"], "seed": config.seed}
    found = evaluate_decoder(
        decoder, test.betas, test.images, test.captions, train_images=train.images, networks=networks,
        size=how["size"], **given,
    )  # fmt: skip
    rois = how["rois"](study)
    scenes = dict(zip(rois, roi_scene(decoder, rois, **given).images, strict=True))
    preference = region_preference(voxel_weights(decoder.ridge_, decoder.layout_), rois)
    planted = None if study.truth is None else planted_score(study)
    notes = "" if study.truth is None else NOTE.format(**planted)
    made = report(
        found, title=f"Brain-Diffuser: {study.name}", regions=(scenes, preference), notes=notes,
        settings={name: str(value) for name, value in vars(config).items()},
    )  # fmt: skip
    save_report(made, out / experiment.REPORT)
    np.savez_compressed(out / "images.npz", images=found.reconstruction.images, stimuli=test.betas.stimuli)
    print(f"\n{found.metrics.table()}\n")
    return {**found.as_dict(), "planted": planted, "preference": preference}


NOTE = (
    "Simulated: photographs, a subject whose voxels are linear in principal components of the networks' latents, and"
    " small networks. Nothing here says how well brains can be decoded. Ridge regression explains {r2:.3f} of the"
    " variance of what was planted; the best linear decoder, {ceiling:.3f}."
)


def main(config: Config) -> None:
    """Decode, or find the finished run, and say what was written."""
    name = "simulated" if config.nsd is None else f"subj{config.subject:02d}"
    out = config.out or Path("runs") / f"brain-diffuser-{name}"
    settings = {key: None if value is None else str(value) for key, value in vars(config).items()}
    settings = {key: value for key, value in settings.items() if key not in ("out", "fresh")}
    done = experiment.begin(out, settings, fresh=config.fresh)
    if done is None:
        done = decode(config, out)
        rows = [{"metric": metric, "value": value} for metric, value in done["metrics"]["scores"].items()]
        experiment.finish(out, done, rows)
    else:
        print(f"Found the finished run in {out}. To start anew, add --fresh.")
    for kind, stage in done["stages"].items():
        print(f"{kind:10} R2 {stage['mean_r2']:6.3f} on test images, median alpha {stage['quartiles_alpha'][1]:.3g}")
    if done["planted"] is not None:
        print("planted    R2 {r2:6.3f}; the best linear decoder: {ceiling:.3f}".format(**done["planted"]))
    print(f"\nOpen {out / experiment.REPORT} first.")
    print(f"Written too: {out / 'images.npz'}, {out / 'decoder'}, {out / experiment.TABLE}.")
    print("Next: --standardize test for the paper's habit, or --nsd PATH for real brains; neurodecode_haxby.py for a")
    print("recording that fits on a laptop; BrainDiffuser.load(...) to decode single volumes.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"neurodecode_brain_diffuser: {error}")
