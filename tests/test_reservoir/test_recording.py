"""What is kept of a run: in memory, on disk, within its bound; what a process costs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.caching import CacheImpl

from reservoir import Record, Recording, Reservoir, State, simulate
from reservoir.backends.kernel import compiled_loop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def net():
    return Reservoir(100, generator=0, delay_ms=2.0)


def assert_equal(one, other):
    for lane in range(one.n_lanes):
        for a, b in zip(one.spike_steps(lane), other.spike_steps(lane), strict=True):
            assert np.array_equal(a, b)
    assert one.traces.keys() == other.traces.keys()
    for name in one.traces:
        assert np.array_equal(one.traces[name], other.traces[name])
    assert np.array_equal(one.trace_ms(), other.trace_ms())
    assert np.array_equal(one.state.v, other.state.v)
    assert np.array_equal(one.state.recent, other.state.recent)


def test_recording_on_disk_equals_that_in_memory(net, tmp_path):
    options = {"traces": ("v", "i_syn"), "neurons": [3, 50], "every": 7}
    memory = simulate(net, 250.0, batch=2, record=Record(**options), chunk_steps=33)
    disk = simulate(net, 250.0, batch=2, record=Record(**options, path=tmp_path / "run"), chunk_steps=33)
    assert isinstance(disk.traces["v"], np.memmap)
    assert_equal(disk, memory)
    assert_equal(Recording.load(tmp_path / "run"), memory)
    memory.save(tmp_path / "copy")
    assert_equal(Recording.load(tmp_path / "copy"), memory)


def test_every_kth_step_is_that_of_the_full_trace(net):
    full = simulate(net, 100.0, record=Record(traces=("v", "u", "i_syn")))
    part = simulate(net, 100.0, record=Record(traces=("v", "u", "i_syn"), every=9, neurons=[4, 99]))
    for name in full.traces:
        assert np.array_equal(part.traces[name], full.traces[name][::9][:, :, [4, 99]])
    assert part.trace_ms().tolist() == list(range(0, 100, 9))


def test_traces_show_the_peak_of_each_spike(net):
    rec = simulate(net, 300.0, record=Record(traces=("v",)))
    assert np.array_equal(rec.traces["v"] >= 30.0, rec.to_dense())
    assert rec.traces["v"].max() == 30.0
    assert rec.to_dense().sum() > 50


def test_counts_rates_and_lists_agree(net):
    rec = simulate(net, 300.0, batch=2)
    dense = rec.to_dense()
    assert np.array_equal(dense.sum(0), rec.spike_counts())
    assert np.array_equal(dense.sum(2), rec.step_counts())
    assert np.allclose(rec.rates_hz(), dense.sum(0) / 0.3)
    t_ms, neurons = rec.spikes(1)
    assert np.array_equal(np.argwhere(dense[:, 1]), np.stack([t_ms, neurons], axis=1))


def test_only_the_spikes_asked_for_are_kept(net):
    full = simulate(net, 300.0)
    some = simulate(net, 300.0, record=Record(spikes="watched", neurons=[2, 60, 90]))
    mine = np.zeros(100, dtype=bool)
    mine[[2, 60, 90]] = True
    assert np.array_equal(some.to_dense(), full.to_dense() & mine)
    none = simulate(net, 300.0, record=Record(spikes="none"))
    with pytest.raises(ValueError, match=r"`record` must keep spikes"):
        none.spikes()


def test_recording_beyond_its_bound_is_refused_before_and_during_the_run(net):
    with pytest.raises(ValueError, match=r"`max_mb` must bound what is kept, got a recording of \d+ MB. Keep fewer"):
        simulate(net, 1e6, record=Record(traces=("v",), max_mb=10))
    with pytest.raises(ValueError, match=r"got a recording of \d+ MB by [\d.]+ ms. Keep fewer spikes"):
        simulate(net, 20_000.0, record=Record(max_mb=0.042))


def test_folder_that_is_in_use_or_not_complete_is_refused(net, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"`path` must be a new or an empty folder"):
        simulate(net, 10.0, record=Record(path=tmp_path))
    with pytest.raises(ValueError, match=r"it holds no complete recording"):
        Recording.load(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"it is no saved state"):
        State.load(tmp_path / "bad.npz")
    assert (tmp_path / "file").read_text() == "mine"


def test_interrupted_run_leaves_no_folder_that_looks_complete(net, tmp_path):
    with pytest.raises(ValueError, match=r"MB by"):
        simulate(net, 20_000.0, record=Record(max_mb=0.042, path=tmp_path / "run"))
    with pytest.raises(ValueError, match=r"it holds no complete recording"):
        Recording.load(tmp_path / "run")


def in_a_new_process(code, **env):
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LONG = """
import json, sys
from pathlib import Path
from reservoir import Record, Reservoir, simulate
def peak():
    (line,) = (l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
net = Reservoir(100, generator=0)
record = Record(traces=("v", "u", "i_syn"), neurons=range(10), every=100)
simulate(net, 1000.0, record=record)
before = peak()
recording = simulate(net, 1e6, record=record)
print(json.dumps([peak() - before, recording.traces["v"].shape, int(recording.spike_counts().sum())]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_million_steps_stay_below_50_mb():
    megabytes, shape, n_spikes = in_a_new_process(LONG)
    assert megabytes < 50
    assert shape == [10_000, 1, 10]
    assert n_spikes > 100_000


IMPORT = """
import json, sys
import reservoir
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_import_loads_no_simulator_and_no_plots():
    heavy = {"brian2", "matplotlib", "mne", "sklearn", "spikingjelly", "snntorch", "numba", "pandas"}
    assert set(in_a_new_process(IMPORT)) & heavy == set()


FIRST = """
import json, time
import reservoir
net = reservoir.Reservoir(200, generator=0)
reservoir.simulate(net, 1000.0)
print(json.dumps(time.process_time()))
"""


NO_TOOLS = {"PATH": ""}


def test_first_second_is_quick_once_compiled(net):
    """Processor time of the whole process, imports included: 2 s where nothing else runs on the core."""
    simulate(net, 1.0)
    assert in_a_new_process(FIRST, **NO_TOOLS) < 5


@pytest.mark.slow
def test_first_second_needs_no_compiler_and_little_time(tmp_path):
    """The same with nothing compiled yet: 8 s where nothing else runs on the core."""
    assert in_a_new_process(FIRST, **NO_TOOLS, NUMBA_CACHE_DIR=str(tmp_path)) < 20
    assert any(tmp_path.rglob("*.nbc"))


def test_installation_that_cannot_be_written_to_still_compiles(monkeypatch):
    """No folder for compiled code anywhere: numba refuses to cache, and the loop is compiled without."""
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match=r"no locator available"):
        numba.njit(cache=True)(in_a_new_process)
    loop = compiled_loop.__wrapped__(False, False, False)
    assert loop.stats.cache_path is None
