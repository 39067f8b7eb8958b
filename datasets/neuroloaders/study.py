"""Studies in the layouts that they are published in: point at a folder, get responses and stimuli.

`open_study` looks which layout of `STUDIES` a folder has. The registry is open: a new layout is an entry more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from neuroloaders.checks import check_option, invalid
from neuroloaders.studies.bids_recordings import BIDSStudy
from neuroloaders.studies.brennan import BrennanStudy
from neuroloaders.studies.broderick import BroderickStudy
from neuroloaders.studies.haxby import HaxbySlice, HaxbyStudy
from neuroloaders.studies.meg_masc import MEGMASCStudy
from neuroloaders.studies.mous import MOUSStudy
from neuroloaders.studies.nsd import NSDStudy
from neuroloaders.studies.things_eeg2 import ThingsEEG2Study
from neuroloaders.studies.things_fmri import ThingsFMRIStudy
from neuroloaders.studies.things_meg import ThingsMEGStudy

__all__ = ["STUDIES", "Study", "StudyLayout", "open_study"]

_SHOWN = 8  # entries of a folder in an error message


@runtime_checkable
class Study(Protocol):
    """What every study has, whatever was recorded.

    Attributes
    ----------
    name : str
        The study.
    kind : str
        What was recorded: "fmri", "meg", "eeg".
    subjects : tuple of str
        Those of which there are recordings.

    Notes
    -----
    Those of kind "fmri" have ``betas(subject, roi=..., ...)``, which returns a `BetaSet`, and ``images(ids)`` and
    ``captions(ids)``, in the order of `ids`, for identifiers as in ``BetaSet.stimuli``. Those of kind "meg" and "eeg"
    have ``recordings``, ``raw(recording)``, ``events(recording)`` and ``sounds()``; `convert_study` brings them to
    memory maps.
    """

    name: str
    kind: str

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of which there are recordings."""

    def describe(self) -> str:
        """Return what is in the folder, for people."""


@dataclass(frozen=True, kw_only=True)
class StudyLayout:
    """A layout of folders that `open_study` knows.

    Parameters
    ----------
    title : str
        For people.
    markers : tuple of tuple of str
        Sets of patterns, relative to the folder; the layout is recognised if for all patterns of one set there is a
        file.
    open : callable
        Takes the folder and returns the study.
    matches : callable, optional
        Says whether a folder has this layout, where patterns of names are not enough; they then serve messages only.
    general : bool
        A layout of many studies, which steps back where a particular one is recognised.
    """

    title: str
    markers: tuple[tuple[str, ...], ...]
    open: Callable[[Path], Any]
    matches: Callable[[Path], bool] | None = None
    general: bool = False

    def recognises(self, folder: Path) -> bool:
        """Return whether the folder has the files of this layout."""
        if self.matches is not None:
            return self.matches(folder)
        return any(all(_any_match(folder, pattern) for pattern in markers) for markers in self.markers)


STUDIES: dict[str, StudyLayout] = {
    "nsd": StudyLayout(
        title="Natural Scenes Dataset",
        markers=(("nsddata/experiments/nsd/nsd_expdesign.mat",),),
        open=NSDStudy,
    ),
    "things-fmri": StudyLayout(
        title="THINGS-fMRI, single-trial responses in tables",
        markers=(
            ("sub-*_ResponseData.h5",),
            ("betas_csv/sub-*_ResponseData.h5",),
            ("derivatives/betas_csv/sub-*_ResponseData.h5",),
        ),
        open=ThingsFMRIStudy,
    ),
    "haxby-slice": StudyLayout(
        title="Haxby 2001, the slice that comes with PyMVPA",
        markers=(("bold.nii.gz", "mask.nii.gz", "attributes.txt"),),
        open=HaxbySlice,
    ),
    "haxby": StudyLayout(
        title="Haxby 2001 in the layout of OpenfMRI",
        markers=(("sub*/BOLD/task*_run*/bold*.nii.gz", "models/model*/condition_key.txt"),),
        open=HaxbyStudy,
    ),
    "meg-masc": StudyLayout(
        title="MEG-MASC",
        markers=(("sub-*/ses-*/meg/*_events.tsv",),),
        matches=MEGMASCStudy.matches,
        open=MEGMASCStudy,
    ),
    "mous": StudyLayout(
        title="MOUS, auditory",
        markers=(("sub-A*/meg/*_task-auditory*", "sourcedata/meg_task/*"),),
        matches=MOUSStudy.matches,
        open=MOUSStudy,
    ),
    "broderick": StudyLayout(
        title="Broderick et al., natural speech",
        markers=(("Natural Speech/EEG/Subject*/Subject*_Run*.mat",),),
        open=BroderickStudy,
    ),
    "brennan": StudyLayout(
        title="Brennan & Hale 2019, Alice",
        markers=(("AliceChapterOne-EEG.csv", "S*.mat"),),
        open=BrennanStudy,
    ),
    "things-meg": StudyLayout(
        title="THINGS-MEG",
        markers=(("sub-BIGMEG*/ses-*/meg/*_events.tsv",),),
        matches=ThingsMEGStudy.matches,
        open=ThingsMEGStudy,
    ),
    "things-eeg2": StudyLayout(
        title="THINGS-EEG2, raw",
        markers=(("sub-*/ses-*/raw_eeg_*.npy",),),
        matches=ThingsEEG2Study.matches,
        open=ThingsEEG2Study,
    ),
    "bids": StudyLayout(
        title="M/EEG in BIDS",
        markers=(("sub-*/**/*_events.tsv",),),
        matches=BIDSStudy.matches,
        general=True,
        open=BIDSStudy,
    ),
}


def open_study(
    path: str | os.PathLike[str], *, layout: str | None = None, studies: Mapping[str, StudyLayout] = STUDIES
) -> Any:
    """Open the study that lies in a folder.

    Parameters
    ----------
    path : path-like
        The folder, laid out as the study is published.
    layout : str, optional
        A key of `STUDIES`, for a folder that has several layouts, or whose marks are missing. By default the layout is
        recognised.
    studies : mapping of str to StudyLayout
        Other layouts than those of `STUDIES`.

    Returns
    -------
    Study
        Such as `NSDStudy`. For settings, such as another resolution, make the class itself.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it has no known layout, or several: the message lists what was looked for and what is there.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise invalid("path", "be a folder", f"{os.fspath(folder)!r}, which is none", kind=FileNotFoundError)
    if layout is not None:
        return studies[check_option("layout", layout, studies)].open(folder)
    found = _layouts(folder, studies)
    found = [name for name in found if not studies[name].general] or found
    if len(found) == 1:
        return studies[found[0]].open(folder)
    if found:
        advice = "Pass layout=... to choose one."
        raise invalid("path", "have one layout", f"those of {', '.join(map(repr, found))}", advice)
    looked = "; ".join(
        f"{name}: {' or '.join(' and '.join(markers) for markers in known.markers)}" for name, known in studies.items()
    )
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    near = [place for place in [*folder.absolute().parents[:3], *_folders(folder)] if _layouts(place, studies)]
    advice = f"Did you mean {os.fspath(near[0])!r}?" if near else "Point at the folder that holds these files."
    raise invalid("path", f"have the files of a known study ({looked})", f"a folder with {shown or 'nothing'}", advice)


def _layouts(folder: Path, studies: Mapping[str, StudyLayout]) -> list[str]:
    return [name for name, known in studies.items() if known.recognises(folder)]


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir())


def _any_match(folder: Path, pattern: str) -> bool:
    return next(iter(folder.glob(pattern)), None) is not None
