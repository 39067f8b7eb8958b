# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Speech from MEG
#
# Somebody listens to a story; which of all its segments was it? [Défossez et al.
# 2023](https://doi.org/10.1038/s42256-023-00714-5) train a network by contrast: its output for three seconds of MEG is
# to be nearer to the sound of these seconds than to that of others. Here listeners are simulated, so that what can be
# known is known: the spectrum of the sound drives dipoles in auditory cortex 150 ms later. Under a minute on a CPU.

# %%
import matplotlib.pyplot as plt
import numpy as np

from neurodecode.meeg import (
    LinearSpeechDecoder,
    SpeechConfig,
    SpeechDecoder,
    evaluate_speech,
    grid_windows,
    lag_scan,
    simulate_speech,
)
from neurodecode.plots import decoder_and_controls, lag_curve
from neuroloaders import split_blocks

study = simulate_speech(rng=np.random.default_rng(0), n_subjects=2, n_sentences=45, n_sensors=24, snr=0.03)
print(study.recordings, study.events, sep="\n")

# %% [markdown]
# A recording, its words, and the sound that drives it. At this signal-to-noise ratio nobody sees anything.

# %%
recording = study.recordings[0]
words = study.events.where(recording=recording.name, kind="word")
first = round(words.start[0] * recording.sfreq)
some = slice(first - 60, first + 540)
times = np.arange(some.start, some.stop) / recording.sfreq
figure, axes = plt.subplots(2, 1, figsize=(8, 3.6), sharex=True, layout="constrained")
axes[0].plot(times, 1e15 * recording.data[:5, some].T, linewidth=0.5)
axes[0].set_ylabel("fT")
sound = study.events.where(recording=recording.name, kind="sound")
heard = study.driving[str(sound.stimulus[0])]
begin = some.start - round(sound.start[0] * recording.sfreq)
extent = (times[0], times[-1], 0, len(heard))
axes[1].imshow(heard[:, begin : begin + 600], aspect="auto", origin="lower", extent=extent)
for start, word in zip(words.start, words.extra["word"], strict=True):
    if start < times[-1] - 0.2:
        axes[1].text(start, len(heard) + 0.5, word, fontsize=6)
axes[1].set_ylabel("mel band")
axes[1].set_xlabel("s")
# %% [markdown]
# ## A split that keeps sentences together
#
# Whole blocks go to training, validation or test by a hash of their text, for all subjects alike: no sentence is on two
# sides, and no window crosses a border.

# %%
split = split_blocks(study.events, seed=12)
print(split)
for part in ("train", "valid", "test"):
    print(part, len(grid_windows(study.recordings, study.events, split, part, tmin=-0.5, tmax=2.5)), "windows")

# %% [markdown]
# ## When does the brain follow?
#
# How well single samples of the sensors tell the sound, by the lag between them. The network is given the brain of
# 150 ms later.

# %%
scan = lag_scan(study.recordings, study.events, study.features, split, np.arange(-12, 37, 3) / 120)
lag_curve(scan, planted_s=study.lag_s)
print(f"the brain follows {1000 * scan.peak_s:.0f} ms later")

# %% [markdown]
# ## The decoder
#
# `SpeechConfig()` holds the published settings; here is a small network, for a small study.

# %%
settings = SpeechConfig(network="small", lr=2e-3, epochs=8, patience=6, batch_size=32, feature_scale="each")
given = (study.recordings, study.events, study.features, split)
decoder = SpeechDecoder(settings).fit(*given, device="cpu")
linear = LinearSpeechDecoder(settings).fit(*given)

# %% [markdown]
# ## Is it the brain?
#
# A decoder of speech may know much without a brain: where in its sentence a word stands, how loud it is. Controls come
# with every evaluation: that position, the envelope, and the brain of ten seconds later.

# %%
rng = np.random.default_rng(0)
found = {
    "network": evaluate_speech(decoder, *given, rng=rng, envelope=study.envelope),
    "ridge regression": evaluate_speech(linear, *given, rng=rng, controls=["shifted brain"]),
}
k = found["network"].permutation_k
windows = decoder.windows(study.recordings, study.events, split, "test", words=True)
ceiling = study.ideal(windows, tmin=settings.tmin, tmax=settings.tmax).accuracy(k)
decoder_and_controls(found, k=k, ceiling=ceiling)
print(found["network"])

# %% [markdown]
# ## Next
#
# `python examples/neurodecode_speech.py --study PATH` does this for MEG-MASC, MOUS, Broderick, Brennan or a BIDS
# folder; `calibrate_subject` fits the layer of somebody new on some minutes.
