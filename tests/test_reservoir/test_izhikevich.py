"""Single neurons: published spike times and counts, schemes, presets, guards."""

import numpy as np
import pytest

from reservoir import Izhikevich, Record, Reservoir, initial_state, simulate
from reservoir.cells import PRESETS
from reservoir.patterns import PATTERNS, run_pattern
from reservoir.samplers import SAMPLERS

# Spike times in ms of figure1.m (Izhikevich 2004), from a port of its statements to C.
TIMES = {
    "A": [13, 17, 31.5, 59.25, 86.75],
    "B": [43.75],
    "D": [39, 42.8, 47, 51.8, 57.6, 67.2],
    "E": [20, 22.75, 27.25, 67, 99.25, 131.5],
    "F": [10.25, 12.25, 15, 19.75, 42.5, 71.5],
    "G": [84.5, 125, 155.75, 181, 203.5, 223.75, 242, 259.25, 275.5, 290.5],
    "H": [105.75, 126.5, 145.25, 162.25, 178, 192.75, 206.75, 220.5, 233.75, 246.5, 258.75, 271, 282, 293],
    "I": [26.6],
    "J": [26.5],
    "K": [338.0],
    "L": [20.0],
    "M": [68.0],
    "N": [68, 71, 74.2, 77.8, 81.8, 86.4, 92.2],
    "O": [93.25],
    "P": [45.25, 86, 126.5, 167.25, 208],
    "Q": [11.3],
    "R": [311.5],
    "S": [94.5, 166, 236],
    "T": [86.5, 88.5, 90.5, 93, 95.5, 98.5, 103, 191.5, 194, 196.5, 199.5, 204],
}
BURSTS = [25, 26.5, 28.25, 30, 32, 34, 36.25, 38.75], [193.25, 197, 204.5]


@pytest.mark.parametrize("letter", TIMES)
def test_pattern_spikes_at_the_published_times(letter):
    assert run_pattern(letter).spikes()[0].round(6).tolist() == TIMES[letter]


def test_tonic_bursting_has_the_published_bursts():
    times = run_pattern("C").spikes()[0].round(6).tolist()
    assert (len(times), times[:8], times[-3:]) == (28, *BURSTS)


def test_every_pattern_is_compared():
    assert {*TIMES, "C"} == set(PATTERNS)


@pytest.mark.parametrize("letter", [*TIMES, "C"])
def test_pattern_in_float32_is_at_most_a_step_off(letter):
    """Class 2 (H) sits at its bifurcation, where rounding shifts a spike to a later turn of the oscillation."""
    single, double = run_pattern(letter, dtype="float32").spikes()[0], run_pattern(letter).spikes()[0]
    assert len(single) == len(double)
    assert np.abs(single - double).max() <= PATTERNS[letter].dt_ms * (6 if letter == "H" else 1) * 1.001


@pytest.mark.parametrize(("letter", "count"), {"C": 29, "D": 7, "H": 16, "N": 11, "P": 7, "Q": 4, "S": 4}.items())
def test_consistent_euler_gives_other_counts(letter, count):
    """The negative control: the scheme does switch. The counts are known from the same port to C."""
    assert len(run_pattern(letter, scheme="euler").spikes()[0]) == count != len(run_pattern(letter).spikes()[0])


# Kind: duration in ms, then step current in pA: number of spikes, first spike in ms, first intervals in ms.
# From a port of izhi2007.m (ModelDB 39948), whose times are those of the end of the step.
CELLS = {
    "RS": (520, {60: (2, 173, []), 70: (3, 100.75, []), 85: (5, 64.5, [100.25]), 100: (7, 48.75, [73.75])}),
    "IB": (600, {290: (0,), 370: (3, 36.75, []), 500: (8, 21.25, [17, 84.75]), 550: (9, 18.75, [14, 28.75])}),
    "CH": (210, {200: (5,), 300: (9, 8, [3.5, 6.5, 51.25]), 400: (12,), 600: (22,)}),
    "LTS": (320, {100: (1,), 125: (4,), 200: (9,), 300: (21, 12, [12.25])}),
    "FS": (100, {73.2: (2, 19.25, []), 100: (4,), 200: (8,), 400: (13,)}),
    "TC": (650, {50: (3,), 100: (11,), 150: (17,)}),
    "RTN": (650, {50: (4,), 70: (6,), 110: (11,)}),
}


def run_cell(kind, current, dt_ms=0.25):
    net = Reservoir.from_edges(1, [], [], [], Izhikevich(kind, form="2007"), dt_ms=dt_ms, v_min=None)
    return simulate(net, np.asarray(current, dtype=float)[:, None], state=initial_state(net, u=0.0))


@pytest.mark.parametrize("kind", CELLS)
def test_cell_of_2007_has_the_published_counts(kind):
    duration, cases = CELLS[kind]
    for current, (count, *rest) in cases.items():
        times = run_cell(kind, np.full(duration * 4, current)).spikes()[0] + 0.25
        assert len(times) == count, current
        if rest:
            assert times[0] == rest[0]
            assert np.diff(times)[: len(rest[1])].tolist() == rest[1]


def test_every_cell_of_2007_is_compared():
    assert set(CELLS) == set(PRESETS["2007"])


@pytest.mark.parametrize(
    ("kind", "hold", "after", "counts"), [("TC", -1200, (0, 50, 100), (6, 11, 18)), ("RTN", -350, (30, 50), (3, 6))]
)
def test_thalamic_cells_burst_after_hyperpolarisation(kind, hold, after, counts):
    for current, count in zip(after, counts, strict=True):
        drive = np.concatenate([np.full(480, hold), np.full(2600, current)])
        assert len(run_cell(kind, drive).spikes()[0]) == count


def test_fast_spiking_cell_has_the_cubic_recovery():
    """Below the bend u decays alone: u' = -a u, in steps of Euler."""
    net = Reservoir.from_edges(1, [], [], [], Izhikevich("FS", form="2007"), dt_ms=0.25)
    rec = simulate(net, 10.0, state=initial_state(net, v=-56.0, u=20.0), record=Record(traces=("u",)))
    assert np.allclose(rec.traces["u"][:, 0, 0], 20.0 * (1 - 0.2 * 0.25) ** np.arange(1, 41), rtol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_stays_in_its_published_range(name):
    neuron = SAMPLERS[name](500, np.random.default_rng(0))
    p = neuron.per_neuron(500)
    if name == "inhibitory":
        assert ((p["a"] >= 0.02) & (p["a"] < 0.1) & (p["b"] > 0.2) & (p["b"] <= 0.25)).all()
        assert np.allclose((p["a"] - 0.02) / 0.08, (0.25 - p["b"]) / 0.05)
    else:
        assert ((p["c"] >= -65) & (p["c"] < -50) & (p["d"] > 2) & (p["d"] <= 8)).all()
        assert np.allclose((p["c"] + 65) / 15, (8 - p["d"]) / 6)
        assert (np.std(p["a"]) > 0) == (name == "excitatory")


def test_spike_far_below_the_stable_range_is_held_and_counted():
    """A half step of 1 ms from -140 mV overshoots into a spurious spike; the bound of v stops that."""
    drive = np.full((60, 1), -300.0)
    neuron = Izhikevich("RS")
    free = simulate(Reservoir.from_edges(1, [], [], [], neuron, v_min=None), drive)
    assert free.spike_counts().sum() > 0
    assert free.clamped.tolist() == [0]
    with pytest.warns(UserWarning, match=r"v was held at v_min = -100 mV \d+ times"):
        held = simulate(Reservoir.from_edges(1, [], [], [], neuron), drive)
    assert held.spike_counts().sum() == 0
    assert 60 < held.clamped[0] <= 120


def test_parameters_that_are_missing_or_foreign_are_refused():
    with pytest.raises(ValueError, match=r"`d` must be given, or `kind`, got neither"):
        Izhikevich(a=0.02, b=0.2, c=-65.0)
    with pytest.raises(ValueError, match=r"`capacitance` must be left out in the '2003' form"):
        Izhikevich("RS", capacitance=100.0)
    with pytest.raises(ValueError, match=r"`kind` must be one of 'RS', 'IB'"):
        Izhikevich("XX")
    with pytest.raises(ValueError, match=r"the same number each"):
        Izhikevich("RS", c=[1.0, 2.0], d=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"hold finite numbers"):
        Izhikevich("RS", c=[1.0, np.nan])
