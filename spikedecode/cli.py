"""The command ``spikedecode``: what is installed, which data are there, and how fast it is here."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["COMMANDS", "main"]


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what is installed, what can run here, and what will fail, with the remedy.

    Looks at versions and at pairs of versions that are known not to work together, devices, backends, the data folder,
    and whether a folder of the same name hides one of our packages. The exit status is 1 if there is a problem.

    Parameters
    ----------
    json
        Print one JSON list in place of text.
    problems
        Leave out what is well.
    """

    json: bool = False
    problems: bool = False

    def run(self) -> int:
        """Print what was found."""
        from spikedecode.doctor import examine
        from spikedecode.findings import as_rows, as_text

        found = examine()
        shown = [finding for finding in found if not self.problems or finding.state != "ok"]
        print(json.dumps(as_rows(shown), indent=1) if self.json else as_text(shown))
        return int(any(finding.state == "problem" for finding in found))


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Download a data set, once, and print where it lies; without a name, list those that are known.

    Parameters
    ----------
    name
        Of the data set.
    data_dir
        The folder that holds one folder for each data set; by default NEUROLOADERS_DATA or the user's cache.
    offline
        Look for it, and never use the network.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    data_dir: Path | None = None
    offline: bool = False

    def run(self) -> int:
        """Fetch, or list."""
        from neuroloaders import fetch, read_registry

        if self.name is None:
            known = read_registry()
            width = max(map(len, known))
            for name, entry in sorted(known.items()):
                size = "by hand" if entry.size is None else f"{entry.size / 1e6:.0f} MB"
                print(f"{name:{width}}  {size:>9}  {entry.title} ({entry.licence})")
            return 0
        print(fetch(self.name, data_dir=self.data_dir, offline=True if self.offline else None))
        return 0


@dataclass(frozen=True, kw_only=True)
class Studies:
    """Say which study lies in a folder, what of it is there, and what is missing.

    Parameters
    ----------
    path
        The folder of the study, as it was published.
    layout
        Which of the known layouts it has, if that is not recognised.
    """

    path: Annotated[Path, tyro.conf.Positional]
    layout: str | None = None

    def run(self) -> int:
        """Describe the study."""
        from neuroloaders import open_study

        print(open_study(self.path, layout=self.layout).describe())
        return 0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time our kernels and training against other packages; needs a checkout, and a machine that is idle.

    Parameters
    ----------
    only
        Such as bench_lif; by default all, into examples/benchmarks/RESULTS.md.
    """

    only: str | None = None

    def run(self) -> int:
        """Run the script of the checkout."""
        script = Path(__file__).resolve().parents[1] / "examples" / "benchmarks" / "run_all.py"
        if not script.is_file():
            raise FileNotFoundError(
                f"The benchmarks are not installed: {script} is not there. Clone the repository and run `make bench`."
            )
        return subprocess.run(
            [sys.executable, str(script), *(["--only", self.only] if self.only else [])], check=False
        ).returncode


COMMANDS = {"doctor": Doctor, "fetch": Fetch, "studies": Studies, "bench": Bench}


def main(args: list[str] | None = None) -> None:
    """Run a command and leave with its exit status; what a user can mend is said in one line.

    Parameters
    ----------
    args : list of str, optional
        By default those of the process.
    """
    command = tyro.extras.subcommand_cli_from_dict(
        dict(COMMANDS),
        prog="spikedecode",
        description="Spiking networks and brain decoding: what is here, and whether it works.",
        args=args,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        sys.exit(command.run())
    except (OSError, ValueError) as error:
        sys.exit(f"spikedecode: {error}")
