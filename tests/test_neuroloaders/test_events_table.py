"""The event table: columns, rows, and the way to pandas and CSV and back."""

import numpy as np
import pandas as pd
import pytest

from neuroloaders.events_table import COLUMNS, EventTable, concatenate_events

TABLE = {
    "start": [0.1, 1 / 3, 2.0],
    "recording": ["01_a", "01_a", "02"],
    "kind": ["word", "word", "block"],
    "duration": [0.2, 0.0, np.inf],
    "stimulus": ['say "hi", twice', "naïve\nline", "001"],
    "split_group": ["s1", "s1", ""],
    "repeat": [0, 1, 2],
}
EXTRA = {
    "surprisal": np.array([np.nan, 1e-300, 2 / 3]),
    "index": np.array([3, -1, 2**53 + 1]),
    "heard": np.array([True, False, True]),
    "phoneme": np.array(["t_B", "", "12"]),
}


def table():
    return EventTable(**TABLE, extra=EXTRA)


def same(got, want):
    assert list(got.extra) == list(want.extra)
    for name in [*COLUMNS, *want.extra]:
        assert got.column(name).dtype.kind == want.column(name).dtype.kind
        np.testing.assert_array_equal(got.column(name), want.column(name), err_msg=name)


def test_one_value_stands_for_all_rows_and_the_group_is_the_stimulus():
    events = EventTable(start=[1, 2], recording="01", stimulus=[7, 8])
    assert events.recording.tolist() == ["01", "01"]
    assert events.stimulus.tolist() == events.split_group.tolist() == ["7", "8"]
    assert events.kind.tolist() == ["event"] * 2
    assert events.duration.tolist() == [0.0, 0.0]
    assert len(EventTable(start=[], recording=[])) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": [0.1, np.nan, 2]}, "1 NaN or infinite"),
        ({"start": [[0.1, 0.2, 0.3]]}, "shape"),
        ({"start": ["a", "b", "c"]}, "`start` must be numbers"),
        ({"duration": [0.1, -1, 0]}, "`duration` must not be negative"),
        ({"duration": [0.1, np.nan, 0]}, "`duration` must not be negative, got nan"),
        ({"repeat": [0, 1.5, 0]}, "whole numbers"),
        ({"recording": ["a", "", "b"]}, "name a recording"),
        ({"recording": ["a", "b"]}, "same length"),
        ({"kind": [1.5, 2.5, 3.5]}, "text"),
        ({"extra": {"start": [1, 2, 3]}}, "names of its own"),
        ({"extra": {"a:b": [1, 2, 3]}}, "colons"),
        ({"extra": {"a": [1, 2]}}, "shape"),
    ],
)
def test_column_that_does_not_fit_is_refused(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EventTable(**{**TABLE, **change})


def test_rows_are_selected_by_number_mask_slice_and_value():
    events = table()
    assert events.select([2, 0]).start.tolist() == [2.0, 0.1]
    assert events.select(events.kind == "word").extra["index"].tolist() == [3, -1]
    assert len(events.select([])) == 0
    assert events.select(slice(1, None)).stimulus.tolist() == TABLE["stimulus"][1:]
    assert events.where(kind=["word", "sound"], recording="01_a").repeat.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"0\.\.2"):
        events.select([3])
    with pytest.raises(ValueError, match="'onset'"):
        events.column("onset")


def test_tables_are_put_below_each_other():
    both = concatenate_events([table(), table().select([1])])
    same(both.select([0, 1, 2]), table())
    assert both.extra["surprisal"][3] == 1e-300
    with pytest.raises(ValueError, match="'heard'"):
        concatenate_events([table(), EventTable(**TABLE)])
    with pytest.raises(ValueError, match="'index'"):
        concatenate_events([table(), table().with_column("index", ["a", "b", "c"])])
    assert table().with_column("kind", "x").kind.tolist() == ["x"] * 3
    assert table().with_column("new", [1, 2, 3]).extra["new"].tolist() == [1, 2, 3]


def test_csv_gives_back_the_same_to_the_last_bit(tmp_path):
    table().save(tmp_path / "events.csv")
    same(EventTable.load(tmp_path / "events.csv"), table())
    empty = table().select([])
    empty.save(tmp_path / "events.csv")
    assert len(EventTable.load(tmp_path / "events.csv")) == 0


def test_csv_of_others_needs_two_columns_and_extra_ones_are_text(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("start,recording,stimulus,note\n1.5,01,12,3\n2,02,13,\n", encoding="utf-8")
    events = EventTable.load(path)
    assert events.start.tolist() == [1.5, 2.0]
    assert events.stimulus.tolist() == ["12", "13"]
    assert events.extra["note"].tolist() == ["3", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'start'"),
        ("start,kind\n1,a\n", "no column 'recording'"),
        ("start,recording\n1,a\n2\n", "row 3 has 1 fields of 2"),
        ("start,recording\n1,a\nx,a\n", "row 3 has 'x' in column 'start'"),
        ("start,recording,repeat\n1,a,1.5\n", "row 2 has '1.5' in column 'repeat'"),
        ("start,recording,n:date\n1,a,1\n", "unknown type"),
    ],
)
def test_csv_that_is_damaged_is_refused_with_the_row(tmp_path, text, message):
    path = tmp_path / "events.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        EventTable.load(path)


def test_pandas_gives_back_the_same():
    frame = table().to_pandas()
    assert list(frame) == [*COLUMNS, *EXTRA]
    same(EventTable.from_pandas(frame), table())


def test_pandas_of_bids_is_renamed_and_missing_text_is_empty():
    frame = pd.DataFrame(
        {
            "onset": [0.5, 1.5],
            "duration": [0.1, 0.1],
            "trial_type": pd.Categorical(["exp", "test"]),
            "recording": "01",
            "path": ["a.jpg", None],
            "value": pd.array([3, None], dtype="Int64"),
        }
    )
    events = EventTable.from_pandas(frame, columns={"onset": "start", "trial_type": "kind"})
    assert events.kind.tolist() == ["exp", "test"]
    assert events.extra["path"].tolist() == ["a.jpg", ""]
    np.testing.assert_array_equal(events.extra["value"], [3.0, np.nan])
    with pytest.raises(ValueError, match="column 'start'"):
        EventTable.from_pandas(frame)
    with pytest.raises(ValueError, match="'onsets'"):
        EventTable.from_pandas(frame, columns={"onsets": "start"})
