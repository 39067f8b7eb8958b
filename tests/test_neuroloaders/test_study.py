"""Which study lies in a folder."""

import numpy as np
import pytest
from fakes import nsd, things_fmri
from fakes.bids_meeg import write_bids_eeg
from fakes.brennan import write_brennan
from fakes.broderick import write_broderick
from fakes.meg_masc import write_meg_masc
from fakes.mous import write_mous
from fakes.things_eeg2 import write_things_eeg2
from fakes.things_meg import write_things_meg

from neuroloaders.studies.nsd import NSDStudy
from neuroloaders.studies.things_fmri import ThingsFMRIStudy
from neuroloaders.study import STUDIES, Study, StudyLayout, open_study


def _nsd(root):
    nsd.write_nsd(root, sessions={1: (1,)})


def _things(root):
    things_fmri.write_things(root / "betas_csv")


def _slice(root):
    nsd.write_volume(root / "bold.nii.gz", np.random.default_rng(0).integers(1, 99, (2, 2, 1, 6)).astype(np.int16))
    nsd.write_volume(root / "mask.nii.gz", np.ones((2, 2, 1), np.int16))
    (root / "attributes.txt").write_text("0 0\n1 0\n1 0\n2 0\n2 0\n0 0\n", encoding="utf-8")


def _openfmri(root):
    nsd.write_volume(root / "sub001/BOLD/task001_run001/bold_25mm.nii.gz", np.ones((2, 2, 1, 6), np.int16))
    (root / "models/model001").mkdir(parents=True)
    (root / "models/model001/condition_key.txt").write_text("task001 cond001 face\n", encoding="utf-8")


WRITERS = {
    "nsd": _nsd,
    "things-fmri": _things,
    "haxby-slice": _slice,
    "haxby": _openfmri,
    "meg-masc": write_meg_masc,
    "mous": write_mous,
    "broderick": write_broderick,
    "brennan": write_brennan,
    "things-meg": write_things_meg,
    "things-eeg2": write_things_eeg2,
    "bids": write_bids_eeg,
}


def test_each_layout_has_a_writer():
    assert set(WRITERS) == set(STUDIES)


@pytest.mark.parametrize("layout", STUDIES)
def test_each_layout_is_recognised_and_described(layout, tmp_path):
    WRITERS[layout](tmp_path)
    study = open_study(tmp_path)
    assert type(study) is STUDIES[layout].open
    assert isinstance(study, Study)
    assert study.kind in ("fmri", "meg", "eeg")
    assert all(subject in study.describe() for subject in study.subjects)
    assert study.subjects
    assert repr(study).startswith(type(study).__name__)


def test_a_folder_of_something_else_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(ValueError, match=r"nsd_expdesign\.mat.*betas_csv.*attributes\.txt.*notes\.txt, sub-01/"):
        open_study(tmp_path)
    with pytest.raises(FileNotFoundError, match="be a folder"):
        open_study(tmp_path / "nowhere")


def test_the_folder_above_or_below_is_proposed(tmp_path):
    root = tmp_path / "things"
    _things(root)
    (root / "notes").mkdir()
    with pytest.raises(ValueError, match=r"Did you mean.*things'"):
        open_study(root / "notes")
    with pytest.raises(ValueError, match=r"Did you mean.*things'"):
        open_study(tmp_path)


def test_of_two_layouts_one_is_asked_for(tmp_path):
    _nsd(tmp_path)
    _things(tmp_path)
    with pytest.raises(ValueError, match="'nsd', 'things-fmri'"):
        open_study(tmp_path)
    assert isinstance(open_study(tmp_path, layout="nsd"), NSDStudy)
    assert isinstance(open_study(tmp_path, layout="things-fmri"), ThingsFMRIStudy)
    with pytest.raises(ValueError, match="'haxby'"):
        open_study(tmp_path, layout="nobody")


def test_a_new_layout_is_an_entry_more(tmp_path):
    (tmp_path / "participants.tsv").write_text("", encoding="utf-8")
    more = {**STUDIES, "bids": StudyLayout(title="BIDS", markers=(("participants.tsv",),), open=str)}
    assert open_study(tmp_path, studies=more) == str(tmp_path)
