"""Layers on sequences of different lengths: padding counts for nothing."""

import pytest
import torch
from tolerances import close

import snn
from snn.models import DELAYS, READOUTS, delay_mlp
from snn.sequence import SequenceBatchNorm, SequenceDropout, leaky_integrate, valid_steps

LENGTHS = torch.tensor([20, 13, 7, 1])


@pytest.fixture
def batch(generator):
    """Spikes of four samples, padded to the longest."""
    x = (torch.rand(20, 4, 6, generator=generator) < 0.3).double()
    return x * valid_steps(LENGTHS, 20)[..., None]


def test_statistics_are_those_of_what_is_no_padding(batch):
    norm, plain = SequenceBatchNorm(6).double(), torch.nn.BatchNorm1d(6).double()
    valid = valid_steps(LENGTHS, 20)
    got, want = norm(batch, valid), plain(batch[valid])
    close(got[valid], want)
    assert (got[~valid] == 0).all()
    close(norm.norm.running_mean, plain.running_mean)
    close(norm.norm.running_var, plain.running_var)


def test_without_lengths_padding_is_silence(batch):
    norm, plain = SequenceBatchNorm(6).double(), torch.nn.BatchNorm1d(6).double()
    close(norm(batch), plain(batch.flatten(0, 1)).view(batch.shape))


def test_gradients_of_masked_normalisation():
    norm = SequenceBatchNorm(2).double()
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    valid = valid_steps(torch.tensor([4, 2, 1]), 4)
    assert torch.autograd.gradcheck(lambda x: norm(x, valid), (x,))


def test_dropout_silences_channels_for_a_whole_sample():
    dropout = SequenceDropout(0.4)
    y = dropout(torch.ones(10, 50, 40))
    assert (y == y[:1]).all()
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert (y[0] == 0).float().mean().item() == pytest.approx(0.4, abs=0.05)
    assert torch.equal(dropout.eval()(y), y)


@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0])
def test_leaky_integration_is_the_recursion(generator, leak):
    x = torch.randn(12, 3, 2, generator=generator, dtype=torch.float64)
    v, want = torch.zeros(3, 2, dtype=torch.float64), []
    for step in x:
        v = leak * v + step
        want.append(v)
    close(leaky_integrate(x, leak), torch.stack(want))
    assert leaky_integrate(x[:0], leak).shape == (0, 3, 2)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("delays", DELAYS)
def test_a_sample_is_scored_the_same_in_any_batch(batch, readout, delays):
    net = delay_mlp(6, 3, hidden=(8, 5), max_delay=4, delays=delays, readout=readout, tail_steps=2).double()
    net(batch, LENGTHS)  # so that running statistics are somebody's
    net.eval()
    together = net(batch, LENGTHS)
    for b, n in enumerate(LENGTHS.tolist()):
        close(net(batch[:n, b : b + 1], LENGTHS[b : b + 1])[0], together[b])


@pytest.mark.parametrize("delays", DELAYS)
def test_step_by_step_is_the_whole_sequence(batch, delays):
    net = delay_mlp(6, 3, hidden=(8, 5), max_delay=4, delays=delays).double()
    net(batch)
    net.eval()
    state, v = None, []
    for x in batch:
        out, state = net.step(x, state)
        v.append(out)
    close(torch.stack(v), net.step_logits(batch))
    with pytest.raises(ValueError, match="evaluation mode"):
        net.train().step(batch[0])


def test_each_layer_lengthens_the_sequence_by_its_tail(batch):
    net = delay_mlp(6, 3, hidden=(8, 5), max_delay=25, tail_steps=12)
    assert net.step_logits(batch.float()).shape == (20 + 36, 4, 3)
    assert [len(spikes) for spikes in net.hidden_spikes(batch.float())] == [32, 44]


def test_readouts_by_hand():
    v = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]], [[9.0, 9.0]]])
    valid = torch.tensor([[[1.0]], [[1.0]], [[0.0]]])
    p, q = torch.tensor([1.0, 0.0]).softmax(0), torch.tensor([0.0, 3.0]).softmax(0)
    close(READOUTS["softmax_sum"](v, valid)[0], p + q)
    close(READOUTS["log_mean_softmax"](v, valid)[0], ((p + q) / 2).log())
    close(READOUTS["mean"](v, valid)[0], torch.tensor([0.5, 1.5]))
    close(READOUTS["max"](v, valid)[0], torch.tensor([1.0, 3.0]))


@pytest.mark.parametrize(
    ("hidden", "options", "count"),
    # Hammouamri et al. 2023: SHD; SSC with two and three layers, one and two kernels.
    [
        ((256, 256), {}, 214016),
        ((512, 512), {"n_classes": 35, "max_delay": 31}, 705536),
        ((512, 512), {"n_classes": 35, "max_delay": 31, "kernel_count": 2}, 1409024),
        ((512, 512, 512), {"n_classes": 35, "max_delay": 31}, 1230848),
        ((512, 512, 512), {"n_classes": 35, "max_delay": 31, "kernel_count": 2}, 2458624),
    ],
)
def test_parameters_are_as_many_as_in_the_paper(hidden, options, count):
    net = delay_mlp(140, hidden=hidden, **{"n_classes": 20, **options})
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == count


def test_the_same_generator_gives_the_same_network():
    first, again = (delay_mlp(6, 3, generator=torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_mistakes_are_named(batch):
    net = delay_mlp(6, 3, hidden=(4,))
    with pytest.raises(ValueError, match=r"`x` must have shape \(T, B, 6\)"):
        net(batch[..., :5].float())
    with pytest.raises(ValueError, match="`n_steps` must be whole numbers of shape"):
        net(batch.float(), LENGTHS[:2])
    with pytest.raises(ValueError, match=r"`n_steps` must lie in 0\.\.20"):
        net(batch.float(), LENGTHS + 5)
    with pytest.raises(ValueError, match="`delays` must be one of"):
        delay_mlp(6, 3, delays="some")
    with pytest.raises(ValueError, match="`tau` must be"):
        delay_mlp(6, 3, tau=1.0)
    assert snn.models.DelayMLP is type(net)
