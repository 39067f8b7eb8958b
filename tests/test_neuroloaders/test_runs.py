"""Seeds, devices, processes and run folders."""

import csv
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from neuroloaders.runs import RunFolder, choose_device, generator, spawn_seeds, versions, world


def test_seeds_do_not_depend_on_the_other_names_or_their_order():
    both = spawn_seeds(3, "split", "weights")
    assert both == {"split": spawn_seeds(3, "split")["split"], "weights": spawn_seeds(3, "weights")["weights"]}
    assert spawn_seeds(3, "weights", "new", "split").items() >= both.items()


def test_seeds_are_those_of_numpys_seed_sequence():
    key = np.frombuffer(hashlib.sha256(b"split").digest(), dtype="<u4").tolist()
    expected = np.random.SeedSequence(5, spawn_key=key).generate_state(1)[0]
    assert spawn_seeds(5, "split") == {"split": expected}


def test_seeds_differ_between_names_and_between_seeds_and_fit_everywhere():
    names = [f"name {index}" for index in range(50)]
    seeds = [seed for number in range(40) for seed in spawn_seeds(number, *names).values()]
    assert len(set(seeds)) == len(seeds)  # 2000 of 2**32: a chance of 0.05 % to fail, once and for all
    assert 0 <= min(seeds) <= max(seeds) < 2**32
    assert all(type(seed) is int for seed in seeds)


def test_bad_seeds_and_names_are_refused():
    with pytest.raises(ValueError, match="`names` must differ from each other, got 'a', 'a'"):
        spawn_seeds(0, "a", "a")
    with pytest.raises(ValueError, match="`seed` must be a whole number >= 0, got -1"):
        spawn_seeds(-1, "a")
    with pytest.raises(TypeError, match="`names` must be strings"):
        spawn_seeds(0, 1)


def test_generator_draws_what_pytorch_draws_and_changes_nothing_global():
    before = torch.get_rng_state()
    drawn = torch.rand(5, generator=generator(11))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(5, generator=torch.Generator().manual_seed(11)))


def test_world_is_one_process_without_torchrun(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert world() == (0, 0, 1)


def test_world_is_what_torchrun_set(monkeypatch):
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert world() == (5, 1, 8)


@pytest.mark.parametrize("values", [{"RANK": "2"}, {"LOCAL_RANK": None}, {"WORLD_SIZE": "two"}])
def test_world_that_makes_no_sense_is_refused(monkeypatch, values):
    for name, value in ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"} | values).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="must be set together, as torchrun does, got RANK="):
        world()


def pretend(monkeypatch, n_gpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


def test_device_is_a_gpu_if_there_is_one(monkeypatch):
    pretend(monkeypatch, 2)
    assert choose_device() == torch.device("cuda", 0)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == torch.device("cpu")
    pretend(monkeypatch, 0)
    assert choose_device() == torch.device("cpu")


def test_device_under_torchrun_is_the_process_own(monkeypatch):
    pretend(monkeypatch, 2)
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert choose_device() == choose_device("cuda") == torch.device("cuda", 1)


@pytest.mark.parametrize(("name", "n_gpus"), [("cuda", 0), ("cuda:2", 2), ("gpu", 1), ("xla", 0)])
def test_absent_device_is_refused_with_what_there_is(monkeypatch, name, n_gpus):
    pretend(monkeypatch, n_gpus)
    available = ", ".join(["cpu", *(f"cuda:{index}" for index in range(n_gpus))])
    with pytest.raises(ValueError, match=rf"`device` must be .*Available here: {available}\."):
        choose_device(name)


def test_versions_name_what_made_a_number():
    lines = dict(line.split(": ", 1) for line in versions().splitlines())
    assert lines["python"] == sys.version.split()[0]
    assert lines["torch"] == torch.__version__
    assert lines["numpy"] == np.__version__
    assert {"spikedecode", "platform", "git"} <= lines.keys()


def test_versions_name_the_commit_and_whether_files_were_changed(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    assert "git: no repository\n" in versions()
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "first")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD").strip()
    assert f"git: {commit}\n" in versions()
    (tmp_path / "file").write_text("b")
    assert f"git: {commit}-dirty\n" in versions()


def test_folder_takes_the_same_configuration_again(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run")
    config = {"lr": 0.1, "betas": (0.9, 0.99), "nested": {"name": "adam"}}
    assert folder.claim(config) is False
    assert RunFolder(tmp_path / "a" / "run").claim(config) is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.2}, "`lr` must be 0.1, as in '.*config.json', got 0.2"),
        ({"betas": (0.9, 0.9)}, r"`betas\[1\]` must be 0.99, .* got 0.9"),
        ({"nested": {"name": "sgd"}}, '`nested.name` must be "adam", .* got "sgd"'),
        ({"new": 1}, '`new` must be "absent", .* got 1'),
    ],
)
def test_folder_refuses_another_configuration_by_field_and_values(tmp_path, change, words):
    config = {"lr": 0.1, "betas": (0.9, 0.99), "nested": {"name": "adam"}}
    RunFolder(tmp_path).claim(config)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=words + ".*choose another folder or delete that one"):
        RunFolder(tmp_path).claim(config | change)
    assert (tmp_path / "config.json").read_bytes() == before


def test_folder_shows_all_versions_that_wrote_into_it(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.claim({})
    folder.claim({})
    assert (tmp_path / "versions.txt").read_text() == versions()
    monkeypatch.setattr(np, "__version__", "99")
    folder.claim({})
    assert (tmp_path / "versions.txt").read_text().count("numpy: ") == 2


def test_metrics_read_back_exactly(tmp_path):
    rows = [{"epoch": 0, "loss": 0.1 + 0.2}, {"epoch": 1, "loss": 1e-300 / 3}]
    RunFolder(tmp_path).write_metrics(rows)
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert [{"epoch": int(row["epoch"]), "loss": float(row["loss"])} for row in csv.DictReader(file)] == rows


def test_log_is_appended_to(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log("one")
    folder.log("two")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["one", "two"]


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Could not make the folder '.*file/run'"):
        RunFolder(tmp_path / "file" / "run")


HOLDER = """
import os, sys
from neuroloaders.runs import RunFolder
with RunFolder(sys.argv[1]).held():
    if os.fork() == 0:  # like a worker that loads data, and outlives the run
        sys.stdout.write("held\\n"); sys.stdout.flush()
        sys.stdin.read()
        os._exit(0)
    os.waitpid(-1, 0)
"""


def test_folder_is_for_one_process_and_free_again_after_a_kill(tmp_path):
    (tmp_path / ".neuroloaders-1-a.tmp").write_bytes(b"left by a killed run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        assert not list(tmp_path.glob(".neuroloaders-*"))
        with (
            pytest.raises(ValueError, match="`run_dir` must be in use by one process only"),
            RunFolder(tmp_path).held(),
        ):
            pass
        process.kill()
        process.wait()
        with RunFolder(tmp_path).held():
            pass
        process.stdin.close()


def test_import_is_light():
    code = "import neuroloaders.runs, sys; print(*(name.partition('.')[0] for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    heavy = {"mne", "sklearn", "matplotlib", "pooch", "accelerate", "scipy", "transformers", "h5py"}
    assert not heavy & set(loaded.stdout.split())
