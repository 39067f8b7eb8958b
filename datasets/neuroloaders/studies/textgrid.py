"""Praat's TextGrid files: what is said when, in tiers of words and phonemes.

The format is described in Praat's manual (https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html): only
free-standing numbers, texts in double quotes and flags such as <exists> count; the long form and the short form differ
in what stands between them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neuroloaders.checks import corrupt_file, missing_data

__all__ = ["Interval", "read_textgrid"]

# A text may hold doubled quotes and line feeds; whatever is no text, number or flag is a remark.
_TOKENS = re.compile(r'"(?:[^"]|"")*"|(?<!\S)<[^<>"\s]*>(?!\S)|(?<!\S)[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?!\S)')


@dataclass(frozen=True)
class Interval:
    """A stretch of a tier.

    Parameters
    ----------
    start, stop : float
        In s from the begin of the sound; the same for a point.
    text : str
        What is said; empty where nothing is.
    """

    start: float
    stop: float
    text: str


def read_textgrid(path: str | os.PathLike[str]) -> dict[str, list[Interval]]:
    """Read a TextGrid file, long or short.

    Parameters
    ----------
    path : path-like
        The file, in UTF-8, UTF-16 with a byte order mark, or Latin-1.

    Returns
    -------
    dict of str to list of Interval
        For each tier its intervals or points, in the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is cut short or something else: with the line.
    """
    path = Path(path)
    text = _text(path)
    tokens = _Tokens(path, text)
    if tokens.quoted() != "ooTextFile" or tokens.quoted() != "TextGrid":
        raise corrupt_file(path, "it does not begin like a TextGrid in text form", "Save it from Praat as a text file.")
    tokens.number()
    tokens.number()
    if tokens.take() != "<exists>":
        return {}
    tiers: dict[str, list[Interval]] = {}
    for _ in range(int(tokens.number())):
        kind, name = tokens.quoted(), tokens.quoted()
        if kind not in ("IntervalTier", "TextTier"):
            raise tokens.wrong(f"a tier of the class {kind!r}")
        if name in tiers:
            raise tokens.wrong(f"a second tier {name!r}")
        tokens.number()
        tokens.number()
        tiers[name] = [tokens.interval(kind) for _ in range(int(tokens.number()))]
    return tiers


class _Tokens:
    """The texts, numbers and flags of a file, one after another."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text, self._place = path, text, 0
        self._found: Iterator[re.Match[str]] = _TOKENS.finditer(text)

    def take(self) -> str:
        match = next(self._found, None)
        if match is None:
            raise corrupt_file(self._path, "it ends in the middle of a tier", "Get the file again.")
        self._place = match.start()
        return match.group()

    def number(self) -> float:
        token = self.take()
        try:
            return float(token)
        except ValueError:
            raise self.wrong(f"{token} where a number is due") from None

    def quoted(self) -> str:
        token = self.take()
        if not token.startswith('"'):
            raise self.wrong(f"{token} where a text in double quotes is due")
        return token[1:-1].replace('""', '"')

    def interval(self, kind: str) -> Interval:
        start = self.number()
        stop = self.number() if kind == "IntervalTier" else start
        if stop < start:
            raise self.wrong(f"an interval from {start:g} to {stop:g} s")
        return Interval(start, stop, self.quoted().strip())

    def wrong(self, what: str) -> ValueError:
        line = self._text.count("\n", 0, self._place) + 1
        return corrupt_file(self._path, f"line {line} has {what}", "Save it from Praat anew.")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise missing_data("TextGrid", [path.name], [path.parent], "It is part of the study.") from error
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
