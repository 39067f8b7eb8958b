"""Run all benchmarks one after the other and write what they found to RESULTS.md.

Each ``bench_*.py`` in this folder is run as a program of its own, so that none warms the caches of another. It
prints one JSON line a case:

    {"case", "ours_s", "peer", "peer_s", "ratio", "agree"}      seconds; ratio: peer / ours

``ours_mb`` and ``peer_mb`` stand for memory in place of seconds. Further keys become columns; all else it prints is
progress. The exit status is 1 if a benchmark fails, or if ours and the peer do not agree.

    python examples/benchmarks/run_all.py
    python examples/benchmarks/run_all.py --only bench_resident     # prints its table, leaves RESULTS.md alone
"""

# %%
from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuroloaders.runs import atomic_write

FOLDER = Path(__file__).resolve().parent
COLUMNS = ("case", "ours", "peer", "the peer's", "peer / ours", "agree")
TEXT_COLUMNS = ("case", "peer", "agree")
UNITS = ("s", "mb")
PEERS = ("spikingjelly", "snntorch", "DCLS", "brian2", "scikit-learn", "himalaya", "mne")
PACKAGES = ("torch", "numpy", "numba", "triton", *PEERS)


@dataclass
class Outcome:
    """What came of one benchmark."""

    name: str
    cases: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def run(script: Path) -> Outcome:
    """Run one benchmark, pass on what it prints, and collect its cases."""
    outcome, started = Outcome(script.stem), time.perf_counter()
    command = [sys.executable, "-u", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("{"):
                add_case(outcome, line)
    outcome.seconds = time.perf_counter() - started
    if process.returncode:
        outcome.problems.append(f"it ended with exit status {process.returncode}")
    if not outcome.cases:
        outcome.problems.append("it printed no case")
    return outcome


def add_case(outcome: Outcome, line: str) -> None:
    """Enter the case of a JSON line, or what is wrong with it."""
    try:
        case = json.loads(line)
    except json.JSONDecodeError as error:
        outcome.problems.append(f"a line is no JSON ({error}): {line.strip()}")
        return
    unit = unit_of(case)
    missing = [key for key in ("case", f"ours_{unit}", "peer", f"peer_{unit}", "ratio", "agree") if key not in case]
    if missing:
        outcome.problems.append(f"a line lacks {', '.join(missing)}: {line.strip()}")
        return
    outcome.cases.append(case)
    if case["agree"] is False:
        outcome.problems.append(f"ours and {case['peer']} do not agree: {case['case']}")


# %%
def machine() -> str:
    """Describe the machine: processor, cores, memory, GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [
        processor(),
        f"{cores} cores",
        f"{memory_bytes() / 2**30:.0f} GiB RAM",
        f"{platform.system()} {platform.machine()}",
    ]
    import torch

    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def processor() -> str:
    """Return the processor's name where the system tells it."""
    if sys.platform == "darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """Return the main memory; 0 where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 0


def versions() -> str:
    """Return the versions that the numbers belong to."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


# %%
def results(outcomes: Sequence[Outcome], command: str) -> str:
    """Return all tables, and what is needed to read them, as Markdown."""
    parts = [
        "# Benchmark results",
        "Written by `examples/benchmarks/run_all.py`; do not edit. Compare ratios (the peer's value over ours) between "
        "machines, never seconds. Ours and the peer ran in one process, on the same arrays, and their results were "
        "compared first (*agree*).",
        f"- date: {time.strftime('%Y-%m-%d %H:%M %Z')}\n- command: `{command}`\n- machine: {machine()}\n"
        f"- versions: {versions()}",
    ]
    for outcome in outcomes:
        parts.append(f"## {outcome.name}\n\n{outcome.seconds:.0f} s in all.")
        if outcome.problems:
            parts.append("\n".join(f"- **Failed**: {problem}" for problem in outcome.problems))
        if outcome.cases:
            parts.append(table(outcome.cases))
    return "\n\n".join(parts) + "\n"


def unit_of(case: dict[str, Any]) -> str:
    """Return what a case is measured in: "s" or "mb"."""
    return next((unit for unit in UNITS if f"ours_{unit}" in case), "s")


def table(cases: Sequence[dict[str, Any]]) -> str:
    """Return the cases of one benchmark as a Markdown table; further keys come last."""
    rows, extra = [], {}
    for case in cases:
        unit, rest = unit_of(case), dict(case)
        ours, peer = quantity(rest.pop(f"ours_{unit}"), unit), quantity(rest.pop(f"peer_{unit}"), unit)
        ratio = "" if (value := rest.pop("ratio")) is None else f"{value:.2f}"
        rows.append(
            ([cell(rest.pop("case")), ours, cell(rest.pop("peer")), peer, ratio, cell(rest.pop("agree"))], rest)
        )
        extra |= dict.fromkeys(rest)
    lines = [[*COLUMNS, *(key.replace("_", " ") for key in extra)]]
    lines.append(["---" if name in TEXT_COLUMNS else "---:" for name in lines[0]])
    lines += [[*row, *(cell(rest.get(key)) for key in extra)] for row, rest in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def quantity(value: float | None, unit: str) -> str:
    """Return a measured value with its unit, three digits."""
    if value is None:
        return ""
    if unit == "mb":
        return f"{value:.3g} MB"
    scale, unit = next((pair for pair in ((1, "s"), (1e3, "ms")) if value * pair[0] >= 1), (1e6, "µs"))
    return f"{value * scale:.3g} {unit}"


def cell(value: Any) -> str:
    """Return any other value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    scripts = {script.stem: script for script in sorted(folder.glob("bench_*.py"))}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(scripts), metavar="NAME", help=", ".join(scripts))
    parser.add_argument("--output", type=Path, help="default: RESULTS.md here; with --only, none")
    args = parser.parse_args(arguments)
    names = args.only or list(scripts)
    output = args.output or (None if args.only else folder / "RESULTS.md")

    outcomes = []
    for number, name in enumerate(names, start=1):
        print(f"== {name} ({number} of {len(names)})", flush=True)
        outcomes.append(run(scripts[name]))
    given = sys.argv[1:] if arguments is None else arguments
    text = results(outcomes, shlex.join(["python", "examples/benchmarks/run_all.py", *given]))
    if output is None:
        print(f"\n{text}")
    else:
        with atomic_write(output, "w") as file:
            file.write(text)
        print(f"== Written: {output}")
    problems = [f"{outcome.name}: {problem}" for outcome in outcomes for problem in outcome.problems]
    for problem in problems:
        print(f"== Failed: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
