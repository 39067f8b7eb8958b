"""Spectrum of a population's rate, with its rhythms."""

# F frequencies

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import check_number, invalid
from reservoir.analysis.rhythms import BANDS, Spectrum
from reservoir.plots.base import COLOURS, GREY, SMALL, figure_of, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["spectrum"]


def spectrum(
    found: Spectrum | Sequence[Spectrum],
    *,
    bands: Mapping[str, tuple[float, float]] | None = None,
    of_hz: tuple[float, float] = (1.0, 200.0),
    max_hz: float = 100.0,
    ax: Axes | None = None,
) -> Figure:
    """Draw power against frequency, with the part of it that lies in each band.

    Parameters
    ----------
    found : Spectrum, or sequence of them
        Of one run, or of several with the same frequencies: each is a thin line, and their mean a thick one.
    bands : mapping of str to tuple of float, optional
        Name -> lowest and highest frequency, Hz; by default alpha and gamma of `reservoir.analysis.BANDS`.
    of_hz : tuple of float
        The power that counts as all.
    max_hz : float
        Where the axis ends.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    In brackets: the part that the band would hold if power were the same at all frequencies of `of_hz`.
    """
    several = [found] if isinstance(found, Spectrum) else list(found)
    if not several or any(not np.array_equal(one.frequency_hz, several[0].frequency_hz) for one in several):
        raise invalid("found", "hold spectra with the same frequencies", f"{len(several)} spectra")
    frequency = several[0].frequency_hz
    mean = Spectrum(frequency_hz=frequency, power=np.mean([one.power for one in several], axis=0))
    bands = {name: BANDS[name] for name in ("alpha", "gamma")} if bands is None else bands
    check_number("max_hz", max_hz, above=0)
    ax = own_axes(ax, 3.2)
    shown = (frequency > 0) & (frequency <= max_hz)
    if not shown.any():
        raise invalid("max_hz", f"reach the first frequency, {frequency[1]:g} Hz", f"{max_hz:g} Hz")
    for one in several if len(several) > 1 else ():
        ax.plot(frequency[shown], one.power[shown], color=GREY, alpha=0.25, linewidth=0.7)
    ax.plot(frequency[shown], mean.power[shown], color=COLOURS[0], linewidth=2)
    for low, high in bands.values():
        ax.axvspan(low, high, color=COLOURS[1], alpha=0.13, linewidth=0)
    for name, (low, high) in bands.items():
        parts = np.array([one.band_fraction(low, high, of_hz=of_hz) for one in several])
        flat = (high - low) / (of_hz[1] - of_hz[0])
        text = (
            f"{name}\n{100 * np.nanmean(parts):.0f} %\n(flat: {100 * flat:.0f} %)" if np.isfinite(parts).any() else name
        )
        look = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "fontsize": SMALL}
        ax.annotate(text, ((low + high) / 2, 1.01), color=COLOURS[1], **look)
    positive = mean.power[shown][mean.power[shown] > 0]
    if len(positive):
        ax.set_yscale("log")
        ax.set_ylim(
            positive.min() / 2, 2 * max(positive.max(), np.quantile([o.power[shown].max() for o in several], 1))
        )
    ax.set(xlim=(0, max_hz), xlabel="frequency (Hz)", ylabel="power of the rate (Hz²/Hz)")
    if len(several) > 1:
        text = f"{len(several)} runs, and their mean"
        ax.annotate(text, (0.99, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=SMALL, color=GREY)
    return figure_of(tidy(ax, grid="y"))
