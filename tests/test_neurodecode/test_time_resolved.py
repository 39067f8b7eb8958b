"""Decoding moment by moment: windows trained together are those trained alone, and find what is there."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from neurodecode.meeg import stacked_module
from neurodecode.meeg.clip_loss import ClipLoss
from neurodecode.meeg.config import BRAIN_MODULES
from neurodecode.meeg.simulate_images import drawn_images, simulate_images
from neurodecode.meeg.time_config import TimeConfig
from neurodecode.meeg.time_linear import LinearTimeDecoder
from neurodecode.meeg.time_resolved import TimeResolvedDecoder
from neurodecode.meeg.time_spans import parts_of, subject_scaler
from neurodecode.meeg.time_windows import growing_windows, sliding_windows
from neurodecode.ridge import MultiTargetRidge
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.runs import generator as seeded
from neuroloaders.runs import spawn_seeds
from neuroloaders.window_loader import WindowLoader
from neuroloaders.window_targets import StimulusFeatures

TINY = dataclasses.replace(
    BRAIN_MODULES["small-images"], n_heads=None, initial_linear=8, hidden=12, depth=2, final_width=None, latent=12
)
CONFIG = TimeConfig(network=TINY, tmin=-0.2, tmax=0.8, epochs=6, patience=3, lr=3e-3, batch_size=32)
RAW = dataclasses.replace(CONFIG, feature_scale="none", epochs=4)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def study():
    """Two subjects, 40 images shown four times, with responses from 0.1 to 0.5 s; every fifth image is tested."""
    rng = np.random.default_rng(0)
    names, categories, features = drawn_images(40, 1, 6, rng=rng)
    simulated = simulate_images(
        names, features, rng=rng, categories=categories, n_repeats=4, n_subjects=2, n_sensors=12, sfreq=40.0, snr=3.0
    )
    number = np.array([names.index(name) for name in simulated.events.stimulus.tolist()])
    part = np.select([number % 5 == 0, number % 5 == 1], ["test", "valid"], "train")
    return simulated, part


# --- the decoder --------------------------------------------------------------------------------------------------


def trained_by_hand(simulated, part, config, windows, m):
    """One window's network by itself: a plain loop over the same batches, with early stopping."""
    scaled = {"tmin": config.tmin, "tmax": config.tmax, "baseline": config.baseline, "clamp": config.clamp}
    seeds = spawn_seeds(config.seed, "order", f"weights {m}", "dropout")
    train, valid = (simulated.events.select(part == name) for name in ("train", "valid"))
    given = {"targets": simulated.features, "labels": "stimulus", "batch_size": config.batch_size}
    loader = WindowLoader(
        simulated.recordings, train, **scaled, **given, scale="robust", shuffle=True, drop_last=True,
        generator=seeded(seeds["order"]),
    )  # fmt: skip
    held = WindowLoader(simulated.recordings, valid, **scaled, **given, scale=loader.scaler)
    begin, length = windows.places(config.tmin, config.tmax, windows.sfreq)[m], windows.n_times[m]
    module = config.network.build(
        2, {"clip": 6}, n_times=length, n_channels=loader.n_channels, generator=seeded(seeds[f"weights {m}"])
    )
    clip, optimizer = ClipLoss(), torch.optim.Adam(module.parameters(), lr=config.lr)
    dropout, lowest, best, kept = seeded(seeds["dropout"]), np.inf, -1, None
    for epoch in range(config.epochs):
        module.train()
        for batch in loader.batches(epoch):
            x = batch.x[..., begin : begin + length]
            out = module(x, batch.subject, loader.positions, batch.recording, generator=dropout)["clip"]
            optimizer.zero_grad()
            clip(out, batch.target, batch.label).backward()
            optimizer.step()
        module.eval()
        found, own = [], []
        with torch.no_grad():
            for batch in held.batches(0):
                x = batch.x[..., begin : begin + length]
                found.append(module(x, batch.subject, held.positions, batch.recording)["clip"])
                own.append(batch.label)
        rows = [int(np.flatnonzero(valid.stimulus == name)[0]) for name in held.classes]
        candidates = held.windows(rows).target
        scores = torch.cat(found) @ (candidates / candidates.norm(dim=1, keepdim=True)).T
        value = F.cross_entropy(scores, torch.cat(own)).item()
        if value < lowest:
            lowest, best, kept = value, epoch, {key: t.clone() for key, t in module.state_dict().items()}
        if epoch - best >= config.patience:
            break
    module.load_state_dict(kept)
    return module, best


@pytest.mark.parametrize("kind", ["sliding", "growing"])
def test_windows_trained_together_are_those_trained_alone(study, kind):
    simulated, part = study
    windows = {
        "sliding": sliding_windows(-0.1, 0.7, width_s=0.2, step_s=0.3, sfreq=40.0),
        "growing": growing_windows(-0.1, 0.35, first_end_s=0.25, step_s=0.05, sfreq=40.0),
    }[kind]
    # What a normalisation takes away again has no gradient but rounding noise, which Adam scales up to steps of its own
    # size: biases before batch normalisation, and the one that is added to all latents. The others can be compared.
    config = dataclasses.replace(RAW, network=dataclasses.replace(TINY, batch_norm=False))
    stacked_module.calls.clear()
    together = TimeResolvedDecoder(config, windows)
    together.fit(simulated.recordings, simulated.events, simulated.features, part)
    assert len(together.groups_) == 1
    # So many batches and validations as epochs, whatever the number of windows.
    n_epochs, n_train = len(together.histories_[0].valid), int((part == "train").sum())
    n_valid = -(-int((part == "valid").sum()) // 32)
    assert sum(stacked_module.calls.values()) == n_epochs * (n_train // 32 + n_valid)
    for m in range(len(windows)):
        module, best = trained_by_hand(simulated, part, config, windows, m)
        assert together.histories_[0].best_epoch[m] == best
        for key, value in module.state_dict().items():
            if key != "aggregation.bias":
                torch.testing.assert_close(together.modules_[m].state_dict()[key], value, rtol=1e-3, atol=1e-4)
    test = simulated.events.select(part == "test")
    alone = TimeResolvedDecoder(dataclasses.replace(config, at_once=1), windows)
    alone.fit(simulated.recordings, simulated.events, simulated.features, part)
    assert len(alone.groups_) == len(windows)
    found, wanted = (decoder.predict(simulated.recordings, test) for decoder in (together, alone))
    assert found.shape == (len(windows), len(test), 6)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_each_window_keeps_the_weights_of_its_own_best_epoch(study):
    simulated, part = study
    config = dataclasses.replace(CONFIG, epochs=12, patience=2, lr=1e-2)
    windows = sliding_windows(-0.1, 0.8, width_s=0.2, step_s=0.3, sfreq=40.0)
    decoder = TimeResolvedDecoder(config, windows).fit(simulated.recordings, simulated.events, simulated.features, part)
    history = decoder.histories_[0]
    assert len(set(history.best_epoch.tolist())) > 1
    valid = simulated.events.select(part == "valid")
    said = decoder.predict(simulated.recordings, valid)
    names, own = np.unique(valid.stimulus, return_inverse=True)
    candidates = torch.from_numpy(decoder.candidates(simulated.features, names))
    for m, best in enumerate(history.best_epoch):
        curve = history.valid[:, m]
        assert best == np.nanargmin(curve)
        # What comes after its end is not looked at.
        assert np.isnan(curve[best + 3 :]).all()
        scores = torch.from_numpy(said[m]) @ (candidates / candidates.norm(dim=1, keepdim=True)).T
        assert F.cross_entropy(scores, torch.from_numpy(own)).item() == pytest.approx(curve[best], rel=1e-4)


def test_features_are_found_while_they_are_there_by_network_and_ridge(study):
    from neurodecode.meeg.time_scores import retrieval_scores

    simulated, part = study
    windows = sliding_windows(-0.1, 0.8, width_s=0.1, step_s=0.15, sfreq=40.0)
    test = simulated.events.select(part == "test")
    config = dataclasses.replace(CONFIG, epochs=12, patience=5, noise=0.3, lr=5e-3)
    for make in (TimeResolvedDecoder, LinearTimeDecoder):
        decoder = make(config, windows).fit(simulated.recordings, simulated.events, simulated.features, part)
        estimates = decoder.predict(simulated.recordings, test)
        names = np.unique(test.stimulus)
        candidates = decoder.candidates(simulated.features, names)
        scores = retrieval_scores(estimates, test.stimulus, names, candidates, k=1, n_permutations=0)
        begin, end = windows.times("begin"), windows.times("end")
        outside = (end <= simulated.onset_s + 1e-9) | (begin >= simulated.offset_s - 1e-9)
        assert outside.sum() == 3
        # Of 64 presentations an eighth by chance; within the response nearly three times that.
        assert scores.mean[outside].max() < 0.3, make
        assert scores.mean[(begin >= 0.19) & (end <= 0.46)].min() > 0.35, make


def test_several_networks_of_a_window_are_averaged(study):
    simulated, part = study
    config = dataclasses.replace(CONFIG, epochs=1, n_networks=2)
    windows = growing_windows(0.0, 0.4, first_end_s=0.2, step_s=0.1, sfreq=40.0)
    decoder = TimeResolvedDecoder(config, windows).fit(simulated.recordings, simulated.events, simulated.features, part)
    assert [len(module.aggregation.weight) for module in decoder.modules_] == [8, 8, 12, 12, 16, 16]
    test = simulated.events.select(part == "test")
    batch = next(iter(decoder.loader(simulated.recordings, test, batch_size=len(test))))
    with torch.no_grad():
        said = [module(batch.x[..., 8:20], batch.subject)["clip"] for module in decoder.modules_[2:4]]
    found = decoder.predict(simulated.recordings, test)
    assert found.shape == (3, len(test), 6)
    np.testing.assert_allclose(found[1], torch.stack(said).mean(0), atol=1e-4)
    assert not torch.allclose(*said)


def test_features_are_standardised_by_training_stimuli_each_counted_once(study):
    simulated, part = study
    windows = sliding_windows(0.1, 0.3, width_s=0.1, step_s=0.1, sfreq=40.0)
    decoder = LinearTimeDecoder(CONFIG, windows)
    decoder.fit(simulated.recordings, simulated.events, simulated.features, part)
    names = np.unique(simulated.events.stimulus[part == "train"])
    values = decoder.candidates(simulated.features, names)
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(0), 1, atol=1e-5)
    with pytest.raises(ValueError, match="6 features"):
        decoder.candidates(StimulusFeatures(names, np.zeros((len(names), 3))), names)


def test_two_heads_and_a_learned_temperature(study):
    simulated, part = study
    config = dataclasses.replace(CONFIG, epochs=1, clip_weight=0.5, loss="symmetric", monitor="rank")
    windows = sliding_windows(0.1, 0.4, width_s=0.1, step_s=0.1, sfreq=40.0)
    decoder = TimeResolvedDecoder(config, windows).fit(simulated.recordings, simulated.events, simulated.features, part)
    test = simulated.events.select(part == "test")
    found = [decoder.predict(simulated.recordings, test, head=head) for head in ("clip", "mse")]
    assert not np.allclose(*found)
    assert decoder.temperatures_.shape == (3,)
    assert (decoder.temperatures_ != 0.07).all()
    with pytest.raises(ValueError, match="head"):
        decoder.predict(simulated.recordings, test, head="both")


# --- classes ------------------------------------------------------------------------------------------------------


def runs_of_classes(*, n_runs=3, n_events=60, strength=2.0, seed=0):
    """Two subjects; class "b" has a bump from 0.2 to 0.4 s. Runs have units and offsets of their own subject."""
    rng = np.random.default_rng(seed)
    recordings, events = [], []
    for subject in range(2):
        pattern = rng.choice([-1.0, 1.0], 4)
        for run in range(n_runs):
            kind = rng.permutation(np.arange(n_events) % 2)
            start = 0.5 + np.arange(n_events)
            data = rng.standard_normal((4, 40 * (n_events + 2)))
            for when in start[kind == 1]:
                first = round(when * 40)
                data[:, first + 8 : first + 16] += strength * pattern[:, None] * np.hanning(10)[1:-1]
            recordings.append(ContinuousRecording(
                data=data * 10.0**-subject + subject, sfreq=40.0, ch_names=tuple("ABCD"), subject=f"{subject}",
                run=f"{run}",
            ))  # fmt: skip
            events.append(EventTable(
                start=start, recording=recordings[-1].name, kind="x", stimulus=np.array(["a", "b"])[kind]
            ))  # fmt: skip
    return RecordingSet(recordings), concatenate_events(events)


CLASSES = dataclasses.replace(CONFIG, scale_by="subject", noise=0.5, label_smoothing=0.1, epochs=12, weight_decay=0.05)


def by_run(events):
    return np.select([np.char.endswith(events.recording, "_0"), np.char.endswith(events.recording, "_1")],
                     ["test", "valid"], "train")  # fmt: skip


def test_classes_of_runs_that_were_left_out_are_found_when_they_differ():
    from neurodecode.meeg.time_scores import class_scores

    recordings, events = runs_of_classes()
    part = by_run(events)
    windows = sliding_windows(-0.2, 0.8, width_s=0.1, step_s=0.1, sfreq=40.0)
    test = events.select(part == "test")
    for make in (TimeResolvedDecoder, LinearTimeDecoder):
        decoder = make(CLASSES, windows).fit(recordings, events, None, part, labels="stimulus")
        assert decoder.classes_ == ("a", "b")
        said = decoder.predict(recordings, test)
        assert said.shape == (10, 120, 2)
        np.testing.assert_allclose(said.sum(2), 1, atol=1e-5)
        area = class_scores(said, test.stimulus, decoder.classes_, units=test.recording, n_permutations=0).mean
        inside = (windows.times("begin") >= 0.2 - 1e-9) & (windows.times("end") <= 0.4 + 1e-9)
        assert area[inside].min() > 0.8, make
        assert np.abs(area[windows.times("end") <= 0.2 + 1e-9] - 0.5).max() < 0.2, make


def test_what_is_tested_is_not_looked_at():
    recordings, events = runs_of_classes(n_events=30)
    part = by_run(events)
    windows = sliding_windows(0.1, 0.5, width_s=0.1, step_s=0.2, sfreq=40.0)
    other = RecordingSet(
        dataclasses.replace(one, data=np.full_like(one.data, 7.0) + np.arange(one.n_times) % 5)
        if one.name.endswith("_0") else one for one in recordings
    )  # fmt: skip
    flipped = events.with_column("stimulus", np.where(part == "test", "a", events.stimulus))
    valid = events.select(part == "valid")
    config = dataclasses.replace(CLASSES, epochs=2)
    for make in (TimeResolvedDecoder, LinearTimeDecoder):
        first = make(config, windows).fit(recordings, events, None, part, labels="stimulus")
        second = make(config, windows).fit(other, flipped, None, part, labels="stimulus")
        assert np.array_equal(first.predict(recordings, valid), second.predict(recordings, valid))


def test_linear_classes_are_scikit_learns_and_linear_features_the_ridge_of_the_window(study):
    recordings, events = runs_of_classes(strength=0.7)
    part = by_run(events)
    windows = sliding_windows(0.1, 0.4, width_s=0.2, step_s=0.1, sfreq=40.0)
    decoder = LinearTimeDecoder(CLASSES, windows, learn_from_valid=False)
    decoder.fit(recordings, events, None, part, labels="stimulus")
    test = events.select(part == "test")
    said = decoder.predict(recordings, test)

    def spans(table):
        return np.concatenate([batch.x.numpy() for batch in decoder.loader(recordings, table)])

    train = events.select(part == "train")
    for subject in "01":
        own, tested = (np.char.startswith(table.recording, subject) for table in (train, test))
        for m, place in enumerate(windows.places(-0.2, 0.8, 40.0)):
            rows = [spans(table)[:, :, place : place + 8].reshape(len(table), -1) for table in (train, test)]
            reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            reference.fit(rows[0][own].astype(np.float64), train.stimulus[own])
            np.testing.assert_allclose(said[m, tested], reference.predict_proba(rows[1][tested]), atol=1e-4)

    simulated, part = study
    ridge = LinearTimeDecoder(RAW, windows).fit(simulated.recordings, simulated.events, simulated.features, part)
    test = simulated.events.select(part == "test")
    learned = concatenate_events([simulated.events.select(part == name) for name in ("train", "valid")])
    one = simulated.recordings[0].subject
    own, tested = (np.char.startswith(table.recording, one) for table in (learned, test))
    batches = list(ridge.loader(simulated.recordings, learned.select(own), targets=simulated.features))
    place = windows.places(-0.2, 0.8, 40.0)[0]
    x = np.concatenate([batch.x.numpy() for batch in batches])[:, :, place : place + 8].reshape(own.sum(), -1)
    y = np.concatenate([batch.target.numpy() for batch in batches])
    alpha = ridge.estimators_[one][0].alpha_[0]
    reference = MultiTargetRidge(alpha=alpha).fit(x, y)
    x_test = np.concatenate([b.x.numpy() for b in ridge.loader(simulated.recordings, test.select(tested))])
    np.testing.assert_allclose(
        ridge.predict(simulated.recordings, test)[0, tested],
        reference.predict(x_test[:, :, place : place + 8].reshape(tested.sum(), -1)), rtol=1e-3, atol=1e-4,
    )  # fmt: skip


def test_subject_scaler_is_that_of_training_windows_for_all_runs_of_the_subject():
    recordings, events = runs_of_classes(n_events=20)
    train = events.select(by_run(events) == "train")
    scaler = subject_scaler(recordings, train, tmin=-0.2, tmax=0.8, baseline=(None, 0.0))
    assert set(scaler.center) == set(recordings.names)
    loader = WindowLoader(recordings, train.where(recording="1_2"), tmin=-0.2, tmax=0.8, baseline=(None, 0.0))
    x = torch.cat([batch.x for batch in loader]).transpose(1, 2).flatten(0, 1).numpy()
    for run in "012":
        low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
        np.testing.assert_allclose(scaler.center[f"1_{run}"], middle, atol=0.002)
        np.testing.assert_allclose(scaler.scale[f"1_{run}"], high - low, rtol=0.02)


# --- what is refused ----------------------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_refused_by_name(study):
    simulated, part = study
    recordings, events = simulated.recordings, simulated.events
    windows = sliding_windows(0.0, 0.5, sfreq=40.0)
    decoder = TimeResolvedDecoder(CONFIG, windows)
    for given, says in [
        ((recordings, events, None, part), "targets"),
        ((recordings, events, simulated.features, np.full(len(events), "test")), "split"),
        ((recordings, events, simulated.features, part[:-1]), "split"),
    ]:
        with pytest.raises(ValueError, match=says):
            decoder.fit(*given)
    with pytest.raises(TypeError, match="split"):
        decoder.fit(recordings, events, simulated.features, None)
    with pytest.raises(ValueError, match="targets"):
        decoder.fit(recordings, events, simulated.features, part, labels="stimulus")
    with pytest.raises(ValueError, match="two classes"):
        decoder.fit(recordings, events, None, part, labels="kind")
    with pytest.raises(AttributeError, match="fitted"):
        decoder.predict(recordings, events)
    with pytest.raises(ValueError, match="60 Hz"):
        TimeResolvedDecoder(CONFIG, sliding_windows(0.0, 0.5, sfreq=60.0)).fit(
            recordings, events, simulated.features, part
        )
    with pytest.raises(ValueError, match="windows"):
        TimeResolvedDecoder(CONFIG, growing_windows(0, 0.9, sfreq=40))
    with pytest.raises(ValueError, match="aggregation"):
        TimeConfig(network="small")
    with pytest.raises(TypeError, match="config"):
        TimeResolvedDecoder({}, windows)


def test_config_goes_through_json():
    import json

    config = dataclasses.replace(CONFIG, noise=0.5, baseline=None)
    assert TimeConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_a_split_may_be_an_object_that_knows_the_parts_of_events(study):
    simulated, part = study

    class Split:
        def parts_of(self, events):
            return part

    assert (parts_of(Split(), simulated.events) == part).all()
