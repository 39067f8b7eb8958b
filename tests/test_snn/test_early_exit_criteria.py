"""Laws that hold for every criterion and every way to add up evidence."""

import math

import pytest
import torch
from fakes.exits import noisy_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.early_exit import ACCUMULATE, CRITERIA, DynamicConfidence, ExitRule
from snn.early_exit.readout import Readout, trajectory

criteria, accumulations = st.sampled_from(sorted(CRITERIA)), st.sampled_from(sorted(ACCUMULATE))
# Equal logits and silent steps are what spiking networks do: whole numbers bring many ties.
values = st.one_of(st.integers(-3, 3).map(float), st.floats(-100, 100, width=32))


@st.composite
def runs(draw, most=6):
    shape = tuple(draw(st.integers(low, most)) for low in (1, 1, 2))
    numbers = draw(st.lists(values, min_size=math.prod(shape), max_size=math.prod(shape)))
    return torch.tensor(numbers, dtype=torch.float32).reshape(shape)


def decided(logits, threshold, *, alpha=1.0, **options):
    return DynamicConfidence(None, len(logits), alpha, threshold, **options).predict(logits)


def test_names_are_those_of_the_contract():
    assert list(CRITERIA) == ["confidence", "entropy", "margin", "patience"]
    assert list(ACCUMULATE) == ["sum", "mean", "max", "last"]


@given(runs(), criteria, accumulations, st.floats(1e-3, 1e3), st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_threshold_0_leaves_at_the_first_check_and_1_runs_to_the_end(logits, criterion, accumulate, alpha, every):
    options = {"alpha": alpha, "criterion": criterion, "accumulate": accumulate, "check_every": every}
    at_once, never = decided(logits, 0.0, **options), decided(logits, 1.0, **options)
    assert set(at_once.steps.tolist()) == {min(every, len(logits))}
    assert set(never.steps.tolist()) == {len(logits)}
    for exits in (at_once, never):
        assert bool(((exits.certainty > 0) & (exits.certainty <= 1)).all())
        assert bool(((exits.confidence > 0) & (exits.confidence <= 1)).all())


@given(runs(), criteria, accumulations, st.lists(st.floats(0, 1), min_size=2, max_size=6))
@settings(max_examples=100, deadline=None)
def test_steps_of_no_sample_fall_as_the_threshold_grows(logits, criterion, accumulate, thresholds):
    before = torch.zeros(logits.shape[1])
    for threshold in sorted(thresholds):
        steps = decided(logits, threshold, criterion=criterion, accumulate=accumulate).steps
        assert bool((steps >= before).all())
        before = steps


@given(runs(), criteria, accumulations, st.floats(1e-6, 1e6))
@settings(max_examples=100, deadline=None)
def test_alpha_never_changes_an_answer(logits, criterion, accumulate, alpha):
    options = {"n_steps": len(logits), "criterion": criterion, "accumulate": accumulate}
    course, other = (trajectory(logits, ExitRule(alpha=a, **options)) for a in (1.0, alpha))
    assert torch.equal(course.labels, other.labels)
    if criterion == "patience":
        assert torch.equal(course.certainty, other.certainty)


@given(runs(), criteria, accumulations, st.floats(0, 1), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_permuting_a_batch_permutes_the_answers(logits, criterion, accumulate, threshold, random):
    order = list(range(logits.shape[1]))
    random.shuffle(order)
    plain, shuffled = (
        decided(x, threshold, criterion=criterion, accumulate=accumulate) for x in (logits, logits[:, order])
    )
    for name in ("labels", "steps", "confidence", "certainty"):
        assert torch.equal(getattr(shuffled, name), getattr(plain, name)[order])


@given(runs(), criteria, st.floats(-50, 50, width=32))
@settings(max_examples=50, deadline=None)
def test_what_all_classes_share_is_no_evidence(logits, criterion, shift):
    """Softmax and argmax do not mind a shift; exactly so for shifts that float64 adds without rounding."""
    exact, shift = (logits * 4).round().double() / 4, round(shift)
    rule = ExitRule(n_steps=len(logits), alpha=2.0, criterion=criterion)
    plain, shifted = trajectory(exact, rule), trajectory(exact + shift, rule)
    assert torch.equal(plain.certainty, shifted.certainty)
    assert torch.equal(plain.labels, shifted.labels)


def test_certainty_of_two_classes_in_closed_form():
    """With p = 3/4 and 1/4: 3/4, 1 - H(1/4) in bits, 1/2."""
    logits = torch.tensor([[[math.log(3.0), 0.0]]], dtype=torch.float64)
    bits = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    for criterion, wanted in {"confidence": 0.75, "entropy": 1 - bits, "margin": 0.5, "patience": 1.0}.items():
        certainty = trajectory(logits, ExitRule(n_steps=1, criterion=criterion)).certainty
        assert certainty.item() == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_no_evidence_at_all_is_enough_for_threshold_0_and_for_no_other(criterion):
    """Two classes that are equal: entropy and margin say 0, and 0 > 0 is false."""
    logits = torch.tensor([2.0, 2.0]).expand(3, 1, 2)
    assert decided(logits, 0.0, criterion=criterion).steps.tolist() == [1]
    assert decided(logits, 1.0, criterion=criterion).steps.tolist() == [3]
    if criterion in ("entropy", "margin"):
        assert decided(logits, 1e-15, criterion=criterion).steps.tolist() == [3]


def test_silent_network_is_not_sure_of_anything():
    exits = decided(torch.zeros(3, 2, 4), 0.25)
    assert exits.steps.tolist() == [3, 3]
    assert exits.labels.tolist() == [0, 0]
    assert exits.confidence.tolist() == [0.25, 0.25]


def test_patience_counts_steps_since_the_label_changed_also_between_checks():
    labels = [0, 0, 1, 1, 1, 0, 0, 0]
    logits = torch.nn.functional.one_hot(torch.tensor(labels), 2).float()[:, None]
    for every in (1, 2, 3):
        rule = ExitRule(n_steps=8, criterion="patience", accumulate="last", check_every=every)
        streaks = (trajectory(logits, rule).certainty[:, 0] * 8).tolist()
        assert streaks == [[1, 2, 1, 2, 3, 1, 2, 3][step - 1] for step in rule.checks]


def test_accumulations_are_what_their_names_say():
    logits, _ = noisy_logits(6, 9, 4)
    rules = {name: Readout(ExitRule(n_steps=6, accumulate=name)) for name in ACCUMULATE}
    found = {}
    for t in (0, 2, 3):  # pieces of 2, 1 and 3 steps
        piece = logits[t : {0: 2, 2: 3, 3: 6}[t]]
        found = {name: torch.from_numpy(readout.add(piece)) for name, readout in rules.items()}
    assert torch.equal(found["sum"], logits.cumsum(0)[-1])
    assert torch.equal(found["mean"], logits.cumsum(0)[-1] / 6)
    assert torch.equal(found["max"], logits.amax(0))
    assert torch.equal(found["last"], logits[-1])


def test_checks_end_at_the_last_step_whatever_their_distance():
    checks = {every: ExitRule(n_steps=7, check_every=every).checks for every in (1, 3, 7, 20)}
    assert checks == {1: [1, 2, 3, 4, 5, 6, 7], 3: [3, 6, 7], 7: [7], 20: [7]}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_logits_are_added_up_without_further_loss(dtype):
    """1024 steps of 0.1: the sum in float16 would stand still, in float64 it is 1024 times the rounded 0.1."""
    logits = torch.zeros(1024, 1, 2, dtype=dtype)
    logits[..., 1] = 0.1
    readout = Readout(ExitRule(n_steps=1024))
    for piece in logits.split(1):
        total = readout.add(piece)
    assert total[0, 1].item() == pytest.approx(1024 * torch.tensor(0.1, dtype=dtype).double().item(), rel=1e-12)
