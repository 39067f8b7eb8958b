"""Dynamic Confidence from validation data to answers, and live."""

import math

import numpy as np
import pytest
import torch
from fakes.exits import Sequences, TinyNetwork, inputs, valid_and_test
from fakes.spiking import images
from torch import nn

import snn
from snn.early_exit import CRITERIA, DynamicConfidence, ParetoPoint, Work, expected_calibration_error, fit_alpha

N_STEPS = 12


@pytest.fixture(scope="module")
def data():
    return valid_and_test(N_STEPS)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_fitted_decision_saves_steps_and_keeps_accuracy(data, criterion):
    decide = DynamicConfidence(None, N_STEPS, criterion=criterion)
    decide.fit(*data["valid"], max_drop=0.005, assurance=0.5)
    logits, y = data["test"]
    exits = decide.predict(logits)
    accuracy = (exits.labels == y).double().mean().item()
    full = (logits.sum(0).argmax(-1) == y).double().mean().item()
    assert accuracy >= full - 0.02
    # Patience looks at labels alone, and has but T values.
    assert exits.mean_steps < (0.92 if criterion == "patience" else 0.65) * N_STEPS
    assert decide.score(logits, y) == accuracy


def test_fit_promises_on_the_validation_data_what_predict_then_does(data):
    for check_every in (1, 5):
        decide = DynamicConfidence(None, N_STEPS, check_every=check_every, batch_size=100)
        assert decide.fit(*data["valid"], max_drop=0.01) is decide
        logits, y = data["valid"]
        exits = decide.predict(logits)
        assert exits.mean_steps == pytest.approx(decide.fitted_.mean_steps, abs=1e-12)
        assert (exits.labels == y).double().mean().item() == pytest.approx(decide.fitted_.accuracy, abs=1e-12)
        assert decide.fitted_.accuracy >= decide.fitted_.full_accuracy - 0.01
        chosen = [point for point in decide.pareto if point.threshold == decide.threshold_]
        assert chosen == [ParetoPoint(decide.threshold_, decide.fitted_.mean_steps, decide.fitted_.accuracy)]


def test_every_point_of_the_front_is_what_its_threshold_does(data):
    logits, y = data["valid"]
    decide = DynamicConfidence(None, N_STEPS, criterion="margin").fit(logits, y)
    assert len(decide.pareto) > 10
    for point in decide.pareto[:: len(decide.pareto) // 8]:
        exits = DynamicConfidence(None, N_STEPS, decide.alpha_, point.threshold, criterion="margin").predict(logits)
        assert exits.mean_steps == pytest.approx(point.mean_steps, abs=1e-12)
        assert (exits.labels == y).double().mean().item() == pytest.approx(point.accuracy, abs=1e-12)


def test_drop_of_nothing_loses_no_sample(data):
    decide = DynamicConfidence(None, N_STEPS).fit(*data["valid"], max_drop=0)
    assert decide.fitted_.accuracy >= decide.fitted_.full_accuracy
    assert decide.fitted_.mean_steps < N_STEPS


def test_what_is_given_is_kept(data):
    both = DynamicConfidence(None, N_STEPS, 2.5, 0.75)
    assert (both.alpha_, both.threshold_) == (2.5, 0.75)
    before = both.predict(data["test"][0])
    both.fit(*data["valid"])
    assert (both.alpha_, both.threshold_) == (2.5, 0.75)
    assert torch.equal(both.predict(data["test"][0]).steps, before.steps)
    assert len(both.pareto) > 1
    alpha_only = DynamicConfidence(None, N_STEPS, alpha=2.5).fit(*data["valid"])
    assert alpha_only.alpha_ == 2.5
    assert alpha_only.fitted_.threshold == alpha_only.threshold_ != 0.75
    threshold_only = DynamicConfidence(None, N_STEPS, threshold=0.75).fit(*data["valid"])
    assert threshold_only.threshold_ == 0.75
    logits, y = data["valid"]
    assert threshold_only.alpha_ == fit_alpha(logits.double().cumsum(0), y)


# --- evaluation ---------------------------------------------------------------------------------------------------


def test_evaluation_is_that_of_predict_beside_the_whole_run(data):
    decide = DynamicConfidence(None, N_STEPS).fit(*data["valid"], max_drop=0.01)
    logits, y = data["test"]
    report, exits = decide.evaluate(logits, y), decide.predict(logits)
    right = exits.labels == y
    assert report.accuracy.value == pytest.approx(right.double().mean().item(), abs=1e-12)
    assert report.mean_steps.value == pytest.approx(exits.mean_steps, abs=1e-12)
    running = logits.double().cumsum(0).argmax(-1) == y
    assert report.static_accuracy == pytest.approx(running.double().mean(1).tolist())
    assert report.full_accuracy == report.static_accuracy[-1]
    assert report.difference.value == pytest.approx(report.accuracy.value - report.full_accuracy, abs=1e-12)
    assert report.ece == pytest.approx(expected_calibration_error(exits.confidence, right.numpy()), abs=1e-12)
    *_, (at_the_end, _) = decide.anytime(logits)
    full_ece = expected_calibration_error(at_the_end.confidence, (at_the_end.labels == y).numpy())
    assert report.full_ece == pytest.approx(full_ece, abs=1e-12)
    assert list(report.exits) == exits.steps.bincount(minlength=N_STEPS + 1)[1:].tolist()
    assert report.speedup == pytest.approx(N_STEPS / exits.mean_steps)
    assert report.oracle.accuracy == pytest.approx(running.any(0).double().mean().item())
    assert report.oracle.accuracy >= report.accuracy.value
    for interval in (report.accuracy, report.mean_steps, report.difference):
        assert interval.low <= interval.value <= interval.high
    # Both answer most samples alike, so the paired difference is known better than either accuracy.
    assert report.difference.high - report.difference.low < report.accuracy.high - report.accuracy.low
    assert "Early exit on 600 samples, T = 12; 95 % bootstrap intervals" in repr(report)


def test_evaluation_depends_on_the_seed_alone(data):
    decide = DynamicConfidence(None, N_STEPS, 1.0, 0.9)
    torch.manual_seed(0)
    first = decide.evaluate(*data["test"], rng=5, n_resamples=50)
    again = decide.evaluate(*data["test"], rng=np.random.default_rng(5), n_resamples=50)
    assert (first.accuracy, first.mean_steps) == (again.accuracy, again.mean_steps)


def test_data_that_chose_the_decision_are_recognised(data):
    decide = DynamicConfidence(None, N_STEPS).fit(*data["valid"])
    logits, y = data["valid"]
    flattered = decide.evaluate(logits.clone(), y.clone())
    assert flattered.fitted_on
    assert "These data chose the decision" in repr(flattered)
    honest = decide.evaluate(*data["test"])
    assert not honest.fitted_on
    assert "These data" not in repr(honest)
    assert not DynamicConfidence(None, N_STEPS, 1.0, 0.5).evaluate(logits, y).fitted_on


def test_calibrated_confidence_is_calibrated_at_the_exits_too(data):
    decide = DynamicConfidence(None, N_STEPS, alpha=0.3, threshold=0.9)
    fitted = DynamicConfidence(None, N_STEPS, threshold=0.9).fit(*data["valid"])
    assert fitted.evaluate(*data["test"]).ece < decide.evaluate(*data["test"]).ece / 2


def test_oracle_needs_no_fit(data):
    logits, y = data["test"]
    best = DynamicConfidence(None, N_STEPS).oracle(logits, y)
    running = logits.double().cumsum(0).argmax(-1) == y
    assert best.accuracy == pytest.approx(running.any(0).double().mean().item())
    first = [int(column.nonzero()[0]) + 1 if column.any() else N_STEPS for column in running.T]
    assert best.steps.tolist() == first


# --- networks -----------------------------------------------------------------------------------------------------


def test_network_and_its_logits_decide_alike():
    """A stepper in batches, and the same network's logits replayed, lead to the same fit and the same answers."""
    x, network = inputs(300), TinyNetwork()
    logits, _ = network.run(network.start(x), 8)
    # Classes that the network mostly gets right at the end.
    y = torch.where(torch.arange(300) % 6 == 0, (logits.sum(0).argmax(-1) + 1) % 4, logits.sum(0).argmax(-1))
    ours = DynamicConfidence(TinyNetwork(), 8, batch_size=64, check_every=2).fit(x, y, max_drop=0.02)
    replayed = DynamicConfidence(None, 8, batch_size=37, check_every=2).fit(logits, y, max_drop=0.02)
    assert ours.fitted_ == replayed.fitted_
    for name in ("labels", "steps", "confidence", "certainty"):
        assert torch.equal(getattr(ours.predict(x), name), getattr(replayed.predict(logits), name))
    assert ours.evaluate(x, y).accuracy == replayed.evaluate(logits, y).accuracy


def test_fit_takes_no_more_memory_a_call_than_predict():
    network, x = TinyNetwork(), inputs(50)
    y = network.run(network.start(x), 7)[0].sum(0).argmax(-1)
    y[0] = (y[0] + 1) % 4
    network.runs.clear()
    DynamicConfidence(network, 7, batch_size=32, check_every=3).fit(x, y)
    assert network.runs == [(3, 32), (3, 32), (1, 32), (3, 18), (3, 18), (1, 18)]


def test_spiking_vgg_stops_when_it_is_sure():
    """A network of ours by `as_stepper`: its own readout summed over the steps taken gives the answer."""
    model = spiking_digits()
    x = images(40).double()
    with torch.no_grad():
        evidence = model.step_logits(x).cumsum(0)
    decide = DynamicConfidence(model, 6, alpha=evidence.std().item(), threshold=0.35, batch_size=16)
    exits = decide.predict(x)
    assert len(exits.steps.unique()) > 1
    at_exit = evidence[exits.steps - 1, torch.arange(40)]
    assert torch.equal(exits.labels, at_exit.argmax(-1))
    certainty = torch.softmax(evidence / decide.alpha_, -1).amax(-1)
    assert torch.equal(exits.steps, ((certainty > 0.35).int().argmax(0) + 1).where(certainty[:-1].amax(0) > 0.35, 6))


def spiking_digits():
    model = snn.models.vgg(
        5,
        10,
        in_shape=(1, 8, 8),
        width=1 / 16,
        batch_norm=False,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    spiking = snn.to_spiking(model, n_steps=6)
    snn.calibrate_thresholds(spiking, images(40).double())
    return spiking.eval()


def test_sequences_are_fitted_and_run_along_their_axis(generator):
    x = torch.randint(0, 3, (6, 90, 5), generator=generator).double()
    network = Sequences()
    y = network.run(network.start(x), 6)[0].sum(0).argmax(-1)
    y[::7] = (y[::7] + 1) % 3
    decide = DynamicConfidence(network, 6, batch_size=20).fit(x, y, max_drop=0.05)
    assert decide.fitted_.n_samples == 90
    assert decide.score(x, y) == pytest.approx(decide.fitted_.accuracy)
    assert decide.predict(x).mean_steps < 6


def test_delays_stop_when_they_are_sure(generator):
    """A network with delays takes sequences; nobody has to say so."""
    model = snn.models.delay_mlp(5, 3, hidden=(6,), max_delay=4, generator=generator).eval()
    x = torch.randint(0, 3, (9, 20, 5), generator=generator).float()
    with torch.no_grad():
        evidence = model.step_logits(x).double().cumsum(0)
    n_steps = len(evidence)
    decide = DynamicConfidence(model, n_steps, alpha=evidence[4].std().item(), threshold=0.6, batch_size=8)
    exits = decide.predict(x)
    assert len(exits.steps.unique()) > 1
    assert torch.equal(exits.labels, evidence[exits.steps - 1, torch.arange(20)].argmax(-1))


def test_network_of_modules_is_told_what_it_is_shown(generator):
    network = nn.Sequential(nn.Linear(6, 8), snn.LIF(), nn.Linear(8, 4)).eval()
    with pytest.raises(ValueError, match="`inputs` must be given"):
        DynamicConfidence(network, 4, 1.0, 0.5).predict(inputs(3).float())
    static = DynamicConfidence(network, 4, 1.0, 0.5, inputs="static").predict(inputs(3).float())
    repeated = inputs(3).float().expand(4, 3, 6)
    sequence = DynamicConfidence(network, 4, 1.0, 0.5, inputs="sequence").predict(repeated)
    assert torch.equal(static.steps, sequence.steps)
    assert torch.equal(static.labels, sequence.labels)


# --- live ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check_every", [1, 5])
def test_anytime_is_sure_when_predict_answers(data, check_every):
    logits = data["test"][0]
    decide = DynamicConfidence(None, N_STEPS, 1.5, 0.9, criterion="margin", check_every=check_every)
    exits = decide.predict(logits)
    answered = torch.zeros(logits.shape[1], dtype=torch.bool)
    steps = []
    for check, sure in decide.anytime(logits):
        steps.append(check.step)
        assert torch.equal(check.labels, logits[: check.step].double().cumsum(0)[-1].argmax(-1))
        new = sure & ~answered
        assert bool((sure | ~answered).all())  # what was sure stays sure
        assert torch.equal(exits.labels[new], check.labels[new])
        assert exits.steps[new].tolist() == [check.step] * int(new.sum())
        answered = sure
    assert bool(answered.all())
    assert steps == decide.rule_.checks


def test_anytime_runs_no_further_than_it_is_asked():
    network = TinyNetwork()
    live = DynamicConfidence(network, 1000, 1.0, 0.9).anytime(inputs(1))
    for _ in range(3):
        next(live)
    assert network.runs == [(1, 1)] * 3


# --- errors and words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 0}, "`n_steps` must be a whole number >= 1"),
        ({"alpha": 0.0}, "`alpha` must be a finite number > 0.*Leave it out to have it fitted"),
        ({"threshold": 1.1}, "`threshold` must be .*Leave it out to have it chosen by fit"),
        ({"criterion": "gut"}, "`criterion` must be one of 'confidence', 'entropy', 'margin', 'patience', got 'gut'"),
        ({"accumulate": "all"}, "`accumulate` must be one of 'sum', 'mean', 'max', 'last', got 'all'"),
        ({"check_every": 0}, "`check_every` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"compact_below": 75}, "`compact_below` must be .*fraction of the batch that is still running"),
        ({"calibrator": "mse"}, "`calibrator` must be one of 'nll', 'ece', got 'mse'"),
    ],
)
def test_bad_settings_are_refused_when_made(settings, message):
    with pytest.raises(ValueError, match=message):
        DynamicConfidence(None, **{"n_steps": 4, **settings})


def test_one_number_of_steps_holds_for_all_samples():
    with pytest.raises(TypeError, match=r"`n_steps` must be a whole number.*pad sequences to the longest"):
        DynamicConfidence(None, torch.tensor([3, 4]))


@pytest.mark.parametrize("use", ["predict", "anytime", "evaluate", "score", "pareto"])
def test_use_before_fit_says_what_to_call(data, use):
    logits, y = data["test"]
    decide = DynamicConfidence(None, N_STEPS)
    calls = {
        "predict": lambda: decide.predict(logits),
        "anytime": lambda: decide.anytime(logits),
        "evaluate": lambda: decide.evaluate(logits, y),
        "score": lambda: decide.score(logits, y),
        "pareto": lambda: decide.pareto,
    }
    with pytest.raises(ValueError, match=r"a decision that is not fitted. Call fit\(x, y\) with validation data first"):
        calls[use]()
    assert "alpha=not fitted, threshold=not fitted" in repr(decide)


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([1.0], torch.zeros(1, dtype=torch.int64), TypeError, "`x` must be a tensor"),
        (torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64), ValueError, r"`x` must have shape \(4, B, K\)"),
        (torch.zeros(5, 3, 2), torch.zeros(3, dtype=torch.int64), ValueError, r"logits of each of the T = 4 steps"),
        (torch.zeros(4, 3, 2), torch.zeros(2, dtype=torch.int64), ValueError, "`y`, `x` must have the same length"),
        (torch.zeros(4, 3, 2), torch.zeros(3), TypeError, "`y` must be an integer tensor of classes"),
        (torch.zeros(4, 3, 2), torch.tensor([0, 1, 2]), ValueError, r"`y` must hold classes 0..1, as there are 2"),
        (torch.zeros(4, 3, 2), torch.tensor([0, -1, 1]), ValueError, r"`y` must hold classes from 0 on, got -1..1"),
        (torch.zeros(4, 0, 2), torch.zeros(0, dtype=torch.int64), ValueError, "`x` must have at least one sample"),
        (torch.zeros(4, 3, 2), torch.tensor([0, 1, 1]), ValueError, "`y` must be more probable than other classes"),
        (torch.full((4, 3, 2), math.nan), torch.tensor([0, 1, 1]), ValueError, "nan at step 1 of sample 0"),
    ],
)
def test_data_that_do_not_fit_are_refused(x, y, error, message):
    with pytest.raises(error, match=message):
        DynamicConfidence(None, 4).fit(x, y)


def test_inputs_that_the_model_does_not_have_are_refused():
    with pytest.raises(ValueError, match="`inputs` must be 'sequence' for this model, or left out, got 'static'"):
        DynamicConfidence(Sequences(), 2, 1.0, 0.5, inputs="static").predict(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match=r"`x` must have shape \(T, B, ...\), got \(3,\)"):
        DynamicConfidence(Sequences(), 2, 1.0, 0.5).predict(torch.zeros(3))
    with pytest.raises(ValueError, match="`inputs` must be one of 'static', 'sequence', got 'images'"):
        DynamicConfidence(TinyNetwork(), 2, inputs="images")


def test_module_that_is_no_stepper_goes_through_as_stepper():
    with pytest.raises((TypeError, ValueError), match="`model` must"):
        DynamicConfidence(nn.Flatten(), 3, 1.0, 0.5).predict(inputs(3))


def test_results_can_be_read(data):
    decide = DynamicConfidence(None, N_STEPS).fit(*data["valid"])
    assert repr(decide).startswith(f"DynamicConfidence(no model, n_steps={N_STEPS}, alpha=")
    assert repr(decide.fitted_).startswith("Fitted on 600 samples: alpha ")
    exits = decide.predict(data["test"][0])
    assert f"Exit of 600 samples: {exits.mean_steps:.2f} of 12 steps on average" in repr(exits)
    assert isinstance(exits.work, Work)
    with pytest.raises(AttributeError):
        exits.labels = None


@pytest.mark.usefixtures("global_rng_untouched")
def test_nothing_draws_from_the_global_generator(data):
    decide = DynamicConfidence(None, N_STEPS).fit(*data["valid"])
    decide.evaluate(*data["test"], n_resamples=10)


def test_progress_bar_counts_batches(capsys):
    decide = DynamicConfidence(TinyNetwork(), 3, 1.0, 0.5, batch_size=4)
    quiet = decide.predict(inputs(10))
    assert capsys.readouterr().err == ""
    loud = decide.predict(inputs(10), progress=True)
    assert "3/3" in capsys.readouterr().err
    assert torch.equal(quiet.labels, loud.labels)


def test_curve_goes_from_the_first_check_to_t_and_each_point_is_what_predict_gives(generator):
    y = torch.randint(5, (60,), generator=generator)
    logits = torch.randn(6, 60, 5, generator=generator) + torch.nn.functional.one_hot(y, 5)
    decide = DynamicConfidence(None, 6).fit(logits, y, max_drop=0.1)
    points = decide.curve(logits, y, n_points=9)
    assert 2 <= len(points) <= 9
    assert (points[0].threshold, points[0].mean_steps) == (0.0, 1.0)
    assert (points[-1].threshold, points[-1].mean_steps) == (1.0, 6.0)
    for point in points:
        answers = DynamicConfidence(None, 6, decide.alpha_, point.threshold).predict(logits)
        assert answers.mean_steps == pytest.approx(point.mean_steps)
        assert (answers.labels == y).double().mean().item() == pytest.approx(point.accuracy)
