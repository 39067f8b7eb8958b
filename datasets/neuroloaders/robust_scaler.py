"""Center and scale of each channel of each recording, from its quantiles: artefacts do not move them.

Fitted on windows of training events and kept: what is decoded later, live or from a test set, is scaled by numbers that
do not depend on it.
"""

# R recordings, C channels, N samples

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_number, check_option, check_same_length, check_shape, corrupt_file, invalid

__all__ = ["QUANTILES", "RobustScaler", "robust_scale"]

_VERSION = 1


def _by_sorting(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the elements at int(q N) of the sorted samples."""
    places = (q * len(x)).astype(np.int64)
    return np.partition(x, np.unique(places), axis=0)[places]


def _by_interpolation(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return quantiles as NumPy and scikit-learn define them by default."""
    return np.quantile(x, q, axis=0)


QUANTILES = {"sorted": _by_sorting, "interpolated": _by_interpolation}


def robust_scale(
    x: np.ndarray, *, lower: float = 0.25, upper: float = 0.75, method: str = "sorted"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of each column, and the distance between two of its quantiles.

    Parameters
    ----------
    x : array, shape (N, C)
        Finite samples.
    lower, upper : float
        The quantiles, in [0, 1).
    method : {"sorted", "interpolated"}
        "sorted" takes the element at int(q N) of the sorted column, for the median too (Défossez et al. 2023);
        "interpolated" is what scikit-learn's ``RobustScaler`` does.

    Returns
    -------
    center, scale : ndarray of float64, shape (C,)
        A scale of 0 becomes 1, so that a constant column stays finite.

    Raises
    ------
    ValueError
        If there is no sample, or one is NaN or infinite.

    Examples
    --------
    >>> robust_scale(np.random.default_rng(0).permutation(10)[:, None])
    (array([5.]), array([5.]))
    """
    check_shape("x", x, ("N", "C"))
    check_option("method", method, QUANTILES)
    check_number("lower", lower, at_least=0, below=1)
    check_number("upper", upper, above=lower, below=1)
    x = np.asarray(x)
    if len(x) == 0:
        raise invalid("x", "hold at least one sample", x)
    finite = np.isfinite(x).all(axis=0)
    if not finite.all():
        columns = np.flatnonzero(~finite)
        advice = "Name such channels in `bads`, or cut the stretch out."
        raise invalid("x", "be finite", f"NaN or infinity in {len(columns)} channels, the first {columns[0]}", advice)
    low, center, high = QUANTILES[method](x, np.array([lower, 0.5, upper])).astype(np.float64)
    scale = high - low
    return center, np.where(scale == 0, 1.0, scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class RobustScaler:
    """Center and scale of the channels of some recordings.

    Parameters
    ----------
    center, scale : mapping of str to array, shape (C,)
        For each recording, by name.
    ch_names : mapping of str to tuple of str
        The channels that these numbers belong to.
    baseline : tuple, optional
        What was subtracted from the windows before: scaling windows with another baseline is refused.

    Raises
    ------
    ValueError
        If something does not fit together, is not finite, or a scale is not positive.

    See Also
    --------
    WindowLoader.fit_scaler : Makes one from training windows.
    """

    center: Mapping[str, np.ndarray]
    scale: Mapping[str, np.ndarray]
    ch_names: Mapping[str, tuple[str, ...]]
    baseline: tuple[float | None, float | None] | None = None

    def __post_init__(self) -> None:
        if not set(self.center) == set(self.scale) == set(self.ch_names):
            raise invalid("center, scale and ch_names", "be of the same recordings", "others")
        values: dict[str, dict[str, Any]] = {"center": {}, "scale": {}, "ch_names": {}}
        for name in self.center:
            center, scale = (np.array(v[name], dtype=np.float64) for v in (self.center, self.scale))
            check_shape(f"center[{name!r}]", center, ("C",))
            check_same_length(center=center, scale=scale, ch_names=self.ch_names[name])
            if not np.isfinite(center).all() or not (np.isfinite(scale) & (scale > 0)).all():
                raise invalid(f"scale[{name!r}]", "be positive and finite, and the center finite", scale)
            values["center"][name], values["scale"][name] = center, scale
            values["ch_names"][name] = tuple(self.ch_names[name])
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if self.baseline is not None:
            object.__setattr__(self, "baseline", tuple(self.baseline))

    def __repr__(self) -> str:
        return f"RobustScaler({len(self.center)} recordings)"

    def of(self, recording: str, ch_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return center and scale of some channels of a recording: float64 of shape (C,) each.

        Raises
        ------
        ValueError
            If it was not fitted to the recording, or not to a channel.
        """
        if recording not in self.center:
            advice = "Fit the scaler on windows of it: of a new session, those of its first minutes."
            raise invalid("scale", f"know the recording {recording!r}", f"one of {len(self.center)} others", advice)
        known = {name: place for place, name in enumerate(self.ch_names[recording])}
        missing = [name for name in ch_names if name not in known]
        if missing:
            raise invalid("scale", f"know the channels of {recording!r}", f"none for {missing[0]!r}", "Fit it anew.")
        order = [known[name] for name in ch_names]
        return self.center[recording][order], self.scale[recording][order]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all; `load` reads back the same to the last bit."""
        record = {
            "version": _VERSION,
            "baseline": None if self.baseline is None else list(self.baseline),
            "recordings": {
                name: {
                    "ch_names": list(self.ch_names[name]),
                    "center": self.center[name].tolist(),
                    "scale": self.scale[name].tolist(),
                }
                for name in self.center
            },
        }
        with atomic_write(path, "w") as file:
            json.dump(record, file, indent=1, allow_nan=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RobustScaler:
        """Read what `save` wrote."""
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            version, recordings, baseline = record["version"], record["recordings"], record["baseline"]
            columns = {
                part: {name: recordings[name][part] for name in recordings} for part in ("center", "scale", "ch_names")
            }
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise corrupt_file(path, f"it is no scaler ({error})", "Fit it anew.") from error
        if version != _VERSION:
            raise corrupt_file(path, f"it is of version {version!r}, not {_VERSION}", "Update this package.")
        return cls(**columns, baseline=baseline)
