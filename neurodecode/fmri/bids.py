"""Betas of a subject from a BIDS folder: those that exist, or estimated from preprocessed BOLD."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurodecode.fmri.betas import betas_from_bold, betas_from_images, read_table, split_events
from neurodecode.fmri.volumes import common_mask, load_image, repetition_time
from neuroloaders.betas import BetaSet
from neuroloaders.checks import check_option, corrupt_file, invalid, missing_data

__all__ = ["MOTION", "SOURCES", "betas_from_bids", "parse_bids_name"]

# Motion parameters, by fMRIPrep's names.
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")

# What says which run a file belongs to; the rest says what was done with it.
_RUN = ("sub", "ses", "task", "acq", "ce", "dir", "rec", "run", "echo")


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file and what its name says."""

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def run(self) -> dict[str, str]:
        return {key: value for key, value in self.entities.items() if key in _RUN}

    def beside(self, ending: str) -> Path:
        """Return the file of the same stem with another ending."""
        return self.path.with_name(self.path.name.split(".")[0] + ending)


def parse_bids_name(path: str | os.PathLike[str]) -> tuple[dict[str, str], str]:
    """Return the entities and the suffix of a BIDS file name.

    Examples
    --------
    >>> parse_bids_name("sub-01_task-view_run-2_desc-preproc_bold.nii.gz")
    ({'sub': '01', 'task': 'view', 'run': '2', 'desc': 'preproc'}, 'bold')
    """
    *pairs, suffix = Path(path).name.split(".")[0].split("_")
    return dict(pair.split("-", 1) for pair in pairs if "-" in pair), suffix


def _is_beta(file: _File) -> bool:
    # One series a run, or (NiBetaSeries) one for each type of trial, named by desc.
    return file.suffix in ("betas", "betaseries") or file.entities.get("desc") in ("betas", "betaseries")


def _is_bold(file: _File) -> bool:
    return file.suffix == "bold" and file.entities.get("desc") == "preproc"


# Name -> which kinds of files are looked for, the first that is there being taken.
SOURCES: dict[str, dict[str, Callable[[_File], bool]]] = {
    "auto": {"betas": _is_beta, "bold": _is_bold},
    "betas": {"betas": _is_beta},
    "bold": {"bold": _is_bold},
}


def betas_from_bids(
    root: str | os.PathLike[str],
    subject: str,
    task: str,
    *,
    derivatives: str | os.PathLike[str] | None = None,
    sessions: Sequence[str] | None = None,
    space: str | None = None,
    source: str = "auto",
    mask: Any = None,
    rois: Mapping[str, Any] | None = None,
    stimulus_column: str = "trial_type",
    nuisance_types: Sequence[str] = (),
    ignored_types: Sequence[str] = (),
    duration: float | None = None,
    confounds: Sequence[str] = MOTION,
    method: str = "lsa",
    hrf: str = "spm",
    noise_model: str = "ar1",
    drift: str = "cosine",
    high_pass: float = 0.01,
    scale: str = "percent",
    incomplete: str = "raise",
    bad_voxels: str = "raise",
    t_r: float | None = None,
    slice_time_ref: float | None = None,
    progress: bool = False,
) -> BetaSet:
    """Return single-trial betas of a subject from a BIDS data set and its derivatives.

    Parameters
    ----------
    root : path-like
        The BIDS data set, which holds the events.
    subject, task : str
        Labels, without "sub-" and "task-".
    derivatives : path-like, optional
        The folder that holds ``sub-...`` of the preprocessed data. By default each folder in ``root/derivatives``, and
        `root` itself.
    sessions : sequence of str, optional
        Labels of sessions; by default all.
    space : str, optional
        Label of the space, such as "T1w" or "MNI152NLin2009cAsym"; "native" for files whose names have none. Needed
        where there are several.
    source : {"auto", "betas", "bold"}
        "betas": series that were estimated already, files named ``*_desc-betaseries_*``, ``*_betaseries`` or
        ``*_betas``. "bold": a model of ``*_desc-preproc_bold``. "auto": betas if there are any.
    mask : path or image, optional
        By default the voxels that all runs have in ``*_desc-brain_mask``.
    rois : mapping of str to path or image, optional
        Regions of interest, on the same grid: voxels above 0.
    stimulus_column, nuisance_types, ignored_types, duration
        How to read events: see `betas_from_bold`. The column also says what betas are of.
    confounds : sequence of str
        Columns of ``*_desc-confounds_timeseries.tsv``; empty for none.
    method, hrf, noise_model, drift, high_pass, scale, incomplete, bad_voxels
        The model: see `neurodecode.fmri.trial_betas` and `betas_from_bold`. `bad_voxels` counts for betas as well.
    t_r : float, optional
        Time between volumes in seconds. By default ``RepetitionTime`` of the sidecar, which must agree with the header.
    slice_time_ref : float, optional
        When within a volume its values were taken, as a share of `t_r`. By default ``StartTime`` of the sidecar over
        `t_r`, which fMRIPrep writes where it corrected slices, else 0.
    progress : bool
        Show a progress bar over runs.

    Returns
    -------
    neuroloaders.BetaSet
        Sessions are numbered from 1 in the order of their labels, and runs from 1 over all sessions.

    Raises
    ------
    FileNotFoundError
        If there are no such files: the message says what was looked for and where.
    ValueError
        If several files are of the same run, tables do not fit, or the model refuses them.

    Notes
    -----
    Of events and sidecars the file whose name says most about the run is taken (the inheritance principle of BIDS
    [1]_, for whole files). The table of a series of betas is the ``.tsv`` of the same stem, else, if all volumes are of
    one type (NiBetaSeries: ``desc`` is the type), that type, else the run's events, which must be as many.

    References
    ----------
    .. [1] Gorgolewski et al., Scientific Data 3 (2016), doi:10.1038/sdata.2016.44.
    """
    check_option("source", source, SOURCES)
    root = Path(root)
    subject, task = subject.removeprefix("sub-"), task.removeprefix("task-")
    if isinstance(confounds, str):
        raise invalid("confounds", "be a sequence of column names", confounds, "Write ['trans_x'].", kind=TypeError)
    folders = _pipelines(root, derivatives)
    kind, files = _found(folders, subject, task, sessions, space, SOURCES[source])
    labels = sorted({file.entities.get("ses", "") for file in files})
    session_of = [labels.index(file.entities.get("ses", "")) + 1 for file in files]
    runs = [tuple(sorted(file.run.items())) for file in files]
    numbers = {run: i + 1 for i, run in enumerate(dict.fromkeys(runs))}
    if mask is None:
        mask = common_mask([_mask_of(file) for file in files])
    name = _name(root)
    if kind == "betas":
        columns = [_stimuli_of(root, file, stimulus_column, nuisance_types, ignored_types, duration) for file in files]
        counts = [len(column) for column in columns]
        return betas_from_images(
            [file.path for file in files],
            np.array([stimulus for column in columns for stimulus in column], dtype=object),
            mask=mask,
            sessions=np.repeat(session_of, counts),
            runs=np.repeat([numbers[run] for run in runs], counts),
            rois=rois,
            bad_voxels=bad_voxels,
            name=name,
            subject=subject,
            provenance=f"betas of {', '.join(file.path.name for file in files)}",
        )
    times = [_times(root, file, t_r) for file in files]
    t_r, start = times[0]
    for file, (seconds, _) in zip(files, times, strict=True):
        if abs(seconds - t_r) > 1e-4 * t_r:
            came = f"{t_r:g} s and, in {file.path.name}, {seconds:g} s"
            raise invalid("bold", "have one repetition time for all runs", came, "Model such runs by themselves.")
    return betas_from_bold(
        [file.path for file in files],
        [read_table(_inherited(root, file.run, "events", ".tsv")) for file in files],
        mask=mask,
        t_r=t_r,
        stimulus_column=stimulus_column,
        nuisance_types=nuisance_types,
        ignored_types=ignored_types,
        duration=duration,
        confounds=[_confounds_of(file, confounds) for file in files] if len(confounds) else None,
        sessions=session_of,
        rois=rois,
        method=method,
        hrf=hrf,
        noise_model=noise_model,
        drift=drift,
        high_pass=high_pass,
        slice_time_ref=start / t_r if slice_time_ref is None else slice_time_ref,
        scale=scale,
        incomplete=incomplete,
        bad_voxels=bad_voxels,
        name=name,
        subject=subject,
        progress=progress,
    )


def _pipelines(root: Path, derivatives: Any) -> list[Path]:
    if derivatives is not None:
        return [Path(derivatives)]
    inside = root / "derivatives"
    named = sorted(path for path in inside.glob("*") if path.is_dir() and not path.name.startswith("sub-"))
    return [*named, inside, root]


def _files(folder: Path, subject: str, pattern: str) -> list[_File]:
    paths = sorted({*folder.glob(f"sub-{subject}/**/{pattern}"), *folder.glob(f"{pattern}")})
    out = []
    for path in paths:
        entities, suffix = parse_bids_name(path)
        if entities.get("sub", subject) == subject:
            out.append(_File(path=path, entities=entities, suffix=suffix))
    return out


def _found(
    folders: Sequence[Path],
    subject: str,
    task: str,
    sessions: Sequence[str] | None,
    space: str | None,
    kinds: Mapping[str, Callable[[_File], bool]],
) -> tuple[str, list[_File]]:
    """Return the kind of files that there are, and one file a run (of betas: a run and type), in order."""
    wanted = None if sessions is None else {str(session).removeprefix("ses-") for session in sessions}
    for kind, fits in kinds.items():
        of_folder = {}
        for folder in folders:
            files = [file for file in _files(folder, subject, "*.nii*") if fits(file)]
            files = [file for file in files if file.entities.get("task") == task]
            files = [file for file in files if wanted is None or file.entities.get("ses", "") in wanted]
            if space is not None:
                label = "" if space == "native" else space
                files = [file for file in files if file.entities.get("space", "") == label]
            if files:
                of_folder[folder] = files
        if len(of_folder) > 1:
            came = ", ".join(folder.name for folder in of_folder)
            raise invalid("derivatives", f"say which pipeline's {kind} to take", came, "Pass derivatives=folder.")
        if of_folder:
            (files,) = of_folder.values()
            _check_unique(files, kind)
            if wanted is not None:
                missing = wanted - {file.entities.get("ses", "") for file in files}
                if missing:
                    raise invalid("sessions", f"have {kind} each", f"none for {sorted(missing)[0]!r}")
            return kind, sorted(files, key=_order)
    names = {"betas": f"sub-{subject}_*task-{task}_*_desc-betaseries_*", "bold": f"*task-{task}_*_desc-preproc_bold"}
    looked_for = [f"{names[kind]}.nii.gz" for kind in kinds]
    advice = "Check subject=, task=, sessions= and space=, or pass derivatives=folder."
    raise missing_data(f"sub-{subject}, task-{task}", looked_for, folders, advice)


def _check_unique(files: Sequence[_File], kind: str) -> None:
    seen: dict[Any, Path] = {}
    for file in files:
        key = tuple(sorted(file.run.items())), file.entities.get("desc") if kind == "betas" else None
        if key in seen:
            came = f"{seen[key].name} and {file.path.name}"
            advice = "Choose one by space= or derivatives=; combine echoes beforehand."
            raise invalid("space", "leave one file for each run", came, advice)
        seen[key] = file.path


def _order(file: _File) -> tuple[Any, ...]:
    def natural(label: str) -> tuple[int, str]:
        return (int(label), "") if label.isdigit() else (0, label)

    return tuple(natural(file.entities.get(key, "")) for key in ("ses", *_RUN, "desc"))


def _inherited(root: Path, run: Mapping[str, str], suffix: str, ending: str, *, needed: bool = True) -> Path | None:
    """Return the file of the raw data set that says most about a run and nothing about others."""
    fitting = []
    for file in _files(root, run["sub"], f"*{suffix}{ending}"):
        says = {key: value for key, value in file.entities.items() if key in _RUN}
        if file.suffix == suffix and all(run.get(key) == value for key, value in says.items()):
            fitting.append((len(says), file.path))
    if not fitting:
        if not needed:
            return None
        name = "_".join(f"{key}-{value}" for key, value in run.items())
        raise missing_data(f"{suffix} of {name}", [f"{name}_{suffix}{ending}"], [root], "Each run needs its table.")
    most = max(says for says, _ in fitting)
    best = [path for says, path in fitting if says == most]
    if len(best) > 1:
        raise invalid("root", f"have one {suffix} file for each run", " and ".join(path.name for path in best))
    return best[0]


def _sibling(file: _File, endings: Iterable[str], *, same_space: bool, advice: str) -> Path:
    """Return the file of the same run in the same folder that ends like this."""
    endings = list(endings)
    for ending in endings:
        for path in sorted(file.path.parent.glob(f"*{ending}")):
            entities, suffix = parse_bids_name(path)
            other = _File(path=path, entities=entities, suffix=suffix)
            spaces = all(file.entities.get(key) == entities.get(key) for key in ("space", "res"))
            # Masks and confounds are of all echoes.
            run = {key: value for key, value in file.run.items() if key != "echo"}
            if other.run in (run, file.run) and (spaces or not same_space):
                return path
    raise missing_data(file.path.name, [f"*{ending}" for ending in endings], [file.path.parent], advice)


def _mask_of(file: _File) -> Path:
    return _sibling(file, ["_desc-brain_mask.nii.gz", "_desc-brain_mask.nii"], same_space=True, advice="Pass mask=.")


def _confounds_of(file: _File, columns: Sequence[str]) -> Any:
    endings = ["_desc-confounds_timeseries.tsv", "_desc-confounds_regressors.tsv"]
    path = _sibling(file, endings, same_space=False, advice="Pass confounds=() to go without.")
    table = read_table(path)
    missing = [column for column in columns if column not in table]
    if missing:
        raise invalid("confounds", f"be columns of {path.name}", f"{missing[0]!r}", "Or pass confounds=().")
    return table[list(columns)]


def _stimuli_of(
    root: Path, file: _File, column: str, nuisance: Sequence[str], ignored: Sequence[str], duration: float | None
) -> list[Any]:
    """Return what each volume of a series of betas showed."""
    shape = load_image(file.path.name, file.path).shape
    n = shape[3] if len(shape) == 4 else 1
    own = file.beside(".tsv")
    if own.is_file():
        table, name = read_table(own), own.name
        if column not in table:
            raise invalid("stimulus_column", f"be a column of {name}", f"{column!r}", f"It has {', '.join(table)}.")
        found = table[column]
        if found.isna().any():
            came = f"n/a in row {int(found.isna().to_numpy().argmax())}"
            raise invalid(f"{name}[{column!r}]", "say what each volume shows", came)
    elif file.suffix == "betaseries" and file.entities.get("desc", "betaseries") not in ("betas", "betaseries"):
        return [file.entities["desc"]] * n
    else:
        path = _inherited(root, file.run, "events", ".tsv")
        trials, _ = split_events(path.name, read_table(path), column, nuisance, ignored, duration or 1.0)
        found, name = trials["stimulus"], path.name
    if len(found) != n:
        advice = f"Put a table beside it, {own.name}, or name types without betas in ignored_types."
        raise invalid(file.path.name, f"have as many volumes as {name} has trials, {len(found)}", f"{n}", advice)
    return found.tolist()


def _sidecar(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise corrupt_file(path, f"it is no JSON ({error})", "Write it again.") from error
    return found if isinstance(found, dict) else {}


def _times(root: Path, file: _File, t_r: float | None) -> tuple[float, float]:
    """Return the repetition time of a run and the time of its first volume, in seconds."""
    own = _sidecar(file.beside(".json"))
    given = own.get("RepetitionTime")
    if given is None:
        given = _sidecar(_inherited(root, file.run, "bold", ".json", needed=False)).get("RepetitionTime")
    image = load_image(file.path.name, file.path)
    if t_r is None and given is not None:
        t_r = float(given)
        says = float(image.header.get_zooms()[3]) if len(image.shape) == 4 else 0.0
        if says > 0 and abs(repetition_time([image]) - t_r) > 0.01 * t_r:
            came = f"{t_r:g} s and {repetition_time([image]):g} s"
            raise invalid(file.path.name, "have the same t_r in its sidecar and header", came, "Pass t_r=, in seconds.")
    return repetition_time([image], t_r), float(own.get("StartTime", 0.0))


def _name(root: Path) -> str:
    return str(_sidecar(root / "dataset_description.json").get("Name") or root.resolve().name)
