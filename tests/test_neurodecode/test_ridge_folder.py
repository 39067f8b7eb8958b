"""Predictions of many targets in a folder: whole or absent, resumed after a kill, shared by processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from fakes.cluster import cluster
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

from neurodecode.ridge import (
    MultiTargetRidge,
    StandardizedRidge,
    cross_val_smooth,
    predict_to_folder,
    smooth_predict_many,
)
from neurodecode.ridge.solver import counts
from neurodecode.ridge.to_folder import share_of_chunks

RIDGE = MultiTargetRidge(20.0, chunk_size=100)
N_CHUNKS = 10


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with x.npy, new.npy and y.npy (1000 targets, the last chunk is smaller)."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for name, shape in (("x", (40, 90)), ("new", (6, 90)), ("y", (40, 950))):
        np.save(folder / f"{name}.npy", rng.standard_normal(shape, dtype="f4") + 2)
    return folder


def predicted(data: Path, folder: Path, ridge: MultiTargetRidge = RIDGE, **options: Any) -> np.ndarray | None:
    paths = (data / "x.npy", data / "y.npy", data / "new.npy")
    return predict_to_folder(ridge, *paths, folder, progress=False, **options)


def arrays(data: Path) -> list[np.ndarray]:
    return [np.load(data / f"{name}.npy") for name in ("x", "y", "new")]


def child(data: Path, folder: Path, before: str = "", **env: str) -> subprocess.Popen:
    code = (
        f"from neurodecode.ridge import *; {before}\n"
        f"d = {str(data)!r}\n"
        f"p = predict_to_folder(MultiTargetRidge(20.0, chunk_size=100), d + '/x.npy', d + '/y.npy', d + '/new.npy', "
        f"{str(folder)!r}, progress=False)\n"
        "print(p is None)"
    )
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "ridge",
    [RIDGE, MultiTargetRidge(alphas=[1.0, 10.0, 100.0], chunk_size=100), MultiTargetRidge(20.0)],
    ids=["fixed", "chosen", "one chunk"],
)
def test_folder_holds_what_smooth_predict_returns(ridge: MultiTargetRidge, data: Path, tmp_path: Path) -> None:
    x, y, new = arrays(data)
    got = predicted(data, tmp_path / "run", ridge)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, ridge.smooth_predict(x, y, new), rtol=1e-5, atol=1e-5)
    assert (np.load(tmp_path / "run" / "alpha.npy") == ridge.alpha_).all()


@pytest.mark.parametrize("mode", ["loo", "test"])
def test_standardised_folder_is_standardised_ridge(mode: str, data: Path, tmp_path: Path) -> None:
    x, y, new = arrays(data)
    got = predicted(data, tmp_path / "run", standardize=mode, n_loo=30, random_state=3)
    want = StandardizedRidge(RIDGE, standardize=mode, n_loo=30, random_state=3).fit(x, y)
    np.testing.assert_allclose(got, want.predict(new), rtol=1e-4, atol=1e-4)
    found = np.load(tmp_path / "run" / "statistics.npy")
    np.testing.assert_allclose(found[2:], [y.mean(0), y.std(0)], rtol=1e-5)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_run_is_resumed_where_it_was(data: Path, tmp_path: Path) -> None:
    # Killed in the middle of writing the fifth chunk.
    kill = (
        "import numpy as np, os, signal; from neurodecode.ridge import to_folder\n"
        "class N:\n"
        "    n = 0\n"
        "    def __getattr__(self, k): return getattr(np, k)\n"
        "    def savez(self, file, **a):\n"
        "        N.n += 1\n"
        "        if N.n == 5: file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "        np.savez(file, **a)\n"
        "to_folder.np = N()"
    )
    folder = tmp_path / "run"
    process = child(data, folder, kill)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in folder.glob("targets-*.npz")}
    assert len(done) == 4
    assert not (folder / "predictions.npy").exists()
    counts.clear()
    got = predicted(data, folder)
    assert counts["chunks"] == N_CHUNKS - 4
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert (got == predicted(data, tmp_path / "again")).all()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_progress_counts_what_was_there_before(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predicted(data, tmp_path / "run")
    sorted((tmp_path / "run").glob("targets-*.npz"))[-1].unlink()
    paths = (data / "x.npy", data / "y.npy", data / "new.npy")
    predict_to_folder(RIDGE, *paths, tmp_path / "run")
    shown = capsys.readouterr().err
    assert "ridge" in shown
    assert "950/950" in shown


def test_finished_run_computes_nothing_again(data: Path, tmp_path: Path) -> None:
    first = np.array(predicted(data, tmp_path / "run"))
    counts.clear()
    assert (predicted(data, tmp_path / "run") == first).all()
    assert counts == {}


def test_changed_targets_are_computed_again_and_nothing_else(data: Path, tmp_path: Path) -> None:
    predicted(data, tmp_path / "run")
    x, y, new = arrays(data)
    y[3, 250] += 1
    np.save(data / "y.npy", y)
    counts.clear()
    got = predicted(data, tmp_path / "run")
    assert counts["chunks"] == 1
    np.testing.assert_allclose(got, RIDGE.smooth_predict(x, y, new), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_chunk_is_computed_again(damage: str, data: Path, tmp_path: Path) -> None:
    first = np.array(predicted(data, tmp_path / "run"))
    path = sorted((tmp_path / "run").glob("targets-*.npz"))[2]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # in the predictions
    path.write_bytes(content[:200] if damage == "cut" else content)
    counts.clear()
    assert (predicted(data, tmp_path / "run") == first).all()
    assert counts["chunks"] == 1


@pytest.mark.parametrize("change", ["x", "new", "alpha", "standardize"])
def test_folder_of_another_job_is_refused(change: str, data: Path, tmp_path: Path) -> None:
    predicted(data, tmp_path / "run")
    if change in ("x", "new"):
        array = np.load(data / f"{change}.npy")
        array[1, 1] += 1
        np.save(data / f"{change}.npy", array)
    ridge = MultiTargetRidge(21.0, chunk_size=100) if change == "alpha" else RIDGE
    with pytest.raises(ValueError, match="choose another folder"):
        predicted(data, tmp_path / "run", ridge, standardize="loo" if change == "standardize" else None)


def test_two_processes_share_the_targets(data: Path, tmp_path: Path) -> None:
    # As torchrun starts them: RANK and WORLD_SIZE.
    children = [child(data, tmp_path / "run", RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    waiting = [process.communicate()[0].strip() for process in children]
    assert [process.returncode for process in children] == [0, 0]
    assert "False" in waiting  # the last one put them together
    got = np.load(tmp_path / "run" / "predictions.npy")
    assert (got == predicted(data, tmp_path / "alone")).all()
    assert len(list((tmp_path / "run").glob("targets-*.npz"))) == N_CHUNKS


@pytest.mark.slow
def test_torchrun_shares_the_targets(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from neurodecode.ridge import MultiTargetRidge, predict_to_folder\n"
        f"d = {str(data)!r}\n"
        "predict_to_folder(MultiTargetRidge(20.0, chunk_size=100), d + '/x.npy', d + '/y.npy', d + '/new.npy', "
        f"{str(tmp_path / 'run')!r})\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    subprocess.run(command, check=True, capture_output=True)
    got = np.load(tmp_path / "run" / "predictions.npy")
    assert (got == predicted(data, tmp_path / "alone")).all()


def test_a_rank_waits_for_chunks_that_were_made_from_other_targets(data: Path, tmp_path: Path) -> None:
    for rank in range(2):
        predicted(data, tmp_path / "run", rank=rank, world_size=2)
    x, y, new = arrays(data)
    np.save(data / "y.npy", y + 1)
    assert predicted(data, tmp_path / "run", rank=0, world_size=2) is None
    got = predicted(data, tmp_path / "run", rank=1, world_size=2)
    np.testing.assert_allclose(got, RIDGE.smooth_predict(x, y + 1, new), rtol=1e-5, atol=1e-5)


def test_memory_does_not_grow_with_the_targets(data: Path, tmp_path: Path) -> None:
    np.save(data / "y.npy", np.ones((40, 200_000), "f4") * np.arange(40, dtype="f4")[:, None])  # 32 MB
    predicted(data, tmp_path / "warm", MultiTargetRidge(20.0, chunk_size=100_000))
    tracemalloc.start()
    predicted(data, tmp_path / "run", MultiTargetRidge(20.0, chunk_size=5000), standardize="loo")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6


@pytest.mark.parametrize(("n", "world_size"), [(10, 3), (2, 5), (7, 7), (1, 1)])
def test_every_chunk_has_one_rank(n: int, world_size: int) -> None:
    shares = [share_of_chunks(n, rank, world_size) for rank in range(world_size)]
    assert [k for share in shares for k in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_wrong_use_is_explained(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`ridge` must have fixed alphas or alpha_per='target'"):
        predicted(data, tmp_path / "run", MultiTargetRidge(alpha_per="all"))
    with pytest.raises(ValueError, match="`rank` must be a whole number >= 0 and <= 1, got 2"):
        predicted(data, tmp_path / "run", rank=2, world_size=2)
    x, y, new = arrays(data)
    with pytest.raises(ValueError, match=r"`y` must have shape \(n_samples, n_targets\)"):
        predict_to_folder(RIDGE, x, y[:, 0], new, tmp_path / "run")


# --- subjects and folds -------------------------------------------------------------------------------------------


def test_subjects_run_in_two_worker_processes(data: Path, tmp_path: Path) -> None:
    x, y, new = arrays(data)
    jobs = [(x, y, new), (x[::-1].copy(), y, new), (data / "x.npy", data / "y.npy", new, tmp_path / "out.npy")]
    want = smooth_predict_many(RIDGE, jobs)
    counts.clear()
    got = smooth_predict_many(RIDGE, jobs, n_jobs=2)
    assert counts == {}  # none was computed in this process
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    with joblib.parallel_config("loky", n_jobs=2):
        got = smooth_predict_many(RIDGE, jobs[:2])
    assert counts == {}
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_folds_give_what_cross_val_predict_gives(n_jobs: int | None, data: Path) -> None:
    x, y, _ = arrays(data)
    x, y, groups = x.astype("f8"), y[:, :30].astype("f8"), np.arange(40) % 4
    got = cross_val_smooth(MultiTargetRidge(20.0), x, y, cv=LeaveOneGroupOut(), groups=groups, n_jobs=n_jobs)
    want = cross_val_predict(Ridge(20.0), x, y, cv=LeaveOneGroupOut(), groups=groups)
    np.testing.assert_allclose(got, want, rtol=1e-8)


def test_folds_and_subjects_run_on_a_cluster_of_two_processes(data: Path) -> None:
    x, y, new = arrays(data)
    groups = np.arange(40) % 4
    folds = {"cv": LeaveOneGroupOut(), "groups": groups}
    want, subjects = cross_val_smooth(RIDGE, x, y[:, :30], **folds), smooth_predict_many(RIDGE, [(x, y, new)] * 2)
    counts.clear()
    with cluster(2):
        got, others = cross_val_smooth(RIDGE, x, y[:, :30], **folds), smooth_predict_many(RIDGE, [(x, y, new)] * 2)
    assert counts == {}  # none was computed in this process
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(others, subjects, rtol=1e-5, atol=1e-5)


def test_inner_folds_see_the_groups_of_the_training_rows_only(data: Path) -> None:
    x, y, _ = arrays(data)
    groups = np.arange(40) % 8
    ridge = MultiTargetRidge(select="group-kfold", n_splits=None, alphas=[1.0, 100.0])
    got = cross_val_smooth(ridge, x, y[:, :20], cv=GroupKFold(4), groups=groups)
    train, test = next(GroupKFold(4).split(x, groups=groups))
    want = ridge.smooth_predict(x[train], y[train, :20], x[test], groups=groups[train])
    assert (got[test] == want).all()


def test_folds_that_leave_rows_out_are_refused(data: Path) -> None:
    x, y, _ = arrays(data)
    with pytest.raises(ValueError, match="`cv` must put each row into the test part of one fold"):
        cross_val_smooth(RIDGE, x, y, cv=[(np.arange(20), np.arange(20, 30))])
    with pytest.raises(ValueError, match=r"`jobs\[0\]` must be \(X, y, X_test\)"):
        smooth_predict_many(RIDGE, [(x, y)])
