"""The decoder of speech: what it is trained on, that it finds what is planted, and that runs can be repeated."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from children import speech_in_processes as child
from fakes import speech
from tolerances import close

from neurodecode.meeg import ClipLoss
from neurodecode.meeg.speech import SpeechDecoder
from neurodecode.meeg.speech_config import MONITORS, SpeechConfig
from neurodecode.meeg.speech_objective import SpeechNetwork, SpeechObjective
from neurodecode.meeg.spiking import SpikingBrainConfig
from neurodecode.scoring import retrieve
from neuroloaders.recordings import RecordingSet


def fitted(config=speech.CONFIG, *, settings=None, **options):
    made, split = speech.study(**(settings or {}))
    return SpeechDecoder(config).fit(*speech.data(made, split), device="cpu", **options)


def short_study():
    """Return what two processes are given."""
    return speech.data(*speech.study(n_sentences=30))


@pytest.fixture(scope="module")
def decoder():
    return fitted()


def weights(decoder):
    return {name: value.clone() for name, value in decoder.module_.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


# --- the objective ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["paper", "symmetric"])
def test_training_loss_is_that_of_the_batch_and_validation_scores_are_of_all_segments(form, decoder):
    made, split = speech.study()
    segments = {
        part: decoder.segments(decoder.windows(made.recordings, made.events, split, part), made.features)
        for part in ("train", "valid")
    }
    clip = ClipLoss(form)
    network = SpeechNetwork(decoder.module_, clip, torch.zeros(2, 24, 2))
    objective = SpeechObjective(network, segments["train"], segments["valid"])
    rng = torch.Generator().manual_seed(0)
    n_features, n_times = segments["train"].shape[1:]
    output = torch.randn(9, n_features, n_times, generator=rng)
    target = torch.tensor([3, 1, 4, 1, 5, 0, 2, 6, 5])
    network.train()
    close(objective(output, target), clip(output, segments["train"][:][target], target).detach())
    network.eval()
    logits = torch.einsum("bft,sft->bs", output, segments["valid"][:])
    norms = segments["valid"][:].flatten(1).norm(dim=1)
    logits = logits / norms if form == "paper" else logits / norms / output.flatten(1).norm(dim=1)[:, None] / 0.07
    close(objective(output, target), torch.nn.functional.cross_entropy(logits, target))
    found = retrieve(output, segments["valid"][:], target)
    for k in (1, 10):
        close(objective.metrics[f"top_{k}"](output, target), found.top_k(k))
    close(objective.metrics["percentile"](output, target), 1 - found.relative_rank)
    decoder.module_.eval()


def test_validation_scores_do_not_depend_on_the_size_of_batches():
    rows = [fitted(dataclasses.replace(speech.CONFIG, epochs=1, batch_size=n)).history_.rows[0] for n in (200, 199)]
    # Both have one batch of training, so that the weights differ by little; the candidates are the same.
    assert rows[0]["valid_loss"] == pytest.approx(rows[1]["valid_loss"], rel=0.02)
    assert set(MONITORS) <= {name.removeprefix("valid_") for name in rows[0]}


# --- what it learns -----------------------------------------------------------------------------------------------


def test_it_learns_what_is_planted(decoder):
    history = decoder.history_
    assert history["valid_percentile"][history.best_epoch] > 0.95
    assert history.kept_epoch == history.best_epoch
    assert decoder.subjects_ == ("S01", "S02")


def test_test_blocks_are_not_looked_at():
    config = dataclasses.replace(speech.CONFIG, epochs=2)
    made, split = speech.study()
    plain = SpeechDecoder(config).fit(*speech.data(made, split), device="cpu")
    spoilt = []
    for recording in made.recordings:
        samples = recording.data.copy()
        rng = np.random.default_rng(0)
        for k in np.flatnonzero((split.part == "test") & (split.recording == recording.name)):
            # A window may end with the sample at which the next block begins.
            first = int(np.ceil(split.start[k] * 60)) + 1
            last = int(min(split.stop[k] * 60, recording.n_times))
            samples[:, first:last] = 1e-9 * rng.standard_normal((len(samples), last - first))
        spoilt.append(dataclasses.replace(recording, data=samples))
    other = SpeechDecoder(config).fit(RecordingSet(spoilt), made.events, made.features, split, device="cpu")
    assert same(weights(plain), weights(other))


def test_patience_stops_and_the_best_epoch_is_kept():
    config = dataclasses.replace(speech.CONFIG, epochs=30, patience=2, monitor="loss")
    history = fitted(config, settings={"snr": 0.0}).history_
    assert len(history) < 30
    assert len(history) - 1 - history.best_epoch == 2
    assert history.kept_epoch == history.best_epoch


def test_a_learned_temperature_moves():
    decoder = fitted(dataclasses.replace(speech.CONFIG, loss="symmetric", epochs=2))
    assert decoder.temperature_ != pytest.approx(0.07, rel=1e-4)
    assert fitted(dataclasses.replace(speech.CONFIG, epochs=1)).temperature_ == 1.0


def test_a_spiking_network_learns_too():
    network = SpikingBrainConfig(
        n_heads=16, initial_linear=16, fourier_features=128, hidden=(32,), max_delay=6, lookahead=0
    )
    decoder = fitted(dataclasses.replace(speech.CONFIG, network=network, epochs=6, lr=1e-2), settings={"snr": 0.1})
    assert max(decoder.history_["valid_percentile"]) > 0.7


def test_published_window_has_343_samples_and_settings_survive_json():
    config = SpeechConfig()
    assert (config.n_lag(120.0), config.n_times(120.0)) == (18, 343)
    assert (config.lr, config.betas, config.batch_size, config.epochs) == (3e-4, (0.9, 0.999), 256, 200)
    for each in (config, speech.CONFIG, dataclasses.replace(config, network=SpikingBrainConfig())):
        assert SpeechConfig.from_dict(each.as_dict()) == each


# --- runs ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_others(global_rng_untouched):
    config = dataclasses.replace(speech.CONFIG, epochs=2)
    first, second, third = (fitted(dataclasses.replace(config, seed=seed)) for seed in (0, 0, 1))
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(third))


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path):
    config = dataclasses.replace(speech.CONFIG, epochs=4)
    whole = fitted(config)

    def stop(row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(config, run_dir=tmp_path, on_log=stop)
    seen = []
    resumed = fitted(config, run_dir=tmp_path, on_log=seen.append)
    assert [row["epoch"] for row in seen] == [2, 3]
    assert same(weights(whole), weights(resumed))
    # With the same sizes, but not the same: another lag, another split.
    with pytest.raises(ValueError, match=r"`config.lag_s` must be 0\.15, as in '.*speech\.json', got 0\.1"):
        fitted(dataclasses.replace(config, lag_s=0.1), run_dir=tmp_path)
    made, split = speech.study()
    moved = made.events.with_column("start", made.events.start + 1 / 60)
    with pytest.raises(ValueError, match="`train` must be "):
        SpeechDecoder(config).fit(made.recordings, moved, made.features, split, run_dir=tmp_path, device="cpu")


def test_a_saved_decoder_says_the_same_to_the_last_bit(decoder, tmp_path):
    made, split = speech.study()
    decoder.save(tmp_path / "decoder")
    loaded = SpeechDecoder.load(tmp_path / "decoder")
    windows = decoder.windows(made.recordings, made.events, split, "test")
    pairs = zip(*(each.estimates(made.recordings, windows) for each in (decoder, loaded)), strict=True)
    for (rows, want), (other_rows, got) in pairs:
        assert (rows == other_rows).all()
        assert torch.equal(got, want)
    segments = [each.segments(windows, made.features)[:] for each in (decoder, loaded)]
    assert torch.equal(*segments)
    assert loaded.history_.rows == decoder.history_.rows
    (tmp_path / "decoder" / "decoder.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cannot be read: it is no decoder of this version"):
        SpeechDecoder.load(tmp_path / "decoder")
    with pytest.raises(FileNotFoundError, match="The data set 'SpeechDecoder'"):
        SpeechDecoder.load(tmp_path / "nothing")


def test_gradients_stay_on_while_estimates_are_read(decoder):
    made, split = speech.study()
    windows = decoder.windows(made.recordings, made.events, split, "test")
    for _, found in decoder.estimates(made.recordings, windows, batch_size=20):
        assert torch.is_grad_enabled()
        assert not found.requires_grad


def test_estimates_do_not_depend_on_the_size_of_batches(decoder):
    made, split = speech.study()
    windows = decoder.windows(made.recordings, made.events, split, "test")
    whole, parts = (
        torch.cat([found for _, found in decoder.estimates(made.recordings, windows, batch_size=n)]) for n in (999, 7)
    )
    close(parts, whole, "float32 gradient")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes learned; launched as torchrun does."""
    folder = tmp_path_factory.mktemp("two")
    study, out = folder / "study.pkl", folder / "found.pt"
    study.write_bytes(pickle.dumps(short_study()))
    store = torch.distributed.TCPStore("127.0.0.1", 0, 3, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(child.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", child.__file__, str(study), str(out)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize("loss", ["paper", "symmetric"])
def test_two_processes_learn_what_one_does(loss, two):
    alone, found = child.train(loss, short_study()), two[loss]
    # An odd batch, whose shares differ in size; candidates are those of both.
    for mine, theirs in zip(alone["rows"], found["rows"], strict=True):
        # With the candidates of one share alone the loss would be log 2 smaller.
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=1e-3)
        assert theirs["valid_loss"] == pytest.approx(mine["valid_loss"], rel=1e-3)
    pairs = [(found["weights"][name].double(), value.double()) for name, value in alone["weights"].items()]
    near = torch.cat([torch.isclose(theirs, mine, rtol=1e-2, atol=2e-4).flatten() for theirs, mine in pairs])
    # Adam divides by the size of a gradient, however small: rounding is amplified where there is hardly any, in one
    # weight of some ten thousand, and by less than a step.
    assert (~near).sum() <= 1e-4 * len(near)
    assert max((theirs - mine).abs().max() for theirs, mine in pairs) < child.CONFIG.lr
    assert found["temperature"] == pytest.approx(alone["temperature"], rel=1e-4)


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_mistakes_are_named(decoder):
    made, split = speech.study()
    with pytest.raises(ValueError, match="`network` must have an output at each sample, got aggregation='mean'"):
        SpeechConfig(network=dataclasses.replace(speech.NETWORK, aggregation="mean"))
    with pytest.raises(ValueError, match="`lag_s` must lie in the window, from 0 to 3 s, got 4"):
        SpeechConfig(lag_s=4.0)
    with pytest.raises(ValueError, match="`network` must be one of 'defossez', "):
        SpeechConfig(network="large")
    with pytest.raises(TypeError, match="`config` must be a SpeechConfig"):
        SpeechDecoder(speech.NETWORK)
    with pytest.raises(ValueError, match="`decoder` must be trained"):
        next(SpeechDecoder().estimates(made.recordings, made.events))
    windows = decoder.windows(made.recordings, made.events, split, "test")
    fast = RecordingSet(dataclasses.replace(recording, sfreq=120.0) for recording in made.recordings)
    with pytest.raises(ValueError, match="`recordings` must be sampled at 60 Hz, as in training, got 120 Hz"):
        next(decoder.estimates(fast, windows))
    new = RecordingSet(dataclasses.replace(recording, run="new") for recording in made.recordings)
    moved = windows.with_column("recording", [f"{name[:3]}_new" for name in windows.recording])
    with pytest.raises(ValueError, match="`scale` must know the recording 'S01_new'"):
        next(decoder.estimates(new, moved))
    ready = decoder.scaled_for(new, moved)
    assert len(ready.scaler_.center) == 4
    next(ready.estimates(new, moved))
