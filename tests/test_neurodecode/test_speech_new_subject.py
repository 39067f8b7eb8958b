"""New subjects: only their layer is fitted, to minutes that are counted, and never to their harm."""

import dataclasses

import numpy as np
import pytest
import torch
from fakes import speech

from neurodecode.meeg.new_subject import _cut, calibrate_subject, calibration_curve, first_minutes
from neurodecode.meeg.speech import SpeechDecoder
from neuroloaders.events_table import EventTable

OPTIONS = {"lr": 1e-2, "epochs": 30, "patience": 5}
# For what is so after any number of epochs.
FEW = {**OPTIONS, "epochs": 3}


@pytest.fixture(scope="module")
def trained():
    made, split = speech.study(n_subjects=4, snr=0.03)
    known = made.recordings.of_subjects(["S01", "S02", "S03"])
    decoder = SpeechDecoder(dataclasses.replace(speech.CONFIG, epochs=6))
    return made, split, decoder.fit(known, made.events, made.features, split, device="cpu")


def rest(trained):
    made, split, _ = trained
    return made.recordings.of_subjects(["S04"]), made.events, made.features, split


def test_only_the_layer_of_the_new_subject_moves(trained):
    made, split, decoder = trained
    before = {name: value.clone() for name, value in decoder.module_.state_dict().items()}
    found = calibrate_subject(decoder, *rest(trained), **OPTIONS)
    # The decoder that was given is as it was, and the new one too but for the layer.
    for each in (decoder.module_, found.decoder.module_):
        now = each.state_dict()
        assert all(torch.equal(now[name], value) for name, value in before.items())
    new = found.decoder.module_.subject_parameter(3)
    assert not torch.equal(new, before["spatial.subject.weight"].mean(0))
    assert found.decoder.subjects_ == ("S01", "S02", "S03", "S04")
    known = made.recordings.of_subjects(["S01"])
    windows = decoder.windows(known, made.events, split, "test", words=True)
    pairs = zip(*(each.estimates(known, windows) for each in (decoder, found.decoder)), strict=True)
    assert all(torch.equal(first[1], second[1]) for first, second in pairs)


def test_calibration_finds_more_than_the_average_of_the_others(trained):
    curve = calibration_curve(trained[2], *rest(trained), [0.5, 2.0], **OPTIONS)
    assert curve.minutes.tolist() == [0.0, 0.5, 2.0]
    assert curve.used[0, 0] == 0
    assert curve.used[1, 0] <= 0.5
    chance = 10 / curve.n_segments
    assert curve.top_10[2, 0] > curve.top_10[0, 0] + 0.2
    assert curve.top_10[2, 0] > 2 * chance
    rows = curve.table()
    assert len(rows) == 3
    assert rows[2]["top-10"] == curve.top_10[2, 0]


def test_recordings_after_the_minutes_are_scaled_by_themselves():
    made, split = speech.study(n_subjects=2, n_stories=2, n_sentences=30, snr=0.03)
    decoder = SpeechDecoder(dataclasses.replace(speech.CONFIG, epochs=1))
    decoder.fit(made.recordings.of_subjects(["S01"]), made.events, made.features, split, device="cpu")
    new = (made.recordings.of_subjects(["S02"]), made.events, made.features, split)
    found = calibrate_subject(decoder, *new, minutes=0.5, **FEW)
    assert {"S02_0", "S02_1"} <= set(found.decoder.scaler_.center)
    whole = calibrate_subject(decoder, *new, **FEW)
    scales = [each.decoder.scaler_.scale for each in (found, whole)]
    assert not np.array_equal(scales[0]["S02_0"], scales[1]["S02_0"])
    assert len(calibration_curve(decoder, *new, [0.5], **FEW).table()) == 2


def test_the_average_of_the_others_is_kept_where_nothing_is_better(trained):
    # So fast that every epoch is worse than the start.
    found = calibrate_subject(trained[2], *rest(trained), lr=100.0, epochs=2)
    assert found.kept_start
    assert found.loss == found.start_loss
    new = found.decoder.module_.subject_parameter(3)
    assert torch.equal(new, trained[2].module_.spatial.subject.weight.mean(0))
    assert calibrate_subject(trained[2], *rest(trained), **FEW).loss < found.start_loss


def test_calibration_can_be_repeated(trained, global_rng_untouched):
    first, second = (calibrate_subject(trained[2], *rest(trained), minutes=1.0, **FEW) for _ in range(2))
    layers = [each.decoder.module_.subject_parameter(3) for each in (first, second)]
    assert torch.equal(*layers)


def test_a_calibrated_decoder_is_saved_with_its_new_subject(trained, tmp_path):
    found = calibrate_subject(trained[2], *rest(trained), minutes=1.0, **FEW).decoder
    found.save(tmp_path)
    loaded = SpeechDecoder.load(tmp_path)
    recordings, events, _, split = rest(trained)
    windows = found.windows(recordings, events, split, "test", words=True)
    for (_, want), (_, got) in zip(*(d.estimates(recordings, windows) for d in (found, loaded)), strict=True):
        assert torch.equal(got, want)


def test_minutes_are_those_that_windows_cover():
    rng = np.random.default_rng(0)
    start = np.sort(rng.uniform(5, 300, 80))
    windows = EventTable(start=rng.permutation(start), recording=rng.choice(["a", "b"], 80))
    for minutes in (0.3, 1.0, 2.5, 100.0):
        found, used = first_minutes(windows, minutes, tmin=-0.5, tmax=2.5)
        covered = set()
        for name, begin in zip(found.recording, found.start, strict=True):
            covered |= {(str(name), k) for k in range(round((begin - 0.5) * 1000), round((begin + 2.5) * 1000))}
        assert used == pytest.approx(len(covered) / 60_000, abs=1e-3)
        assert used <= minutes + 1e-6
        # One more would be too many.
        assert len(found) == 80 or used + 3 / 60 > minutes


def test_windows_that_choose_share_no_sample_with_those_that_fit(trained):
    recordings, events, _, split = rest(trained)
    windows = trained[2].windows(recordings, events, split, "train", words=False)
    windows, _ = first_minutes(windows, 1.0, tmin=-0.5, tmax=2.5)
    fit, choose = _cut(windows, 0.2, tmin=-0.5, tmax=2.5)
    assert fit.start.max() + 2.5 < choose.start.min() - 0.5
    assert len(choose) == round(0.2 * len(windows))


def test_mistakes_are_named(trained):
    made, split, decoder = trained
    recordings, *others = rest(trained)
    with pytest.raises(ValueError, match="`recordings` must be of one subject, got 4"):
        calibrate_subject(decoder, made.recordings, *others)
    with pytest.raises(ValueError, match="`recordings` must be of a subject that the decoder does not know, got 'S01'"):
        calibrate_subject(decoder, made.recordings.of_subjects(["S01"]), *others)
    with pytest.raises(ValueError, match=r"`minutes` must hold a window of 3 s, got 0\.01"):
        calibrate_subject(decoder, recordings, *others, minutes=0.01)
    with pytest.raises(ValueError, match="`minutes` must leave at least 2 windows to fit to and 2 to choose by"):
        calibrate_subject(decoder, recordings, *others, minutes=0.07)
    with pytest.raises(ValueError, match="`minutes` must hold rising numbers"):
        calibration_curve(decoder, recordings, *others, [2.0, 1.0])
