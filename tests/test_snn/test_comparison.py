"""Comparisons measure what the single tools measure, and change nothing."""

import copy
import math

import pytest
import torch
from fakes.one_step import tiny_loaders, tiny_run

import snn
from snn.comparison import COLUMNS, compare_one_step, format_rows, mean_and_spread, ms_per_image, text_table


@pytest.fixture(scope="module")
def run_and_inputs():
    return tiny_run()


def test_comparison_has_a_row_for_each_network_in_order(run_and_inputs):
    rows = run_and_inputs[0].rows
    assert [row["network"] for row in rows] == ["ANN", "T = 3", "T = 1", "T = 1, plain", "T = 1, direct"]
    assert [row["n_steps"] for row in rows] == [None, 3, 1, 1, 1]
    assert all(row["ms_per_image"] > 0 for row in rows)


def test_comparison_agrees_with_evaluate_and_energy_report(run_and_inputs):
    run, inputs = run_and_inputs
    test = tiny_loaders()[0]["test"]
    rows = {row["network"]: row for row in run.rows}
    models = {"ANN": run.ann, "T = 3": run.result.at(3), "T = 1": run.result.at(1), "T = 1, direct": run.direct.model}
    for name, model in models.items():
        assert rows[name]["accuracy"] == snn.evaluate(model, test)["accuracy"]
        report = snn.energy_report(model, inputs)
        assert rows[name]["energy_ratio"] == report.ratio
        assert rows[name]["spike_rate"] == (None if name == "ANN" else report.mean_spike_rate)
    assert rows["ANN"]["energy_ratio"] == 1


def test_plain_network_equals_its_spiking_network_in_all_but_time(run_and_inputs):
    rows = {row["network"]: row for row in run_and_inputs[0].rows}
    for column in ("accuracy", "spike_rate", "energy_ratio"):
        assert rows["T = 1"][column] == rows["T = 1, plain"][column]


def test_plain_network_takes_the_energy_that_the_comparison_says(run_and_inputs):
    run, inputs = run_and_inputs
    measured = snn.energy_report(run.result.one_step, inputs)
    assert measured.ratio == next(row["energy_ratio"] for row in run.rows if row["network"] == "T = 1, plain")


def test_comparison_leaves_the_networks_as_they_were(run_and_inputs):
    run, inputs = run_and_inputs
    before = copy.deepcopy(run.ann.state_dict())
    scores = compare_one_step(run.ann, run.result, None, tiny_loaders()[0]["test"], inputs, repeats=1)
    assert [score.name for score in scores] == ["ANN", "T = 3", "T = 1", "T = 1, plain"]
    assert before.keys() == run.ann.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in run.ann.state_dict().items())
    assert run.result.at(3).n_steps == 3


def test_comparison_refuses_images_of_another_shape(run_and_inputs):
    run, inputs = run_and_inputs
    with pytest.raises(ValueError, match=r"`images` must have shape \(B, 1, 8, 8\), got \(40, 64\)"):
        compare_one_step(run.ann, run.result, None, tiny_loaders()[0]["test"], inputs.flatten(1))


def test_layer_rows_are_json(run_and_inputs):
    ann, *_, last = (score.layer_rows() for score in run_and_inputs[0].scores)
    assert all(row["input_rate"] is None for row in ann)
    assert [row["input_rate"] is None for row in last] == [True, False, False, False, False]
    numbers = [value for row in last for value in row.values() if isinstance(value, float)]
    assert not any(map(math.isnan, numbers))


class _Recorder(torch.nn.Module):
    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, x):
        self.calls.append((self.name, tuple(x.shape), torch.is_inference_mode_enabled()))
        return x


def test_timing_takes_turns_on_the_same_batch():
    calls = []
    found = ms_per_image({"a": _Recorder("a", calls), "b": _Recorder("b", calls)}, torch.zeros(4, 2), repeats=3)
    assert calls == [("a", (4, 2), True), ("b", (4, 2), True)] * 5  # two rounds warm up
    assert all(0 < value < 1000 for value in found.values())


@pytest.mark.parametrize(("images", "repeats", "message"), [(0, 1, "at least one image"), (1, 0, "`repeats` must")])
def test_timing_nothing_is_refused(images, repeats, message):
    with pytest.raises(ValueError, match=message):
        ms_per_image({}, torch.zeros(images, 2), repeats=repeats)


def _table(accuracy, rate=0.5):
    ann = {"network": "ANN", "n_steps": None, "accuracy": 0.9, "spike_rate": None, "energy_ratio": 1.0}
    one = {"network": "T = 1", "n_steps": 1, "accuracy": accuracy, "spike_rate": rate, "energy_ratio": 20.0}
    return [{**row, "ms_per_image": 0.1} for row in (ann, one)]


def test_mean_and_spread_are_those_of_the_sample():
    ann, one = mean_and_spread([_table(0.7), _table(0.8), _table(0.9)])
    assert one["accuracy"] == pytest.approx(0.8)
    assert one["accuracy_sd"] == pytest.approx(0.1)  # divided by n - 1
    assert one["n_steps"] == 1
    assert ann["spike_rate"] is None
    assert ann["spike_rate_sd"] is None
    assert ann["accuracy_sd"] == 0


def test_one_seed_has_no_spread():
    (_, one) = mean_and_spread([_table(0.7)])
    assert one["accuracy"] == 0.7
    assert all(one[f"{column}_sd"] is None for column in COLUMNS)


@pytest.mark.parametrize("tables", [[], [_table(0.7), _table(0.7)[:1]]])
def test_seeds_with_different_networks_are_refused(tables):
    with pytest.raises(ValueError, match="`tables` must hold the same networks for each seed"):
        mean_and_spread(tables)


def test_tables_show_units_spread_and_gaps():
    cells = format_rows(mean_and_spread([_table(0.7), _table(0.9)]))
    assert cells[0]["spikes / neuron"] == ""
    assert cells[1]["accuracy (%)"] == "80.00 ± 14.14"
    assert format_rows(_table(0.71234))[1]["accuracy (%)"] == "71.23"
    lines = text_table(_table(0.71234)).splitlines()
    assert lines[0].split("  ")[0] == "network"
    assert len({len(line) for line in lines}) == 1
    assert text_table([]) == ""
