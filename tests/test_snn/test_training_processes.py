"""Two processes train like one that sees the whole batches."""

import csv
import os
import subprocess
import sys

import pytest
import torch
from children import train_in_processes as child

from snn.training.processes import Processes


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, rank by rank, and their folder; launched as torchrun does."""
    folder = tmp_path_factory.mktemp("two")
    # As torchrun's agent, hold the meeting point here: a free port that nobody can take in between.
    store = torch.distributed.TCPStore("127.0.0.1", 0, 3, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", child.__file__, str(folder / "found.pt"), str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return torch.load(folder / "found.pt", weights_only=True), folder, errors


@pytest.fixture(scope="module")
def one():
    """What one process finds, which sees the whole batches."""
    return {name: child.run_scenario(name) for name in child.SCENARIOS}


@pytest.mark.parametrize("name", child.SCENARIOS)
def test_two_processes_end_with_the_weights_of_one(name, one, two):
    rtol, atol = (1e-5, 1e-6) if child.SCENARIOS[name][0] == torch.float32 else (1e-12, 1e-14)
    expected = one[name]["weights"]
    for found in two[0]:
        got = found["scenarios"][name]["weights"]
        assert got.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(
                got[key], expected[key], rtol=rtol, atol=atol, msg=lambda m, key=key: f"{key}: {m}"
            )
    assert torch.equal(expected["unused"], torch.ones(2, dtype=expected["unused"].dtype))


@pytest.mark.parametrize("name", child.SCENARIOS)
def test_all_ranks_have_the_same_bits(name, two):
    first, second = (found["scenarios"][name] for found in two[0])
    assert all(torch.equal(first["weights"][key], second["weights"][key]) for key in first["weights"])
    assert first["rows"] == second["rows"]
    assert first["scores"] == second["scores"]


@pytest.mark.parametrize("name", child.SCENARIOS)
def test_scores_are_means_over_the_samples_of_all_processes(name, one, two):
    rel = 1e-5 if child.SCENARIOS[name][0] == torch.float32 else 1e-12
    found, expected = two[0][0]["scenarios"][name], one[name]
    assert len(found["rows"]) == len(expected["rows"])
    for got, row in zip(found["rows"], expected["rows"], strict=True):
        assert got == pytest.approx(row, rel=rel)
    assert found["scores"] == pytest.approx(expected["scores"], rel=rel)
    last = expected["rows"][-1]
    assert expected["scores"] == {"loss": last["valid_loss"], "accuracy": last["valid_accuracy"]}


def test_rank_zero_alone_writes(two):
    found, folder, _ = two
    with open(folder / "float64" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["valid_loss"]) for row in rows] == [
        row["valid_loss"] for row in found[0]["scenarios"]["float64"]["rows"]
    ]
    log = (folder / "float64" / "log.txt").read_text().splitlines()
    assert len(log) == 1
    assert "complete" in log[0]


def test_run_stopped_inside_an_epoch_goes_on_with_the_same_bits_on_every_rank(two):
    for found in two[0]:
        for name, value in found["whole"]["weights"].items():
            assert torch.equal(value, found["stopped"]["weights"][name]), name
        # Sums of several processes are added up in another order.
        for row, expected in zip(found["stopped"]["rows"], found["whole"]["rows"], strict=True):
            assert row == pytest.approx(expected, rel=1e-12)


def test_dropout_masks_differ_between_ranks(two):
    first, second = (found["batchnorm"]["mask"] for found in two[0])
    assert not torch.equal(first, second)


def test_batchnorm_on_cpus_warns_once_and_ends_with_the_same_statistics(two):
    first, second = (found["batchnorm"] for found in two[0])
    assert second["warnings"] == []
    ((message, file),) = first["warnings"]
    assert message.startswith("On CPUs each process normalises its own share of a batch")
    assert file == "train_in_processes.py"
    assert all(torch.equal(first["buffers"][name], second["buffers"][name]) for name in first["buffers"])


def test_nothing_else_is_said(two):
    assert two[2] == ["", ""]


def test_data_that_are_not_divided_are_refused(two):
    for rank, found in enumerate(two[0]):
        assert f"`train` must yield the share of rank {rank} of 2, and say so by its `rank`" in found["refusal"]


def test_batchnorms_are_joined_on_gpus_and_put_back():
    processes = Processes("cpu")
    processes.world_size, processes.device = 2, torch.device("cuda", 0)  # pretend; nothing is computed
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Sequential(torch.nn.BatchNorm1d(4, eps=0.1)))
    layers, state = list(model.modules()), model.state_dict()
    with processes.joint_batchnorm(model) as layers_talk:
        assert layers_talk
        joined = model[1][0]
        assert type(joined) is torch.nn.SyncBatchNorm
        assert joined.eps == 0.1
        assert joined.weight is layers[-1].weight
        joined.running_mean.add_(1)
        joined.num_batches_tracked.add_(3)
        assert model.state_dict().keys() == state.keys()
    assert list(model.modules()) == layers
    assert model[1][0].running_mean.tolist() == [1.0] * 4
    assert int(model[1][0].num_batches_tracked) == 3
