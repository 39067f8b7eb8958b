"""Evaluation of speech decoders: ranks of segments and words, intervals, p, and the controls."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from fakes import speech
from scipy.stats import kstest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from neurodecode.meeg.lag_scan import lag_scan
from neurodecode.meeg.lagged_ridge import LaggedRidge, grouped_errors, lagged
from neurodecode.meeg.linear_speech import LinearSpeechDecoder
from neurodecode.meeg.speech import SpeechDecoder
from neurodecode.meeg.speech_controls import CONTROLS, position_descriptors
from neurodecode.meeg.speech_evaluation import evaluate_speech
from neurodecode.meeg.speech_scores import score_estimates, word_frequency
from neurodecode.scoring import retrieve
from neuroloaders.recordings import RecordingSet


@pytest.fixture(scope="module")
def trained():
    made, split = speech.study()
    return made, split, SpeechDecoder(speech.CONFIG).fit(*speech.data(made, split), device="cpu")


@pytest.fixture(scope="module")
def tested(trained):
    """Segments and words of the test windows, and noisy estimates of them."""
    made, split, decoder = trained
    windows = decoder.windows(made.recordings, made.events, split, "test", words=True)
    words = windows.extra["word"]
    segments = decoder.segments(windows, made.features, labels=words)
    rng = torch.Generator().manual_seed(0)
    estimates = segments[segments.number] + 3 * torch.randn(len(words), *segments.shape[1:], generator=rng)
    return segments, words, estimates


def in_batches(estimates, size):
    for first in range(0, len(estimates), size):
        rows = np.arange(first, min(first + size, len(estimates)))
        yield rows, estimates[rows]


def evaluate(trained, decoder=None, *, seed=0, **options):
    made, split, fitted = trained
    options = {"rng": np.random.default_rng(seed), "n_resamples": 200, "n_permutations": 199, **options}
    return evaluate_speech(decoder or fitted, *speech.data(made, split), **options)


# --- scores -------------------------------------------------------------------------------------------------------


def test_ranks_are_those_of_retrieve_and_need_no_matrix(tested):
    segments, words, estimates = tested
    scores = score_estimates(in_batches(estimates, 17), segments, words, word_merge="max", n_nearest=4)
    whole = segments[:].numpy()
    found = retrieve(estimates.numpy(), whole, segments.number)
    assert np.array_equal(scores.segment.greater, found.greater)
    assert np.array_equal(scores.segment.equal, found.equal)
    merged = retrieve(estimates.numpy(), whole, segments.number, labels=words[segments.first])
    assert np.array_equal(scores.word.rank, merged.rank)
    assert scores.word.n_candidates == merged.n_candidates == len(np.unique(words))
    unit = whole.reshape(len(whole), -1) / np.linalg.norm(whole.reshape(len(whole), -1), axis=1, keepdims=True)
    order = np.argsort(-(estimates.flatten(1).numpy() @ unit.T), axis=1)[:, :4]
    assert np.array_equal(scores.nearest, order)
    # All that is kept of a trial, whatever the number of candidates.
    assert sum(a.size for a in (scores.row, scores.nearest, scores.segment.greater)) == 6 * len(words)


@pytest.mark.parametrize(("cosine", "temperature"), [(False, 1.0), (True, 0.07)])
def test_probabilities_of_a_word_are_summed(tested, cosine, temperature):
    segments, words, estimates = tested
    scores = score_estimates(
        in_batches(estimates, 17), segments, words, word_merge="sum", cosine=cosine, temperature=temperature
    )
    unit = torch.nn.functional.normalize(segments[:].double().flatten(1), dim=1)
    logits = estimates.double().flatten(1) @ unit.T
    if cosine:
        logits = logits / estimates.double().flatten(1).norm(dim=1, keepdim=True)
    probability = torch.softmax(logits / temperature, 1).numpy()
    names = np.unique(words)
    of_word = np.stack([probability[:, words[segments.first] == name].sum(axis=1) for name in names], axis=1)
    own = of_word[np.arange(len(words)), np.searchsorted(names, words)]
    assert np.array_equal(scores.word.greater, (of_word > own[:, None] * (1 + 1e-9)).sum(axis=1))


def test_scores_do_not_depend_on_batches_and_come_in_the_order_of_windows(tested):
    segments, words, estimates = tested
    backwards = list(in_batches(estimates, 5))[::-1]
    one = score_estimates(in_batches(estimates, 1000), segments, words)
    other = score_estimates(backwards, segments, words)
    assert np.array_equal(one.row, other.row)
    assert np.array_equal(one.segment.rank, other.segment.rank)
    assert np.array_equal(one.word.rank, other.word.rank)
    with pytest.raises(ValueError, match="`estimates` must be of each window once"):
        score_estimates([*backwards, backwards[0]], segments, words)


def test_two_words_with_the_same_sound_share_the_rank():
    made, split = speech.study()
    decoder = LinearSpeechDecoder(speech.CONFIG)
    decoder.sfreq_, decoder.feature_scale_ = 60.0, None
    windows = decoder.windows(made.recordings, made.events, split, "test", words=True)
    twice = windows.select(np.repeat(np.arange(10), 2))
    words = np.array([f"{word}{k % 2}" for k, word in enumerate(twice.extra["word"])])
    segments = decoder.segments(twice, made.features, labels=words)
    scores = score_estimates([(np.arange(20), segments[segments.number])], segments, words)
    assert scores.segment.rank.tolist() == [1.5] * 20
    assert scores.segment.accuracy(1) == 0.5


def test_frequency_of_words_is_what_a_decoder_that_says_the_same_of_all_reaches(tested):
    segments, words, _ = tested
    found = word_frequency(segments, words)
    names, count = np.unique(words[segments.first], return_counts=True)
    for k in (1, 5, 10):
        own = count[np.searchsorted(names, words)]
        greater = np.array([(count > n).sum() for n in own])
        equal = np.array([(count == n).sum() for n in own])
        expected = ((k - greater) / equal).clip(0, 1).mean()
        assert found.word.accuracy(k) == pytest.approx(expected)
        assert found.segment.accuracy(k) == pytest.approx(k / len(segments))


# --- evaluation ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(trained):
    return evaluate(trained, envelope=trained[0].envelope)


def test_decoder_is_above_chance_and_below_the_ideal_observer(trained, found):
    made, split, decoder = trained
    windows = decoder.windows(made.recordings, made.events, split, "test", words=True)
    ceiling = made.ideal(windows, **speech.ENDS)
    assert ceiling.n_candidates == found.scores.segment.n_candidates
    assert 3 * found.chance(1) < found.accuracy(1) <= ceiling.accuracy(1)
    assert found.accuracy(10) > 2 * found.chance(10)
    assert found.permutation.p == 1 / 200
    assert found.permutation.observed == pytest.approx(found.accuracy(10))


def test_brain_that_heard_something_else_is_at_chance(found):
    share, chance = found.accuracy(10, of="shifted brain"), found.chance(10)
    # Neighbouring windows overlap, and both subjects hear them: some twenty are independent.
    assert abs(share - chance) < 3 * np.sqrt(chance * (1 - chance) / 20)
    assert found.accuracy(10) > share + 0.3


def test_controls_go_through_the_same_retrieval(found):
    assert set(found.controls) == {*CONTROLS, "word frequency"}
    n = len(found.scores.row)
    for name, scores in found.controls.items():
        assert len(scores.row) == n, name
        assert scores.segment.n_candidates == found.scores.segment.n_candidates
    # The envelope of the sound itself tells segments apart; what is decoded of it, less so.
    assert found.accuracy(1, of="heard envelope") > 0.9
    assert found.accuracy(1, of="envelope") < found.accuracy(1, of="heard envelope")
    assert found.accuracy(10, of="position") < found.accuracy(10)


def test_table_has_a_row_for_each_subject_and_means_over_them(found):
    rows = [row for row in found.table() if row["of"] == "decoder"]
    assert [row["subject"] for row in rows] == ["S01", "S02", "all"]
    for key in ("segment top-1", "word top-10"):
        assert rows[2][key] == pytest.approx((rows[0][key] + rows[1][key]) / 2)
    assert rows[0]["n"] + rows[1]["n"] == rows[2]["n"] == len(found.subject)
    assert found.accuracy(5, level="word") == pytest.approx(rows[2]["word top-5"])
    for name, interval in found.intervals.items():
        assert interval.low <= interval.estimate <= interval.high
        assert interval.estimate == pytest.approx(rows[2][name])
    assert "S02" in str(found)


def test_results_are_written_as_json(found, tmp_path):
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["n_segments"] == found.scores.segment.n_candidates
    assert record["permutation"]["p"] == found.permutation.p
    assert record["word_merge"] == "sum"


def test_the_same_generator_gives_the_same_numbers(trained):
    first, second = (evaluate(trained, controls=[]).as_dict() for _ in range(2))
    assert first == second


def test_subjects_are_evaluated_alone_as_among_others(trained, found):
    made, split, decoder = trained
    recordings = made.recordings.of_subjects(["S02"])
    alone = evaluate_speech(
        decoder, recordings, made.events, made.features, split, rng=np.random.default_rng(0), controls=[],
        n_resamples=200, n_permutations=99,
    )  # fmt: skip
    mine = found.subject == "S02"
    assert np.array_equal(alone.scores.segment.rank, found.scores.segment.rank[mine])
    # Of one subject, sentences are resampled.
    assert alone.intervals["segment top-1"].method == "clusters"


def test_controls_that_cannot_run_are_named(trained):
    plain = evaluate(trained, word_merge="max")
    assert plain.skipped == dict.fromkeys(("envelope", "heard envelope"), "no envelope was given")
    with pytest.raises(ValueError, match="`envelope` must be given for the control 'envelope', got None"):
        evaluate(trained, controls=["envelope"])
    with pytest.raises(ValueError, match="`controls` must be one of 'position', "):
        evaluate(trained, controls=["phase"])
    with pytest.raises(ValueError, match=r"`shift_s` must be a finite number >= 3, got 1.0. Windows last 3 s"):
        evaluate(trained, shift_s=1.0)
    with pytest.raises(ValueError, match="`word_merge` must be one of 'sum', 'max', got 'mean'"):
        evaluate(trained, word_merge="mean")


def test_p_is_uniform_where_the_brain_says_nothing(trained):
    # Estimates that drift slowly, alike within a sentence: windows are no independent evidence.
    made, split, decoder = trained
    windows = decoder.windows(made.recordings, made.events, split, "test", words=True)

    class Guess(LinearSpeechDecoder):
        def estimates(self, recordings, windows, *, batch_size=128):
            rng = np.random.default_rng(self.seed)
            sentence = np.unique(windows.extra["sentence"], return_inverse=True)[1]
            shape = (8, self.config.n_times(60.0))
            of_sentence = rng.standard_normal((sentence.max() + 1, *shape))
            noise = of_sentence[sentence] + 0.1 * rng.standard_normal((len(windows), *shape))
            yield np.arange(len(windows)), torch.from_numpy(noise.astype(np.float32))

    found = []
    for seed in range(30):
        guess = Guess(speech.CONFIG, seed=seed)
        guess.sfreq_, guess.feature_scale_, guess.temperature_ = 60.0, decoder.feature_scale_, 1.0
        guess.subjects_ = decoder.subjects_
        test = evaluate(trained, guess, controls=[], n_resamples=100, n_permutations=99, seed=seed)
        found.append(test.permutation.p)
    assert len(np.unique(windows.extra["sentence"])) > 5
    assert kstest(found, "uniform").pvalue > 0.01
    assert min(found) > 0.001


# --- linear decoders ----------------------------------------------------------------------------------------------


def test_lagged_rows_are_the_samples_that_they_name():
    x = np.random.default_rng(0).standard_normal((2, 3, 7))
    lags, n_times = [-2, 0, 3], 6
    got = lagged(x, lags, n_times)
    for b in range(2):
        for t in range(n_times):
            want = [x[b, c, t + lag] if 0 <= t + lag < 7 else 0.0 for c in range(3) for lag in lags]
            assert got[b, t].tolist() == want


def test_errors_over_folds_are_those_of_explicit_refits():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)) + 2, rng.standard_normal((60, 3)) - 1
    y[:, 0] += x[:, 1]
    groups, alphas = np.repeat(np.arange(4), 15), [0.1, 10.0, 1000.0]
    got = grouped_errors(x, y, groups, alphas, n_splits=4)
    want = np.zeros(3)
    for train, test in GroupKFold(4).split(x, y, groups):
        for k, alpha in enumerate(alphas):
            want[k] += ((Ridge(alpha).fit(x[train], y[train]).predict(x[test]) - y[test]) ** 2).sum()
    np.testing.assert_allclose(got, want / y.size, rtol=1e-9)
    with pytest.raises(ValueError, match="`groups` must hold at least two groups"):
        grouped_errors(x, y, np.zeros(60), alphas)


def test_a_planted_filter_is_found_again():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 2, 50)).astype(np.float32)
    y = np.zeros((40, 1, 50), dtype=np.float32)
    y[:, 0, :-3] = x[:, 1, 3:]
    ridge = LaggedRidge(range(5)).fit([(x[:25], y[:25], np.arange(25)), (x[25:], y[25:], np.arange(25, 40))], 40)
    weights = ridge.ridge_.coef_.reshape(2, 5)
    assert weights[1, 3] == pytest.approx(1.0, abs=0.02)
    assert np.abs(weights).sum() == pytest.approx(1.0, abs=0.1)
    assert ridge.alpha_ == ridge.alphas[int(ridge.errors_.argmin())]


def test_linear_decoder_goes_through_the_same_retrieval():
    strong, blocks = speech.study(snr=0.1)
    linear = LinearSpeechDecoder(speech.CONFIG).fit(*speech.data(strong, blocks))
    found = evaluate((strong, blocks, linear), controls=["shifted brain"])
    assert found.accuracy(10) > 2 * found.chance(10)
    assert abs(found.accuracy(10, of="shifted brain") - found.chance(10)) < 0.35
    third = RecordingSet([dataclasses.replace(strong.recordings[0], subject="S03")])
    windows = linear.windows(strong.recordings, strong.events, blocks, "test", words=True)
    windows = windows.where(recording="S01_0").with_column("recording", "S03_0")
    with pytest.raises(ValueError, match="`windows` must be of subjects it was trained on, got 'S03'"):
        next(linear.estimates(third, windows))


def test_lag_scan_peaks_at_the_planted_lag_in_each_subject():
    for lag in (0.1, 0.15):
        made, split = speech.study(snr=0.3, lag_s=lag)
        lags = np.arange(-6, 25) / 60
        scan = lag_scan(*speech.data(made, split), lags, config=speech.CONFIG)
        assert scan.lags_s == pytest.approx(lags)
        assert scan.peak_s == pytest.approx(lag)
        for row in scan.correlation:
            assert abs(lags[row.argmax()] - lag) <= 0.5 / 60 + 1 / 60
        assert scan.correlation.max() > 0.2


def test_positions_say_where_in_the_sentence_a_word_is(trained):
    made, split, decoder = trained
    windows = decoder.windows(made.recordings, made.events, split, "test", words=True)
    found = position_descriptors(windows)
    assert found.shape == (len(windows), 13)
    assert (found[:, 1:11].sum(axis=1) == 1).all()
    assert (found[:, 1:11].argmax(axis=1) == windows.extra["word_index"].clip(max=9)).all()
