"""Epochs as recordings: windows are the epochs, to the last bit; what reaches into the next epoch is refused."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders import released_epochs as module
from neuroloaders.epoch_bounds import check_inside_epochs
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recording_files import open_events, open_recordings
from neuroloaders.released_epochs import epoch_recordings
from neuroloaders.window_loader import WindowLoader
from neuroloaders.window_times import n_samples

N, C, T, SFREQ, TMIN = 23, 4, 36, 200.0, -0.05


class Blocks:
    """Epochs that are made when they are asked for, and counted."""

    def __init__(self, x):
        self.x, self.shape, self.sizes = x, x.shape, []

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        block = self.x[rows]
        self.sizes.append(len(block))
        return block


def epochs(n=N, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal((n, C, T)).astype(dtype)


def options(n=N, **changes):
    rng = np.random.default_rng(1)
    return {
        "sfreq": SFREQ, "tmin": TMIN, "ch_names": [f"MEG{k}" for k in range(C)],
        "subject": [f"P{k}" for k in rng.integers(1, 3, n)], "session": [f"{k:02d}" for k in rng.integers(1, 4, n)],
        "stimulus": [f"i{k}" for k in rng.integers(0, 5, n)], **changes,
    }  # fmt: skip


def windows(recordings, events, tmin, tmax, **chosen):
    loader = WindowLoader(recordings, events, tmin=tmin, tmax=tmax, batch_size=7, **chosen)
    return torch.cat([batch.x for batch in loader]).numpy(), loader


def test_windows_of_all_samples_are_the_epochs():
    x = epochs()
    recordings, events = epoch_recordings(x, **options())
    got, loader = windows(recordings, events, TMIN, TMIN + (T - 1) / SFREQ)
    assert np.array_equal(got, x)
    assert np.array_equal(loader.times, (np.arange(T) - 10) / SFREQ)
    assert recordings.names == tuple(dict.fromkeys(events.recording.tolist()))
    want = [
        f"{subject}_{session}" for subject, session in zip(*(options()[k] for k in ("subject", "session")), strict=True)
    ]
    assert events.recording.tolist() == want


@settings(max_examples=50, deadline=None)
@given(begin=st.integers(0, T - 1), length=st.integers(1, T), first=st.integers(-40, 40), seed=st.integers(0, 99))
def test_any_window_inside_an_epoch_is_that_part_of_it(begin, length, first, seed):
    end = min(begin + length, T)
    x, tmin = epochs(9, seed=seed), first / SFREQ
    recordings, events = epoch_recordings(x, **options(9, tmin=tmin))
    low, high = (first + begin) / SFREQ, (first + end - 1) / SFREQ
    check_inside_epochs(events, low, high)
    check_inside_epochs(events, low, high, sfreq=SFREQ)
    got, _ = windows(recordings, events, low, high)
    assert np.array_equal(got, x[:, :, begin:end])


def test_every_window_is_inside_exactly_if_it_has_samples_of_its_epoch_only():
    x = epochs(5)
    recordings, events = epoch_recordings(x, **options(5, subject="P1", session=""))
    middle = events.select([2])
    for begin, end, endpoint in itertools.product(range(-12, -7), range(22, 29), (True, False)):
        low, high = begin / SFREQ, end / SFREQ
        places = np.arange(begin, begin + n_samples(low, high, SFREQ, endpoint))
        inside = places[0] >= -10 and places[-1] <= T - 11
        if inside:
            check_inside_epochs(middle, low, high, sfreq=SFREQ, endpoint=endpoint)
            got, _ = windows(recordings, middle, low, high, endpoint=endpoint)
            assert np.array_equal(got[0], x[2][:, places + 10])
        else:
            with pytest.raises(ValueError, match=r"lie inside the epoch of each event, from -0\.05 to 0\.125 s"):
                check_inside_epochs(middle, low, high, sfreq=SFREQ, endpoint=endpoint)


def test_times_are_compared_where_the_rate_is_not_given_and_continuous_recordings_pass():
    _, events = epoch_recordings(epochs(), **options())
    check_inside_epochs(events, TMIN, 0.125)
    for low, high in ((-0.0501, 0.1), (-0.05, 0.1251)):
        with pytest.raises(ValueError, match="choose a shorter window"):
            check_inside_epochs(events, low, high)
    # The window's samples decide, not its times: 0.127 s is the sample at 0.125 s.
    check_inside_epochs(events, TMIN, 0.127, sfreq=SFREQ)
    continuous = EventTable(start=[1.0], recording="r", extra={"epoch_tmin": [np.nan], "epoch_tmax": [np.nan]})
    check_inside_epochs(EventTable(start=[1.0], recording="r"), -5, 5)
    check_inside_epochs(continuous, -5, 5)
    plain = events.select(slice(0, 3))
    with pytest.raises(ValueError, match="for row 1"):
        check_inside_epochs(concatenate_events([continuous, plain]), -5, 5)


def test_repeats_count_per_subject_in_the_order_of_the_epochs():
    stimulus = ["a", "a", "b", "a", "a"]
    subject = ["P1", "P2", "P1", "P1", "P1"]
    session = ["2", "1", "1", "1", "2"]
    _, events = epoch_recordings(epochs(5), **options(5, stimulus=stimulus, subject=subject, session=session))
    # Of P1, session 2 comes first in the epochs.
    assert events.repeat.tolist() == [0, 0, 0, 2, 1]
    assert events.kind.tolist() == ["image"] * 5
    assert events.split_group.tolist() == stimulus


def test_on_disk_it_is_the_same_and_read_in_blocks(tmp_path, monkeypatch):
    x = epochs(40)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * C * T * 3)
    blocks = Blocks(x)
    chosen = options(40, subject="P1", session=["01"] * 25 + ["02"] * 15, extra={"RT": np.arange(40.0)}, duration=0.5)
    recordings, events = epoch_recordings(blocks, folder=tmp_path, provenance="made", **chosen)
    assert max(blocks.sizes) == 3
    assert sum(blocks.sizes) == 40
    assert all(recording.is_mapped for recording in recordings)
    got, _ = windows(recordings, events, TMIN, 0.125)
    assert np.array_equal(got, x)
    again = open_events(tmp_path)
    for name in ("start", "recording", "stimulus", "RT", "epoch_tmin", "duration"):
        assert np.array_equal(again.column(name), events.column(name))
    plain, _ = epoch_recordings(x, **chosen)
    for one, other in zip(plain, open_recordings(tmp_path), strict=True):
        assert np.array_equal(one.data, other.data)


def test_a_second_call_goes_on_where_the_first_stopped(tmp_path):
    x = epochs(30)
    chosen = options(30, subject="P1", session=["01"] * 10 + ["02"] * 10 + ["03"] * 10, provenance="made")

    class Failing(Blocks):
        def __getitem__(self, rows):
            if rows.start >= 20:
                raise OSError("cable")
            return super().__getitem__(rows)

    with pytest.raises(OSError, match="cable"):
        epoch_recordings(Failing(x), folder=tmp_path, **chosen)
    assert sorted(path.name for path in (tmp_path / "recordings").iterdir()) == ["P1_01", "P1_02"]
    # The second is damaged in between: it is written again, the first is not.
    (tmp_path / "recordings/P1_02/data.npy").write_bytes(b"cut")
    blocks = Blocks(x)
    recordings, events = epoch_recordings(blocks, folder=tmp_path, **chosen)
    assert sum(blocks.sizes) == 20
    assert np.array_equal(windows(recordings, events, TMIN, 0.125)[0], x)
    last = Blocks(x)
    epoch_recordings(last, folder=tmp_path, **chosen)
    assert last.sizes == []
    # Other epochs under the same names take their place; a subject more joins them.
    epoch_recordings(-x, folder=tmp_path, **{**chosen, "provenance": "other"})
    assert np.array_equal(open_recordings(tmp_path)["P1_01"].data[:, :T], -x[0])
    epoch_recordings(x, folder=tmp_path, **{**chosen, "subject": "P2"})
    assert len(open_recordings(tmp_path)) == 6
    assert set(open_events(tmp_path).recording) == {f"P{s}_0{r}" for s in (1, 2) for r in (1, 2, 3)}


def test_without_provenance_nothing_is_replaced(tmp_path):
    chosen = options(4, subject="P1", session="")
    epoch_recordings(epochs(4), folder=tmp_path, **chosen)
    assert json.loads((tmp_path / "recordings/P1/recording.json").read_text())["provenance"] == ""
    with pytest.raises(FileExistsError, match="not be there already"):
        epoch_recordings(epochs(4), folder=tmp_path, **chosen)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"tmin": -0.0512}, ValueError, "whole number of samples"),
        ({"sfreq": 0.0}, ValueError, "sfreq"),
        ({"ch_names": ["a"]}, ValueError, r"`x` must have shape \(N, 1, T\)"),
        ({"stimulus": ["a"]}, ValueError, "same length"),
        ({"subject": ["a"]}, ValueError, r"`subject` must have shape \(23,\)"),
        ({"session": 3}, TypeError, "`session` must be text"),
        ({"extra": {"epoch_tmin": np.zeros(N)}}, ValueError, "leave this column"),
        ({"extra": {"RT": np.zeros(3)}}, ValueError, "RT"),
        ({"subject": ["a"] * 22 + ["a_b"], "session": ["b"] * 22 + [""]}, ValueError, "a name of its own"),
    ],
)
def test_what_does_not_fit_is_said(change, kind, says):
    with pytest.raises(kind, match=says):
        epoch_recordings(epochs(), **options(**change))


def test_samples_that_are_no_numbers_are_refused():
    x = epochs(dtype=np.float64)
    for value in (np.nan, np.inf, 1e300):
        x[7, 2, 3] = value
        with pytest.raises(ValueError, match="others in epoch 7"):
            epoch_recordings(x, **options(subject="P1", session=""))
    with pytest.raises(TypeError, match="real numbers"):
        epoch_recordings(x.astype(complex), **options())
    with pytest.raises(TypeError, match="array of shape"):
        epoch_recordings(3, **options())
    with pytest.raises(ValueError, match="at least one epoch"):
        epoch_recordings(np.zeros((0, C, T)), **options(0))
