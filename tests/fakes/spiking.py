"""Small spiking networks that the energy of an inference is counted on by hand."""

import torch
from torch import nn

from snn.models import vgg


class IF(nn.Module):
    """Stand-in neuron: integrate and fire with spikes of a given height, time folded into the batch."""

    def __init__(self, threshold=0.5, n_steps=1, repeat_input=False, height=1.0):
        super().__init__()
        self.threshold, self.n_steps, self.repeat_input, self.height = threshold, n_steps, repeat_input, height

    def forward(self, x):
        currents = x.unsqueeze(0).expand(self.n_steps, *x.shape)
        if not self.repeat_input:
            currents = x.reshape(self.n_steps, x.shape[0] // self.n_steps, *x.shape[1:])
        v, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            v = v + current
            spikes.append((v > self.threshold).to(v.dtype))
            v = v - self.threshold * spikes[-1]
        return self.height * torch.cat(spikes)


class Unfolded(nn.Module):
    """The same neuron on [T, B, ...]."""

    def forward(self, x):
        neuron = IF(n_steps=x.shape[0])
        return neuron(x.flatten(0, 1)).reshape(x.shape)


class Stateful(nn.Module):
    """The same neuron for one step a call, spikingjelly's way: state until ``reset``."""

    def __init__(self):
        super().__init__()
        self.reset()

    def reset(self):
        self.v = None

    def forward(self, x):
        v = x if self.v is None else self.v + x
        spikes = (v > 0.5).to(x.dtype)
        self.v = v - 0.5 * spikes
        return spikes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=6, shape=(1, 8, 8)):
    return torch.rand(batch, *shape, generator=seeded(1))


def spiking(model, n_steps, height=1.0):
    for name in model.activation_names:
        level = 0.001 if name.startswith("classifier") else 0.1
        first = name == model.first_activation
        model.set_submodule(name, IF(level, repeat_input=first, height=height))
    model.n_steps = n_steps
    return model


def digits(n_steps=4, **options):
    model = vgg(5, 10, in_shape=(1, 8, 8), width=1 / 16, generator=seeded(), dtype=torch.float64)
    return spiking(model, n_steps, **options)


def fixed(layer, value):
    nn.init.constant_(layer.weight, value)
    return layer


def drawn(model, seed=0):
    """Weights between -0.5 and 0.5, the same in every run."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    return model
