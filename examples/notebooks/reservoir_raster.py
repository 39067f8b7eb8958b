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
# # Watch a network fire
#
# A thousand model neurons, each a pair of equations ([Izhikevich 2003](https://doi.org/10.1109/TNN.2003.820440)): when
# its membrane potential reaches 30 mV, a neuron *spikes* and sends a short current to all others. Four fifths excite,
# one fifth inhibit. A *raster* shows it all: a dot for each spike, time to the right, a row for each neuron. Here it
# grows while the network runs. Some seconds on a CPU; nothing need be known beforehand.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

from reservoir import Izhikevich, Population, Reservoir, Stimulus, Synapse, simulate
from reservoir.stimulus import Pulse


def excitatory(n, rng):
    """Neurons between regular spiking and chattering, most of them near the first."""
    q = rng.random(n) ** 2
    return Izhikevich(a=np.full(n, 0.02), b=np.full(n, 0.2), c=-65 + 15 * q, d=8 - 6 * q)


def inhibitory(n, rng):
    """Neurons between fast spiking and low-threshold spiking."""
    q = rng.random(n)
    return Izhikevich(a=0.02 + 0.08 * q, b=0.25 - 0.05 * q, c=np.full(n, -65.0), d=np.full(n, 2.0))


def network(strength=1.0):
    """All connected to all, as in the paper; `strength` multiplies every synapse."""
    size = np.sqrt(1000) * strength
    one_step = Synapse(0.0)  # the current of a spike lasts one millisecond
    return Reservoir(
        1000,
        p_connect=1.0,
        populations={
            "E": Population(size=800, neuron=excitatory, gain=0.25 * size, synapse=one_step, noise=5.0),
            "I": Population(size=200, neuron=inhibitory, sign=-1, gain=0.5 * size, synapse=one_step, noise=2.0),
        },
        v_min=None,
        generator=0,
    )


net = network()
print(net)

# %% [markdown]
# ## Live
#
# `simulate` returns a recording whose `state` is where it ended. Give it back, and the run goes on as if it had never
# stopped; so a network can be watched, or steered, piece by piece. The display below is made once and updated with each
# piece. Stop the cell whenever you like.


# %%
class LiveRaster:
    """A raster that grows: dots above, how many spikes there were in each millisecond below."""

    def __init__(self, n_neurons, n_excite, duration_ms):
        self.figure, (self.above, self.below) = plt.subplots(
            2, figsize=(7, 4.6), height_ratios=[3, 1], sharex=True, layout="constrained"
        )
        self.above.set(xlim=(0, duration_ms), ylim=(0, n_neurons), ylabel="neuron")
        self.above.axhline(n_excite, color="#D55E00", linewidth=1)
        self.below.set(xlabel="time (ms)", ylabel="spikes a ms", ylim=(0, 120))
        (self.line,) = self.below.plot([], [], color="#0072B2", linewidth=0.9)
        self.times, self.counts = [], []
        plt.close(self.figure)  # shown by the display only
        self.handle = display(self.figure, display_id=True)

    def add(self, recording):
        """Draw another piece, and show it."""
        t_ms, neurons = recording.spikes()
        self.above.plot(t_ms, neurons, ".", color="black", markersize=1.5, markeredgewidth=0)
        steps = recording.step + np.arange(recording.n_steps)
        self.times += (steps * recording.dt_ms).tolist()
        self.counts += recording.step_counts()[:, 0].tolist()
        self.line.set_data(self.times, self.counts)
        # There is no display to update where this is run as a script.
        if self.handle is not None:
            self.handle.update(self.figure)


def watch(net, duration_ms, piece_ms=25.0, stimulus=None, state=None):
    """Run piece by piece, and draw each one; return rates and the last state."""
    live, rates = LiveRaster(net.n, 800, duration_ms), []
    start = 0.0 if state is None else state.step * net.dt_ms
    live.above.set_xlim(start, start + duration_ms)
    for number in range(round(duration_ms / piece_ms)):
        now = Stimulus(piece_ms) if stimulus is None else stimulus(number * piece_ms, piece_ms)
        recording = simulate(net, now, state=state, seed=1 if state is None else None)
        state = recording.state
        rates.append(recording.rates_hz()[0])
        live.add(recording)
    return np.mean(rates, axis=0), state


began = time.perf_counter()
rates, state = watch(net, 1500.0)
print(f"E {rates[:800].mean():.1f} Hz, I {rates[800:].mean():.1f} Hz, {time.perf_counter() - began:.0f} s with drawing")

# %% [markdown]
# No neuron oscillates by itself, and the input is noise. The vertical stripes are rhythms that the network makes: about
# ten times a second (alpha), and about forty times (gamma).
#
# ## Without synapses
#
# The same neurons and the same noise, with synapses at a tenth of their strength: the stripes go.

# %%
weak, _ = watch(network(0.1), 500.0)
print(f"E {weak[:800].mean():.1f} Hz, I {weak[800:].mean():.1f} Hz")

# %% [markdown]
# ## Poke it
#
# The first network goes on from where it was, and every quarter of a second a current of 4 drives its first 200
# neurons for 20 ms. Watch all others join in, those that inhibit too (above the line), and the silence that follows.


# %%
def pokes(start_ms, length_ms, every_ms=250.0):
    """The input of a piece: a pulse if one begins in it."""
    pulse = np.where(np.arange(1000) < 200, 4.0, 0.0)
    begins = start_ms % every_ms == 100.0
    return Stimulus(length_ms, pulses=[Pulse(0.0, 20.0, pulse)] if begins else [])


_, state = watch(net, 750.0, stimulus=pokes, state=state)
print(f"at {state.step * net.dt_ms:.0f} ms")

# %% [markdown]
# ## Is a run in pieces the same run?
#
# To the last bit: noise belongs to the step, not to the call.

# %%
whole = simulate(net, 200.0, seed=1)
first = simulate(net, 120.0, seed=1)
rest = simulate(net, 80.0, state=first.state)
pieces = np.concatenate([first.spikes(), rest.spikes()], axis=1)
print("the same spikes:", np.array_equal(whole.spikes(), pieces))

# %% [markdown]
# Next: `strength` between 0.1 and 1 (where do the stripes begin?); `python examples/reservoir_izhikevich_2003.py`
# measures the rhythms over twenty networks; `examples/reservoir_what_when.py` lets one learn.
