"""What is installed here, what can run, and what will not: looked at, not guessed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from neuroloaders.folders import DATA_VARIABLE, download_folder, search_folders
from spikedecode.findings import Finding

__all__ = [
    "PACKAGES",
    "combination_findings",
    "data_findings",
    "device_findings",
    "examine",
    "machine_findings",
    "path_findings",
    "requirement_findings",
]

PACKAGES = ("neuroloaders", "snn", "reservoir", "neurodecode")
_DISTRIBUTION = "spikedecode"
_FREE_GB = 10

Installed = Callable[[str], str | None]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine() -> list[Finding]:
    """Look at everything.

    Returns
    -------
    list of Finding
        In the order in which to read them.
    """
    return [
        *machine_findings(),
        *path_findings(),
        *requirement_findings(importlib.metadata.requires(_DISTRIBUTION) or []),
        *combination_findings(),
        *device_findings(),
        *_backend_findings(),
        *data_findings(),
    ]


def machine_findings() -> Iterator[Finding]:
    """Yield the Python and the machine."""
    area = "Machine"
    yield Finding(area=area, name="python", state="ok", text=f"{platform.python_version()}, {sys.executable}")
    yield Finding(area=area, name="system", state="ok", text=f"{platform.platform()}, {os.cpu_count()} cores")


def path_findings(packages: Sequence[str] = PACKAGES) -> Iterator[Finding]:
    """Yield where each of our packages is imported from: another one of that name may lie before it on the path.

    Parameters
    ----------
    packages : sequence of str
        Names.
    """
    area = "Packages"
    ours = Path(__file__).resolve().parents[1]
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            advice = "Install the distribution: python -m pip install spikedecode."
            yield Finding(area=area, name=name, state="problem", text="cannot be imported.", advice=advice)
            continue
        where = Path(next(iter(spec.submodule_search_locations))).resolve()
        if where in {ours / name, ours / "datasets" / name}:
            yield Finding(area=area, name=name, state="ok", text=str(where))
        else:
            text = f"comes from {where}, which is not ours ({ours})."
            advice = "Rename that folder, or start Python elsewhere, or take it from PYTHONPATH."
            yield Finding(area=area, name=name, state="problem", text=text, advice=advice)
    spec = importlib.util.find_spec("datasets")
    if spec is not None and spec.origin is None and spec.submodule_search_locations:
        folders = [Path(folder).resolve() for folder in spec.submodule_search_locations]
        if ours / "datasets" not in folders:
            text = f"is a folder without a package: {folders[0]}."
            advice = "It hides no package, but Hugging Face's datasets is not installed."
            yield Finding(area=area, name="datasets", state="note", text=text, advice=advice)


def requirement_findings(requirements: Sequence[str], installed: Installed = _installed) -> Iterator[Finding]:
    """Yield whether what we need is installed, and new enough.

    Parameters
    ----------
    requirements : sequence of str
        As the distribution's metadata list them.
    installed : callable
        Returns the version of a distribution, or None.
    """
    for text in requirements:
        requirement = Requirement(text)
        extras = [name for name in ("realtime", "dask", "nir") if _asks(requirement, name)]
        area = "Required" if not extras else "Optional"
        if requirement.marker is not None and not extras and not requirement.marker.evaluate():
            continue
        found = installed(requirement.name)
        if found is None:
            state = "note" if extras else "problem"
            advice = f"python -m pip install '{requirement.name}{requirement.specifier}'"
            text = f"is not installed; the extra [{extras[0]}] needs it." if extras else "is not installed."
            yield Finding(area=area, name=requirement.name, state=state, text=text, advice=advice)
        elif not requirement.specifier.contains(found, prereleases=True):
            text, advice = f"{found} is installed, {requirement.specifier} is needed.", "Install it anew."
            yield Finding(area=area, name=requirement.name, state="problem", text=text, advice=advice)
        else:
            yield Finding(area=area, name=requirement.name, state="ok", text=found)


def _asks(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def combination_findings(
    installed: Installed = _installed, imports: Callable[[str], object] = importlib.import_module
) -> Iterator[Finding]:
    """Yield versions that do not go together though each is well by itself.

    Parameters
    ----------
    installed : callable
        Returns the version of a distribution, or None.
    imports : callable
        Imports a module, or raises.
    """
    area = "Together"
    torch = installed("torch")
    if torch is not None:
        wanted = Version(torch)
        # torch 2.m goes with torchvision 0.(15 + m) and torchaudio 2.m.
        for name, release in (
            ("torchvision", f"0.{15 + wanted.minor}"),
            ("torchaudio", f"{wanted.major}.{wanted.minor}"),
        ):
            found = installed(name)
            if found is None:
                continue
            if wanted.major == 2 and not found.startswith(f"{release}."):
                text = f"{name} {found} was built for another torch than {torch}: {release} belongs to it."
                advice = f"python -m pip install '{name}=={release}.*'"
                yield Finding(area=area, name=f"torch and {name}", state="problem", text=text, advice=advice)
                continue
            try:
                imports(name)
            except Exception as error:
                text = f"{name} {found} does not import beside torch {torch} ({type(error).__name__}: {error})."
                advice = "Install both from one place: one CUDA version, or both for the CPU."
                yield Finding(area=area, name=f"torch and {name}", state="problem", text=text, advice=advice)
            else:
                yield Finding(area=area, name=f"torch and {name}", state="ok", text=f"{torch} and {found}")
    numpy, brian2 = installed("numpy"), installed("brian2")
    if numpy is not None and brian2 is not None:
        broken = Version(numpy) >= Version("2.4") and Version(brian2) <= Version("2.9.0")
        yield Finding(
            area=area, name="numpy and brian2", state="problem" if broken else "ok",
            text=f"{numpy} and {brian2}" + (": brian2 calls ndarray.ptp, which numpy 2.4 removed." if broken else ""),
            advice="python -m pip install 'numpy<2.4'" if broken else "",
        )  # fmt: skip


def device_findings() -> Iterator[Finding]:
    """Yield what can compute here."""
    area = "Devices"
    try:
        import torch
    except Exception as error:
        advice = "Install torch anew."
        yield Finding(area=area, name="torch", state="problem", text=f"does not import ({error}).", advice=advice)
        return
    yield Finding(area=area, name="cpu", state="ok", text=f"{torch.get_num_threads()} threads in torch")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            text = f"{about.name}, {about.total_memory / 2**30:.0f} GiB, compute capability {about.major}.{about.minor}"
            yield Finding(area=area, name=f"cuda:{number}", state="ok", text=text)
    else:
        built = torch.version.cuda
        why = "this torch is built for the CPU" if built is None else f"no device or driver for CUDA {built} was found"
        yield Finding(area=area, name="cuda", state="note", text=f"not available: {why}. Everything runs without it.")


def _backend_findings() -> Iterator[Finding]:
    for package in ("snn", "reservoir"):
        try:
            module = importlib.import_module("snn.kernels" if package == "snn" else "reservoir.backends")
            found = module.available_backends()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            yield Finding(
                area="Backends", name=package, state="problem", text=text, advice="See what is required above."
            )
            continue
        for name, reason in found.items():
            state = "ok" if reason == "available" else "note"
            text = reason if state == "ok" else f"cannot run here: {reason}"
            yield Finding(area="Backends", name=f"{package} {name}", state=state, text=text)


def data_findings() -> Iterator[Finding]:
    """Yield where data are looked for, where downloads go, and which sets are there."""
    from neuroloaders import read_registry

    area = "Data"
    for folder in search_folders():
        there = folder.is_dir()
        text = f"{'is searched' if there else 'would be searched, and is not there'}"
        yield Finding(area=area, name=str(folder), state="ok" if there else "note", text=text)
    goal = download_folder()
    existing = next(parent for parent in (goal, *goal.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        advice = f"Set {DATA_VARIABLE} to a folder of yours."
        text = f"downloads go to {goal}, which may not be written to."
        yield Finding(area=area, name="downloads", state="problem", text=text, advice=advice)
    else:
        free = shutil.disk_usage(existing).free / 1e9
        text = f"go to {goal}; {free:.0f} GB are free"
        state = "ok" if free >= _FREE_GB else "note"
        yield Finding(area=area, name="downloads", state=state, text=text)
    known = sorted(read_registry())
    present = [name for name in known if any((folder / name).is_dir() for folder in search_folders())]
    text = f"{', '.join(present) or 'none'} (of {len(known)} known: spikedecode fetch --help)"
    yield Finding(area=area, name="data sets", state="ok" if present else "note", text=text)
