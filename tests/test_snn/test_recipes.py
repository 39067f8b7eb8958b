"""Recipes of DCLS-Delays: the paper's counts and courses, and whole runs on tiny files of the real formats."""

import dataclasses
import json
import math

import pytest
import torch
from fakes.spikes import write_shd, write_speech_commands, write_ssc
from torch.optim import lr_scheduler

import snn
from neuroloaders import SpikeSet, load_heidelberg
from snn.delays import delay_layers
from snn.models import READOUTS
from snn.recipes import COMPAT, LOSSES, RECIPE_DATA, RECIPES, DelayRecipe, load_recipe_data, run_recipe
from snn.training.losses import cross_entropy
from snn.training.optimizers import build_optimizer, set_learning_rates


def built(recipe, seed=0):
    return recipe.build(generator=torch.Generator().manual_seed(seed))


def small(name, **changes):
    settings = {"hidden": (8,), "batch_size": 64, "max_delay_ms": 40, "epochs": 4, **changes}
    return dataclasses.replace(RECIPES[name], **settings)


# --- the tables of the paper --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("shd", 214_016),
        ("ssc", 705_536),
        ("ssc-2kc", 1_409_024),
        ("ssc-3l", 1_230_848),
        ("ssc-3l-2kc", 2_458_624),
        ("gsc-3l-2kc", 2_458_624),
    ],
)
def test_trained_parameters_are_as_many_as_in_the_paper(name, count):
    model = built(RECIPES[name])
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(
    ("name", "taps", "tau", "tail", "epochs", "batch"),
    [("shd", 25, 1.005, 12, 150, 256), ("ssc", 31, 1.5, 15, 60, 128), ("gsc", 31, 1.5, 15, 100, 128)],
)
def test_times_are_whole_steps_and_the_kernel_is_odd(name, taps, tau, tail, epochs, batch):
    recipe = RECIPES[name]
    assert (recipe.taps, recipe.tail_steps, recipe.epochs, recipe.batch_size) == (taps, tail, epochs, batch)
    assert recipe.tau == pytest.approx(tau)
    model = built(recipe)
    assert {layer.max_delay for layer in model.layers} == {taps}
    for neuron in model.neurons:
        assert float(neuron.tau) == pytest.approx(tau)
        assert (neuron.surrogate.name, neuron.surrogate.alpha) == ("atan", 5)
        assert (neuron.decay_input, neuron.detach_reset, neuron.compare, neuron.v_reset) == (False, True, "ge", 0)
    assert model.readout_leak == pytest.approx(1 - 1 / tau)
    assert [layer.p for layer in model.dropouts] == [0.4 if name == "shd" else 0.25] * 2


def test_every_layer_of_shd_lengthens_the_sequence_by_twelve():
    model = built(RECIPES["shd"]).eval()
    x = torch.zeros(40, 2, 140)
    with torch.no_grad():
        lengths = [len(spikes) for spikes in model.hidden_spikes(x)]
        assert [*lengths, len(model.step_logits(x))] == [40 + 12, 40 + 24, 40 + 36]


@pytest.mark.parametrize("name", ["shd", "ssc", "gsc"])
def test_learning_rates_of_every_epoch_are_those_of_torch(name):
    recipe = RECIPES[name]
    model, config = built(recipe), recipe.train_config()
    ours = build_optimizer(model, config, recipe.param_groups)
    groups = {group["name"]: group for group in ours.param_groups}
    assert isinstance(ours, torch.optim.Adam)
    assert not isinstance(ours, torch.optim.AdamW)
    assert {key: group["weight_decay"] for key, group in groups.items()} == {"weights": 1e-5, "others": 0, "delays": 0}
    assert [p.ndim for p in groups["others"]["params"]] == [1] * 4  # scale and shift of two normalisations
    weights, delays = (torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr) for lr in (1e-3, 0.1))
    one = lr_scheduler.OneCycleLR(weights, max_lr=5e-3, total_steps=recipe.epochs)
    two = lr_scheduler.CosineAnnealingLR(delays, T_max=recipe.epochs)
    for epoch in range(recipe.epochs):
        set_learning_rates(ours, epoch, recipe.epochs, config)
        for key, theirs in (("weights", weights), ("others", weights), ("delays", delays)):
            want = theirs.param_groups[0]
            assert groups[key]["lr"] == pytest.approx(want["lr"], rel=1e-9)
            assert groups[key]["betas"] == pytest.approx(want["betas"], rel=1e-9)
            theirs.step()
        if epoch < recipe.epochs - 1:
            one.step()
            two.step()


@pytest.mark.parametrize(("name", "last", "factor"), [("shd", 37, 0.89863), ("ssc", 15, 0.7569), ("gsc", 25, None)])
def test_width_of_every_epoch_is_that_of_the_papers_loop(name, last, factor):
    recipe = RECIPES[name]
    model = built(dataclasses.replace(recipe, hidden=(3,)))
    first = recipe.taps // 2
    step = (0.23 / first) ** (1 / last)
    assert factor is None or step == pytest.approx(factor, rel=1e-4)
    width = float(first)  # of the DCLS package, which adds 0.27
    for epoch in range(recipe.epochs):
        recipe.sigma_schedule(model, epoch)
        for _, layer in delay_layers(model):
            assert layer.sigma.min() == layer.sigma.max() == pytest.approx(width + 0.27, rel=1e-5)
        if epoch < last:
            width *= step
    assert width + 0.27 == pytest.approx(0.5)


def test_loss_of_the_paper_takes_the_softmax_twice():
    # Two steps with probabilities (1/4, 3/4): sums (1/2, 3/2), and softmax of these once more.
    v = torch.tensor([0.0, math.log(3)]).expand(2, 1, 2)
    valid, target = torch.ones(2, 1, 1), torch.tensor([1])
    loss = {key: float(cross_entropy(READOUTS[readout](v, valid), target)) for key, readout in LOSSES.items()}
    assert loss["paper"] == pytest.approx(math.log(1 + math.exp(-1)))  # 0.3133
    assert loss["likelihood"] == pytest.approx(-math.log(3 / 4))
    for key, readout in LOSSES.items():
        recipe = small("shd", loss=key)
        assert built(recipe).readout == readout
        assert recipe.train_config().loss == "cross_entropy"


def test_first_weights_are_those_of_he_with_all_kernels_as_inputs():
    for name, kernels in (("ssc", 1), ("ssc-2kc", 2)):
        weight = built(dataclasses.replace(RECIPES[name], hidden=(50,))).layers[0].weight.detach()
        bound = math.sqrt(6 / (140 * kernels))
        assert weight.abs().max() <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_first_delays_of_the_paper_have_a_step_of_mass_at_the_longest():
    for compat, mass in ((None, 0), ("dcls-paper", 1 / 25)):
        recipe = dataclasses.replace(RECIPES["shd"], compat=compat)
        delay = built(recipe).layers[1].delay.detach()
        assert delay.min() >= 0
        assert delay.max() <= 24
        assert float((delay == 24).double().mean()) == pytest.approx(mass, abs=0.003)
        assert float(delay.mean()) == pytest.approx(12 if compat is None else 25 / 2 - 0.02, abs=0.1)
        assert built(recipe).mask_padding == (compat is None)


def test_what_the_paper_did_is_one_option():
    assert (RECIPES["shd"].bins, RECIPES["gsc"].mel.f_max) == ("ceil", 4000)
    as_paper = {name: dataclasses.replace(RECIPES[name], compat="dcls-paper") for name in ("shd", "gsc")}
    assert (as_paper["shd"].bins, as_paper["gsc"].mel.f_max) == ("sj2023", 14_000)
    assert dataclasses.replace(as_paper["shd"], binning="absolute").bins == "absolute"
    assert RECIPES["gsc"].mel.n_times == 101
    assert list(COMPAT) == [None, "dcls-paper"]


@pytest.mark.parametrize("delays", ["learned", "fixed", "none"])
def test_ablations_differ_in_their_delays_alone(delays):
    recipe = small("shd", delays=delays)
    model = built(recipe)
    assert (recipe.sigma_schedule is None) == (delays != "learned")
    names = {group["name"] for group in recipe.param_groups(model)}
    assert ("delays" in names) == (delays == "learned")
    assert model.tail_steps == recipe.tail_steps == (0 if delays == "none" else 2)


# --- whole runs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_shd(folder / "shd", n_train=160, n_test=40)
    write_ssc(folder / "ssc")
    write_speech_commands(folder / "gsc" / "speech_commands_v0.02")
    return folder


@pytest.fixture(scope="module")
def shd(folder):
    return load_recipe_data("shd", data_dir=folder, offline=True, progress=False)


def share_of(test_set, recipe, model):
    """The test accuracy, computed in the plainest way."""
    model.eval()
    with torch.no_grad():
        right = [int((model(*inputs).argmax(1) == labels).sum()) for *inputs, labels in recipe.loader(test_set)]
    return sum(right) / len(test_set)


@pytest.mark.parametrize(
    ("name", "protocol", "changes"),
    [
        ("shd", "validation", {"loss": "likelihood"}),
        ("shd", "speaker", {"delays": "fixed"}),
        ("shd", "test-selection", {"compat": "dcls-paper"}),
        ("ssc", "validation", {"kernel_count": 2}),
        ("ssc", "test-selection", {"delays": "none"}),
        ("gsc", "validation", {"pool_units": 1}),
    ],
)
def test_run_reports_what_its_protocol_allows(folder, name, protocol, changes, global_rng_untouched):
    recipe, rows = small(name, **changes), []
    speaker = {"speaker": "2"} if protocol == "speaker" else {}
    where = {"data_dir": folder, "offline": True, "device": "cpu"}
    result = run_recipe(recipe, protocol=protocol, **speaker, **where, on_log=rows.append)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert len(result.history) == 4
    best = result.history.best_epoch
    assert result.history.kept_epoch == best
    test_set = load_recipe_data(name, recipe.mel, **where_of(where))["test"]
    kept = share_of(test_set, recipe, result.model)
    if protocol == "test-selection":
        assert result.chosen_accuracy is None
        assert result.best_on_test == kept == pytest.approx(max(result.history["valid_accuracy"]))
        assert result.last_accuracy == pytest.approx(result.history["valid_accuracy"][-1])
    else:
        assert result.best_on_test is None
        assert result.chosen_accuracy == pytest.approx(kept)
    row = json.loads(json.dumps(result.as_row()))
    assert (row["epochs"], row["chosen_epoch"], row["protocol"]) == (4, best, protocol)
    assert repr(result).count("%") == 2


def where_of(where):
    return {"data_dir": where["data_dir"], "offline": True, "progress": False}


def test_last_epoch_is_that_of_a_run_that_keeps_it(shd):
    recipe = small("shd", compat="dcls-paper")
    result = run_recipe(recipe, sets=shd, seed=3, protocol="test-selection", device="cpu")
    assert result.history.kept_epoch < 3  # else nothing is shown
    kept = share_of(shd["test"], recipe, result.model)
    model, history = recipe.fit(shd["train"], None, seed=3, select="last", device="cpu")
    assert history.kept_epoch == 3
    assert share_of(shd["test"], recipe, model) == pytest.approx(result.last_accuracy)
    assert result.best_on_test == pytest.approx(kept)
    assert history["train_loss"] == result.history["train_loss"]


def test_seed_decides_everything(shd):
    runs = [run_recipe(small("shd"), sets=shd, seed=seed, device="cpu") for seed in (1, 1, 2)]
    losses = [run.history["train_loss"] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert runs[0].history["valid_loss"] == runs[1].history["valid_loss"]
    for name, value in runs[0].model.state_dict().items():
        assert torch.equal(value, runs[1].model.state_dict()[name]), name


def test_same_call_goes_on_and_another_one_is_refused(shd, tmp_path):
    recipe, options = small("shd"), {"sets": shd, "run_dir": tmp_path / "run", "device": "cpu"}

    def interrupt(row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, **options, on_log=interrupt)
    rows = []
    resumed = run_recipe(recipe, **options, on_log=rows.append)
    assert [row["epoch"] for row in rows] == [2, 3]
    whole = run_recipe(recipe, sets=shd, device="cpu")
    assert resumed.as_row() == whole.as_row()
    assert resumed.history["train_loss"] == whole.history["train_loss"]
    again = run_recipe(recipe, **options, on_log=lambda row: pytest.fail("it trains again"))
    assert again.as_row() == whole.as_row()
    with pytest.raises(ValueError, match="tau_ms"):
        run_recipe(dataclasses.replace(recipe, tau_ms=20), **options)


def test_recipe_by_name_may_be_shortened(shd, monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", small("shd", epochs=9))
    result = run_recipe("tiny", epochs=4, sets=shd, device="cpu")
    assert (result.name, result.recipe.epochs, len(result.history)) == ("tiny", 4, 4)


# --- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "mnist"}, "`data` must be one of 'shd', 'ssc', 'gsc', got 'mnist'"),
        ({"loss": "mse"}, "`loss` must be one of 'paper', 'likelihood'"),
        ({"compat": "paper"}, "`compat` must be one of None, 'dcls-paper'"),
        ({"binning": "floor"}, "`binning` must be one of None, 'ceil'"),
        ({"tau_ms": 10}, "`tau_ms` must be a finite number > 10"),
        ({"max_delay_ms": 255}, "`duration_ms` must be a whole number of steps of 10 ms"),
        ({"epochs": 3}, "`epochs` must be a whole number >= 4, got 3"),
        ({"pool_units": 3}, "`pool_units` must divide 700 for data='shd', got 3"),
        ({"data": "gsc"}, "`pool_units` must be 1 for data='gsc', got 5"),
        ({"dropout": 1}, "`dropout` must be a finite number >= 0 and < 1"),
        ({"delays": "some"}, "`delays` must be one of 'learned'"),
        ({"hidden": (0,)}, "`hidden` must be a whole number >= 1"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPES["shd"], **changes)


def test_sizes_that_are_no_tuple_are_named():
    with pytest.raises(TypeError, match="`hidden` must be a tuple of sizes, one a layer, got int 256"):
        small("shd", hidden=256)


def test_data_and_options_that_do_not_fit_are_refused(folder, shd, monkeypatch):
    with pytest.raises(TypeError, match="`data` must be a FeatureSet for data='gsc', got SpikeSet"):
        RECIPES["gsc"].loader(shd["test"])
    with pytest.raises(ValueError, match=r"`data` must have 700 channels and 35 classes .* got 700 channels and 20"):
        RECIPES["ssc"].loader(shd["test"])
    with pytest.raises(ValueError, match="`recipe` must be one of 'shd', 'ssc'"):
        run_recipe("shd-3l", sets=shd)
    with pytest.raises(TypeError, match="`recipe` must be a DelayRecipe or a key of RECIPES"):
        run_recipe(snn.TrainConfig(epochs=4), sets=shd)
    with pytest.raises(ValueError, match="`speaker` must be one of the training set's: '0', '1'"):
        run_recipe(small("shd"), sets=shd, protocol="speaker", speaker="5")
    with pytest.raises(ValueError, match="`data` must be one of"):
        load_recipe_data("mnist")
    for key, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match="`run_dir` must be given under torchrun"):
        run_recipe(small("shd"), sets=shd)


def test_recipe_comes_back_from_json():
    for recipe in RECIPES.values():
        assert DelayRecipe(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
        assert recipe.data in RECIPE_DATA


def test_batches_are_the_bins_that_the_recipe_names(folder, shd):
    recipe = small("shd", dt_ms=20, tau_ms=30)
    train = load_heidelberg("shd", data_dir=folder, offline=True, progress=False)["train"]
    assert isinstance(train, SpikeSet)
    x, lengths, labels = next(iter(recipe.loader(shd["train"])))
    assert x.shape[1:] == (64, 140)
    times, units = train.sample(5)
    want = torch.zeros(int(lengths[5]), 140)
    for time, unit in zip((times - times[0]).tolist(), units.tolist(), strict=True):
        want[min(int(time // 20), len(want) - 1), unit // 5] += 1
    assert torch.equal(x[: len(want), 5], want)
    assert labels[5] == train.labels[5]
