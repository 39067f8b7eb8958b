"""The runner of all benchmarks: what it writes for scripts that succeed, fail and disagree."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
CASE = {"case": "sum of a | b", "ours_s": 0.0025, "peer": "numpy", "peer_s": 0.01, "ratio": 4.0, "agree": True}


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_all", ROOT / "examples" / "benchmarks" / "run_all.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_all"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["run_all"]


def write_script(folder: Path, name: str, *lines: str, status: int = 0) -> None:
    body = "".join(f"print({line!r})\n" for line in lines)
    (folder / f"{name}.py").write_text(f"import sys\n{body}sys.exit({status})\n", encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]


def test_results_have_a_table_for_each_benchmark(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    alone = {"case": "alone", "ours_s": 2e-6, "peer": None, "peer_s": None, "ratio": None, "agree": None}
    memory = {"case": "peak memory", "ours_mb": 30.04, "peer": "numpy", "peer_mb": 90, "ratio": 3.0, "agree": True}
    write_script(tmp_path, "bench_a", "warming up", json.dumps(CASE | {"peak_MiB": 12.5, "n": 3}), json.dumps(alone))
    write_script(tmp_path, "bench_b", json.dumps(CASE | {"ours_s": 1.5, "peer_s": 6}), json.dumps(memory))
    write_script(tmp_path, "other", "must not run", status=1)
    assert runner.main([], folder=tmp_path) == 0

    printed = capsys.readouterr().out
    assert printed.index("bench_a (1 of 2)") < printed.index("warming up") < printed.index("bench_b (2 of 2)")
    assert "must not run" not in printed
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert text.index("## bench_a") < text.index("## bench_b")
    for word in ("never seconds", "- date: ", "- machine: ", "cores", "GiB RAM", "Python ", "torch ", "run_all.py`"):
        assert word in text
    assert rows(text) == [
        ["case", "ours", "peer", "the peer's", "peer / ours", "agree", "peak MiB", "n"],
        ["---", "---:", "---", "---:", "---:", "---", "---:", "---:"],
        [r"sum of a \| b", "2.5 ms", "numpy", "10 ms", "4.00", "yes", "12.5", "3"],
        ["alone", "2 µs", "", "", "", "", "", ""],
        ["case", "ours", "peer", "the peer's", "peer / ours", "agree"],
        ["---", "---:", "---", "---:", "---:", "---"],
        [r"sum of a \| b", "1.5 s", "numpy", "6 s", "4.00", "yes"],
        ["peak memory", "30 MB", "numpy", "90 MB", "3.00", "yes"],
    ]


@pytest.mark.parametrize(
    ("lines", "status", "problem"),
    [
        ([json.dumps(CASE | {"agree": False})], 0, r"do not agree: sum of a"),
        ([json.dumps(CASE)], 3, "exit status 3"),
        ([], 0, "no case"),
        ([json.dumps(CASE), '{"case": "b"}'], 0, "lacks ours_s, peer"),
        ([json.dumps(CASE), '{"case": '], 0, "no JSON"),
    ],
)
def test_failure_is_written_and_is_the_exit_status(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, lines: list[str], status: int, problem: str
) -> None:
    write_script(tmp_path, "bench_bad", *lines, status=status)
    write_script(tmp_path, "bench_good", json.dumps(CASE))
    assert runner.main([], folder=tmp_path) == 1
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert re.search(rf"\*\*Failed\*\*: .*{problem}", text)
    assert re.search(problem, capsys.readouterr().err)
    assert rows(text)[-1][0] == r"sum of a \| b"  # the others are run all the same


def test_only_runs_one_and_leaves_the_results_alone(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_script(tmp_path, "bench_a", json.dumps(CASE))
    write_script(tmp_path, "bench_b", status=1)
    assert runner.main(["--only", "bench_a"], folder=tmp_path) == 0
    assert not (tmp_path / "RESULTS.md").exists()
    assert "2.5 ms" in capsys.readouterr().out
    assert runner.main(["--only", "bench_a", "--output", str(tmp_path / "one.md")], folder=tmp_path) == 0
    assert "2.5 ms" in (tmp_path / "one.md").read_text(encoding="utf-8")


def test_unknown_benchmark_lists_the_known(runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_script(tmp_path, "bench_a")
    with pytest.raises(SystemExit):
        runner.main(["--only", "bench_x"], folder=tmp_path)
    assert "bench_a" in capsys.readouterr().err
