"""Pictures of decoded speech: the decoder beside its controls, and when the brain follows the sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_int, invalid
from snn.plots.base import ANN as GREY
from snn.plots.base import DIRECT, SPIKING, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["decoder_and_controls", "lag_curve"]


def decoder_and_controls(
    evaluations: Mapping[str, Any], *, k: int = 10, ceiling: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the share of segments among the k nearest: decoders with their subjects, controls below them.

    Parameters
    ----------
    evaluations : mapping of str to SpeechEvaluation
        Name of a decoder -> what `evaluate_speech` found; the controls of the first are drawn.
    k : int
        How many count.
    ceiling : float, optional
        What the best of all decoders reaches, where that is known.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    check_int("k", k, at_least=1)
    if not evaluations:
        raise invalid("evaluations", "hold at least one", "none")
    first = next(iter(evaluations.values()))
    rows = [(name, found, "decoder") for name, found in evaluations.items()]
    rows += [(name, first, name) for name in first.controls if name != "word frequency"]
    ax = own_axes(ax, height=0.9 + 0.32 * len(rows))
    for y, (_, found, of) in enumerate(rows):
        scores = found.scores if of == "decoder" else found.controls[of]
        subject, hit = found.subject[scores.row], scores.segment.top_k(k)
        each = [hit[subject == who].mean() for who in np.unique(subject)]
        colour = SPIKING if of == "decoder" else GREY
        ax.barh(y, np.mean(each), color=colour, alpha=0.5, height=0.65)
        ax.plot(each, np.full(len(each), y), "o", color=colour, markersize=4)
    ax.axvline(first.chance(k), color=GREY, linestyle="--", linewidth=1, label="chance")
    if ceiling is not None:
        ax.axvline(ceiling, color=DIRECT, linewidth=1, label="ideal observer")
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(0, 1.02)
    ax.set_xlabel(f"segments among the {k} nearest (dots: subjects)")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return tidy(ax, "x")


def lag_curve(scan: Any, *, planted_s: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw how well single samples of the brain tell the sound, by the lag between them.

    Parameters
    ----------
    scan : LagScan
        From `neurodecode.meeg.lag_scan`.
    planted_s : float, optional
        The true lag of simulated data, in s.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    ax = own_axes(ax, height=2.8)
    ms = 1000 * scan.lags_s
    for row in scan.correlation:
        ax.plot(ms, row, color=GREY, linewidth=1, alpha=0.6)
    ax.plot(ms, scan.correlation.mean(axis=0), color=SPIKING, linewidth=2)
    ax.axvline(1000 * scan.peak_s, color=SPIKING, linestyle=":", linewidth=1)
    if planted_s is not None:
        ax.axvline(1000 * planted_s, color=DIRECT, linewidth=1)
        ax.annotate("planted", (1000 * planted_s, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top",
                    xytext=(2, -2), textcoords="offset points")  # fmt: skip
    ax.set_xlabel("from sound to brain (ms)")
    ax.set_ylabel("correlation")
    return tidy(ax, "y")
