"""Decoding moment by moment: stacked networks are the single ones, see their own window only, find what is there."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from tolerances import close

from neurodecode.meeg import stacked_module
from neurodecode.meeg.clip_loss import ClipLoss
from neurodecode.meeg.config import BRAIN_MODULES
from neurodecode.meeg.image_objective import ImageNetwork, ImageObjective
from neurodecode.meeg.simulate_images import drawn_images, simulate_images
from neurodecode.meeg.stacked_module import StackedBrainModule
from neurodecode.meeg.time_config import TimeConfig
from neurodecode.meeg.time_linear import LinearTimeDecoder
from neurodecode.meeg.time_objective import ClassObjective, RetrievalObjective
from neurodecode.meeg.time_resolved import TimeResolvedDecoder
from neurodecode.meeg.time_spans import parts_of, subject_scaler
from neurodecode.meeg.time_training import groups_of_windows
from neurodecode.meeg.time_windows import TimeWindows, cut_windows, growing_windows, sliding_windows
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


# --- windows ------------------------------------------------------------------------------------------------------


def test_published_windows_at_the_published_rate():
    sliding = sliding_windows(-0.1, 1.0, sfreq=120.0)
    assert set(sliding.n_times) == {12}
    assert set(np.diff(sliding.first)) == {3}
    assert len(sliding) == 41
    np.testing.assert_allclose(sliding.times("end")[[0, -1]], [0.0, 1.0])
    np.testing.assert_allclose(sliding.times("centre") - sliding.times("begin"), 0.05)
    growing = growing_windows(0.0, 1.5, first_end_s=0.1, step_s=0.05, sfreq=120.0)
    assert len(growing) == 29
    np.testing.assert_allclose(growing.times("end"), np.arange(2, 31) * 0.05)
    assert set(growing.first) == {0}


@pytest.mark.parametrize("sfreq", [64.0, 85.3, 100.0, 128.0])
def test_windows_of_other_rates_have_one_width_and_are_half_a_sample_off_at_most(sfreq):
    windows = sliding_windows(-0.1, 0.8, sfreq=sfreq)
    assert set(windows.n_times) == {round(0.1 * sfreq)}
    wanted = -0.1 + 0.025 * np.arange(len(windows))
    assert np.abs(windows.times("begin") - wanted).max() <= 0.5 / sfreq + 1e-9
    assert min(np.diff(windows.first)) >= 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sliding_windows(0, 1, sfreq=120, step_s=0.005), "step_s"),
        (lambda: sliding_windows(0, 1, sfreq=120, width_s=0.001), "width_s"),
        (lambda: sliding_windows(0, 0.05, sfreq=120), "width_s"),
        (lambda: sliding_windows(1, 0, sfreq=120), "tmax"),
        (lambda: growing_windows(0, 1, sfreq=120, first_end_s=2.0), "first_end_s"),
        (lambda: growing_windows(0, 1, sfreq=120, first_end_s=0.001), "first_end_s"),
        (lambda: TimeWindows(first=(), n_times=(), sfreq=1.0), "first"),
        (lambda: sliding_windows(-0.2, 1, sfreq=120).places(-0.1, 1.0, 120), "tmin"),
        (lambda: sliding_windows(0, 1, sfreq=120).places(0, 1.0, 100), "120 Hz"),
        (lambda: TimeResolvedDecoder(CONFIG, growing_windows(0, 0.9, sfreq=40)), "windows"),
    ],
)
def test_windows_that_cannot_be_are_refused_by_name(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_cut_windows_are_slices_of_the_span():
    x = torch.arange(2 * 3 * 20.0).view(2, 3, 20)
    cut = cut_windows(x, torch.tensor([0, 7, 15]), 5)
    for m, place in enumerate((0, 7, 15)):
        assert torch.equal(cut[m], x[..., place : place + 5])
    assert cut.transpose(1, 2).is_contiguous()


def test_groups_hold_all_windows_once_with_little_padding():
    windows = growing_windows(0.0, 1.0, sfreq=120.0)
    for at_once in (None, 3):
        groups = groups_of_windows(windows, at_once)
        assert [m for group in groups for m in range(group.start, group.stop)] == list(range(len(windows)))
        for group in groups:
            lengths = windows.n_times[group]
            assert max(lengths) * len(lengths) <= 1.25 * sum(lengths)
            assert at_once is None or len(lengths) <= at_once
    assert len(groups_of_windows(sliding_windows(0, 1, sfreq=120.0))) == 1


# --- stacked networks ---------------------------------------------------------------------------------------------

_BASE = BRAIN_MODULES["small-images"]
_SMALL = dataclasses.replace(
    _BASE, n_heads=6, fourier_features=32, initial_linear=5, hidden=8, final_width=10, latent=7
)
NETWORKS = {
    "as published": _SMALL,
    "mean over time": dataclasses.replace(_SMALL, aggregation="mean"),
    "attention over time": dataclasses.replace(_SMALL, aggregation="attention"),
    "no spatial attention": dataclasses.replace(_SMALL, n_heads=None),
    "subject embedding": dataclasses.replace(_SMALL, subject="embedding", subject_size=3),
    "one for all subjects": dataclasses.replace(_SMALL, subject="none", initial_linear=None),
    "plain": dataclasses.replace(_SMALL, batch_norm=False, skip=False, glu_every=0, final_width=None),
    "relu, wide kernel, deep head": dataclasses.replace(_SMALL, activation="relu", kernel_size=9, head_depth=2),
}


def stacked_and_alone(config, lengths, dtype, *, n_recordings=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs, n_channels = {"clip": 6, "mse": 5}, 10
    modules = [
        config.build(3, outputs, n_times=n, n_channels=n_channels, generator=generator, dtype=dtype) for n in lengths
    ]
    x = torch.randn(len(lengths), 9, n_channels, max(lengths), generator=generator, dtype=dtype)
    subjects = torch.randint(0, 3, (9,), generator=generator)
    positions = torch.rand(n_recordings, n_channels, 2, generator=generator, dtype=dtype)
    recordings = torch.randint(0, n_recordings, (9,), generator=generator)
    return modules, StackedBrainModule(modules, lengths), (x, subjects, positions, recordings)


@pytest.mark.parametrize("lengths", [(12, 12, 12), (3, 9, 14)], ids=["sliding", "growing"])
@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_networks_are_the_single_ones(name, lengths):
    """Outputs, gradients, three steps of Adam, running statistics, and what they then say in evaluation."""
    modules, stacked, (x, subjects, positions, recordings) = stacked_and_alone(NETWORKS[name], lengths, torch.float64)
    stacked_module.calls.clear()
    # With the usual eps of 1e-8, Adam divides the rounding noise of gradients that are zero (a bias before batch
    # normalisation) by its own size.
    options = {"lr": 1e-2, "eps": 1e-4}
    optimizers = [torch.optim.Adam(part.parameters(), **options) for part in (stacked, *modules)]
    for step in range(3):
        out = stacked(x, subjects, positions, recordings, generator=seeded(step))
        loss = sum(value.square().mean((1, 2)) for value in out.values())
        optimizers[0].zero_grad()
        loss.sum().backward()
        for m, (module, length) in enumerate(zip(modules, lengths, strict=True)):
            own = module(x[m, ..., :length], subjects, positions, recordings, generator=seeded(step))
            optimizers[m + 1].zero_grad()
            sum(value.square().mean() for value in own.values()).backward()
            for head, value in own.items():
                close(out[head][m], value)
            for key, parameter in module.named_parameters():
                gradient = stacked.weights[key.replace(".", "/")].grad[m]
                if key == "aggregation.weight":
                    assert not gradient[length:].any()
                    gradient = gradient[:length]
                torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-10)
        for optimizer in optimizers:
            optimizer.step()
    assert stacked_module.calls == {"even" if len(set(lengths)) == 1 else "masked": 3}
    for module, again in zip(modules, stacked.unstack(), strict=True):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(again.state_dict()[key], value, rtol=1e-9, atol=1e-9)
    stacked.eval()
    subjects = subjects.clone()
    subjects[0] = -1  # whom nobody knows
    with torch.no_grad():
        out = stacked(x, subjects, positions, recordings)
        for m, (module, length) in enumerate(zip(modules, lengths, strict=True)):
            for head, value in module.eval()(x[m, ..., :length], subjects, positions, recordings).items():
                torch.testing.assert_close(out[head][m], value, rtol=1e-8, atol=1e-8)


def test_stacked_networks_in_float32_with_one_layout_of_sensors():
    modules, stacked, (x, subjects, positions, recordings) = stacked_and_alone(
        _SMALL, (12, 12, 12), torch.float32, n_recordings=1
    )
    for given in ((positions, recordings), (positions[0], None)):
        out = stacked(x, subjects, *given, generator=seeded(0))
        for m, module in enumerate(modules):
            own = module(x[m], subjects, *given, generator=seeded(0))
            for head, value in own.items():
                close(out[head][m], value, "float32 gradient")


@pytest.mark.parametrize("mode", [True, False])
def test_no_sample_beyond_its_window_reaches_a_model(mode):
    _, stacked, (x, subjects, positions, recordings) = stacked_and_alone(_SMALL, (3, 9, 14), torch.float64)
    stacked.train(mode)
    x = x.requires_grad_()
    out = stacked(x, subjects, positions, recordings, generator=seeded(0))["clip"]
    out.square().sum().backward()
    for m, length in enumerate((3, 9, 14)):
        assert not x.grad[m, ..., length:].any()
        assert x.grad[m, ..., :length].any()
    # Another model's windows neither.
    assert not torch.autograd.grad(
        stacked(x, subjects, positions, recordings, generator=seeded(0))["clip"][0].sum(), x
    )[0][1:].any()


def test_stacks_that_cannot_be_are_refused():
    generator = torch.Generator().manual_seed(0)
    build = {"n_times": 5, "n_channels": 4, "generator": generator}
    one = TINY.build(2, 3, **build)
    with pytest.raises(ValueError, match="same settings"):
        StackedBrainModule([one, TINY.build(3, 3, **build)])
    with pytest.raises(ValueError, match="aggregation"):
        StackedBrainModule([BRAIN_MODULES["small"].build(2, 3, generator=generator)])
    with pytest.raises(TypeError, match="modules"):
        StackedBrainModule([])
    with pytest.raises(ValueError, match="n_times"):
        StackedBrainModule([one], [6])
    stacked = StackedBrainModule([one, one])
    with pytest.raises(ValueError, match="`x`"):
        stacked(torch.zeros(2, 3, 4, 6), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="subjects"):
        stacked(torch.zeros(2, 3, 4, 5), torch.full((3,), 2))
    one.add_subject()
    with pytest.raises(ValueError, match="added"):
        StackedBrainModule([one])


# --- objective ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["paper", "symmetric"])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("weight", [1.0, 0.75, 0.0])
def test_retrieval_objective_is_the_weighted_sum_of_clip_loss_and_squared_error(form, mask, weight):
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randn(7, 5, generator=generator)
    numbers = torch.tensor([0, 1, 2, 1, 3, 4, 0])
    candidates = candidates[torch.tensor([0, 1, 2, 1, 4, 5, 0])]
    estimates = {head: torch.randn(3, 7, 5, generator=generator) for head in ("clip", "mse")}
    objective = RetrievalObjective(3, weight, loss=form, mask_duplicates=mask)
    clip = ClipLoss(form, mask_duplicates=mask)
    found = objective(estimates, candidates, numbers)
    for m in range(3):
        wanted = weight * clip(estimates["clip"][m], candidates, numbers)
        wanted = wanted + (1 - weight) * F.mse_loss(estimates["mse"][m], candidates)
        close(found[m], wanted)


@pytest.mark.parametrize("form", ["paper", "symmetric"])
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
def test_retrieval_objective_is_that_of_the_image_decoder_for_each_model(form, weight):
    generator = torch.Generator().manual_seed(0)
    train, valid = (torch.randn(n, 5, generator=generator) for n in (6, 8))
    numbers = torch.tensor([0, 1, 2, 1, 3, 4, 0])
    objective = RetrievalObjective(3, weight, loss=form)
    estimates = {head: torch.randn(3, 7, 5, generator=generator) for head in objective.heads}
    network = ImageNetwork(torch.nn.Identity(), ClipLoss(form), torch.zeros(1, 4, 2))
    single = ImageObjective(network, train, valid, weight)
    for m in range(3):
        own = {head: value[m] for head, value in estimates.items()}
        network.train()
        close(objective.train()(estimates, train[numbers], numbers)[m], single(own, numbers))
        network.eval()
        measures = objective.eval().validate(estimates, valid, numbers)
        close(measures["loss"][m], single(own, numbers))
        percentile = single.metrics["percentile"](own, numbers).mean()
        assert measures["rank"][m].item() == pytest.approx(1 - percentile.item())


def test_validation_is_among_all_distinct_stimuli():
    estimates = {"clip": torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])}
    candidates, own = torch.eye(2), torch.tensor([0, 1])
    measures = RetrievalObjective(2).validate(estimates, candidates, own)
    assert measures["rank"].tolist() == [0.0, 0.5]
    close(measures["loss"][0], F.cross_entropy(torch.eye(2), own))
    tied = ClassObjective().validate({"classes": torch.zeros(1, 4, 3)}, None, torch.tensor([0, 1, 2, 0]))
    assert tied["rank"].tolist() == [0.5]


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
