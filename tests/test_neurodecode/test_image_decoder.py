"""The decoder of images: what is planted is found, what is held out is not looked at, and nothing is lost on disk."""

import dataclasses

import numpy as np
import pytest
import torch
from fakes import viewers

from neurodecode.meeg.clip_loss import ClipLoss
from neurodecode.meeg.image_config import ImageConfig
from neurodecode.meeg.image_objective import ImageNetwork, ImageObjective, heads_of
from neurodecode.meeg.image_scores import average_estimates, evaluate_images, score_images
from neurodecode.meeg.images import ImageDecoder
from neurodecode.meeg.linear_images import LinearImageDecoder
from neurodecode.scoring.retrieval import retrieve
from neuroloaders.recordings import RecordingSet
from neuroloaders.window_targets import StimulusFeatures


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """For networks of this size a second one only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def given(**options):
    made, split = viewers.study(**options)
    return made.recordings, made.events, made.features, split


@pytest.fixture(scope="module")
def decoder():
    return ImageDecoder(viewers.CONFIG).fit(*given(), device="cpu")


def evaluate(decoder, part="test", **options):
    recordings, events, targets, split = given()
    return evaluate_images(
        decoder, recordings, split.select(events, part), targets, n_permutations=99,
        rng=np.random.default_rng(0), **options,
    )  # fmt: skip


# --- the objective ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_objective_is_the_weighted_sum_of_contrast_and_squared_error(weight):
    rng = torch.Generator().manual_seed(0)
    table, output = torch.randn(7, 5, generator=rng), torch.randn(4, 2, 5, generator=rng)
    network = ImageNetwork(torch.nn.Identity(), ClipLoss(), torch.zeros(1, 3, 2)).train()
    objective = ImageObjective(network, table, table, weight)
    target = torch.tensor([6, 0, 3, 2])
    said = {"clip": output[:, 0], "mse": output[:, 1]}
    found = objective({name: said[name] for name in heads_of(weight)}, target)
    # By the formulas of the paper: one direction, only images normalised, no temperature.
    own = table[target].double()
    scores = output[:, 0].double() @ (own / own.norm(dim=1, keepdim=True)).T
    contrast = -(scores.diagonal() - scores.logsumexp(1)).mean()
    error = ((output[:, 1].double() - own) ** 2).mean()
    assert found.item() == pytest.approx((weight * contrast + (1 - weight) * error).item(), rel=1e-5)


def test_validation_scores_are_among_all_images_and_of_the_true_one():
    rng = torch.Generator().manual_seed(1)
    table, said = torch.randn(30, 6, generator=rng), torch.randn(50, 6, generator=rng)
    target = torch.randint(0, 30, (50,), generator=rng)
    network = ImageNetwork(torch.nn.Identity(), ClipLoss(), torch.zeros(1, 3, 2)).eval()
    objective = ImageObjective(network, table[:3], table, 1.0)
    reference = retrieve(said.numpy(), table.numpy(), target.numpy())
    assert np.array_equal(objective.metrics["top_5"]({"clip": said}, target).numpy(), reference.rank <= 5)
    parts = [objective.metrics["top_1"]({"clip": said[k : k + 1]}, target[k : k + 1]) for k in range(50)]
    assert torch.equal(torch.cat(parts), objective.metrics["top_1"]({"clip": said}, target))
    percentile = objective.metrics["percentile"]({"clip": said}, target).numpy()
    np.testing.assert_allclose(1 - percentile, reference.relative_rank)


# --- the decoder --------------------------------------------------------------------------------------------------


def test_it_finds_what_is_planted_and_repetitions_help(decoder):
    single, repeated, together = (evaluate(decoder, average=name) for name in ("none", "repetitions", "all"))
    assert single.top_k(5) > 3 * single.chance(5)
    assert single.top_k(5) < repeated.top_k(5) < together.top_k(5)
    assert single.permutation.p == 0.01
    assert (len(single.image), len(repeated.image), len(together.image)) == (360, 120, 40)
    made, split = viewers.study()
    ideal = made.ideal(split.select(made.events, "test"), tmin=-0.1, tmax=0.6)
    assert single.top_k(5) < ideal.accuracy(5)


def test_large_and_enlarged_sets_are_harder(decoder):
    made, split = viewers.study()
    small = evaluate(decoder)
    enlarged = evaluate(decoder, more=split.images("train"))
    assert enlarged.n_candidates == 40 + len(split.images("train"))
    assert enlarged.top_k(5) < small.top_k(5)
    large = evaluate(decoder, "large", average="none")
    assert large.n_candidates == 80
    assert large.top_k(5) > 2 * large.chance(5)


def test_shuffled_images_are_at_chance():
    recordings, events, targets, split = given()
    # Each image keeps its presentations, and gets the embedding of another one.
    order = np.random.default_rng(3).permutation(len(split.image))
    values = targets.for_windows(
        dataclasses.replace(events.select(np.zeros(len(split.image), dtype=int)), stimulus=split.image), 0, 1, 1
    )(torch.arange(len(split.image)))
    shuffled = StimulusFeatures(split.image.tolist(), values[torch.from_numpy(order)])
    config = dataclasses.replace(viewers.CONFIG, epochs=2)
    decoder = ImageDecoder(config).fit(recordings, events, shuffled, split, device="cpu")
    found = evaluate_images(
        decoder, recordings, split.select(events, "test"), shuffled, rng=np.random.default_rng(0), n_permutations=99
    )
    assert abs(found.top_k(5) - found.chance(5)) < 0.1
    assert found.permutation.p > 0.02


def test_test_images_are_not_looked_at():
    recordings, events, targets, split = given()
    config = dataclasses.replace(viewers.CONFIG, epochs=1)
    one = ImageDecoder(config).fit(recordings, events, targets, split, device="cpu")
    learned = np.isin(split.parts_of(events), ["train", "valid"])
    other = ImageDecoder(config).fit(recordings, events.select(np.flatnonzero(learned)), targets, split, device="cpu")
    for a, b in zip(one.module_.parameters(), other.module_.parameters(), strict=True):
        assert torch.equal(a, b)
    assert np.array_equal(one.center_, other.center_)


def test_weight_of_the_contrast_is_chosen_on_validation_images_unless_asked():
    recordings, events, targets, split = given()
    config = dataclasses.replace(viewers.CONFIG, epochs=2, clip_weight=(0.0, 0.5))
    decoder = ImageDecoder(config).fit(recordings, events, targets, split, device="cpu")
    assert decoder.clip_weight_ == max(decoder.weight_scores_, key=decoder.weight_scores_.get)
    assert set(decoder.weight_scores_) == {0.0, 0.5}
    assert decoder.heads_ == (("mse",) if decoder.clip_weight_ == 0 else ("clip", "mse"))

    def share(part):
        return evaluate_images(
            decoder, recordings, split.select(events, part), targets, average="none", n_permutations=1,
            rng=np.random.default_rng(0),
        )  # fmt: skip

    hits = np.asarray(share("valid").retrieval.top_k(5)).mean()
    assert decoder.weight_scores_[decoder.clip_weight_] == pytest.approx(hits, abs=1e-6)
    published = dataclasses.replace(config, weight_compat="published")
    decoder = ImageDecoder(published).fit(recordings, events, targets, split, device="cpu")
    hits = np.asarray(share("large").retrieval.top_k(5)).mean()
    assert decoder.weight_scores_[decoder.clip_weight_] == pytest.approx(hits, abs=1e-6)


def test_squared_error_predicts_the_features_themselves():
    recordings, events, targets, split = given()
    config = dataclasses.replace(viewers.CONFIG, clip_weight=0.0)
    decoder = ImageDecoder(config).fit(recordings, events, targets, split, device="cpu")
    test = split.select(events, "test")
    said = decoder.predict(recordings, test, head="mse")
    true = decoder.standardised(targets.for_windows(test, 0, 1, 1)(torch.arange(len(test)))).numpy()
    assert 1 - ((said - true) ** 2).mean() / true.var() > 0.1
    with pytest.raises(ValueError, match="head"):
        decoder.predict(recordings, test, head="clip")


def test_a_saved_decoder_says_the_same_to_the_last_bit(decoder, tmp_path):
    recordings, events, _, split = given()
    test = split.select(events, "test")
    decoder.save(tmp_path / "decoder")
    loaded = ImageDecoder.load(tmp_path / "decoder")
    assert np.array_equal(loaded.predict(recordings, test), decoder.predict(recordings, test))
    assert loaded.config == decoder.config
    assert (loaded.subjects_, loaded.heads_, loaded.weight_scores_) == (
        decoder.subjects_, decoder.heads_, decoder.weight_scores_,
    )  # fmt: skip
    with pytest.raises(FileNotFoundError, match="save"):
        ImageDecoder.load(tmp_path)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path):
    config = dataclasses.replace(viewers.CONFIG, epochs=2)
    whole = ImageDecoder(config).fit(*given(), device="cpu")

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImageDecoder(config).fit(*given(), run_dir=tmp_path, device="cpu", on_log=stop)
    resumed = ImageDecoder(config).fit(*given(), run_dir=tmp_path, device="cpu")
    for a, b in zip(whole.module_.parameters(), resumed.module_.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="seed"):
        ImageDecoder(dataclasses.replace(config, seed=5)).fit(*given(), run_dir=tmp_path, device="cpu")


def test_predictions_do_not_depend_on_batches_and_windows_are_the_live_path(decoder):
    recordings, events, _, split = given()
    test = split.select(events, "test").select(np.arange(50))
    whole, parts = (decoder.predict(recordings, test, batch_size=n) for n in (999, 7))
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)
    loader = decoder.loader(recordings, test, batch_size=50)
    batch = next(iter(loader))
    numbers = torch.tensor(decoder.subject_numbers(recordings))[batch.subject]
    one = decoder.predict_windows(batch.x[:1], numbers[:1], loader.positions, batch.recording[:1])
    np.testing.assert_allclose(one[0].numpy(), whole[int(batch.event[0])], rtol=1e-4, atol=1e-5)


def test_linear_decoder_finds_them_too_and_answers_alike():
    linear = LinearImageDecoder(viewers.CONFIG).fit(*given())
    found = evaluate(linear, average="none")
    assert found.top_k(5) > 2 * found.chance(5)
    assert set(linear.ridges_) == {"S01", "S02", "S03"}


# --- scores -------------------------------------------------------------------------------------------------------


def test_averages_are_those_of_pandas():
    import pandas as pd

    rng = np.random.default_rng(0)
    estimates = rng.standard_normal((60, 3))
    frame = pd.DataFrame(estimates).assign(image=rng.choice(list("abc"), 60), subject=rng.choice(list("xy"), 60))
    found, image, subject = average_estimates(estimates, frame["image"], frame["subject"])
    want = frame.groupby(["subject", "image"]).mean()
    got = pd.DataFrame(found).assign(subject=subject, image=image).set_index(["subject", "image"]).sort_index()
    np.testing.assert_allclose(got.to_numpy(), want.to_numpy())
    found, image, subject = average_estimates(estimates, frame["image"], frame["subject"], "all")
    np.testing.assert_allclose(found, frame.drop(columns="subject").groupby("image").mean().to_numpy())
    assert set(subject) == {"all"}


def test_scores_by_subject_are_those_of_retrieval():
    rng = np.random.default_rng(0)
    names = np.array([f"i{k}" for k in range(20)])
    features = rng.standard_normal((20, 6))
    image, subject = np.tile(names, 3), np.repeat(["a", "b", "c"], 20)
    estimates = np.tile(features, (3, 1)) + rng.standard_normal((60, 6)) * np.repeat([0.1, 1, 3], 20)[:, None]
    found = score_images(estimates, image, subject, names, features, average="none", rng=rng, n_permutations=99)
    rows = {row["subject"]: row for row in found.as_rows()}
    for who in "abc":
        own = retrieve(estimates[subject == who], features)
        assert rows[who]["top-1"] == own.accuracy(1)
        assert rows[who]["median relative rank"] == np.median(own.relative_rank)
    assert rows["mean"]["top-5"] == pytest.approx(np.mean([rows[who]["top-5"] for who in "abc"]))
    assert found.permutation.observed == pytest.approx(np.mean([rows[who]["top-5"] for who in "abc"]))
    assert "top-5" in str(found)


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"clip_weight": 1.5}, "clip_weight"),
        ({"clip_weight": (0.5, 0.5)}, "clip_weight"),
        ({"network": "small"}, "aggregation"),
        ({"weight_compat": "test"}, "weight_compat"),
        ({"monitor": "accuracy"}, "monitor"),
        ({"lr": 0.0}, "lr"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        ImageConfig(**change)


def test_mistakes_are_named(decoder):
    recordings, events, targets, split = given()
    with pytest.raises(TypeError, match="StimulusFeatures"):
        ImageDecoder(viewers.CONFIG).fit(recordings, events, np.zeros((3, 4)), split)
    with pytest.raises(AttributeError, match="fit"):
        ImageDecoder(viewers.CONFIG).predict(recordings, events)
    some = StimulusFeatures(["a", "b"], np.zeros((2, 8), np.float32))
    with pytest.raises(ValueError, match="thing-"):
        ImageDecoder(viewers.CONFIG).fit(recordings, events, some, split)
    slower = RecordingSet([dataclasses.replace(recordings[0], sfreq=20.0)])
    with pytest.raises(ValueError, match="40 Hz"):
        decoder.predict(slower, events.where(recording=recordings[0].name))
    with pytest.raises(ValueError, match="8 features"):
        decoder.standardised(np.zeros((2, 3)))


def test_published_settings_are_the_defaults_and_survive_json():
    config = ImageConfig()
    assert (config.tmin, config.tmax, config.n_times(120.0), config.lr, config.batch_size) == (
        -0.5,
        1.0,
        181,
        3e-4,
        128,
    )
    assert ImageConfig.from_dict(config.as_dict()) == config
