"""The loader of windows: order, shares, scaling, masks, targets, and the same batches from the disk."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from fakes.windows import events_of, recording, study
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import close

from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recording_files import open_recordings, save_recording
from neuroloaders.recordings import RecordingSet
from neuroloaders.robust_scaler import robust_scale
from neuroloaders.window_gather import GATHERS
from neuroloaders.window_layout import BAD_CHANNELS, OUTSIDE, REPEATED
from neuroloaders.window_loader import SCALES, WindowLoader
from neuroloaders.window_targets import StimulusFeatures, StimulusSequences

WINDOW = {"tmin": -0.5, "tmax": 1.0}


@pytest.fixture(scope="module")
def recordings():
    return study()


@pytest.fixture(scope="module")
def events(recordings):
    return events_of(recordings)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for name, x, y in zip(a._fields, a, b, strict=True):
            assert (x is None and y is None) or (x.dtype == y.dtype and torch.equal(x, y)), name


def test_batches_hold_the_windows_of_their_events(recordings, events):
    loader = WindowLoader(recordings, events, **WINDOW, batch_size=8, shuffle=True, labels="stimulus")
    assert (loader.n_samples, loader.n_channels, loader.n_times, len(loader)) == (21, 5, 181, 3)
    seen = []
    for batch in loader:
        for x, r, subject, row, mask, label in zip(batch.x, *batch[1:5], batch.label, strict=True):
            one = recordings[int(r)]
            assert events.recording[row] == one.name
            assert recordings.subjects[subject] == one.subject
            first = round((events.start[row] - one.start) * 120) - 60
            assert np.array_equal(x[: one.n_channels], one.data[:, first : first + 181])
            assert not x[one.n_channels :].any()
            assert mask.tolist() == [c < one.n_channels for c in range(5)]
            assert loader.classes[label] == events.stimulus[row]
            seen.append(int(row))
    assert sorted(seen) == list(range(21))
    assert seen != list(range(21))
    assert loader.n_gathers == 3
    assert loader.backend == "numba"


def test_global_random_state_is_not_touched(recordings, events, global_rng_untouched):
    before = np.random.get_state()[1].copy()
    list(WindowLoader(recordings, events, **WINDOW, shuffle=True, scale="robust"))
    assert np.array_equal(before, np.random.get_state()[1])


@settings(max_examples=25, deadline=None)
@given(
    world_size=st.integers(1, 5),
    batch_size=st.integers(5, 12),
    by_recording=st.booleans(),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_shares_of_the_ranks_are_the_batch_of_one(world_size, batch_size, by_recording, shuffle, epoch):
    recordings = study()
    options = {"batch_size": batch_size, "by_recording": by_recording, "shuffle": shuffle, "baseline": (None, 0)}
    options["labels"] = "stimulus"
    table = events_of(recordings)

    def loader(**more):
        return WindowLoader(recordings, table, **WINDOW, **options, **more, generator=generator(3))

    whole = list(loader().batches(epoch))
    shares = [list(loader(rank=r, world_size=world_size).batches(epoch)) for r in range(world_size)]
    assert {len(share) for share in shares} == {len(whole)} == {len(loader())}
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        sizes = [len(part.event) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        for name in ("x", "event", "recording", "label", "channels"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
        if by_recording:
            assert len(set(batch.recording.tolist())) == 1
    assert sorted(torch.cat([batch.event for batch in whole]).tolist()) == list(range(21))


def test_epoch_goes_on_where_it_was_left(recordings, events):
    for by_recording in (False, True):
        loader = WindowLoader(
            recordings, events, **WINDOW, batch_size=4, shuffle=True, by_recording=by_recording, generator=generator(1)
        )
        same(list(loader.batches(2))[2:], loader.batches(2, start=2))
        orders = [torch.cat([batch.event for batch in loader]).tolist() for _ in range(2)]
        assert orders[0] != orders[1]


def test_small_batches_are_left_out_if_asked(recordings, events):
    options = {"batch_size": 4, "drop_last": True}
    assert len(WindowLoader(recordings, events, **WINDOW, **options)) == 5
    loader = WindowLoader(recordings, events, **WINDOW, **options, by_recording=True)
    assert [len(batch.event) for batch in loader] == [4, 4, 4]
    with pytest.raises(ValueError, match=r"`batch_size`.*at most 7"):
        WindowLoader(recordings, events, **WINDOW, batch_size=8, drop_last=True, by_recording=True)


@pytest.mark.parametrize("limit", [None, 0, 10**9])
def test_batches_from_the_disk_are_those_from_memory(tmp_path, recordings, events, limit):
    for one in recordings:
        save_recording(one, tmp_path)
    features = StimulusFeatures(["cat", "dog", "owl"], np.eye(3, dtype=np.float32))
    options = {**WINDOW, "baseline": (None, 0), "clamp": 2.0, "shuffle": True, "batch_size": 5, "targets": features}
    options["scale"] = WindowLoader(recordings, events, **WINDOW, baseline=(None, 0)).fit_scaler()
    memory = WindowLoader(recordings, events, **options)
    disk = WindowLoader(open_recordings(tmp_path), events, **options, max_device_bytes=limit)
    assert memory.is_resident
    assert disk.is_resident == (limit == 10**9)
    same(memory, disk)
    stopped = iter(disk)
    next(stopped)
    stopped.close()
    assert not [thread for thread in threading.enumerate() if "prefetch" in thread.name]


@pytest.mark.parametrize("backend", sorted(GATHERS))
def test_backends_agree_and_tell_which_ran(recordings, events, backend):
    options = {**WINDOW, "baseline": (-0.2, 0), "scale": "robust", "clamp": 1.5, "bad_channels": "keep"}
    loader = WindowLoader(recordings, events, **options, backend=backend, batch_size=6)
    plain = WindowLoader(recordings, events, **options, backend="plain", batch_size=6)
    for got, want in zip(loader, plain, strict=True):
        close(got.x, want.x)
    assert loader.backend == backend
    assert loader.n_gathers == 4


# --- scaling -------------------------------------------------------------------------------------------------------


def test_scaler_is_fitted_after_the_baseline_on_each_recording_alone(recordings, events):
    loader = WindowLoader(recordings, events, **WINDOW, baseline=(None, 0))
    scaler = loader.fit_scaler()
    for number, one in enumerate(recordings):
        rows = np.flatnonzero(loader.events.recording == one.name)
        x = loader.windows(rows).x[:, : one.n_channels].numpy()
        center, scale = robust_scale(x.transpose(0, 2, 1).reshape(-1, one.n_channels))
        got = scaler.of(one.name, one.ch_names)
        assert np.array_equal(got[0], center)
        assert np.array_equal(got[1], scale)
        alone = WindowLoader(recordings, events.where(recording=one.name), **WINDOW, baseline=(None, 0))
        assert np.array_equal(
            alone.fit_scaler(n_windows=3).scale[one.name], loader.fit_scaler(n_windows=3).scale[one.name]
        )
        scaled = WindowLoader(recordings, events, **WINDOW, baseline=(None, 0), scale=scaler, clamp=20).windows(rows)
        want = np.clip((x - center[:, None]) / scale[:, None], -20, 20).astype(np.float32)
        close(scaled.x[:, : one.n_channels], torch.from_numpy(want))
        assert scaled.subject.tolist() == [int(recordings.subject_numbers[number])] * 7


def test_scaled_training_windows_have_quartiles_one_apart(recordings, events):
    loader = WindowLoader(recordings, events.where(recording="01_0"), **WINDOW, scale="robust")
    x = next(iter(loader)).x.transpose(0, 1).flatten(1).sort(dim=1).values
    n = x.shape[1]
    close(x[:, int(0.5 * n)], torch.zeros(5))
    close(x[:, int(0.75 * n)] - x[:, int(0.25 * n)], torch.ones(5))
    assert loader.scaler.baseline is None


def test_windows_that_are_looked_at_depend_on_the_seed_only(recordings, events):
    loader = WindowLoader(recordings, events, **WINDOW)
    first, again, other = (loader.fit_scaler(n_windows=2, generator=generator(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(first.center[name], again.center[name]) for name in recordings.names)
    assert not all(np.array_equal(first.center[name], other.center[name]) for name in recordings.names)


def test_scaler_that_does_not_belong_to_the_windows_is_refused(recordings, events):
    scaler = WindowLoader(recordings, events.where(recording="01_0"), **WINDOW, baseline=(None, 0)).fit_scaler()
    with pytest.raises(ValueError, match="know the recording '01_1'"):
        WindowLoader(recordings, events, **WINDOW, baseline=(None, 0), scale=scaler)
    with pytest.raises(ValueError, match="fitted with baseline=None"):
        WindowLoader(recordings, events.where(recording="01_0"), **WINDOW, scale=scaler)
    with pytest.raises(ValueError, match="'robust'"):
        WindowLoader(recordings, events, **WINDOW, scale="standard")
    with pytest.raises(TypeError, match="RobustScaler"):
        WindowLoader(recordings, events, **WINDOW, scale=2.0)


# --- channels ------------------------------------------------------------------------------------------------------


def test_channels_are_put_where_they_are_wanted(recordings, events):
    wanted = ["EEG004", "EEG001", "EEG000"]
    loader = WindowLoader(recordings, events, **WINDOW, channels=wanted, scale="robust")
    own = WindowLoader(recordings, events, **WINDOW, scale="robust")
    got, want = loader.windows(range(21)), own.windows(range(21))
    assert loader.ch_names == tuple(wanted)
    assert own.ch_names is None
    assert torch.equal(got.x, want.x[:, [4, 1, 0]])
    assert torch.equal(got.channels, want.channels[:, [4, 1, 0]])
    assert torch.equal(loader.positions, own.positions[:, [4, 1, 0]])
    assert (own.positions[1, 3:] == torch.tensor(-0.1)).all()
    np.testing.assert_array_equal(own.positions[2], recordings[2].positions)
    with pytest.raises(ValueError, match="'Fz'"):
        WindowLoader(recordings, events, **WINDOW, channels=["Fz"])
    with pytest.raises(ValueError, match="good channel of '01_1'"):
        WindowLoader(recordings, events, **WINDOW, channels=["EEG004"])


def test_same_channels_in_another_order_are_refused_and_put_in_order(recordings, events):
    turned = dataclasses.replace(
        recordings[2], data=recordings[2].data[::-1], ch_names=recordings[2].ch_names[::-1], positions=None
    )
    mixed = RecordingSet([*recordings[:2], turned])
    with pytest.raises(ValueError, match="another in '02_2' than in '01_0'"):
        WindowLoader(mixed, events, **WINDOW)
    names = recordings[0].ch_names
    got, want = (WindowLoader(r, events, **WINDOW, channels=names).windows(range(21)) for r in (mixed, recordings))
    assert torch.equal(got.x, want.x)


@pytest.mark.parametrize("fault", ["flat", "not finite"])
def test_bad_channels_are_refused_masked_or_kept(recordings, events, fault):
    assert set(BAD_CHANNELS) == {"raise", "zero", "keep"}
    data = recordings[0].data.copy()
    if fault == "flat":
        data[2] = 3.0
    else:
        data[2, 600] = np.nan
    broken = RecordingSet([dataclasses.replace(recordings[0], data=data), *recordings[1:]])
    with pytest.raises(ValueError, match=rf"'EEG002' is {fault}.*bads"):
        WindowLoader(broken, events, **WINDOW)
    listed = RecordingSet([dataclasses.replace(broken[0], bads=("EEG002",)), *recordings[1:]])
    zeroed = WindowLoader(broken, events, **WINDOW, bad_channels="zero", scale="robust")
    for loader in (zeroed, WindowLoader(listed, events, **WINDOW, scale="robust")):
        rows = np.flatnonzero(loader.events.recording == "01_0")
        batch = loader.windows(rows)
        assert not batch.x[:, 2].any()
        assert batch.channels.tolist() == [[True, True, False, True, True]] * 7
        assert (loader.positions[0, 2] == -0.1).all()
        assert batch.x[:, [0, 1, 3, 4]].abs().amax(dim=(0, 2)).gt(0).all()
    kept = WindowLoader(broken, events, **WINDOW, bad_channels="keep", baseline=None).windows(rows)
    assert kept.channels.all()
    first = np.rint(events.start[kept.event] * 120).astype(int) - 60
    want = np.stack([data[2, begin : begin + 181] for begin in first])
    np.testing.assert_array_equal(kept.x[:, 2].numpy(), want)  # NaN where it is
    others = events.where(recording=["01_1", "02_2"])
    assert len(WindowLoader(broken, others, **WINDOW)) == 1  # of a recording that is not read, nobody asks


# --- events --------------------------------------------------------------------------------------------------------


def test_windows_outside_are_refused_or_left_out_with_their_count(recordings, events, caplog):
    assert set(OUTSIDE) == {"raise", "drop"}
    # 01_1 lasts from 3.25 to 19.25 s: a window may begin with its first sample and end with its last, at 19.242 s.
    start = np.array([3.70, 3.75, 18.25, 18.24, 18.30])
    edge = EventTable(start=start, recording="01_1")
    table = concatenate_events([events, edge])
    with pytest.raises(ValueError, match=r"3 of 26 windows outside.*at 3\.7 s \(row 21\).*outside=\"drop\""):
        WindowLoader(recordings, table, **WINDOW)
    loader = WindowLoader(recordings, table, **WINDOW, outside="drop", repeated="drop")
    assert "3 of 26 windows outside" in caplog.text
    assert loader.n_outside == 3
    assert loader.rows.tolist() == [*range(21), 22, 24]


def test_event_exactly_at_the_edges_is_inside():
    one = recording(seconds=10)  # 1200 samples
    # The window of 181 samples around sample 60 is the first, that around 1079 the last.
    for sample, inside in ((59, False), (60, True), (1079, True), (1080, False)):
        table = EventTable(start=[sample / 120], recording="01")
        if inside:
            assert WindowLoader(one, table, **WINDOW).windows([0]).x.shape == (1, 5, 181)
        else:
            with pytest.raises(ValueError, match="1 of 1 windows outside"):
                WindowLoader(one, table, **WINDOW, outside="drop")


def test_repeated_events_are_kept_or_dropped(recordings, events):
    assert set(REPEATED) == {"keep", "drop"}
    table = concatenate_events([events, events.select([3, 5])])
    assert WindowLoader(recordings, table, **WINDOW).n_samples == 23
    loader = WindowLoader(recordings, table, **WINDOW, repeated="drop")
    assert (loader.n_samples, loader.n_repeated) == (21, 2)
    assert loader.rows.tolist() == list(range(21))


def test_endpoint_is_left_out_as_streams_do(recordings, events):
    with_end, without = (WindowLoader(recordings, events, **WINDOW, endpoint=end) for end in (True, False))
    assert torch.equal(without.windows(range(21)).x, with_end.windows(range(21)).x[:, :, :180])


def test_targets_come_with_their_windows(recordings, events):
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal((4, 75)).astype(np.float32) for name in ("cat", "dog", "owl")}
    loader = WindowLoader(recordings, events, **WINDOW, targets=StimulusSequences(values), shuffle=True, batch_size=6)
    for batch in loader:
        want = [
            torch.nn.functional.interpolate(torch.from_numpy(values[s])[None], 181)[0]
            for s in events.stimulus[batch.event]
        ]
        assert torch.equal(batch.target, torch.stack(want))
        assert batch.label is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": "words"}, "`events` must be an EventTable"),
        ({"events": EventTable(start=[], recording=[])}, "at least one event"),
        ({"events": EventTable(start=[5.0], recording="03")}, "'03'"),
        ({"tmax": -1}, "`tmax`"),
        ({"baseline": 3}, "`baseline` must be a pair"),
        ({"clamp": 0}, "`clamp`"),
        ({"backend": "fortran"}, "'auto', 'numba', 'torch', 'plain'"),
        ({"outside": "ignore"}, "'raise', 'drop'"),
        ({"repeated": "x"}, "'keep', 'drop'"),
        ({"bad_channels": "x"}, "'raise', 'zero', 'keep'"),
        ({"labels": "word"}, "'stimulus'"),
        ({"targets": np.zeros(3)}, "StimulusFeatures"),
        ({"rank": 1}, "`rank`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"max_device_bytes": -1}, "`max_device_bytes`"),
        ({"max_device_bytes": 0, "backend": "torch"}, "stay on the host"),
        ({"channels": "EEG001"}, "sequence of names"),
        ({"recordings": [1]}, "ContinuousRecording"),
    ],
)
def test_argument_that_is_wrong_is_named(recordings, events, change, message):
    arguments = {"recordings": recordings, "events": events, **WINDOW, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        WindowLoader(arguments.pop("recordings"), arguments.pop("events"), **arguments)
    assert set(SCALES) == {"robust"}


def test_rows_that_are_not_there_are_refused(recordings, events):
    loader = WindowLoader(recordings, events, **WINDOW)
    for rows, kind in (([21], ValueError), ([-1], ValueError), ([0.5], TypeError), ([[0]], ValueError)):
        with pytest.raises(kind, match="`rows`"):
            loader.windows(rows)
    assert loader.windows([3, 3]).event.tolist() == [3, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("limit", [None, 0])
def test_batches_on_the_gpu_are_those_on_the_cpu(recordings, events, limit):
    features = StimulusSequences({name: np.random.rand(4, 75).astype("f4") for name in ("cat", "dog", "owl")})
    options = {**WINDOW, "baseline": (None, 0), "scale": "robust", "clamp": 2.0, "targets": features, "batch_size": 8}
    cpu = WindowLoader(recordings, events, **options, shuffle=True)
    gpu = WindowLoader(recordings, events, **options, shuffle=True, device="cuda", max_device_bytes=limit)
    assert gpu.is_resident == (limit is None)
    assert gpu.backend == ("numba" if limit == 0 else "torch")
    for got, want in zip(gpu, cpu, strict=True):
        assert {tensor.device.type for tensor in got if tensor is not None} == {"cuda"}
        close(got.x.cpu(), want.x)
        assert torch.equal(got.event.cpu(), want.event)
        assert torch.equal(got.target.cpu(), want.target)
