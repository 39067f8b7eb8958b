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
# # Which of two spikes came first?
#
# Two neurons spike once each, ten steps apart. Their order is the class. A neuron that forgets within a few steps never
# hears the two spikes together, so a network of such neurons cannot tell the classes apart, unless the first spike is
# held back until the second one is there. Axons do that. Here synapses learn by how much
# ([Hammouamri et al., ICLR 2024](https://arxiv.org/abs/2306.17670)). Half a minute on a CPU.

# %%
import time

import torch

import snn
from neuroloaders import ResidentLoader
from snn.plots import delay_histogram, delay_matrix, delayed_raster, raster, sigma_history
from snn.spike_order import spike_order

torch.set_num_threads(1)  # the networks are tiny
spikes, labels = spike_order(1024, n_steps=50, gap=(10, 10))


def loader(n_samples, seed, shuffle=False):
    """Batches of spikes [T, B, C] and classes."""
    spikes, labels = spike_order(n_samples, generator=torch.Generator().manual_seed(seed))
    return ResidentLoader(
        spikes, labels, batch_size=64, shuffle=shuffle, transform=lambda batch: batch.transpose(0, 1).float()
    )


train, valid, test = loader(1024, 1, shuffle=True), loader(256, 2), loader(1024, 3)

# %% [markdown]
# One sample of each class: neuron 0 first, neuron 1 first.

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(8, 2), layout="constrained", sharey=True)
for ax, label in zip(axes, (0, 1), strict=True):
    raster(spikes[labels == label][0], ax=ax)
    ax.set_title(f"class {label}")


# %% [markdown]
# ## A network without delays
#
# Eight hidden neurons with a time constant of 1.05 steps, and a readout that looks at its largest membrane potential.


# %%
def network(delays):
    return snn.models.delay_mlp(
        2, 2,
        hidden=(8,),
        max_delay=16,  # steps; delays of 0 to 15
        delays=delays,
        tau=1.05,
        readout="max",
        tail_steps=15,  # listen until everything has arrived
        surrogate=snn.Surrogate(name="atan", alpha=5.0),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


def learn(net, epochs, **hooks):
    config = snn.TrainConfig(epochs=epochs, lr=1e-2, schedule="cosine", select="last")
    groups = {"param_groups": lambda model: snn.delay_param_groups(model, lr=1e-2, delay_lr=0.05)}
    return snn.fit(net, train, valid, config, **groups, **hooks)


without = network("none")
learn(without, 20)
print(f"without delays: {snn.evaluate(without, test)['accuracy']:.1%} of the test samples; chance is 50 %")

# %% [markdown]
# ## A network that learns its delays
#
# While a delay is learned, the synapse is a bump in time around it, wide at first so that it hears much and knows where
# to move, then narrower (`SigmaSchedule`). In the end `fix_delays` makes every delay a whole step, and the weights get
# a few more epochs on the very network that evaluation runs.

# %%
net = network("learned")
first = net.layers[0]
before = first.delay.detach().clone()
shrink = snn.SigmaSchedule(epochs=10, start=3.0)
history = learn(net, 20, before_epoch=shrink)
snn.fix_delays(net)
more = learn(net, 10)
print(f"learned delays: {snn.evaluate(net, test)['accuracy']:.1%}")

# %%
_ = sigma_history(snn.History(history.rows + more.rows, history.monitor), shrink, max_delay=16, fixed_from=20)

# %% [markdown]
# ## What was learned
#
# Delays before and after; then each synapse's delay as colour, as large as it is strong.

# %%
_ = delay_histogram(before, first)

# %%
_ = delay_matrix(first)

# %% [markdown]
# The hidden neuron whose two delays differ by what is nearest to the gap, and a sample of each class. Where both lines
# end together, both spikes arrive at once, because the longer delay belongs to the earlier spike. If both excite, the
# neuron fires then, and only then; if one inhibits, it cancels the other, and the neuron fires for the other order.

# %%
delays = snn.delays_in_steps(first)[..., 0]
neuron = int(((delays[:, 0] - delays[:, 1]).abs() - 10).abs().argmin())
print(f"neuron {neuron}: delays {delays[neuron].tolist()}; the gap is 10 steps")
net.eval()
for label in (0, 1):
    sample = spikes[labels == label][:1].transpose(0, 1).float()
    _ = delayed_raster(sample[:, 0], first, neuron, net.hidden_spikes(sample)[0][:, 0, neuron])

# %% [markdown]
# ## Many ways to compute it, one result
#
# In evaluation each synapse is one tap. The layer picks a path and says which; every path gives the same.

# %%
layer = snn.DelayLinear(140, 256, max_delay=25).eval()
x = (torch.rand(100, 32, 140, generator=torch.Generator().manual_seed(0)) < 0.05).float()
with torch.no_grad():
    results = {}
    for backend in ("dense", "fft", "discrete", "packed", "event"):
        layer.backend = backend
        layer(x)
        start = time.perf_counter()
        results[backend] = layer(x)
        took = 1000 * (time.perf_counter() - start)
        difference = (results[backend] - results["dense"]).abs().max().item()
        print(f"{backend:9} {took:6.1f} ms   largest difference from dense {difference:.1e}")
    state, steps = None, []
    for step in x:
        y, state = layer.step(step, state)  # one step at a time, for live use
        steps.append(y)
    print(f"step by step               largest difference {(torch.stack(steps) - results['dense']).abs().max():.1e}")
    layer.backend = "auto"
    layer(x)
    print(f"\nauto picked {layer.last_choice.path!r}: {layer.last_choice.reason}")

# %% [markdown]
# Next: `python examples/snn_delays.py` compares learned, fixed and no delays on spoken digits; `snn.DelayLinear?` lists
# the options (shared delays, several synapses a pair, milliseconds).
