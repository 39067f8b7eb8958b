"""From the largest probability to how often such answers are right."""

import numpy as np
import pytest
import torch
from sklearn.isotonic import isotonic_regression

from snn.early_exit import RECALIBRATORS, DynamicConfidence, Recalibration, expected_calibration_error
from snn.early_exit.recalibration import fit_isotonic

K, T, N = 5, 10, 3000


def uncalibrated(seed):
    """Logits whose sums are too modest early and too sure late, so that no temperature mends both."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(K, (N,), generator=generator)
    signal = 0.6 * torch.nn.functional.one_hot(y, K) + 0.8 * torch.randn(N, K, generator=generator)
    return signal + 0.5 * torch.randn(T, N, K, generator=generator), y


def test_map_is_the_isotonic_regression_of_being_right_on_the_probability():
    rng = np.random.default_rng(0)
    probability = np.sort(rng.uniform(0.2, 1.0, 400))
    correct = rng.uniform(size=400) < probability**2
    found = fit_isotonic(probability, correct, 10**9)(probability)
    assert found == pytest.approx(isotonic_regression(correct.astype(float)), abs=1e-8)
    assert (np.diff(found) >= 0).all()


def test_no_more_is_said_than_so_many_samples_can_tell():
    """All of 8 right: 9 in 10, by the rule of succession; all of 8 wrong: 1 in 10."""
    probability = np.linspace(0.5, 0.9, 8)
    assert fit_isotonic(probability, np.ones(8, dtype=bool), 8)(np.array([0.0, 1.0])).tolist() == [0.9, 0.9]
    assert fit_isotonic(probability, np.zeros(8, dtype=bool), 8)(np.array([0.7])).tolist() == [0.1]


def test_error_is_halved_on_other_data_where_a_temperature_cannot():
    (x, y), (other, labels) = uncalibrated(0), uncalibrated(1)
    errors = {}
    for recalibrate in RECALIBRATORS:
        decide = DynamicConfidence(None, T, recalibrate=recalibrate).fit(x, y, max_drop=0.01)
        errors[recalibrate] = decide.reliability(other, labels).ece
        exits = decide.predict(other)
        at_exits = expected_calibration_error(exits.confidence, (exits.labels == labels).numpy())
        errors[recalibrate, "exits"] = at_exits
    assert errors["isotonic"] < errors["none"] / 2
    assert errors["isotonic", "exits"] < errors["none", "exits"]


def test_answers_and_steps_do_not_change_with_it():
    (x, y), (other, _) = uncalibrated(0), uncalibrated(1)
    plain, mapped = (
        DynamicConfidence(None, T, recalibrate=name).fit(x, y, max_drop=0.01) for name in ("none", "isotonic")
    )
    one, two = plain.predict(other), mapped.predict(other)
    assert torch.equal(one.labels, two.labels)
    assert torch.equal(one.steps, two.steps)
    assert torch.equal(one.certainty, two.certainty)
    want = mapped.rule_.recalibration(one.confidence.numpy())
    assert torch.equal(two.confidence, torch.from_numpy(want))


def test_another_temperature_is_shown_as_it_is():
    x, y = uncalibrated(0)
    plain, mapped = (DynamicConfidence(None, T, recalibrate=name).fit(x, y) for name in ("none", "isotonic"))
    assert mapped.reliability(x, y, alpha=1.0).ece == plain.reliability(x, y, alpha=1.0).ece


def test_map_is_saved_and_loaded_bit_for_bit(tmp_path):
    (x, y), (other, _) = uncalibrated(0), uncalibrated(1)
    decide = DynamicConfidence(None, T).fit(x, y)
    loaded = DynamicConfidence.load(decide.save(tmp_path / "exit.json"), None)
    assert loaded.rule_ == decide.rule_
    assert torch.equal(loaded.predict(other).confidence, decide.predict(other).confidence)


@pytest.mark.parametrize(
    ("knots", "message"),
    [
        (((), ()), "at least one knot"),
        (((0.5, 0.2), (0.1, 0.2)), "`probability` must ascend"),
        (((0.2, 0.5), (0.3, 1.2)), "`confidence` must ascend"),
        (((0.2,), (0.3, 0.4)), "probability"),
    ],
)
def test_knots_that_are_no_map_are_refused(knots, message):
    with pytest.raises(ValueError, match=message):
        Recalibration(*knots)


def test_unknown_way_is_refused():
    with pytest.raises(ValueError, match="`recalibrate` must be one of 'isotonic', 'none', got 'platt'"):
        DynamicConfidence(None, T, recalibrate="platt")
