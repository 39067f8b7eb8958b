"""Features of what was heard."""

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from neurodecode.features.audio import Audio, MelSpectrum, Wav2Vec, audio_features, audio_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny wav2vec 2.0 on disk: seven layers, 16 features."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=True,
        feat_extract_norm="layer",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Wav2Vec2Model(config)
    path = tmp_path_factory.mktemp("wav2vec")
    model.save_pretrained(path, safe_serialization=True)
    return path


@pytest.fixture(scope="module")
def wav2vec(folder):
    return Wav2Vec.load(folder, layers=(2, 3, 5))


def sound(seconds, sfreq=16_000, seed=0):
    return np.random.default_rng(seed).standard_normal(round(seconds * sfreq)).astype(np.float32) * 0.1


def test_wav2vec_is_the_mean_of_the_layers_on_normalised_audio(wav2vec):
    from transformers import Wav2Vec2FeatureExtractor

    wave = sound(1.0)
    prepared = Wav2Vec2FeatureExtractor(do_normalize=True)(wave, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        states = wav2vec.model(prepared.input_values, output_hidden_states=True).hidden_states
    want = torch.stack([states[k][0] for k in (2, 3, 5)]).mean(0).T
    assert want.shape == (16, 49)
    np.testing.assert_allclose(wav2vec(wave), want, rtol=1e-4, atol=1e-5)


def test_mel_spectrum_of_a_tone_peaks_in_its_band():
    t = np.arange(16_000) / 16_000
    mel = MelSpectrum()(0.5 * np.sin(2 * np.pi * 1000 * t).astype(np.float32))
    assert mel.shape == (120, 126)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 122) / 2595) - 1)  # HTK's mel scale
    band = int(mel[:, 60].argmax())
    assert edges[band] < 1000 < edges[band + 2]


def test_a_block_has_not_heard_its_neighbours(wav2vec):
    wave = sound(3.0)
    other = wave.copy()
    other[32_000:] = sound(1.0, seed=1)  # all after two seconds is another sentence
    kwargs = {"borders": [2.0]}
    for extractor in (wav2vec, MelSpectrum()):
        a, b = (audio_features(Audio(x, 16_000), extractor, **kwargs) for x in (wave, other))
        np.testing.assert_array_equal(a[:, :100], b[:, :100])
        assert abs(a[:, 100:] - b[:, 100:]).max() > 1e-3
    leaky = [audio_features(Audio(x, 16_000), wav2vec)[:, :100] for x in (wave, other)]
    assert abs(leaky[0] - leaky[1]).max() > 1e-3  # attention hears everything


def test_a_block_equals_the_same_audio_alone():
    whole = audio_features(Audio(sound(3.0), 16_000), MelSpectrum(), borders=[1.0, 2.5])
    alone = audio_features(Audio(sound(3.0)[16_000:40_000], 16_000), MelSpectrum())
    np.testing.assert_array_equal(whole[:, 50:125], alone)


def test_frames_are_the_nearest_of_the_block():
    class Counting:
        sfreq, name = 16_000, "counting"

        def __call__(self, wave):
            return np.arange(len(wave) // 320, dtype=float)[None]

    frames = audio_features(Audio(np.zeros(48_000), 16_000), Counting(), rate=120)[0]
    source = torch.arange(150.0)[None, None]
    np.testing.assert_array_equal(frames, torch.nn.functional.interpolate(source, size=360)[0, 0])


def test_long_blocks_are_cut_into_equal_parts():
    lengths = []

    class Watching:
        sfreq, name = 16_000, "watching"

        def __call__(self, wave):
            lengths.append(len(wave))
            return np.zeros((1, 50))

    audio_features(Audio(np.zeros(16_000 * 10), 16_000), Watching(), max_block_s=4.0)
    assert [round(length / 16_000, 2) for length in lengths] == [3.33, 3.33, 3.33]


def test_very_short_blocks_still_have_a_frame(wav2vec):
    features = audio_features(Audio(sound(1.01), 16_000), wav2vec, borders=[0.99])
    assert features.shape == (16, 51)
    assert np.isfinite(features).all()


def test_other_rates_and_two_channels_are_the_same_sound(tmp_path):
    t = np.arange(44_100) / 44_100
    tone = 0.4 * np.sin(2 * np.pi * 440 * t)
    wavfile.write(tmp_path / "stereo.wav", 44_100, (np.stack([tone, tone], 1) * 32767).astype(np.int16))
    wavfile.write(
        tmp_path / "float.wav", 16_000, (0.4 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype("f4")
    )
    table = audio_table([tmp_path / "stereo.wav", tmp_path / "float.wav"], MelSpectrum())
    stereo, mono = table.values()
    assert stereo.shape == mono.shape == (120, 50)
    loud = mono > mono.max() - 2
    assert abs(stereo[loud] - mono[loud]).max() < 0.05


def test_each_content_is_computed_once_and_kept(tmp_path):
    calls = []

    class Extractor(MelSpectrum):
        def __call__(self, wave):
            calls.append(len(wave))
            return super().__call__(wave)

    for name, seed in (("a", 0), ("copy of a", 0), ("b", 1)):
        wavfile.write(tmp_path / f"{name}.wav", 16_000, sound(0.5, seed=seed))
    paths = [tmp_path / f"{name}.wav" for name in ("a", "copy of a", "b", "a")]
    cache = tmp_path / "cache"
    first = audio_table(paths, Extractor(), cache=cache)
    assert len(calls) == 2
    assert len(first) == 3
    second = audio_table(paths, Extractor(), cache=cache)
    assert len(calls) == 2
    for path, features in first.items():
        np.testing.assert_array_equal(features, second[path])
    audio_table(paths, Extractor(), cache=cache, borders={str(paths[2]): [0.2]})
    assert len(calls) == 4  # one file anew, in two blocks
    audio_table(paths[:1], Extractor(n_mels=40), cache=cache)
    assert len(calls) == 5


def test_what_cannot_be_used_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="layers"):
        Wav2Vec.load(folder, layers=(14,))
    with pytest.raises(FileNotFoundError, match="huggingface-cli download"):
        Wav2Vec.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="wav file"):
        audio_table([tmp_path / "nothing.wav"], MelSpectrum())
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match="plain PCM"):
        audio_table([tmp_path / "text.wav"], MelSpectrum())
    with pytest.raises(ValueError, match="finite"):
        Audio(np.array([0.0, np.nan]), 16_000)
    with pytest.raises(ValueError, match="borders"):
        audio_table([], MelSpectrum(), borders={"other.wav": [1.0]})
