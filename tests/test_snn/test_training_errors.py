"""What goes wrong is said in one clear sentence, and nothing good is lost."""

import contextlib
import dataclasses
import errno
import os
import resource
import subprocess

import pytest
import torch
from torch import nn

from neuroloaders.checkpoints import load_state
from neuroloaders.resident import ResidentLoader
from snn.training import TrainConfig, evaluate, fit

N_STEPS = 8  # an epoch


def randn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def build(width=16, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)).to(dtype)


def build_loaders(x=None, y=None):
    x = randn(60, 6) if x is None else x
    y = torch.arange(60) % 3 if y is None else y
    return ResidentLoader(x, y, batch_size=8), ResidentLoader(x[:20], y[:20], batch_size=8)


def train(model=None, loaders=None, *, epochs=2, **arguments):
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    settings = {name: arguments.pop(name) for name in list(arguments) if name in fields}
    model, loaders = model or build(), loaders or build_loaders()
    return fit(model, *loaders, TrainConfig(epochs=epochs, **settings), device="cpu", **arguments)


def after(n_calls, action):
    """Return a callback that acts at its `n_calls`-th call."""
    calls = iter(range(1, 10_000))

    def callback(*arguments):
        if next(calls) == n_calls:
            action(*arguments)

    return callback


def spoil(model):
    model[3].bias.data[0] = float("nan")


def test_nan_loss_names_the_step_and_the_good_checkpoint(tmp_path):
    spoil_at_11 = after(11, spoil)
    with pytest.raises(
        FloatingPointError,
        match=rf"The loss became nan in epoch 1, step 11\. The last good checkpoint is '{tmp_path}/checkpoint.pt' "
        r"\(epoch 1, batch 0\)\. Try a smaller lr \(now 0\.001\), grad_clip=1\.0, or inputs on a smaller scale\.",
    ):
        train(run_dir=tmp_path, after_step=spoil_at_11)
    saved = load_state(tmp_path / "checkpoint.pt")
    assert saved["state"]["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def test_nan_loss_without_a_folder():
    with pytest.raises(FloatingPointError, match=r"epoch 0, step 2. No checkpoint was saved"):
        train(after_step=after(2, spoil))


def test_weights_that_are_spoiled_by_the_last_step_are_not_saved(tmp_path):
    """The loss of the step was still finite."""
    with pytest.raises(FloatingPointError, match=r"`3.bias` holds NaN or infinite values\. .*\(epoch 0, batch 3\)"):
        train(run_dir=tmp_path, after_step=after(6, spoil), checkpoint_every_n_steps=3)
    saved = load_state(tmp_path / "checkpoint.pt")
    assert saved["state"]["batch"] == 3
    assert torch.isfinite(saved["model"]["3.bias"]).all()


def test_validation_loss_that_becomes_nan_stops_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match=r"valid_loss became nan in epoch 0\. .*\(epoch 0, batch 0\)"):
        train(run_dir=tmp_path, after_step=after(N_STEPS, spoil))


def test_nan_in_the_first_batch_is_the_datas_fault():
    x = randn(60, 6)
    x[3, 2] = float("nan")
    with pytest.raises(ValueError, match=r"`entry 0 of the first batch of `train`` must .*first at index \(3, 2\)"):
        train(loaders=build_loaders(x))


@pytest.mark.parametrize(
    ("layer", "y", "words"),
    [
        (nn.Unflatten(1, (1, 3)), None, r"`model output` must have shape \(8, K\) to fit the targets, got \(8, 1, 3\)"),
        (nn.Flatten(0), None, r"must have shape \(8, K\) to fit the targets, got \(24,\)"),
        (nn.Identity(), torch.arange(60) % 4, "hold classes from 0 to 2, .* got 0 to 3. Count classes from 0"),
        (nn.Identity(), torch.arange(60) % 3 - 1, "hold classes from 0 to 2, .* got -1 to 1"),
        (nn.Identity(), torch.zeros(60, 2), r"must have shape \(8, 2\) to fit the targets, got \(8, 3\)"),
    ],
)
def test_outputs_that_do_not_fit_the_targets_are_refused(layer, y, words):
    with pytest.raises(ValueError, match=words):
        train(nn.Sequential(build(), layer), build_loaders(y=y))


def test_time_axis_that_was_not_reduced_is_recognised():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = build()

        def forward(self, x):
            return self.layers(x).expand(50, -1, -1)

    with pytest.raises(ValueError, match=r"got \(50, 8, 3\). Reduce the time axis in the model's last line"):
        train(Recurrent())


def test_accuracy_of_values_is_refused_and_the_remedy_works():
    loaders = build_loaders(y=randn(60, 3))
    with pytest.raises(TypeError, match=r"pass metrics=\{\} and TrainConfig\(monitor='loss'\)"):
        train(loaders=loaders, loss="mse")
    history = train(loaders=loaders, loss="mse", metrics={}, monitor="loss")
    assert list(history.rows[0]) == ["epoch", "train_loss", "valid_loss", "lr", "seconds"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "`epochs` must be a whole number >= 1, got 0"),
        ({"lr": 0}, "`lr` must be a finite number > 0, got 0"),
        ({"optimizer": "rmsprop"}, "`optimizer` must be one of 'adam', 'adamw', 'sgd', got 'rmsprop'"),
        ({"schedule": "linear"}, "`schedule` must be one of 'constant', 'cosine', 'steps', 'onecycle'"),
        ({"schedule_every": "batch"}, "`schedule_every` must be one of 'epoch', 'step', got 'batch'"),
        ({"milestones": (60, 80)}, "`milestones` .* got 60. They are fractions of the training, not epochs"),
        ({"warmup": 5}, "`warmup` must be .* got 5. It is a fraction of the training"),
        ({"loss": "hinge"}, "`loss` must be one of 'cross_entropy', 'mse', got 'hinge'"),
        ({"label_smoothing": 0.1, "loss": "mse"}, "`label_smoothing` must be 0 with loss='mse', got 0.1"),
        ({"amp": "fp8"}, "`amp` must be one of 'off', 'bf16', 'fp16', got 'fp8'"),
        ({"grad_clip": 0}, "`grad_clip` must be a finite number > 0"),
        ({"patience": 0}, "`patience` must be a whole number >= 1, got 0"),
        ({"select": "test"}, "`select` must be one of 'best', 'last', got 'test'"),
        ({"checkpoint_every_n_steps": 0}, "`checkpoint_every_n_steps` must be a whole number >= 1"),
        ({"momentum": 1.0}, "`momentum` must be a finite number >= 0 and < 1"),
        ({"betas": (0.9, 1.0)}, "`betas` must be a finite number"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
        ({"monitor": "f1"}, "`monitor` must be one of 'loss', 'accuracy', got 'f1'"),
        ({"amp": "fp16"}, "`amp` must be 'off' or 'bf16' on the device 'cpu', got 'fp16'"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=words):
        train(**settings)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'learning_rate'"):
        TrainConfig(epochs=1, learning_rate=0.1)
    with pytest.raises(TypeError, match="`config` must be a TrainConfig, got dict"):
        fit(build(), *build_loaders(), {"epochs": 1})


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ((pair for pair in []), TypeError, "`train` must be iterable again and again, got generator"),
        (3, TypeError, "`train` must be a loader or an iterable"),
        ([torch.zeros(8, 6)], TypeError, "`a batch of `train`` must be a tuple of tensors"),
        (
            [(torch.zeros(8, 6), [0] * 8)],
            TypeError,
            r"must be a tuple of tensors \(x, y\), got list \['Tensor', 'list'\]",
        ),
        ([], ValueError, "`train` must yield at least one sample, got none"),
        ([(torch.zeros(8, 6), torch.tensor(0))], ValueError, "`the targets of `train`` must have a batch axis"),
    ],
)
def test_data_that_are_none_are_refused(data, error, words):
    with pytest.raises(error, match=words):
        train(loaders=(data, build_loaders()[1]))


def test_share_of_another_process_is_refused():
    """Half the data would be left out without a word."""
    x, y = randn(60, 6), torch.arange(60) % 3
    half = ResidentLoader(x, y, batch_size=8, rank=1, world_size=2)
    with pytest.raises(ValueError, match=r"`train` must yield the share of rank 0 of 1, .* got rank 1 of 2"):
        train(loaders=(half, build_loaders()[1]))
    with pytest.raises(ValueError, match="`loader` must yield the share of rank 0 of 1"):
        evaluate(build(), half)


def test_length_that_is_not_kept_is_refused():
    class Short(list):
        def __len__(self):
            return 5

    batches = Short([(randn(8, 6), torch.arange(8) % 3)] * 2)
    with pytest.raises(ValueError, match=r"`train` must yield len\(train\) = 5 batches an epoch, got 2"):
        train(loaders=(batches, build_loaders()[1]))


def test_losses_and_metrics_of_the_wrong_shape_are_refused():
    with pytest.raises(TypeError, match="`loss` must return a 0-d tensor, the mean over the samples"):
        train(loss=lambda output, target: nn.functional.cross_entropy(output, target, reduction="none"))
    with pytest.raises(ValueError, match=r"`metrics\['top'\]\(...\)` must have shape \(8,\), got \(\)"):
        train(metrics={"top": lambda output, target: (output.argmax(1) == target).float().mean()}, monitor="top")
    with pytest.raises(ValueError, match="`metrics` must have names of their own, got 'loss'"):
        train(metrics={"loss": "accuracy"})


def test_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="`model` must have parameters with requires_grad=True, got none"):
        train(build().requires_grad_(False))


def test_run_with_another_configuration_is_not_continued(tmp_path):
    train(run_dir=tmp_path, lr=0.01)
    with pytest.raises(ValueError, match=r"`train.lr` must be 0.01, as in '.*config.json', got 0.02. To go on there"):
        train(run_dir=tmp_path, lr=0.02)
    x = torch.zeros(59, 6)
    fewer = (ResidentLoader(x, torch.zeros(59), batch_size=8), build_loaders()[1])
    with pytest.raises(ValueError, match=r"`data.train.n_samples` must be 60, as in .*, got 59"):
        train(run_dir=tmp_path, lr=0.01, loaders=fewer)
    groups = [{"lr": 0.5}]
    with pytest.raises(ValueError, match=r"`groups\[0\].initial_lr` must be 0.01, as in .*, got 0.5"):
        train(run_dir=tmp_path, lr=0.01, param_groups=lambda m: [{**groups[0], "params": m.parameters()}])


def test_checkpoint_of_another_model_is_not_loaded(tmp_path):
    class Other(nn.Sequential):
        """Has as many parameters of the same total size."""

        def __init__(self):
            super().__init__(*reversed(build()))

    train(run_dir=tmp_path / "shape")
    with pytest.raises(ValueError, match=r"checkpoint.pt' is of another architecture"):
        train(Other(), run_dir=tmp_path / "shape")
    with pytest.raises(ValueError, match=r"`groups.0..n_values` must be 195, .* got 99"):
        train(build(8), run_dir=tmp_path / "shape")
    x = randn(60, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"`model.0.weight` must have dtype torch.float32 as in .*, got torch.float64"):
        train(build(dtype=torch.float64), build_loaders(x), run_dir=tmp_path / "shape")


def test_checkpoint_cut_short_is_named(tmp_path):
    train(run_dir=tmp_path)
    data = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"checkpoint.pt' cannot be read: it is damaged or cut short"):
        train(run_dir=tmp_path)


def assert_run_goes_on(tmp_path, expected_epoch):
    """The checkpoint before is whole, and the run ends like one on a disk with room."""
    assert load_state(tmp_path / "run" / "checkpoint.pt")["state"]["epoch"] == expected_epoch
    stopped, whole = build(), build()
    train(stopped, run_dir=tmp_path / "run")
    train(whole)
    for name, value in whole.state_dict().items():
        assert torch.equal(stopped.state_dict()[name], value), name


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path, monkeypatch, code):
    def fill(row):
        def fail(descriptor):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(
        OSError, match=r"Could not write '.*checkpoint.pt': (the disk is full|your disk quota)"
    ) as caught:
        train(run_dir=tmp_path / "run", on_log=fill)
    assert caught.value.errno == code
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob(".neuroloaders-*"))
    assert_run_goes_on(tmp_path, 1)


def test_file_size_limit_leaves_the_checkpoint_before(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match=r"Could not write '.*checkpoint.pt': the file would be larger than"):
            train(
                run_dir=tmp_path / "run",
                on_log=lambda row: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1])),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_run_goes_on(tmp_path, 1)


def test_disk_that_is_really_full_leaves_the_checkpoint_before(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", run_dir]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a tiny file system is not allowed here: {mounted.stderr.strip()}")
    ballast = run_dir / "ballast"

    def fill(row):
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    try:
        with pytest.raises(OSError, match=r"Could not write '.*checkpoint.pt': the disk is full. Free some space"):
            train(run_dir=run_dir, on_log=fill)
        ballast.unlink()
        assert_run_goes_on(tmp_path, 1)
    finally:
        subprocess.run(["umount", run_dir], check=True)
