"""`fit` and `evaluate` against loops written out by hand."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neuroloaders.checkpoints import load_checkpoint
from neuroloaders.resident import ResidentLoader
from neuroloaders.runs import spawn_seeds
from snn.training import TrainConfig, evaluate, fit
from snn.training.losses import LOSSES
from snn.training.optimizers import OPTIMIZERS

N, N_VALID = 61, 23  # batches of 8 leave a short one


def data(n=N + N_VALID, dtype=torch.float32):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return x, (x[:, :3] * 2).argmax(1)


@pytest.fixture
def loaders():
    x, y = data()
    shuffled = ResidentLoader(x[:N], y[:N], batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1))
    return shuffled, ResidentLoader(x[N:], y[N:], batch_size=8)


def build(dropout=0.0, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        layers = [nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)]
        return nn.Sequential(*layers).to(dtype)


def assert_same_bits(model, expected):
    got, want = model.state_dict(), expected.state_dict()
    assert got.keys() == want.keys()
    for name in want:
        assert torch.equal(got[name], want[name]), name


OPTIMIZERS_BY_HAND = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99), amsgrad=True, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.99), amsgrad=True, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.7, weight_decay=0.1),
}


def test_every_optimizer_is_compared():
    assert OPTIMIZERS_BY_HAND.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("optimizer", OPTIMIZERS_BY_HAND)
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_fit_is_the_plain_loop_bit_for_bit(loaders, optimizer, amp):
    train, valid = loaders
    model, by_hand = build(dropout=0.3), build(dropout=0.3)
    config = TrainConfig(
        epochs=3, lr=0.01, optimizer=optimizer, momentum=0.7, betas=(0.8, 0.99), amsgrad=True, weight_decay=0.1,
        grad_clip=0.5, label_smoothing=0.1, amp=amp, select="last", seed=9,
    )  # fmt: skip
    fit(model, train, valid, config, device="cpu")

    update = OPTIMIZERS_BY_HAND[optimizer](by_hand.parameters())
    with torch.random.fork_rng(devices=[]):
        for epoch in range(3):
            name = f"epoch {epoch} rank 0"
            torch.manual_seed(spawn_seeds(9, name)[name])
            by_hand.train()
            for x, y in train.batches(epoch):
                update.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp == "bf16"):
                    output = by_hand(x)
                F.cross_entropy(output.float(), y, label_smoothing=0.1).backward()
                nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
                update.step()
    assert_same_bits(model, by_hand)


def test_history_holds_means_over_samples(loaders):
    train, valid = loaders
    model, seen = build(), []
    # A rate this small leaves the weights as they are, so the whole epoch has one model in training mode.
    history = fit(model, train, valid, TrainConfig(epochs=1, lr=1e-30), device="cpu", on_log=seen.append)
    x, y = data()
    model = build().train()
    losses = [F.cross_entropy(model(bx), by, reduction="sum").item() for bx, by in train.batches(0)]
    correct = [(model(bx).argmax(1) == by).sum().item() for bx, by in train.batches(0)]
    row = history.rows[0]
    assert row["train_loss"] == pytest.approx(sum(losses) / N, rel=1e-6)
    assert row["train_accuracy"] == sum(correct) / N
    assert list(row) == [
        "epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr", "seconds"
    ]  # fmt: skip
    assert seen == history.rows
    assert row["epoch"] == 0
    assert row["lr"] == 1e-30


def test_evaluate_is_the_mean_over_samples_whatever_the_batches():
    x, y = data()
    model = build()
    model.train()
    model[1].eval()  # a frozen layer
    for batch_size in (1, 8, 84):
        found = evaluate(model, ResidentLoader(x, y, batch_size=batch_size))
        model.eval()
        assert found["loss"] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)
        assert found["accuracy"] == (model(x).argmax(1) == y).double().mean().item()
        model.train()
        model[1].eval()
    evaluate(model, [(x, y)])
    assert [module.training for module in model] == [True, False, True, True, True]


def test_scores_of_the_best_epoch_are_those_of_the_weights_that_are_kept(loaders, tmp_path):
    model = build(dropout=0.5)
    config = TrainConfig(epochs=12, lr=0.1, monitor="loss", optimizer="sgd")
    history = fit(model, *loaders, config, run_dir=tmp_path, device="cpu")
    losses = history["valid_loss"]
    assert history.best_epoch == history.kept_epoch == losses.index(min(losses))
    assert history.kept_epoch < 11  # otherwise the test says nothing
    assert not any(module.training for module in model.modules())
    for kept in (model, build()):
        if kept is not model:
            load_checkpoint(tmp_path / "model.safetensors", kept)
        assert evaluate(kept, loaders[1])["loss"] == min(losses)


def test_last_weights_are_kept_on_demand(loaders):
    model = build(dropout=0.5)
    history = fit(model, *loaders, TrainConfig(epochs=5, lr=0.3, select="last"), device="cpu")
    assert history.kept_epoch == 4
    assert evaluate(model, loaders[1])["loss"] == history["valid_loss"][-1]


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_once_patience_is_used_up(loaders, patience):
    scores = iter([1.0, 2.0, 2.0, 3.0, 0.0, 3.0, 2.0, 4.0, 5.0, 5.0])
    current = [0.0]

    def before_epoch(model, epoch):
        current[0] = next(scores)

    def score(output, target):
        return torch.full((len(target),), current[0])

    config = TrainConfig(epochs=10, patience=patience, monitor="score")
    history = fit(build(), *loaders, config, metrics={"score": score}, before_epoch=before_epoch, device="cpu")
    # Of equal epochs the first is the best: 2.0 comes twice, 3.0 twice.
    expected = {1: ([1.0, 2.0, 2.0], 1), 3: ([1.0, 2.0, 2.0, 3.0, 0.0, 3.0, 2.0], 3)}[patience]
    assert (history["valid_score"], history.best_epoch) == expected


def test_training_without_validation_data(loaders):
    history = fit(build(), loaders[0], None, TrainConfig(epochs=2, select="last"), device="cpu")
    assert [key for key in history.rows[0] if key.startswith("valid")] == []
    assert (history.best_epoch, history.kept_epoch) == (None, 1)
    with pytest.raises(ValueError, match="`valid` must be given with select='best' or with patience, got None"):
        fit(build(), loaders[0], None, TrainConfig(epochs=2), device="cpu")


def test_fit_and_evaluate_leave_the_global_generators_as_they_were(loaders):
    before = torch.get_rng_state()
    fit(build(dropout=0.5), *loaders, TrainConfig(epochs=1), device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    x, y = data()
    evaluate(build(), DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)

    def fail(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(build(dropout=0.5), *loaders, TrainConfig(epochs=1), device="cpu", after_step=fail)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_depends_on_the_seed_alone(loaders):
    def train(seed, global_seed):
        model = build(dropout=0.5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(global_seed)
            fit(model, *loaders, TrainConfig(epochs=1, seed=seed, select="last"), device="cpu")
        return model[4].weight

    assert torch.equal(train(1, 0), train(1, 1))
    assert not torch.equal(train(1, 0), train(2, 0))


def test_dataloaders_are_taken_and_resumed_inside_an_epoch(tmp_path):
    x, y = data()

    def train(run_dir, stop_after=None):
        steps = iter(range(1, 100))

        def after_step(model):
            if next(steps) == stop_after:
                raise KeyboardInterrupt

        model = build(dropout=0.3)
        # The order comes from the global generator, which is seeded for each epoch.
        train, valid = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True), [(x, y)]
        config = TrainConfig(epochs=2, checkpoint_every_n_steps=4, select="last")
        fit(model, train, valid, config, run_dir=run_dir, device="cpu", after_step=after_step)
        return model

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", 17)
    assert_same_bits(train(tmp_path / "stopped"), train(tmp_path / "whole"))


def test_set_epoch_of_a_sampler_is_called():
    epochs = []

    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch):
            epochs.append(epoch)

    x, y = data()
    dataset = TensorDataset(x, y)
    loader = DataLoader(dataset, batch_size=8, sampler=Sampler(dataset))
    fit(build(), loader, None, TrainConfig(epochs=3, select="last"), device="cpu")
    assert epochs == [0, 1, 2]


def test_models_of_several_inputs_get_all_but_the_last_tensor():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = build().eval()

        def forward(self, x, shift):
            return self.layers(x + shift)

    x, y = data()
    model = Shifted()
    found = evaluate(model, ResidentLoader(x, torch.ones(len(x), 1), y, batch_size=10))
    assert found["loss"] == pytest.approx(F.cross_entropy(model.layers(x + 1), y).item(), rel=1e-6)


def test_mse_compares_classes_with_one_hot_vectors_and_values_with_values():
    output, y = data(5)[0][:, :3], torch.tensor([0, 1, 2, 1, 0])
    expected = (output - torch.eye(3)[y]).square().mean()
    assert torch.equal(LOSSES["mse"](output, y), expected)
    assert torch.equal(LOSSES["mse"](output, torch.eye(3)[y]), expected)
    with pytest.raises(ValueError, match=r"`model output` must have shape \(5, 1\) to fit the targets, got \(5,\)"):
        LOSSES["mse"](torch.zeros(5), torch.zeros(5, 1))  # PyTorch would make (5, 5) of it


def test_callbacks_are_called_where_they_should_be(loaders, tmp_path):
    calls = []
    config = TrainConfig(epochs=2, select="last")
    fit(
        build(), *loaders, config, device="cpu", run_dir=tmp_path,
        before_epoch=lambda model, epoch: calls.append(("epoch", epoch, model.training)),
        after_step=lambda model: calls.append("step"),
        on_log=lambda row: calls.append(("log", row["epoch"])),
    )  # fmt: skip
    n = len(loaders[0])
    expected = []
    for epoch in range(2):
        expected += [("epoch", epoch, epoch == 0), *["step"] * n, ("log", epoch)]
    assert [call[:2] for call in calls] == [call[:2] for call in expected]
    # A complete run trains no more.
    calls.clear()
    fit(build(), *loaders, config, device="cpu", run_dir=tmp_path, after_step=lambda model: calls.append("step"))
    assert calls == []


def test_parameters_clamped_after_each_step_stay_clamped(loaders):
    model = build()

    def clamp(model):
        with torch.no_grad():
            model[0].weight.clamp_(-0.1, 0.1)

    fit(model, *loaders, TrainConfig(epochs=2, lr=0.1), device="cpu", after_step=clamp)
    assert model[0].weight.abs().max() <= 0.1


def test_groups_have_rates_of_their_own_and_missing_parameters_are_refused(loaders):
    def groups(model):
        return [
            {"params": model[0].parameters(), "lr": 1e-30},
            {"params": [*model[1].parameters(), *model[4].parameters()]},
        ]

    model, start = build(), build()
    fit(model, *loaders, TrainConfig(epochs=1), device="cpu", param_groups=groups)
    assert torch.equal(model[0].weight, start[0].weight)
    assert not torch.equal(model[4].weight, start[4].weight)

    def fit_with(param_groups):
        fit(build(), *loaders, TrainConfig(epochs=1), device="cpu", param_groups=param_groups)

    with pytest.raises(ValueError, match=r"hold every trainable parameter, got none for 1.weight, 1.bias, 4.weight"):
        fit_with(lambda model: groups(model)[:1])
    with pytest.raises(ValueError, match="`param_groups` must hold every parameter once"):
        fit_with(lambda model: [*groups(model), {"params": [model[4].bias]}])
    with pytest.raises(ValueError, match=r"`a key of param_groups\[0\]` must be one of .*got 'weight_decy'"):
        fit_with(lambda model: [{"params": model.parameters(), "weight_decy": 0.1}])
    with pytest.raises(ValueError, match=r"`param_groups\[0\]\['schedule'\]` must be one of .*got 'linear'"):
        fit_with(lambda model: [{"params": model.parameters(), "schedule": "linear"}])


def test_history_prints_and_writes_itself(loaders, tmp_path):
    history = fit(build(), *loaders, TrainConfig(epochs=3, lr=0.01), run_dir=tmp_path / "run", device="cpu")
    best = history.rows[history.best_epoch]
    assert f"3 epochs; best epoch {best['epoch']}: train_loss={best['train_loss']:.4g}" in repr(history)
    history.to_csv(tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == (tmp_path / "run" / "metrics.csv").read_bytes()
    assert len(history) == 3
    with pytest.raises(ValueError, match="`column` must be one of 'epoch', 'train_loss'"):
        history["loss"]


def test_complete_run_comes_back_without_training(loaders, tmp_path):
    config = TrainConfig(epochs=3, lr=0.01)
    first, second = build(), build()
    before = fit(first, *loaders, config, run_dir=tmp_path, device="cpu")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "metrics.csv").unlink()
    after = fit(second, *loaders, config, run_dir=tmp_path, device="cpu")
    assert after == before
    assert_same_bits(second, first)
    assert_same_bits(load_into(build(), tmp_path), first)
    saved = load_checkpoint(tmp_path / "model.safetensors")
    assert saved.config == json.loads((tmp_path / "config.json").read_text())
    assert saved.meta == {"kept": before.rows[before.kept_epoch], "n_epochs": 3}


def load_into(model, run_dir):
    load_checkpoint(run_dir / "model.safetensors", model)
    return model


def test_float64_models_train_in_float64():
    x, y = data(dtype=torch.float64)
    model = build(dtype=torch.float64)
    fit(model, ResidentLoader(x, y, batch_size=8), None, TrainConfig(epochs=1, select="last"), device="cpu")
    assert model[0].weight.dtype == torch.float64


def test_progress_bar_shows_and_changes_nothing(loaders, capsys):
    shown, plain = build(), build()
    fit(shown, *loaders, TrainConfig(epochs=2), device="cpu", progress=True)
    assert "epoch 1" in capsys.readouterr().err
    fit(plain, *loaders, TrainConfig(epochs=2), device="cpu")
    assert capsys.readouterr().err == ""
    assert_same_bits(shown, plain)


def test_config_compares_hashes_and_survives_json():
    config = TrainConfig(epochs=3, milestones=[0.5], betas=[0.8, 0.9])
    again = TrainConfig(**json.loads(json.dumps(config.as_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert dataclasses.replace(config, lr=1.0).lr == 1.0


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_gpu_run_learns_and_resumes(loaders, tmp_path, amp):
    x, y = data()
    loaders = [ResidentLoader(x, y, batch_size=8, device="cuda") for _ in range(2)]
    config = TrainConfig(epochs=4, lr=0.02, amp=amp, checkpoint_every_n_steps=3, select="last")
    before = torch.cuda.get_rng_state()

    def train(run_dir, stop_after=None):
        model, steps = build(dropout=0.1), iter(range(1, 1000))

        def after_step(_):
            if next(steps) == stop_after:
                raise KeyboardInterrupt

        return model, fit(model, *loaders, config, run_dir=run_dir, device="cuda", after_step=after_step)

    model, history = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", 15)
    assert_same_bits(train(tmp_path / "stopped")[0], model)
    assert history["train_loss"][-1] < 0.7 * math.log(3)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_import_is_light():
    code = "import snn.training, sys; print(*(name.partition('.')[0] for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"mne", "nilearn", "diffusers", "transformers", "brian2", "matplotlib", "accelerate", "sklearn"}
    assert not heavy & set(loaded.stdout.split())
