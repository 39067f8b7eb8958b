"""Figure 1 of Izhikevich 2007: of 80 000 plastic synapses the one whose coincidences are rewarded grows."""

import numpy as np
import pytest

from reservoir import Record, simulate
from reservoir.distal_reward import DistalReward, distal_reward_network
from reservoir.plasticity import Plasticity
from reservoir.rules import DopamineSTDP


def reinforce(seed, duration_ms, rewards=None):
    """Run the network with a synapse that starts at 0; its coincidences are rewarded, or others' rewards come."""
    net = distal_reward_network(generator=seed)
    watched = int(np.flatnonzero(net.wiring.post[:100] < 800)[0])
    net.wiring.weight[watched] = 0.0
    reward = DistalReward(0, int(net.wiring.post[watched]), generator=seed)
    how = {"on_spikes": reward, "every_ms": 1000.0} if rewards is None else {"rewards": rewards}
    plasticity = Plasticity(DopamineSTDP(), watch=[watched], watch_every=1000, **how)
    recording = simulate(net, duration_ms, plasticity=plasticity, seed=seed, record=Record(spikes="none"))
    synapses = recording.state.synapses
    others = synapses.weights()[synapses.is_plastic[0] != 0]
    return plasticity.weights[:, 0, 0], others, reward


def test_network_is_that_of_the_paper():
    net = distal_reward_network(generator=0)
    pre, post, weight = net.wiring.pre(), net.wiring.post, net.wiring.weight
    assert (np.bincount(pre) == 100).all()
    assert (post[pre >= 800] < 800).all()
    assert not (pre == post).any()
    assert len({*zip(pre.tolist(), post.tolist(), strict=True)}) == len(pre)
    assert np.array_equal(weight, np.where(pre < 800, 1.0, -1.0))
    assert np.bincount(post[pre < 800]).std() > 5
    rates = simulate(net, 2000.0, seed=0).rates_hz()[0]
    assert 0.5 < rates[:800].mean() < 5


def test_reward_comes_after_each_coincidence_and_after_nothing_else():
    reward = DistalReward(1, 2, generator=0)
    t_ms = np.array([5.0, 5.0, 10.0, 20.0, 21.0, 30.0, 30.0])
    neurons = np.array([1, 2, 2, 1, 3, 1, 2])
    found = reward(t_ms, neurons, 0)
    # 10 after 5; 30 is in the step of a spike before it, and the last one before was set by that.
    assert [time for time, _ in reward.coincidences] == [10.0]
    assert 1010 <= found[0][0] < 3010
    # Across calls, and lanes do not mix.
    assert reward(np.array([35.0]), np.array([2]), 1) == []
    assert len(reward(np.array([35.0]), np.array([2]), 0)) == 1


def test_shortest_and_longest_delay_are_checked():
    with pytest.raises(ValueError, match="`delay_ms` must be"):
        DistalReward(1, 2, delay_ms=(3000.0, 1000.0))


@pytest.mark.slow
def test_rewarded_synapse_grows_and_others_do_not():
    """Half an hour of four networks. Alone, six seeds of this gave 2.5 to 4 mV, the bound met by three; means of others
    0.34 to 0.48; the same synapse, rewarded at another network's times, at most 1.23.
    """
    highest, ends, rewards = [], [], None
    for seed in range(1, 5):
        course, others, reward = reinforce(seed, 1.8e6)
        highest.append(course.max())
        ends.append(course[-1])
        assert others.mean() < 0.6
        assert (others < course.max()).mean() > 0.99
        if rewards is not None:
            yoked, _, _ = reinforce(seed, 1.8e6, rewards)
            assert yoked.max() < 1.5
        rewards = [(time, 0.5) for time, _ in reward.rewards]
    assert np.mean(highest) > 3.4
    assert max(highest) == 4.0
    assert np.mean(ends) > 2.8
