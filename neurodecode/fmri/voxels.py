"""Voxels in units of their own training spread."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_shape, invalid

__all__ = ["VoxelScaler"]


class VoxelScaler:
    """Subtract the training mean of each voxel and divide by its training standard deviation (ddof = 1).

    Attributes
    ----------
    mean, spread : ndarray of float64, shape (n_voxels,)
        Statistics of the training rows.

    Notes
    -----
    As in the reference code of Ozcelik & VanRullen 2023, whose alphas suppose it. scikit-learn's ``StandardScaler``
    takes ddof = 0.

    Examples
    --------
    >>> VoxelScaler.fit(np.array([[1.0, 5.0], [3.0, 9.0]])).transform(np.array([[2.0, 7.0]])).tolist()
    [[0.0, 0.0]]
    """

    def __init__(self, mean: np.ndarray, spread: np.ndarray) -> None:
        self.mean, self.spread = np.asarray(mean, dtype=np.float64), np.asarray(spread, dtype=np.float64)

    @classmethod
    def fit(cls, betas: Any) -> VoxelScaler:
        """Take the statistics of training rows.

        Parameters
        ----------
        betas : array of shape (n_samples, n_voxels)
            Training rows, at least two.

        Raises
        ------
        ValueError
            If there are fewer, or voxels hold NaN or are constant: the message counts them and names the first.
        """
        betas = _matrix(betas)
        if len(betas) < 2:
            raise invalid("betas", "have at least 2 rows", betas)
        bad = ~np.isfinite(betas).all(axis=0)
        advice = "Leave them out, e.g. BetaSet.drop_bad_voxels()."
        if bad.any():
            came = f"NaN or infinity in {int(bad.sum())} voxels, the first {int(bad.argmax())}"
            raise invalid("betas", "hold finite numbers only", came, advice)
        mean, spread = betas.mean(axis=0, dtype=np.float64), betas.std(axis=0, ddof=1, dtype=np.float64)
        flat = spread <= 1e-7 * abs(mean)
        if flat.any():
            came = f"{int(flat.sum())} constant ones, the first {int(flat.argmax())}"
            raise invalid("betas", "have voxels that vary over training rows", came, advice)
        return cls(mean, spread)

    def transform(self, betas: Any) -> np.ndarray:
        """Return rows in units of the training spread, float32, shape (n_samples, n_voxels)."""
        betas = _matrix(betas)
        check_shape("betas", betas, ("n", len(self.mean)), advice="The voxels that were fitted, in the same order.")
        check_finite("betas", betas)
        return ((betas - self.mean) / self.spread).astype(np.float32)


def _matrix(betas: Any) -> np.ndarray:
    betas = np.asarray(getattr(betas, "betas", betas))
    if betas.ndim != 2 or betas.dtype.kind not in "fiu" or 0 in betas.shape:
        raise invalid("betas", "have shape (n_samples, n_voxels), neither of them 0", betas)
    return betas
