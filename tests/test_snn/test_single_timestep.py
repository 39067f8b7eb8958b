"""Temporal pruning: what is carried from stage to stage, and the network of one step."""

import copy
import json

import pytest
import torch
from tolerances import close

import snn
from neuroloaders import ResidentLoader, ToFloat, example_data
from snn.folded import Compare, FoldedLIF
from snn.models import TimeSharedDropout, resnet, vgg
from snn.single_timestep import TemporalPruning, clamp_leaks, one_step_network


def digits(generator_seed=0, n=256):
    train, test = example_data("digits")
    train, valid = train.holdout(0.2, seed=0)
    transform = ToFloat(mean=train.mean, std=train.std)
    first = ResidentLoader(
        train.images[:n], train.labels[:n], batch_size=64, shuffle=True, transform=transform,
        generator=torch.Generator().manual_seed(generator_seed),
    )  # fmt: skip
    return first, ResidentLoader(valid.images[:100], valid.labels[:100], batch_size=100, transform=transform)


def small_vgg(**options):
    options = {"in_shape": (1, 8, 8), "width": 0.2, "classifier": (256,), **options}
    return vgg(5, 10, generator=torch.Generator().manual_seed(0), **options)


QUICK = snn.TrainConfig(epochs=1, lr=1e-3, amsgrad=True)


@pytest.fixture(scope="module")
def trained():
    train, valid = digits(n=1000)
    ann = small_vgg(dropout=0.1)
    snn.fit(ann, train, valid, snn.TrainConfig(epochs=6, lr=5e-3))
    pruning = TemporalPruning(schedule=(4, 2, 1), config=snn.TrainConfig(epochs=3, lr=2e-3, amsgrad=True))
    return ann, pruning.fit(ann, train, valid)


def test_the_schedule_ends_in_a_network_that_still_knows_the_digits(trained):
    ann, result = trained
    _, valid = digits()
    assert [stage.n_steps for stage in result.stages] == [4, 2, 1]
    assert result.selected_on == "validation"
    assert snn.evaluate(ann, valid)["accuracy"] > 0.9
    assert snn.evaluate(result.model, valid)["accuracy"] > 0.8


def test_each_stage_starts_from_weights_thresholds_and_leaks_of_the_one_before(trained, monkeypatch):
    ann, _ = trained
    train, valid = digits()
    starts, ends = [], []
    real = snn.single_timestep.fit

    def spy(model, *args, **kwargs):
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        history = real(model, *args, **kwargs)
        ends.append({name: value.clone() for name, value in model.state_dict().items()})
        return history

    monkeypatch.setattr(snn.single_timestep, "fit", spy)
    TemporalPruning(schedule=(4, 2, 1), config=QUICK).fit(ann, train, valid)
    assert len(starts) == 3
    for end, start in zip(ends, starts[1:], strict=False):
        assert end.keys() == start.keys()
        assert all(torch.equal(end[name], start[name]) for name in end)
    learned = [name for name in ends[0] if name.endswith(("v_threshold", "leak"))]
    assert len(learned) == 2 * len(ann.activation_names)
    assert all(not torch.equal(starts[0][name], ends[0][name]) for name in learned if "threshold" in name)


def test_one_step_network_is_a_plain_network_with_the_same_answers(trained):
    _, result = trained
    plain = result.one_step
    assert not any(isinstance(module, FoldedLIF | TimeSharedDropout) for module in plain.modules())
    assert sum(isinstance(module, Compare) for module in plain.modules()) == len(plain.activation_names)
    _, valid = digits()
    for x, _ in valid:
        assert torch.equal(plain(x), result.model.eval()(x))


def test_first_convolution_is_computed_once_for_a_still_image(trained):
    _, result = trained
    model, rows = result.at(4), {}
    for name in ("features.conv1", "features.conv2"):
        model.get_submodule(name).register_forward_hook(lambda m, a, y, name=name: rows.update({name: len(y)}))
    model(torch.zeros(3, 1, 8, 8))
    assert rows == {"features.conv1": 3, "features.conv2": 12}


def test_computing_the_first_convolution_once_changes_nothing(trained):
    """Against the same network with the image repeated T times at its input, as the authors' code has it."""
    _, result = trained
    once = result.at(4)
    each = copy.deepcopy(once)
    each.get_submodule(each.first_activation).repeat_input = False
    _, valid = digits()
    x = next(iter(valid))[0]
    repeated = each._rows(x.repeat(4, 1, 1, 1)).unflatten(0, (4, -1)).sum(0)
    close(once(x), repeated.detach(), "float32")


def test_a_residual_network_goes_down_the_schedule():
    train, valid = digits(n=128)
    ann = resnet(12, 10, in_shape=(1, 8, 8), width=0.05, generator=torch.Generator().manual_seed(0))
    snn.fit(ann, train, valid, QUICK)
    result = TemporalPruning(schedule=(2, 1), config=QUICK).fit(ann, train, valid)
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(result.one_step(x), result.model(x))


def test_channels_last_weights_stay_so_and_change_only_rounding(trained):
    ann, _ = trained
    train, valid = digits()
    model = snn.to_spiking(ann.to(memory_format=torch.channels_last), 3)
    assert model.features.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    result = TemporalPruning(schedule=(2, 1), config=QUICK).fit(ann, train, valid)
    assert result.model.features.conv2.weight.is_contiguous(memory_format=torch.channels_last)


def test_leaks_never_exceed_one(global_rng_untouched):
    model = snn.to_spiking(small_vgg(), 2)
    with torch.no_grad():
        for name in model.activation_names:
            model.get_submodule(name).leak.fill_(1.3)
        model.get_submodule(model.activation_names[0]).leak.fill_(0.4)
    clamp_leaks(model)
    leaks = [model.get_submodule(name).leak.item() for name in model.activation_names]
    assert leaks == [pytest.approx(0.4)] + [1.0] * (len(leaks) - 1)


def test_a_run_that_stopped_goes_on_and_ends_the_same(tmp_path):
    train, valid = digits()
    pruning = TemporalPruning(schedule=(2, 1), config=QUICK)
    whole = pruning.fit(small_vgg(), train, valid, run_dir=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_after_first(row):
        if row["n_steps"] == 2:
            raise Stop

    with pytest.raises(Stop):
        pruning.fit(small_vgg(), train, valid, run_dir=tmp_path / "cut", on_log=stop_after_first)
    cut = pruning.fit(small_vgg(), train, valid, run_dir=tmp_path / "cut")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(cut.model.state_dict()[name], value), name
    assert json.loads((tmp_path / "cut" / "T1" / "config.json").read_text())


def test_stages_can_differ_in_length():
    train, valid = digits(n=64)
    result = TemporalPruning(schedule=(2, 1), config=QUICK, stage_epochs=(1, 3)).fit(small_vgg(), train, valid)
    assert [len(stage.history) for stage in result.stages] == [1, 3]


def test_test_data_select_only_by_name():
    train, valid = digits(n=64)
    with pytest.raises(ValueError, match=r"`test` must be left out, got .* Only compat='test-set-selection' looks at"):
        TemporalPruning(schedule=(1,), config=QUICK).fit(small_vgg(), train, valid, test=valid)
    with pytest.raises(ValueError, match="`test` must be given with compat='test-set-selection'"):
        TemporalPruning(schedule=(1,), config=QUICK, compat="test-set-selection").fit(small_vgg(), train, valid)
    result = TemporalPruning(schedule=(1,), config=QUICK, compat="test-set-selection").fit(
        small_vgg(), train, None, test=valid
    )
    assert result.selected_on == "test"
    last = TemporalPruning(schedule=(1,), config=QUICK).fit(small_vgg(), train, None)
    assert last.selected_on == "last epoch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": (1, 2)}, r"`schedule` must be step counts, each smaller than the one before, got \(1, 2\)"),
        ({"schedule": ()}, "`schedule` must be step counts"),
        ({"schedule": (2, 0)}, "`schedule` must be a whole number >= 1, got 0"),
        (
            {"stage_epochs": (1, 2)},
            r"`stage_epochs` must have one number for each stage, got \(1, 2\). The schedule is",
        ),
        ({"percentile": -1}, "`percentile` must be"),
        ({"compat": "paper"}, "`compat` must be one of None, 'test-set-selection', got 'paper'"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        TemporalPruning(**options)


def test_only_a_network_of_one_step_becomes_plain():
    with pytest.raises(ValueError, match="`model` must have one time step, got n_steps = 3"):
        one_step_network(snn.to_spiking(small_vgg(), 3))
    with pytest.raises(ValueError, match="`model` must have spiking layers, got VGG"):
        one_step_network(small_vgg())
