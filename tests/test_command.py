"""The command `spikedecode`: what it says of installations that are well, and of those that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from fakes import nsd
from packaging.requirements import Requirement

from neuroloaders import read_registry
from spikedecode import __version__, doctor
from spikedecode.cli import COMMANDS, main
from spikedecode.findings import Finding, as_text

ROOT = Path(__file__).resolve().parents[1]


def run(args, capsys):
    """The exit status and what was printed."""
    with pytest.raises(SystemExit) as left:
        main(args)
    return left.value.code, capsys.readouterr().out


def by_name(findings):
    return {finding.name: finding for finding in findings}


# --- doctor -------------------------------------------------------------------------------------------------------


def test_requirement_that_is_missing_or_old_is_a_problem_and_an_extra_is_a_note():
    installed = {"numpy": "2.3.5", "brian2": "2.0"}.get
    wanted = ["numpy>=2.0,<2.4", "brian2>=2.9", "mne>=1.9", "nir>=1.0; extra == 'nir'"]
    found = by_name(doctor.requirement_findings(wanted, installed))
    assert {name: finding.state for name, finding in found.items()} == {
        "numpy": "ok", "brian2": "problem", "mne": "problem", "nir": "note",
    }  # fmt: skip
    assert "2.0 is installed, >=2.9 is needed" in found["brian2"].text
    assert "pip install 'mne>=1.9'" in found["mne"].advice
    assert "[nir]" in found["nir"].text


def test_every_requirement_of_the_distribution_is_looked_at():
    names = {Requirement(line).name for line in requires("spikedecode")}
    assert {finding.name for finding in doctor.requirement_findings(requires("spikedecode"))} == names


@pytest.mark.parametrize(
    ("versions", "name", "says"),
    [
        ({"torch": "2.11.0", "torchvision": "0.25.0"}, "torch and torchvision", "0.26"),
        ({"torch": "2.6.0+cpu", "torchaudio": "2.11.0"}, "torch and torchaudio", "2.6"),
        ({"numpy": "2.4.1", "brian2": "2.9.0"}, "numpy and brian2", "ptp"),
    ],
)
def test_pairs_that_do_not_go_together_are_found(versions, name, says):
    found = by_name(doctor.combination_findings(versions.get, lambda module: None))
    assert found[name].state == "problem"
    assert says in found[name].text + found[name].advice


def test_pairs_that_go_together_are_well_and_one_that_does_not_import_is_not():
    versions = {"torch": "2.11.0", "torchvision": "0.26.0", "torchaudio": "2.11.0", "numpy": "2.3.5", "brian2": "2.9.0"}
    assert {f.state for f in doctor.combination_findings(versions.get, lambda module: None)} == {"ok"}

    def imports(module):
        if module == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    found = by_name(doctor.combination_findings(versions.get, imports))
    assert found["torch and torchvision"].state == "problem"
    assert "nms" in found["torch and torchvision"].text
    assert found["torch and torchaudio"].state == "ok"


def test_here_the_doctor_finds_no_problem_and_names_every_area(capsys):
    status, text = run(["doctor"], capsys)
    assert status == 0, text
    for area in ("Machine", "Packages", "Required", "Together", "Devices", "Backends", "Data"):
        assert f"\n{area}\n" in f"\n{text}"
    assert "Everything needed is there." in text
    status, text = run(["doctor", "--json"], capsys)
    assert status == 0
    assert {row["state"] for row in json.loads(text)} <= {"ok", "note"}


def test_a_folder_that_hides_one_of_our_packages_is_named(tmp_path):
    (tmp_path / "reservoir").mkdir()
    (tmp_path / "reservoir" / "__init__.py").write_text("", encoding="utf-8")
    command = [sys.executable, "-m", "spikedecode", "doctor", "--problems"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"comes from {tmp_path / 'reservoir'}" in " ".join(done.stdout.split())
    assert "PROBLEM" in done.stdout


def test_problems_are_counted_in_the_last_line():
    found = [Finding(area="A", name=name, state="problem", text="is broken.", advice="Mend it.") for name in "ab"]
    lines = as_text(found).splitlines()
    assert lines[0] == "A"
    assert lines[1].split() == ["PROBLEM", "a", "is", "broken.", "Mend", "it."]
    assert lines[-1] == "2 problems: see above."


# --- the others ---------------------------------------------------------------------------------------------------


def test_fetch_lists_what_the_registry_holds(capsys):
    status, text = run(["fetch"], capsys)
    assert status == 0
    assert [line.split()[0] for line in text.splitlines()] == sorted(read_registry())


def test_fetch_finds_what_is_there_and_says_in_one_line_what_is_not(tmp_path, capsys):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "mnist.npz").write_bytes(b"")
    assert run(["fetch", "mnist", "--data-dir", str(tmp_path)], capsys) == (0, f"{tmp_path / 'mnist'}\n")
    status, text = run(["fetch", "shd", "--offline", "--data-dir", str(tmp_path)], capsys)
    assert text == ""
    assert status.startswith("spikedecode: ")
    assert "shd" in status
    status, _ = run(["fetch", "nothing"], capsys)
    assert "`name` must be one of" in status


def test_studies_says_what_lies_in_a_folder(tmp_path, capsys):
    nsd.write_nsd(tmp_path / "nsd")
    status, text = run(["studies", str(tmp_path / "nsd")], capsys)
    assert status == 0
    assert "Natural Scenes Dataset" in text
    (tmp_path / "empty").mkdir()
    status, _ = run(["studies", str(tmp_path / "empty")], capsys)
    assert "known study" in status


def test_help_names_every_command(capsys):
    status, text = run(["--help"], capsys)
    assert status == 0
    assert all(name in text for name in COMMANDS)


def test_the_command_is_installed_and_is_the_module():
    script = Path(sys.executable).with_name("spikedecode")
    for command in ([str(script)], [sys.executable, "-m", "spikedecode"]):
        done = subprocess.run(
            [*command, "fetch"], capture_output=True, text=True, check=False, cwd=ROOT.parent, env=dict(os.environ)
        )
        assert done.returncode == 0, done.stderr
        assert "mnist" in done.stdout
    assert __version__.count(".") == 2
