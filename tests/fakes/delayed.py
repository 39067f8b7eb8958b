"""Small networks with delays in which no sum rounds, and spikes for them."""

import torch
from fakes.stepping import dyadic
from torch import nn

from snn import IF, LIF, PLIF, DelayConv1d, DelayConv2d, DelayLinear
from snn.models import delay_mlp
from snn.sequence import SequenceBatchNorm, SequenceDropout

T, B = 11, 6


def spikes(shape=(T, B, 5), rate=0.4, dtype=torch.float32, seed=1):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).to(dtype)


def exact(model, seed=3):
    """Weights, leak and normalisation are short binary fractions: no sum rounds, so spikes agree to the last one."""
    generator = torch.Generator().manual_seed(seed)
    dyadic(model, generator, 4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            # sqrt(1 + eps) is not exact, but multiplied in the same way everywhere.
            module.running_mean.copy_(torch.randint(-2, 3, module.running_mean.shape, generator=generator) / 4)
    return model.eval()


def build(tail_steps=0, hidden=(7, 8), tau=2.0, **options):
    generator = torch.Generator().manual_seed(5)
    options = {"max_delay": 4, "generator": generator, **options}
    model = delay_mlp(5, 3, hidden=hidden, tail_steps=tail_steps, tau=tau, v_threshold=0.5, dropout=0.3, **options)
    return exact(model)


# Name -> (function that builds the network, shape of a sample).
CHAINS = {
    "neurons": (lambda: nn.Sequential(nn.Linear(5, 8), LIF(2.0), nn.Linear(8, 6), IF(), nn.Linear(6, 3)), (5,)),
    "plif": (lambda: nn.Sequential(nn.Linear(5, 8), PLIF(4.0, v_reset=None), nn.Linear(8, 3)), (5,)),
    "delays": (
        lambda: nn.Sequential(
            DelayLinear(5, 8, 6, bias=True), SequenceBatchNorm(8), LIF(2.0), SequenceDropout(0.5), DelayLinear(8, 3, 3)
        ),
        (5,),
    ),
    "nested": (lambda: nn.Sequential(nn.Sequential(nn.Linear(5, 8), nn.Identity(), LIF()), nn.Linear(8, 3)), (5,)),
    "1d": (
        lambda: nn.Sequential(DelayConv1d(2, 4, 3, 5, padding=1), LIF(), nn.Flatten(2), nn.Linear(20, 3)),
        (2, 5),
    ),
    "2d": (
        lambda: nn.Sequential(DelayConv2d(2, 3, 3, 4), IF(v_threshold=0.5), nn.Flatten(2), nn.Linear(12, 3)),
        (2, 4, 4),
    ),
}
