"""Learning rates against PyTorch's own schedulers."""

import pytest
import torch
from torch.optim import lr_scheduler

from snn.training.config import TrainConfig
from snn.training.optimizers import SCHEDULES, build_optimizer, set_learning_rates

REFERENCES = {
    "constant": lambda optimizer, total: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "cosine": lambda optimizer, total: lr_scheduler.CosineAnnealingLR(optimizer, T_max=total),
    "steps": lambda optimizer, total: lr_scheduler.MultiStepLR(
        optimizer, [round(fraction * total) for fraction in (0.6, 0.7, 0.9)], gamma=0.2
    ),
    "onecycle": lambda optimizer, total: lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=total),
}


def momentum_of(group):
    return group["betas"][0] if "betas" in group else group["momentum"]


def course(optimizer, config, total):
    """Rates and momenta at all positions, in our order and by PyTorch's way of stepping."""
    ours = []
    for position in range(total):
        set_learning_rates(optimizer, position, total, config)
        ours.append((optimizer.param_groups[0]["lr"], momentum_of(optimizer.param_groups[0])))
    return torch.tensor(ours, dtype=torch.float64)


def test_every_schedule_is_compared():
    assert REFERENCES.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("schedule", REFERENCES)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("total", [4, 10, 37, 150])
def test_schedule_is_pytorchs(schedule, optimizer, total):
    config = TrainConfig(
        epochs=total, lr=0.05, optimizer=optimizer, schedule=schedule, milestones=(0.6, 0.7, 0.9), factor=0.2
    )
    model = torch.nn.BatchNorm1d(2)
    theirs = build_optimizer(model, config)
    reference = REFERENCES[schedule](theirs, total)
    expected = []
    for _ in range(total):
        expected.append((theirs.param_groups[0]["lr"], momentum_of(theirs.param_groups[0])))
        theirs.step()
        reference.step() if len(expected) < total else None
    got = course(build_optimizer(model, config), config, total)
    # PyTorch's cosine is a recursion, which loses some digits.
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_momentum_stays_if_it_is_not_to_cycle():
    config = TrainConfig(epochs=10, schedule="onecycle", betas=(0.7, 0.99), cycle_momentum=False)
    got = course(build_optimizer(torch.nn.BatchNorm1d(2), config), config, 10)
    assert got[:, 1].tolist() == [0.7] * 10


def test_warmup_rises_in_equal_steps_and_the_cosine_takes_the_rest():
    config = TrainConfig(epochs=12, lr=1.0, schedule="cosine", warmup=0.25)
    got = course(build_optimizer(torch.nn.BatchNorm1d(2), config), config, 12)[:, 0]
    rest = torch.cos(torch.arange(9, dtype=torch.float64) * torch.pi / 9) / 2 + 0.5
    torch.testing.assert_close(got, torch.cat([torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), rest]))


def test_groups_follow_schedules_of_their_own():
    """The recipe of DCLS-Delays: weights on one cycle, delays on a cosine at a hundred times the rate."""
    config = TrainConfig(epochs=20, lr=0.005, schedule="onecycle")
    model = torch.nn.BatchNorm1d(2)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.1, "schedule": "cosine"}]
    optimizer = build_optimizer(model, config, lambda _: groups)
    weights, delays = [torch.optim.Adam([p], lr=lr) for p, lr in ((model.weight, 0.005), (model.bias, 0.1))]
    one = lr_scheduler.OneCycleLR(weights, max_lr=0.005, total_steps=20)
    two = lr_scheduler.CosineAnnealingLR(delays, T_max=20)
    for position in range(20):
        set_learning_rates(optimizer, position, 20, config)
        for group, theirs in zip(optimizer.param_groups, (weights, delays), strict=True):
            assert group["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
            assert momentum_of(group) == pytest.approx(momentum_of(theirs.param_groups[0]), rel=1e-9)
            theirs.step()
        if position < 19:
            one.step()
            two.step()


def test_onecycle_needs_room_and_no_warmup():
    model = torch.nn.BatchNorm1d(2)
    config = TrainConfig(epochs=3, schedule="onecycle")
    with pytest.raises(ValueError, match="`schedule` must have at least 4 positions for 'onecycle', got 3"):
        set_learning_rates(build_optimizer(model, config), 0, 3, config)
    with pytest.raises(ValueError, match="`warmup` must be 0 with the schedule 'onecycle'"):
        build_optimizer(model, TrainConfig(epochs=9, schedule="onecycle", warmup=0.1))
