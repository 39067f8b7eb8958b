"""One HTML file that says what came of a run: pictures, tables, settings. It needs no network and no other file.

mne.Report does this for brain recordings; a spiking network should not have to install it.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from neuroloaders.checks import invalid
from neuroloaders.runs import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Code", "Picture", "Section", "Table", "Text", "write_report"]

_DPI = 200


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph.

    Parameters
    ----------
    text : str
        Plain text.
    """

    text: str

    def as_html(self) -> str:
        """Return the paragraph."""
        return f"<p>{html.escape(self.text)}</p>"


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to copy: commands, BibTeX.

    Parameters
    ----------
    text : str
        Plain text; its line breaks stay.
    """

    text: str

    def as_html(self) -> str:
        """Return the lines as they are."""
        return f"<pre>{html.escape(self.text.strip())}</pre>"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of numbers or text.

    Parameters
    ----------
    rows : sequence of mapping
        Heading -> cell, the same headings in each. Numbers are shown with four significant digits; None is empty.
    caption : str
        What the table shows.
    """

    rows: Sequence[Mapping[str, Any]]
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.rows or any(list(row) != list(self.rows[0]) for row in self.rows):
            raise invalid("rows", "be at least one row, all with the same headings", f"{list(map(list, self.rows))}")

    def as_html(self) -> str:
        """Return the table, in a box that scrolls sideways where the screen is narrow."""
        columns = [[_shown(row[key]) for row in self.rows] for key in self.rows[0]]
        kinds = [' class="number"' if _are_numbers(column) else "" for column in columns]
        head = "".join(
            f'<th scope="col"{kind}>{html.escape(str(key))}</th>' for key, kind in zip(self.rows[0], kinds, strict=True)
        )
        body = ""
        for cells in zip(*columns, strict=True):
            first, *rest = map(html.escape, cells)
            body += f'<tr><th scope="row">{first}</th>'
            body += "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(rest, kinds[1:], strict=True)) + "</tr>"
        # Not a <caption>: it would scroll away with the table.
        caption = f'<p class="note">{html.escape(self.caption)}</p>' if self.caption else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'{caption}<div class="wide" tabindex="0">{table}</div>'


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as PNG.

    Parameters
    ----------
    png : bytes
        The file's content.
    alt : str
        What it shows, for those who cannot see it. Required.
    caption : str
        What to look at.
    """

    png: bytes
    alt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.png, bytes) or not self.png.startswith(b"\x89PNG"):
            raise invalid("png", "be the bytes of a PNG file", type(self.png).__name__, "See Picture.of.")
        if not self.alt.strip():
            raise invalid("alt", "say what the picture shows", repr(self.alt))

    @classmethod
    def of(cls, ax: Axes, *, alt: str, caption: str = "") -> Picture:
        """Draw the figure that `ax` belongs to.

        Parameters
        ----------
        ax : Axes
            Any of the figure's.
        alt, caption : str
            As of the class.
        """
        buffer = io.BytesIO()
        # Without the software's name the same figure gives the same bytes.
        ax.figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
        return cls(buffer.getvalue(), alt, caption)

    def as_html(self) -> str:
        """Return the picture within the page."""
        data = base64.b64encode(self.png).decode()
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        width, height = (int.from_bytes(self.png[at : at + 4], "big") for at in (16, 20))
        size = f'width="{width}" height="{height}"'
        alt = html.escape(self.alt)
        return f'<figure><img {size} src="data:image/png;base64,{data}" alt="{alt}">{caption}</figure>'


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it.

    Parameters
    ----------
    title : str
        Heading; empty for none.
    blocks : sequence of Text, Code, Table or Picture
        In their order. Pictures that follow each other share a row where there is room.
    """

    title: str
    blocks: Sequence[Text | Code | Table | Picture]

    def as_html(self) -> str:
        """Return the section."""
        parts = [f"<h2>{html.escape(self.title)}</h2>"] if self.title else []
        in_row = False
        for block in self.blocks:
            is_picture = isinstance(block, Picture)
            if is_picture != in_row:
                parts.append('<div class="pictures">' if is_picture else "</div>")
            parts.append(block.as_html())
            in_row = is_picture
        return "<section>" + "\n".join([*parts, *(["</div>"] if in_row else [])]) + "</section>"


def write_report(path: str | os.PathLike[str], *, title: str, sections: Sequence[Section]) -> Path:
    """Write a report as one HTML file, which replaces an older one once it is complete.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist.
    title : str
        Title and first heading.
    sections : sequence of Section
        In their order. All text is escaped.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        If it cannot be written; an older file stays whole.
    """
    body = "\n".join(section.as_html() for section in sections)
    with atomic_write(path, "w") as file:
        file.write(_PAGE.substitute(title=html.escape(title), body=body))
    return Path(path)


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _are_numbers(cells: Sequence[str]) -> bool:
    """Return whether a column holds numbers ("1.5", "1.5 ± 0.1") or nothing."""
    try:
        return any([[float(part) for part in cell.split(" ± ")] for cell in cells if cell])
    except ValueError:
        return False


# The policy lets the browser load nothing from anywhere; pictures lie on white in the dark as well.
_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { --ink: #1c1e21; --paper: #fff; --soft: #5b6168; --line: #d9dce0; --shade: #f4f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7e9; --paper: #17191c; --soft: #a3a9b0; --line: #3a3e44; --shade: #212428; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
p { max-width: 46rem; }
.pictures { columns: 2 24rem; column-gap: 1rem; }
figure { margin: 0 0 1rem; break-inside: avoid; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
img { display: block; width: 100%; height: auto; background: #fff; padding: .5rem; }
figcaption { padding: .5rem .75rem; font-size: .9rem; color: var(--soft); border-top: 1px solid var(--line); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
.note { font-size: .9rem; color: var(--soft); margin: .5rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { vertical-align: bottom; }
th[scope=row] { font-weight: 500; white-space: nowrap; }
.number { text-align: right; }
td.number { white-space: nowrap; }
pre { background: var(--shade); border-radius: .4rem; padding: .75rem; font-size: .85rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media (max-width: 30rem) { th, td { padding-right: .55rem; } table { font-size: .82rem; } }
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")
