"""Classes from M/EEG: what is planted is found, tested runs are not looked at, the linear way is scikit-learn's."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from neurodecode.meeg.classify import BrainClassifier, ClassifierConfig, LinearClassifier
from neurodecode.meeg.config import BRAIN_MODULES
from neurodecode.meeg.run_folds import cross_validate_runs, run_folds
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.window_loader import WindowLoader

SFREQ = 40.0
CONFIG = ClassifierConfig(
    network=dataclasses.replace(
        BRAIN_MODULES["small-images"], n_heads=None, initial_linear=4, hidden=8, depth=2, kernel_size=5,
        final_width=None, latent=8,
    ),
    tmin=-0.1, tmax=0.5, epochs=40, patience=12, n_networks=1, noise=0.3, lr=5e-3, batch_size=16,
)  # fmt: skip


def study(*, runs=(3, 3), n_events=40, strength=1.5, rhythm=None, seed=0, spacing=1.0):
    """Runs of some subjects: class "b" has a bump on channels of the subject's own, or a rhythm of its own."""
    rng = np.random.default_rng(seed)
    recordings, events = [], []
    for subject, n_runs in enumerate(runs):
        pattern = rng.choice([-1.0, 1.0], 4)
        for run in range(n_runs):
            label = rng.permutation(np.arange(n_events) % 2)
            start = 0.5 + spacing * np.arange(n_events)
            data = rng.standard_normal((4, round((start[-1] + spacing + 1) * SFREQ)))
            for when, kind in zip(start, label, strict=True):
                first = round(when * SFREQ)
                if rhythm is not None:
                    t = np.arange(round(spacing * SFREQ)) / SFREQ
                    wave = np.sin(2 * np.pi * (rhythm[kind] * t + rng.uniform()))
                    data[:, first : first + len(t)] += strength * wave
                elif kind:
                    data[:, first + 6 : first + 14] += strength * pattern[:, None] * np.hanning(8)
            # Units and offsets of each subject's own.
            data = data * 10.0**-subject + subject
            recordings.append(ContinuousRecording(
                data=data, sfreq=SFREQ, ch_names=tuple("ABCD"), subject=f"{subject}", run=f"{run}"
            ))  # fmt: skip
            events.append(EventTable(
                start=start, recording=recordings[-1].name, kind="x", stimulus=np.array(["a", "b"])[label]
            ))  # fmt: skip
    return RecordingSet(recordings), concatenate_events(events)


def one_fold(recordings, events, **options):
    return next(run_folds(recordings, events, **options))


# --- folds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learn_from", ["subject", "all"])
def test_folds_share_no_event_and_test_every_run_once(learn_from):
    recordings, events = study(runs=(3, 2, 1))
    folds = list(run_folds(recordings, events, learn_from=learn_from))
    # A subject with one run is not tested.
    assert [fold.recording for fold in folds] == ["0_0", "0_1", "0_2", "1_0", "1_1"]
    for fold in folds:
        parts = [set(part.tolist()) for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert set(events.recording[fold.test]) == {fold.recording}
        whose = {name[0] for name in events.recording[fold.train].tolist()}
        assert whose == ({fold.subject} if learn_from == "subject" else {"0", "1", "2"})
        # With three runs, epochs are chosen on a whole one; with two, on the end of the other.
        assert len(fold.valid) == (40 if fold.subject == "0" else 10)
        assert set(events.recording[fold.valid]).isdisjoint({fold.recording})


def test_runs_with_few_events_or_one_class_are_not_tested():
    recordings, events = study(runs=(3,))
    of_first = np.flatnonzero(events.recording == "0_0")
    few = events.select(np.setdiff1d(np.arange(len(events)), of_first[8:]))
    assert [fold.recording for fold in run_folds(recordings, few)] == ["0_1", "0_2"]
    one_kind = (events.recording != "0_2") | (events.stimulus == "a")
    assert [fold.recording for fold in run_folds(recordings, events.select(one_kind))] == ["0_0", "0_1"]


def test_a_single_run_is_refused():
    recordings, events = study(runs=(1, 1))
    with pytest.raises(ValueError, match="two runs"):
        cross_validate_runs(lambda: LinearClassifier(CONFIG), recordings, events)


# --- classifiers --------------------------------------------------------------------------------------------------


def test_linear_classifier_is_scikit_learns_on_the_same_windows():
    recordings, events = study(runs=(2,), strength=0.5)
    config = dataclasses.replace(CONFIG, clamp=None, baseline=(None, 0.0))
    fold = one_fold(recordings, events)
    linear = LinearClassifier(config).fit(recordings, events.select(fold.train), events.select(fold.valid))
    found = linear.predict_proba(recordings, events.select(fold.test))

    def windows(rows):
        loader = WindowLoader(recordings, events.select(rows), tmin=-0.1, tmax=0.5, baseline=(None, 0.0), batch_size=99)
        return torch.cat([batch.x for batch in loader]).numpy()

    train = windows(np.concatenate([fold.train, fold.valid]))
    low, middle, high = np.quantile(train, [0.25, 0.5, 0.75], axis=(0, 2))
    scaled = [((x - middle[:, None]) / (high - low)[:, None]).reshape(len(x), -1) for x in (train, windows(fold.test))]
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    reference.fit(scaled[0], events.stimulus[np.concatenate([fold.train, fold.valid])])
    np.testing.assert_allclose(found, reference.predict_proba(scaled[1]), rtol=1e-4, atol=1e-5)


def test_network_and_linear_classifier_find_what_was_planted():
    recordings, events = study(strength=2.5)
    for make in (lambda: BrainClassifier(CONFIG), lambda: LinearClassifier(CONFIG)):
        scores = cross_validate_runs(make, recordings, events)
        assert scores.classes == ("a", "b")
        assert min(scores.by_subject().values()) > 0.85
        assert np.isfinite(scores.probability).all()
        np.testing.assert_allclose(scores.probability.sum(axis=1), 1)
        # What is reported is what the probabilities say.
        rows = events.recording == "0_1"
        assert scores.auc["0_1"] == roc_auc_score(events.stimulus[rows] == "b", scores.probability[rows, 1])


def test_processes_give_the_same_numbers():
    recordings, events = study(runs=(3,))
    config = dataclasses.replace(CONFIG, epochs=2)
    one, two = (
        cross_validate_runs(lambda: BrainClassifier(config), recordings, events, n_jobs=n).probability for n in (1, 2)
    )
    np.testing.assert_allclose(two, one, rtol=1e-6)


def test_shuffled_labels_are_at_chance():
    recordings, events = study(runs=(4,), n_events=60)
    rng = np.random.default_rng(1)
    shuffled = dataclasses.replace(events, stimulus=rng.permutation(events.stimulus))
    scores = cross_validate_runs(lambda: BrainClassifier(CONFIG), recordings, shuffled)
    assert abs(scores.mean() - 0.5) < 0.12


def test_rhythms_of_unknown_phase_need_power_or_a_network():
    recordings, events = study(runs=(3,), rhythm=(6.0, 11.0), strength=1.0, spacing=1.5, n_events=30)
    config = dataclasses.replace(
        CONFIG, tmin=0.0, tmax=1.2, baseline=None, epochs=40, patience=15, network=dataclasses.replace(
            CONFIG.network, aggregation="mean", kernel_size=9
        ),
    )  # fmt: skip
    found = {
        kind: cross_validate_runs(lambda kind=kind: LinearClassifier(config, kind=kind), recordings, events).mean()
        for kind in ("lda", "power")
    }
    network = cross_validate_runs(lambda: BrainClassifier(config), recordings, events).mean()
    assert found["lda"] < 0.7
    assert found["power"] > 0.9
    assert network > 0.9


def test_the_tested_run_changes_nothing_of_what_was_learned():
    recordings, events = study(runs=(3,))
    fold = one_fold(recordings, events)
    train, valid = events.select(fold.train), events.select(fold.valid)
    broken = [dataclasses.replace(r, data=r.data * 1000 + 7) if r.name == fold.recording else r for r in recordings]
    one, other = (BrainClassifier(CONFIG).fit(rs, train, valid) for rs in (recordings, RecordingSet(broken)))
    for a, b in zip(one.modules_[0].parameters(), other.modules_[0].parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(one.scale_, other.scale_)


def test_the_same_seed_learns_the_same_and_networks_of_an_ensemble_differ():
    recordings, events = study(runs=(3,))
    fold = one_fold(recordings, events)
    config = dataclasses.replace(CONFIG, n_networks=2, epochs=2)
    given = (recordings, events.select(fold.train), events.select(fold.valid))
    one, other = (BrainClassifier(config).fit(*given) for _ in range(2))
    test = events.select(fold.test)
    found = one.predict_proba(recordings, test)
    assert np.array_equal(found, other.predict_proba(recordings, test))
    single = []
    for module in one.modules_:
        one.modules_ = [module]
        single.append(one.predict_proba(recordings, test))
    assert not np.allclose(single[0], single[1])
    np.testing.assert_allclose(np.mean(single, axis=0), found, rtol=1e-12)


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_mistakes_are_named():
    recordings, events = study(runs=(2, 1))
    only = events.where(stimulus="a")
    with pytest.raises(ValueError, match="two classes"):
        BrainClassifier(CONFIG).fit(recordings, only, only)
    with pytest.raises(AttributeError, match="fit"):
        BrainClassifier(CONFIG).predict_proba(recordings, events)
    linear = LinearClassifier(CONFIG).fit(recordings[:1], events.where(recording="0_0"))
    with pytest.raises(ValueError, match="subjects of the training"):
        linear.predict_proba(recordings[2:], events.where(recording="1_0"))
    slower = RecordingSet([dataclasses.replace(recordings[0], sfreq=20.0)])
    with pytest.raises(ValueError, match="40 Hz"):
        linear.predict_proba(slower, events.where(recording="0_0"))
    with pytest.raises(ValueError, match="aggregation"):
        ClassifierConfig(network="small")
    with pytest.raises(ValueError, match="1 s"):
        LinearClassifier(CONFIG, kind="power").fit(recordings, events)
