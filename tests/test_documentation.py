"""What is written about the code is true: docstrings name the parameters, examples run, links lead somewhere."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tolerances import TOLERANCES

ROOT = Path(__file__).resolve().parents[1]
# Import name -> folder that holds it.
PARENTS = {"neuroloaders": ROOT / "datasets", "snn": ROOT, "reservoir": ROOT, "neurodecode": ROOT}
# What users import from. Here every parameter must be described; elsewhere what is described must exist.
FRONT_DOORS = ("neurodecode", "neuroloaders", "snn", "snn.early_exit", "snn.functional", "snn.models")
# Modules that need a package which some systems do not have.
OPTIONAL = {"snn.kernels.triton": "triton"}


def module_names() -> list[str]:
    names = []
    for package, parent in PARENTS.items():
        for path in sorted((parent / package).rglob("*.py")):
            parts = path.relative_to(parent).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def load(name: str) -> ModuleType:
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    return importlib.import_module(name)


def public_objects(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public functions and classes, and the public methods of the classes."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        thing = getattr(module, name)
        if inspect.isclass(thing):
            yield name, thing
            for key, value in vars(thing).items():
                if inspect.isfunction(value) and not key.startswith("_"):
                    yield f"{name}.{key}", value
        elif inspect.isfunction(thing):
            yield name, thing


def parameters(thing: Any) -> set[str]:
    """Return the parameters that a caller passes; nobody makes a protocol."""
    if getattr(thing, "_is_protocol", False):
        return set()
    return set(inspect.signature(thing).parameters) - {"self", "cls"}


def described(thing: Any) -> set[str] | None:
    """Return the names in the numpydoc section on parameters, or None if there is none.

    Of a dataclass, the section on attributes will do: they are its parameters.
    """
    sections = doc_sections(inspect.getdoc(thing) or "")
    if "Parameters" not in sections and dataclasses.is_dataclass(thing) and "Attributes" in sections:
        return sections["Attributes"] & parameters(thing)
    return sections.get("Parameters")


def doc_sections(doc: str) -> dict[str, set[str]]:
    """Return each numpydoc section's entries: what stands unindented, before " : "."""
    sections: dict[str, set[str]] = {}
    lines = doc.splitlines()
    current: set[str] = set()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line and re.fullmatch("-{3,}", following):
            current = sections.setdefault(line.strip(), set())
        elif line and not line[0].isspace() and not line.startswith("---"):
            current |= {name.strip().lstrip("*") for name in line.split(" : ")[0].split(",")}
    return sections


def refers_to(module: ModuleType, thing: Any) -> set[str] | None:
    """Return the parameters of the object that a docstring refers to: "The parameters are those of `lif`"."""
    found = re.search(
        r"parameters(?: and results)? are those of `(\w+)`", " ".join((inspect.getdoc(thing) or "").split())
    )
    home = sys.modules[thing.__module__]
    return parameters(getattr(home, found[1])) if found else None


@pytest.mark.parametrize("name", [name for name in module_names() if name.split(".")[0] in ("snn", "neuroloaders")])
def test_public_names_are_listed_and_have_docstrings(name: str) -> None:
    module = load(name)
    assert module.__doc__
    # snn/__init__.py says what is public by `import x as x`.
    assert name == "snn" or [key for key in module.__all__ if not hasattr(module, key)] == []
    assert [qualified for qualified, thing in public_objects(module) if not inspect.getdoc(thing)] == []


@pytest.mark.parametrize("name", module_names())
def test_docstring_parameters_are_those_of_the_signature(name: str) -> None:
    module = load(name)
    wrong = {}
    for qualified, thing in public_objects(module):
        names = described(thing)
        if names is not None and names != parameters(thing):
            wrong[qualified] = f"only in the docstring or only in the signature: {sorted(names ^ parameters(thing))}"
    assert wrong == {}


@pytest.mark.parametrize("name", FRONT_DOORS)
def test_docstring_describes_every_parameter(name: str) -> None:
    module = load(name)
    silent = []
    for qualified, thing in public_objects(module):
        needed = parameters(thing)
        if "." in qualified or not needed or described(thing) is not None:
            continue
        if not needed <= (refers_to(module, thing) or set()):
            silent.append(f"{thing.__module__}.{qualified}")
    assert not silent, "no section on parameters: " + ", ".join(silent)


@pytest.mark.parametrize("name", module_names())
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(load(name)).failed == 0


def test_docstring_sections_are_read_as_numpydoc_means_them() -> None:
    doc = "Do it.\n\nParameters\n----------\na, *b : int\n    Text, more : text.\nc\n\nReturns\n-------\nd : int"
    assert doc_sections(doc) == {"Parameters": {"a", "b", "c"}, "Returns": {"d"}}


# --- pages --------------------------------------------------------------------------------------------------------

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("datasets/*.md")])
README_BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("number", range(len(README_BLOCKS)))
def test_python_in_the_readme_runs(number: int, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(README_BLOCKS[number], encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_readme_has_python_to_run() -> None:
    assert len(README_BLOCKS) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_contributing_states_the_tolerances_of_the_tests() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    number = r"\d[\d.]*e-\d+"
    rows = re.findall(rf"^\| [^|]+ \| ({number}) \| ({number}) \|$", page, re.M)
    assert [(float(rtol), float(atol)) for rtol, atol in rows] == list(TOLERANCES.values())


def test_glossary_names_a_term_once() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", (ROOT / "GLOSSARY.md").read_text(encoding="utf-8"), re.M)
    terms = [row.rstrip(" °") for row in rows if row not in ("term", "---")]
    assert len(terms) > 60
    assert sorted(terms) == sorted(set(terms))
