"""The shape of the project: who imports whom, what an import costs, what a wheel holds, what is declared."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from neuroloaders import read_registry

ROOT = Path(__file__).resolve().parents[1]
# Import name -> folder.
PACKAGES = {
    "neuroloaders": ROOT / "datasets" / "neuroloaders",
    "snn": ROOT / "snn",
    "reservoir": ROOT / "reservoir",
    "neurodecode": ROOT / "neurodecode",
    "spikedecode": ROOT / "spikedecode",
}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAX_LINES = 450
# What `import snn` may cost beyond `import torch`: a share of the processor time that torch takes, on any machine.
MAX_IMPORT_SHARE = 0.25
HEAVY = {"brian2", "diffusers", "matplotlib", "mne", "nilearn", "pandas", "sklearn"}
HEAVY |= {"snntorch", "spikingjelly", "transformers"}


def library_files() -> Iterator[Path]:
    for folder in PACKAGES.values():
        yield from sorted(folder.rglob("*.py"))


def run_python(code: str, *, cwd: Path, path: str = "") -> str:
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- datasets/ is a folder, not a package -------------------------------------------------------------------------


def test_datasets_folder_has_no_init() -> None:
    assert not list((ROOT / "datasets").glob("__init__.py*"))


def test_import_datasets_from_the_root_finds_the_installed_package(tmp_path: Path) -> None:
    stand_in = tmp_path / "datasets"
    stand_in.mkdir()
    (stand_in / "__init__.py").write_text("name = 'stand-in for Hugging Face'", encoding="utf-8")
    found = run_python("import datasets; print(datasets.name)", cwd=ROOT, path=str(tmp_path))
    assert found.strip() == "stand-in for Hugging Face"


def test_import_datasets_from_the_root_without_it_finds_no_module_of_ours() -> None:
    code = "import importlib.util as u; s = u.find_spec('datasets'); print(s.origin if s else None)"
    origin = run_python(code, cwd=ROOT).strip()
    assert origin == "None" or not Path(origin).is_relative_to(ROOT / "datasets")


def test_folders_of_tests_and_examples_are_not_named_like_packages() -> None:
    taken = {*PACKAGES, "datasets"}
    folders = [path for top in ("tests", "examples") for path in (ROOT / top).rglob("*") if path.is_dir()]
    assert [path for path in folders if path.name in taken] == []


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


# --- what is built ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_wheel_top_level_is_our_packages_and_metadata(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert len(top) == len(PACKAGES) + 1


def test_wheel_holds_every_module_the_registry_and_the_licence(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package, folder in PACKAGES.items():
        files = [*folder.rglob("*.py"), *folder.rglob("*.toml")]
        assert {f"{package}/{file.relative_to(folder).as_posix()}" for file in files} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_wheel_holds_no_compiled_files(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if name.endswith((".pyc", ".nbi", ".nbc"))] == []


# --- imports ------------------------------------------------------------------------------------------------------


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "datasets")])}
    command = [str(script), "--no-cache"]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


def test_import_contracts_are_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("datasets/neuroloaders/cache.py", "import snn"),
        ("snn/conversion/spiking.py", "import neurodecode"),
        ("neurodecode/__init__.py", "import reservoir"),
        ("reservoir/__init__.py", "import neurodecode"),
        ("snn/neurons.py", "def f():\n    import spikingjelly.activation_based"),
        ("datasets/neuroloaders/images.py", "import nilearn"),
        ("snn/functional.py", "import matplotlib.pyplot"),
    ],
)
def test_import_contracts_catch(module: str, line: str, tmp_path: Path) -> None:
    for folder in PACKAGES.values():
        shutil.copytree(folder, tmp_path / folder.relative_to(ROOT), ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    with open(tmp_path / module, "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


def test_setup_cfg_holds_import_contracts_only() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert [name for name in config.sections() if name.split(":")[0] != "importlinter"] == []


def test_import_snn_is_light() -> None:
    code = (
        "import json, sys, time; started = time.process_time(); import torch; between = time.process_time(); "
        "import snn; share = (time.process_time() - between) / (between - started); "
        "print(json.dumps([share, sorted(sys.modules)]))"
    )
    answers = [json.loads(run_python(code, cwd=ROOT)) for _ in range(3)]
    loaded = {module.split(".")[0] for module in answers[0][1]}
    assert loaded & HEAVY == set()
    # Processor time, so that other work on the machine does not count.
    assert statistics.median(share for share, _ in answers) <= MAX_IMPORT_SHARE


# --- files --------------------------------------------------------------------------------------------------------


def test_no_source_file_is_too_long() -> None:
    files = [*library_files(), *(ROOT / "examples").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    assert [path for path in library_files() if path.name in drawers] == []


def test_library_code_has_no_assert_and_no_print() -> None:
    found = []
    for path in library_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            is_print = is_print and path != PACKAGES["spikedecode"] / "cli.py"  # whose work is to print
            if isinstance(node, ast.Assert) or is_print:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


# --- what is declared ---------------------------------------------------------------------------------------------


def requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    extras, groups = project["optional-dependencies"].values(), PYPROJECT["dependency-groups"].values()
    lines = itertools.chain(project["dependencies"], *extras, *groups)
    return [Requirement(line) for line in lines]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize(
    "name", ["spikingjelly", "snntorch", "brian2", "nilearn", "mne", "diffusers", "scikit-learn", "torch", "numpy"]
)
def test_peer_is_a_declared_dependency(name: str) -> None:
    declared = {canonicalize_name(Requirement(line).name) for line in PYPROJECT["project"]["dependencies"]}
    assert name in declared


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_pinned_version_satisfies_the_bounds(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_upper_bounds_name_their_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    bounded = [line for line in lines if re.match(r'\s+"[\w-]+[^"]*<', line)]
    assert bounded
    assert [line for line in bounded if "#" not in line] == []


def test_pre_commit_runs_the_pinned_ruff() -> None:
    config = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.search(r"ruff-pre-commit\s+rev: v(\S+)", config)[1] == pins()["ruff"]


def test_version_is_the_same_everywhere() -> None:
    version = PYPROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f" {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", read_registry())
def test_dataset_has_licence_and_citation(name: str) -> None:
    entry = read_registry()[name]
    assert entry.licence.strip()
    assert re.match(r"@\w+\{", entry.citation.strip())
    assert entry.homepage.startswith("http")


def test_packages_come_from_this_checkout() -> None:
    # Unrelated distributions carry some of these names; `pip install snn` would put another one in the way.
    origins = {name: Path(importlib.util.find_spec(name).origin).resolve().parent for name in PACKAGES}
    assert origins == PACKAGES
