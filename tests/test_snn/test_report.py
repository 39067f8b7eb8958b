"""The report is one whole file: escaped, complete, readable without a network, and never half-written."""

import base64
import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest
from fakes.one_step import tiny_loaders, tiny_run

from snn import experiment
from snn.comparison import mean_and_spread
from snn.one_step_report import PAPER, Examples, write_one_step_report
from snn.report import Code, Picture, Section, Table, Text, write_report

_VOID = {"meta", "img"}


class _Page(HTMLParser):
    """Tags, attributes and text of a page; it fails on tags that are not closed in their order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def picture():
    figure, ax = plt.subplots(figsize=(1, 1))
    ax.plot([0, 1])
    yield Picture.of(ax, alt="a line", caption="It rises.")
    plt.close(figure)


def test_report_holds_its_parts_in_order(tmp_path, picture):
    blocks = [Text("first"), picture, picture, Table([{"name": "a", "value": 12.75}], "numbers"), Code("make\n  demo")]
    path = write_report(tmp_path / "report.html", title="Title", sections=[Section("One", blocks), Section("", [])])
    page = _Page(path)
    text = "".join(page.text)
    places = [text.index(part) for part in ("first", "It rises.", "numbers", "12.75", "make\n  demo")]
    assert places == sorted(places)
    assert len(page.all("h2")) == 1
    assert len(page.all("img")) == 2
    assert [attrs["class"] for attrs in page.all("div")] == ["pictures", "wide"]
    (name, number) = [attrs for attrs in page.all("th") if attrs["scope"] == "col"]
    assert "class" not in name
    assert number["class"] == "number"


def test_all_text_is_escaped(tmp_path, picture):
    bad = "<script>alert('\"&\"')</script>"
    blocks = [
        Text(bad),
        Code(bad),
        Table([{bad: bad, "b": bad}], bad),
        Picture(picture.png, alt=bad, caption=bad),
    ]
    page = _Page(write_report(tmp_path / "r.html", title=bad, sections=[Section(bad, blocks)]))
    assert page.all("script") == []
    assert "".join(page.text).count(bad) == 10  # title twice, heading, text, code, 4 in the table, caption
    assert page.all("img")[0]["alt"] == bad


def test_report_loads_nothing_and_fits_every_screen(tmp_path, picture):
    path = write_report(tmp_path / "r.html", title="t", sections=[Section("s", [picture])])
    page = _Page(path)
    assert all(attrs.get("src", "data:").startswith("data:") for _, attrs in page.tags)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "url(" not in path.read_text()
    metas = {attrs.get("name", attrs.get("http-equiv")): attrs.get("content") for attrs in page.all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["Content-Security-Policy"].startswith("default-src 'none'")
    assert metas["color-scheme"] == "light dark"


def test_picture_is_embedded_whole_with_its_size(tmp_path, picture):
    page = _Page(write_report(tmp_path / "r.html", title="t", sections=[Section("", [picture])]))
    (image,) = page.all("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == picture.png
    assert (image["width"], image["height"]) == ("200", "200")


def test_same_figure_gives_the_same_bytes(picture):
    figure, ax = plt.subplots(figsize=(1, 1))
    ax.plot([0, 1])
    assert Picture.of(ax, alt="a line").png == picture.png
    plt.close(figure)


@pytest.mark.parametrize(
    ("column", "is_number"),
    [
        ([1, 2.5, None], True),
        (["1.0 ± 0.1", ""], True),
        (["5 4 3", "1"], False),
        (["", None], False),
        (["vgg5", 1], False),
    ],
)
def test_columns_of_numbers_stand_to_the_right(column, is_number):
    text = Table([{"name": "a", "value": value} for value in column]).as_html()
    assert ('class="number"' in text) is is_number


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table([]), "`rows` must be at least one row"),
        (lambda: Table([{"a": 1}, {"b": 1}]), "all with the same headings"),
        (lambda: Picture(b"GIF89a", alt="x"), "`png` must be the bytes of a PNG file"),
        (lambda: Picture(b"\x89PNG....", alt=" "), "`alt` must say what the picture shows"),
    ],
)
def test_parts_that_cannot_be_shown_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_failure_leaves_the_older_report(tmp_path):
    path = write_report(tmp_path / "r.html", title="old", sections=[])
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "absent" / "r.html", title="new", sections=[])
    with pytest.raises(AttributeError):
        write_report(path, title="new", sections=["no section"])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_one_step_report_is_complete(tmp_path, n_seeds):
    run, inputs = tiny_run()
    _, _, pictures, labels = tiny_loaders()
    examples = Examples(pictures=pictures, inputs=inputs, labels=labels, classes=tuple("0123456789"))
    tables = [run.rows] * n_seeds
    path = write_one_step_report(
        tmp_path,
        run,
        examples,
        tables,
        title="One step",
        settings={"schedule": [3, 1], "seed": 0},
        command="python this.py",
        citations=["@misc{digits}"],
    )
    assert path == tmp_path / experiment.REPORT
    page, text = _Page(path), "".join(_Page(path).text)
    figures = {figure.name for figure in (tmp_path / experiment.FIGURES).iterdir()}
    assert len(page.all("img")) == len(figures) == 6
    assert all(attrs["alt"] for attrs in page.all("img"))
    for part in ("T = 1, direct", "features.conv3", "python this.py", "@misc{digits}", "torch: ", "3 1", PAPER.strip()):
        assert part in text
    assert ("seeds." in text) is (n_seeds > 1)
    # The pictures come first, then the tables.
    tags = [tag for tag, _ in page.tags]
    assert max(k for k, tag in enumerate(tags) if tag == "img") < tags.index("table")
    assert plt.get_fignums() == []


def test_report_says_so_if_the_test_set_chose_the_epochs(tmp_path):
    from dataclasses import replace

    run, inputs = tiny_run()
    run = replace(run, result=replace(run.result, selected_on="test"))
    _, _, pictures, labels = tiny_loaders()
    examples = Examples(pictures=pictures, inputs=inputs, labels=labels, classes=tuple("0123456789"))
    path = write_one_step_report(tmp_path, run, examples, [run.rows], title="t", settings={"a": 1}, command="c")
    text = path.read_text()
    assert "WHICH ALSO CHOSE THE EPOCHS" in text
    assert "chosen by test data" in text


def test_rows_of_a_run_survive_json():
    rows = tiny_run()[0].rows
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert re.fullmatch(r"[\d.]+", f"{mean_and_spread([rows])[0]['accuracy']}")
