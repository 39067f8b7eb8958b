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
# # Stop when sure
#
# A spiking network answers over time, and most of its answers are clear long before the last step. Dynamic Confidence
# ([Li, Jones & Furber, ICCV 2023](https://arxiv.org/abs/2303.10276)) ends each inference once the network is confident
# enough. First a network is needed: an ANN, made ready for spikes, and converted. Half a minute on a CPU.

# %%
import time

import torch

import snn
from neuroloaders import ResidentLoader, ToFloat, example_data
from snn.plots import exit_curve, exit_histogram, first_and_last, reliability_diagram

torch.set_num_threads(1)  # the network is small
train, test = example_data("digits")
train, valid = train.holdout(0.2, seed=0)
to_float = ToFloat(train.mean, train.std)


def loader(part, shuffle=False):
    """Batches of images (B, 1, 8, 8) and classes."""
    generator = torch.Generator().manual_seed(0)
    return ResidentLoader(
        part.images, part.labels, batch_size=64, shuffle=shuffle, transform=to_float, generator=generator
    )


x_valid, x_test = to_float(valid.images), to_float(test.images)

# %% [markdown]
# ## From an ANN to spikes
#
# Train with ReLU, put quantised activations in place of it (QCFS: clip, and round to eight levels), train a little
# more, convert. A neuron fires at a rate that is the activation; where spikes come too late, or too often, the
# conversion has an error, which shrinks as time goes on. `conversion_errors` says in which layer.

# %%
ann = snn.models.vgg(
    5, 10, in_shape=(1, 8, 8), width=0.25, classifier=(256,), generator=torch.Generator().manual_seed(0)
)
config = snn.TrainConfig(epochs=12, lr=2e-3, schedule="onecycle", schedule_every="step")
snn.fit(ann, loader(train, shuffle=True), loader(valid), config)
quantised = snn.quantise_activations(ann, levels=8, x=to_float(train.images[:512]))
snn.fit(quantised, loader(train, shuffle=True), loader(valid), config)

network = snn.ann_to_snn(quantised, n_steps=24)
print(f"with ReLU {snn.evaluate(ann, loader(test))['accuracy']:.2%}")
print(f"with QCFS {snn.evaluate(quantised, loader(test))['accuracy']:.2%}")
print(f"as spikes {snn.evaluate(network, loader(test))['accuracy']:.2%} after {network.n_steps} steps\n")
print(snn.conversion_errors(quantised, network, x_test))

# %% [markdown]
# ## When may it stop?
#
# On validation data: a temperature, how often answers of each confidence are right, so that 90 % means right in 90 % of
# the cases, and a threshold, the cheapest that loses at most 0.1 points of accuracy.

# %%
decide = snn.DynamicConfidence(network, n_steps=24).fit(x_valid, valid.labels, max_drop=0.001)
print(decide)
exits = decide.predict(x_test)
print(exits)
evaluation = decide.evaluate(x_test, test.labels)
print(evaluation)

# %%
points = decide.curve(x_test, test.labels)
_ = exit_curve(evaluation, points=points, pareto=decide.pareto)

# %% [markdown]
# Some classes are easier than others, and some images:

# %%
_ = exit_histogram(exits, test.labels)

# %%
_ = first_and_last(test.images, exits, test.labels)

# %% [markdown]
# Is it as sure as it is right? As the logits are, with a temperature of 1, it was not:

# %%
before = decide.reliability(x_test, test.labels, alpha=1.0)
_ = reliability_diagram(before, decide.reliability(x_test, test.labels))

# %% [markdown]
# ## What it saves
#
# Samples that leave are taken out of the batch, so steps that are not needed take no time, and no energy. (The smaller
# a network, the more of its time goes into calling its layers, and the less is saved; larger ones are timed in
# `examples/benchmarks/RESULTS.md`.)

# %%
everything = snn.DynamicConfidence(network, 24, decide.alpha_, threshold=1.0)
took = {}
for name, rule in {"all 24 steps": everything, "until sure": decide}.items():
    rule.predict(x_test)
    start = time.perf_counter()
    rule.predict(x_test)
    took[name] = time.perf_counter() - start
    energy = snn.energy_report(rule, x_test).energy_pj / 1e3
    print(f"{name:12}  {1000 * took[name]:6.1f} ms for {len(x_test)} images  {energy:6.1f} nJ an image")
print(f"\n{24 / exits.mean_steps:.2f} times fewer steps, {took['all 24 steps'] / took['until sure']:.2f} times faster")

# %% [markdown]
# ## Live
#
# `anytime` gives the running answer of a batch. It may be broken off at any moment.

# %%
hard = int(exits.steps.argmax())
for check, sure in decide.anytime(x_test[hard : hard + 1]):
    label, confidence = int(check.labels), float(check.confidence)
    print(f"step {check.step:2}: {label}, {confidence:4.0%} sure{'  <- the answer' if sure else ''}")
    if sure:
        break
print(f"it is a {int(test.labels[hard])}")

# %% [markdown]
# ## Any network over time
#
# A network of spikingjelly, of snntorch, or a function of one step does as well: `snn.as_stepper` lists what is known.
# Other rules have names, too: the entropy of the answer, the margin to the second, or patience, how long the answer has
# been the same.

# %%
for criterion in ("confidence", "entropy", "margin", "patience"):
    other = snn.DynamicConfidence(network, 24, criterion=criterion).fit(x_valid, valid.labels, max_drop=0.001)
    result = other.evaluate(x_test, test.labels)
    print(f"{criterion:10}  {result.accuracy.value:.2%} after {result.mean_steps.value:5.2f} steps")

# %% [markdown]
# Next: `python examples/snn_dynamic_confidence.py` does this on MNIST and on spoken digits, over three seeds.
