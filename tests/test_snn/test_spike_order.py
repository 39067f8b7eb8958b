"""The order of two spikes: balanced, without a hint but the order, and learned by delays only."""

import pytest
import torch

import snn
from neuroloaders import ResidentLoader
from snn.spike_order import spike_order


def test_classes_differ_in_nothing_but_the_order(generator):
    spikes, labels = spike_order(4000, n_steps=40, gap=(5, 9), generator=generator)
    assert spikes.shape == (4000, 40, 2)
    assert (spikes.sum(1) == 1).all()
    assert labels.bincount().tolist() == [2000, 2000]
    times = spikes.argmax(1)  # (N, 2): when each channel spikes
    gaps = times[:, 1] - times[:, 0]
    assert ((gaps > 0) == (labels == 0)).all()
    assert set(gaps.abs().tolist()) == {5, 6, 7, 8, 9}
    # The first spike, the second one and the gap are distributed alike in both classes.
    for values in (times.amin(1), times.amax(1), gaps.abs()):
        means = [values[labels == label].double().mean().item() for label in (0, 1)]
        assert means[0] == pytest.approx(means[1], abs=0.6)


def test_same_generator_same_spikes():
    first, again = (spike_order(50)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, spike_order(50, generator=torch.Generator().manual_seed(1))[0])


@pytest.mark.parametrize("gap", [(0, 3), (5, 4), (2, 30)])
def test_gaps_that_do_not_fit_are_refused(gap):
    with pytest.raises(ValueError, match="`gap` must"):
        spike_order(10, n_steps=30, gap=gap)


def solve(delays, seed):
    """Train the smallest network that can do it; return its accuracy on other spikes."""

    def loader(n, number, shuffle=False):
        spikes, labels = spike_order(n, generator=torch.Generator().manual_seed(number))
        return ResidentLoader(
            spikes, labels, batch_size=64, shuffle=shuffle, transform=lambda batch: batch.transpose(0, 1).float()
        )

    net = snn.models.delay_mlp(
        2,
        2,
        hidden=(8,),
        max_delay=16,
        delays=delays,
        tau=1.05,  # forgets at once
        readout="max",
        tail_steps=15,
        surrogate=snn.Surrogate(name="atan", alpha=5.0),
        generator=torch.Generator().manual_seed(seed),
    )
    schedule = snn.SigmaSchedule(epochs=10, start=3.0) if delays == "learned" else None
    for epochs, before_epoch in ((20, schedule), (10, None)):
        snn.fit(
            net,
            loader(1024, 1, shuffle=True),
            None,
            snn.TrainConfig(epochs=epochs, lr=1e-2, schedule="cosine", select="last", seed=seed),
            before_epoch=before_epoch,
            param_groups=lambda model: snn.delay_param_groups(model, lr=1e-2, delay_lr=0.05),
        )
        if delays == "learned":
            snn.fix_delays(net)
    return snn.evaluate(net, loader(1024, 2))["accuracy"]


def test_learned_delays_solve_it_and_no_delays_do_not():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert [solve("learned", seed) for seed in range(3)] == pytest.approx([1, 1, 1], abs=0.02)
        assert solve("none", 0) == pytest.approx(0.5, abs=0.05)
    finally:
        torch.set_num_threads(threads)
