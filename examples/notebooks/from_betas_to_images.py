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
# # From betas to images
#
# A subject sees photographs in a scanner; which photographs?
# [Ozcelik & VanRullen 2023](https://doi.org/10.1038/s41598-023-42891-8) predict latents of image networks from the
# responses, by ridge regression, and turn predicted latents into images. Here subject, scanner and networks are small
# and simulated, so that what can be known is known. Under a minute on a CPU.

# %%
import tempfile

import numpy as np

from neurodecode import MultiTargetRidge
from neurodecode.fmri import BrainDiffuser, region_preference, voxel_weights
from neurodecode.fmri.fake_study import FAKE_SETTINGS, FakeStudyConfig, fake_study
from neurodecode.plots import image_rows, region_bars, stage_histograms
from neurodecode.scoring import score_targets

folder = tempfile.mkdtemp()
study, networks = fake_study(folder, FakeStudyConfig(n_images=240, n_voxels=400, n_features=12, steps=60))
train, test = study.train, study.test
print(f"{len(train)} photographs to learn from, {len(test)} to be decoded; {train.betas}")

# %% [markdown]
# ## What the voxels know
#
# The voxels answer to 12 planted features, with noise. How well can any linear decoder read these from the betas? That
# is a matter of algebra (`decoder_ceiling_r2`); ridge regression, with an alpha for each feature chosen in closed form,
# comes close, and closer with more photographs.

# %%
ridge = MultiTargetRidge().fit(train.betas.betas, study.truth.train)
found = score_targets(study.truth.test, ridge.predict(test.betas.betas)).r2
print(f"R2 {found.mean():.3f}; the best linear decoder {study.truth.decoder_ceiling().mean():.3f}")

# %% [markdown]
# ## Latents, and images
#
# `BrainDiffuser` extracts the latents of all training images (once: they are kept under a fingerprint of the network),
# fits one regression to all of them, and standardises predictions by leave-one-out predictions of training images.

# %%
decoder = BrainDiffuser(**networks.extractors, backend=networks.backend, cache=f"{folder}/features")
decoder.fit(train.betas, train.images, train.captions)
decoded = decoder.reconstruct(test.betas.select(np.arange(8)), settings=FAKE_SETTINGS)
rows = {"seen": test.images[:8], "first guess": decoded.first_guess, "decoded": decoded.images}
image_rows(rows)

# %% [markdown]
# How much is lost by the networks, how much in the brain? Give the generator the *true* latents:

# %%
true, layout = decoder.targets(test.images[:8], test.captions[:8]), decoder.layout_
latents = {kind: true[:, where].reshape(8, *layout.shapes[kind]) for kind, where in layout.columns.items()}
best = decoder.generate(latents, settings=FAKE_SETTINGS)
image_rows({"seen": test.images[:8], "from true latents": best.images, "from the brain": decoded.images})

# %% [markdown]
# ## One volume at a time
#
# The paper standardises predictions over the test set: a prediction then depends on the other test images, and a single
# volume cannot be decoded. With `standardize="loo"`, the default, it can, and nothing changes when others come:

# %%
together = decoder.predict(test.betas)["image"][3]
alone = decoder.predict(test.betas.select([3]))["image"][0]
print("the same to the last bit:", np.array_equal(together, alone))

# %% [markdown]
# ## Stages and regions
#
# R² of each kind of latent before standardisation (what is below -1 is drawn at -1), and which voxels the weights are
# in: "early" was driven by low-level features, "higher" by high-level ones.

# %%
raw = decoder.ridge_.ridge_.predict(decoder.scaler_.transform(test.betas))
all_true = decoder.targets(test.images, test.captions)
r2 = {kind: score_targets(all_true[:, where], raw[:, where]).r2 for kind, where in decoder.layout_.columns.items()}
stage_histograms({kind: np.clip(values[np.isfinite(values)], -1, 1) for kind, values in r2.items()})

# %%
region_bars(region_preference(voxel_weights(decoder.ridge_, decoder.layout_), study.rois))

# %% [markdown]
# ## Your own data
#
# `betas_from_bids` estimates responses from a BIDS folder; `open_study` reads NSD and THINGS-fMRI. The released
# networks are loaded by `VdvaeLatents.load` and `load_backend("versatile", ...)`, which also has the CLIP encoders. The
# whole pipeline with its report is `examples/neurodecode_brain_diffuser.py`; a real recording that fits on a laptop,
# `examples/neurodecode_haxby.py`.
