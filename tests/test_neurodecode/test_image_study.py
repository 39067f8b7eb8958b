"""A subject of a study as training and test: responses, images and captions in one order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes import nsd as fake
from fakes.scripts import call

from neurodecode.fmri import ImagePart, ImageStudy, image_study
from neuroloaders import StimulusSplit
from neuroloaders.studies.nsd import NSDStudy


def _write_pictures(root, ids) -> None:
    """Write pictures of 12 x 12 pixels in the place of NSD's; those that nobody saw take no room."""
    import h5py

    path = root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        images = file.create_dataset("imgBrick", (73000, 12, 12, 3), np.uint8, chunks=(1, 12, 12, 3))
        for uid in ids:
            images[uid] = np.random.default_rng(uid).integers(0, 256, (12, 12, 3), dtype=np.uint8)


def _caption(uid: int) -> str:
    return "a " + "".join("abcdefghij"[int(digit)] for digit in str(uid))


@pytest.fixture(scope="module")
def nsd(tmp_path_factory):
    root = tmp_path_factory.mktemp("nsd")
    fake.write_nsd(root, sessions={1: (1,)})
    study = NSDStudy(root, cache=root / "cache")
    ids = np.unique(study.betas("subj01").stimuli)
    _write_pictures(root, ids)
    fake.write_captions(root, {int(uid): [_caption(uid), "a view"] for uid in ids})
    return root, study


def test_rows_of_responses_images_and_captions_belong_together(nsd) -> None:
    _, study = nsd
    found = image_study(study, "subj01")
    raw, split = study.betas("subj01"), study.split("subj01")
    for part, ids in ((found.train, split.train), (found.test, split.test)):
        assert set(part.betas.stimuli) == set(ids)
        for row in (0, len(part) - 1):
            uid = part.betas.stimuli[row]
            want = np.random.default_rng(uid).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            np.testing.assert_array_equal(part.images[row], want.transpose(2, 0, 1))
            assert part.captions[row] == [_caption(uid), "a view"]
            np.testing.assert_allclose(part.betas.betas[row], raw.betas[raw.stimuli == uid].mean(0), rtol=1e-5)
    assert {"V1", "floc-faces"} <= set(found.rois)


def test_a_part_without_images_or_with_those_of_the_other_is_refused(nsd) -> None:
    _, study = nsd
    seen = np.unique(study.betas("subj01").stimuli)
    empty = StimulusSplit(train=seen, valid=seen[:0], test=np.array([], dtype=seen.dtype))
    with pytest.raises(ValueError, match="for test that were shown"):
        image_study(study, "subj01", split=empty)
    found = image_study(study, "subj01")
    with pytest.raises(ValueError, match="share no image"):
        ImageStudy(train=found.train, test=found.train, name="x")
    with pytest.raises(ValueError, match="same length"):
        ImagePart(betas=found.train.betas, images=found.train.images[:3])


def test_script_decodes_a_subject_in_the_layout_of_nsd(nsd, tmp_path) -> None:
    """The real path of the example: files of NSD, released networks (here tiny), report."""
    import torch

    from neurodecode.fmri import VDVAE, VDVAEConfig
    from neurodecode.generate import save_tiny_versatile

    root, _ = nsd
    VDVAE(VDVAEConfig.tiny(8, 8), generator=torch.Generator().manual_seed(0)).save(tmp_path / "vdvae")
    save_tiny_versatile(tmp_path / "generator", image_size=16, width=16, depth=1)
    out = tmp_path / "run"
    options = ["--nsd", root, "--subject", 1, "--vdvae", tmp_path / "vdvae", "--generator", tmp_path / "generator"]
    done = call("neurodecode_brain_diffuser.py", *options, "--alpha", "paper", "--n-test", 6, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((out / "results.json").read_text())
    assert set(results["stages"]) == {"low_level", "text", "image"}
    assert results["metrics"]["n_images"] == 6
    assert abs(results["metrics"]["scores"]["pixcorr"]) < 0.3  # noise was recorded
    page = (out / "report.html").read_text()
    assert "Scenes of regions" in page
    assert "Table 1 of Ozcelik" in page
    again = call("neurodecode_brain_diffuser.py", *options, "--alpha", "paper", "--n-test", 6, "--out", out)
    assert again.stdout.startswith("Found the finished")
    nothing = call("neurodecode_brain_diffuser.py", "--nsd", tmp_path / "none", "--out", tmp_path / "other")
    assert nothing.returncode == 1
    assert "`vdvae` must be given" in nothing.stderr
