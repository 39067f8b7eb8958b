"""What the doctor finds, one thing at a time, and how it is shown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from neuroloaders.checks import check_option

__all__ = ["STATES", "Finding", "as_rows", "as_text"]

STATES = {
    "ok": "works",
    "note": "works, or is not there and not needed: to know",
    "problem": "will fail, or give something else than is expected",
}
_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    area : str
        What it belongs to: a heading.
    name : str
        What was looked at.
    state : str
        A key of `STATES`.
    text : str
        What was found.
    advice : str
        What to do about it; for a problem always.
    """

    area: str
    name: str
    state: str
    text: str
    advice: str = ""

    def __post_init__(self) -> None:
        check_option("state", self.state, STATES)


def as_rows(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON holds them."""
    return [asdict(finding) for finding in findings]


def as_text(findings: Iterable[Finding]) -> str:
    """Return findings for people: by area, problems with their remedy, and a last line that counts them."""
    findings = list(findings)
    lines: list[str] = []
    width = max((len(finding.name) for finding in findings), default=0)
    for area in dict.fromkeys(finding.area for finding in findings):
        lines += ["", area]
        for finding in (found for found in findings if found.area == area):
            lead = (
                f"  {finding.state.upper() if finding.state == 'problem' else finding.state:8}{finding.name:{width}}  "
            )
            told = " ".join(part for part in (finding.text, finding.advice) if part)
            lines += textwrap.wrap(
                told, max(_WIDTH, width + 50), initial_indent=lead, subsequent_indent=" " * len(lead),
                break_long_words=False, break_on_hyphens=False,
            ) or [lead]  # fmt: skip
    n = sum(finding.state == "problem" for finding in findings)
    lines += ["", "Everything needed is there." if n == 0 else f"{n} problem{'s' * (n > 1)}: see above."]
    return "\n".join(lines[1:])
