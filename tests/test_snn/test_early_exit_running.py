"""Running in batches that shrink gives the answers of each sample run alone, and computes less."""

import math

import pytest
import torch
from fakes.exits import Sequences, TinyNetwork, inputs, noisy_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import close
from torch import nn

from snn.early_exit import ACCUMULATE, CRITERIA, DynamicConfidence, ExitRule, run_until_sure
from snn.early_exit.readout import trajectory
from snn.early_exit.running import Replay, run_to_the_end, step_by_step


def plain_answer(steps_of_logits, rule):
    """One sample, in plain Python: a loop over its steps, as the paper's text has it."""
    seen, labels = [], []
    for t, row in enumerate(steps_of_logits, 1):
        seen.append(row)
        per_class = list(zip(*seen, strict=True))
        evidence = {
            "sum": [math.fsum(values) for values in per_class],
            "mean": [math.fsum(values) / t for values in per_class],
            "max": [max(values) for values in per_class],
            "last": list(row),
        }[rule.accumulate]
        label = evidence.index(max(evidence))
        labels.append(label)
        if t % rule.check_every and t != rule.n_steps:
            continue
        powers = [math.exp((value - max(evidence)) / rule.alpha) for value in evidence]
        p = sorted((power / sum(powers) for power in powers), reverse=True)
        streak = next((n for n, old in enumerate(reversed(labels)) if old != label), t)
        certainty = {
            "confidence": p[0],
            "entropy": 1 + sum(q * math.log(q) for q in p if q > 0) / math.log(len(p)),
            "margin": p[0] - p[1],
            "patience": streak / rule.n_steps,
        }[rule.criterion]
        if certainty > rule.threshold or t == rule.n_steps:
            return label, t, p[0], certainty
    raise AssertionError("the loop ended without an answer")


def plain_loop(network, x, rule):
    """One sample after the other, one step after the other."""
    answers = []
    for sample in x:
        state, logits = network.start(sample[None]), []
        for _ in range(rule.n_steps):
            step, state = network.run(state, 1)
            logits.append(step[0, 0].tolist())
        answers.append(plain_answer(logits, rule))
    kinds = (torch.int64, torch.int64, torch.float64, torch.float64)
    return [torch.tensor(column, dtype=kind) for column, kind in zip(zip(*answers, strict=True), kinds, strict=True)]


def same(found, wanted):
    labels, steps, confidence, certainty = wanted
    assert torch.equal(found.labels, labels)
    assert torch.equal(found.steps, steps)
    close(found.confidence, confidence)
    close(found.certainty, certainty)


@pytest.mark.parametrize("check_every", [1, 2, 3, 5])
@pytest.mark.parametrize("accumulate", ACCUMULATE)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_batched_run_equals_the_plain_loop(criterion, accumulate, check_every):
    threshold = {"confidence": 0.7, "entropy": 0.3, "margin": 0.45, "patience": 0.35}[criterion]
    rule = ExitRule(
        n_steps=8,
        alpha=0.83 if accumulate == "sum" else 0.21,
        threshold=threshold,
        criterion=criterion,
        accumulate=accumulate,
        check_every=check_every,
    )
    x = inputs(37, seed=check_every)
    wanted = plain_loop(TinyNetwork(), x, rule)
    network = TinyNetwork()
    found = run_until_sure(network, x, rule, batch_size=16, compact_below=0.7)
    same(found, wanted)
    # The cases would prove nothing if all samples left together.
    assert len(found.steps.unique()) > 1
    assert found.work.sample_steps == sum(steps * rows for steps, rows in network.runs)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 20),
    batch_size=st.integers(1, 12),
    compact_below=st.sampled_from([0.0, 0.3, 0.75, 1.0]),
    threshold=st.floats(0, 1),
    check_every=st.integers(1, 9),
    n_steps=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_how_the_batch_is_cut_and_compacted_changes_no_answer(
    seed, n, batch_size, compact_below, threshold, check_every, n_steps
):
    rule = ExitRule(n_steps=n_steps, threshold=threshold, check_every=check_every)
    x = inputs(n, seed)
    alone = [run_until_sure(TinyNetwork(seed=seed), row[None], rule, compact_below=1.0) for row in x]
    found = run_until_sure(TinyNetwork(seed=seed), x, rule, batch_size=batch_size, compact_below=compact_below)
    assert len(found) == n
    for name in ("labels", "steps", "confidence", "certainty"):
        assert getattr(found, name).tolist() == [getattr(one, name).item() for one in alone], name
    assert found.work.needed_sample_steps == sum(one.work.sample_steps for one in alone)


@pytest.mark.parametrize("check_every", [1, 2, 3])
@pytest.mark.parametrize("look_ahead", [2, 3, 50])
def test_looking_ahead_changes_no_answer_and_calls_the_network_less_often(check_every, look_ahead):
    rule = ExitRule(n_steps=11, threshold=0.5, check_every=check_every)
    x = inputs(30, seed=3)
    alone = [run_until_sure(TinyNetwork(), row[None], rule) for row in x]
    network = TinyNetwork()
    ahead = [run_until_sure(network, row[None], rule, look_ahead=look_ahead) for row in x]
    for name in ("labels", "steps", "confidence", "certainty"):
        assert [getattr(one, name).item() for one in ahead] == [getattr(one, name).item() for one in alone], name
    assert len({int(one.steps) for one in alone}) > 2
    assert sum(one.work.calls for one in ahead) < sum(one.work.calls for one in alone)
    assert sum(one.work.sample_steps for one in ahead) == sum(steps * rows for steps, rows in network.runs)
    for one, plain in zip(ahead, alone, strict=True):
        spare = one.work.sample_steps - plain.work.sample_steps
        assert 0 <= spare < check_every * look_ahead
        assert one.work.needed_sample_steps == plain.work.needed_sample_steps
    # Samples in one batch are not looked ahead for.
    together = run_until_sure(TinyNetwork(), x, rule, look_ahead=look_ahead)
    assert together.work.calls == run_until_sure(TinyNetwork(), x, rule).work.calls


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("make", [TinyNetwork, Sequences])
def test_batch_of_none_and_of_one(n, make):
    network, rule = make(), ExitRule(n_steps=4, threshold=0.5)
    x = inputs(n) if make is TinyNetwork else torch.ones(4, n, 5, dtype=torch.float64)
    found = run_until_sure(network, x, rule, batch_axis=x.ndim - 2)
    assert len(found) == n
    assert found.work.samples == n
    assert f"Exit of {n} sample" in repr(found)
    if n == 0:
        assert found.work.calls == 0
        assert math.isnan(found.mean_steps)


def test_sequences_lie_along_their_own_axis(generator):
    x = torch.randint(0, 3, (7, 20, 5), generator=generator).double()
    decide = DynamicConfidence(Sequences(), 7, alpha=2.0, threshold=0.8, batch_size=8)
    found = decide.predict(x)
    alone = [decide.predict(x[:, [n]]) for n in range(20)]
    assert found.labels.tolist() == [one.labels.item() for one in alone]
    assert found.steps.tolist() == [one.steps.item() for one in alone]
    assert len(found.steps.unique()) > 1


def test_whole_course_holds_the_numbers_of_the_run_with_exits():
    """The vectorised path and the running one, bit for bit, in random float32 logits of every scale."""
    logits, _ = noisy_logits(11, 300, 7, dtype=torch.float32)
    for criterion in CRITERIA:
        for check_every in (1, 4):
            rule = ExitRule(
                n_steps=11, alpha=1.7, threshold=0.6, criterion=criterion, accumulate="mean", check_every=check_every
            )
            found = run_until_sure(Replay(), logits, rule, batch_size=64, batch_axis=1)
            course = trajectory(logits, rule)
            leaves, everyone = course.exits(0.6), torch.arange(300)
            assert torch.equal(found.steps, course.steps[leaves])
            for name in ("labels", "confidence", "certainty"):
                assert torch.equal(getattr(found, name), getattr(course, name)[leaves, everyone]), name


def test_several_steps_a_call_add_up_to_the_same_bits():
    logits, _ = noisy_logits(12, 50, 5, signal=3.0, dtype=torch.float32)
    for accumulate in ACCUMULATE:
        each = trajectory(logits, ExitRule(n_steps=12, accumulate=accumulate))
        for k in (2, 3, 5, 12):
            rare = trajectory(logits, ExitRule(n_steps=12, accumulate=accumulate, check_every=k))
            assert torch.equal(each.confidence[rare.steps - 1], rare.confidence)


# --- what was computed --------------------------------------------------------------------------------------------


def test_compaction_shrinks_what_the_network_computes():
    """Four samples that leave after 1, 2, 3 and 4 steps, counted by hand."""
    logits = torch.zeros(4, 4, 2)
    for sample in range(4):
        logits[sample:, sample, 1] = 20.0
    rule = ExitRule(n_steps=4, threshold=0.9, accumulate="last")
    counts = {}
    for compact_below in (0.0, 0.5, 1.0):
        work = run_until_sure(Replay(), logits, rule, batch_axis=1, compact_below=compact_below).work
        assert (work.needed_sample_steps, work.full_sample_steps, work.calls, work.early) == (10, 16, 4, 3)
        counts[compact_below] = (work.sample_steps, work.compactions)
    # Rows in the batch at the four steps: 4 4 4 4; 4 4 2 1 (half of 4 still run after two steps); 4 3 2 1.
    assert counts == {0.0: (16, 0), 0.5: (11, 2), 1.0: (10, 3)}


def test_network_is_run_only_while_someone_is_unsure():
    network, x = TinyNetwork(), inputs(40)
    found = run_until_sure(network, x, ExitRule(n_steps=6, threshold=0.0, check_every=2), batch_size=16)
    assert found.steps.tolist() == [2] * 40
    assert network.runs == [(2, 16), (2, 16), (2, 8)]
    assert network.kept == []
    assert network.first_layer_rows == 40


def test_state_of_those_that_stay_is_kept_and_not_made_anew():
    network, x = TinyNetwork(), inputs(32)
    found = run_until_sure(network, x, ExitRule(n_steps=10, alpha=0.5, threshold=0.9), compact_below=1.0)
    assert len(network.kept) == found.work.compactions >= 2
    assert network.kept == sorted(network.kept, reverse=True)
    # After each compaction the network runs exactly those that were kept.
    assert sorted({rows for _, rows in network.runs}, reverse=True) == [32, *network.kept]
    assert network.first_layer_rows == 32


def test_gradients_are_off_inside_and_as_before_outside():
    class Watching(TinyNetwork):
        def run(self, state, n_steps):
            assert not torch.is_grad_enabled()
            return super().run(state, n_steps)

    rule = ExitRule(n_steps=4, threshold=0.9)
    run_until_sure(Watching(), inputs(3), rule)
    checks = step_by_step(Watching(), inputs(3), rule)
    next(checks)
    assert torch.is_grad_enabled()
    checks.close()
    assert torch.is_grad_enabled()


class Somewhere(TinyNetwork):
    """Notes where its batches are. The device of shapes without values stands for a GPU: moves can be seen there."""

    def start(self, x):
        self.seen = (str(x.device), len(x))
        return super().start(torch.ones(len(x), 6, dtype=torch.float64))


class SomewhereModule(nn.Module, Somewhere):
    def __init__(self):
        nn.Module.__init__(self)
        Somewhere.__init__(self)
        self.weight = nn.Parameter(torch.zeros(1, device="meta"))


@pytest.mark.parametrize("told_by", ["argument", "stepper", "parameters", "nobody"])
def test_batches_are_moved_to_the_device_one_by_one(told_by):
    network = SomewhereModule() if told_by == "parameters" else Somewhere()
    if told_by == "stepper":
        network.device = "meta"
    x = inputs(10)
    DynamicConfidence(network, 2, 1.0, 0.5, batch_size=4, device="meta" if told_by == "argument" else None).predict(x)
    assert network.seen == ("cpu" if told_by == "nobody" else "meta", 2)
    assert x.device.type == "cpu"


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("check_every", [1, 3])
def test_bad_logit_is_named_by_step_and_sample(bad, check_every):
    logits, _ = noisy_logits(6, 30, 4)
    logits[4, 17, 2] = bad
    rule = ExitRule(n_steps=6, threshold=1.0, check_every=check_every)
    with pytest.raises(ValueError, match=r"logits` must be finite, got (nan|-?inf) at step 5 of sample 17\."):
        run_until_sure(Replay(), logits, rule, batch_size=7, batch_axis=1)
    with pytest.raises(ValueError, match=r"at step 5 of sample 17\."):
        trajectory(logits, rule)


def test_bad_logit_of_a_sample_that_has_left_is_never_looked_at():
    logits = torch.zeros(3, 2, 2)
    logits[0, 0, 0], logits[1:, 0] = 50.0, math.nan
    rule = ExitRule(n_steps=3, threshold=0.9)
    found = run_until_sure(Replay(), logits, rule, batch_axis=1, compact_below=0.0)
    assert found.steps.tolist() == [1, 3]


def test_huge_finite_logits_and_tiny_alpha_are_no_error():
    logits = torch.tensor([[[1e308, -1e308], [1e308, 1e308]]], dtype=torch.float64)
    found = run_until_sure(Replay(), logits, ExitRule(n_steps=1, alpha=5e-324), batch_axis=1)
    assert found.confidence.tolist() == [1.0, 0.5]


def test_stepper_that_returns_another_number_of_steps_is_refused():
    class Summed(TinyNetwork):
        def run(self, state, n_steps):
            logits, state = super().run(state, n_steps)
            return logits.sum(0, keepdim=True), state

    with pytest.raises(ValueError, match=r"`the model's logits` must have shape \(2, 5, K\), got \(1, 5, 4\)"):
        run_until_sure(Summed(), inputs(5), ExitRule(n_steps=4, check_every=2))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"must have shape \(k, B, K\), with at least 2 classes, got \(1, 3, 1\)"):
        run_until_sure(Replay(), torch.zeros(2, 3, 1), ExitRule(n_steps=2), batch_axis=1)


def test_whole_run_of_no_samples_is_refused():
    with pytest.raises(ValueError, match="`x` must have at least one sample"):
        run_to_the_end(TinyNetwork(), inputs(0), 3)
