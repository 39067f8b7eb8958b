"""The best that any linear decoder could do, where the model of the voxels is known."""

# d features, p voxels

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_shape, invalid

__all__ = ["decoder_ceiling_r2", "wiener_decoder"]


def decoder_ceiling_r2(covariance: Any, weights: Any, noise: Any) -> np.ndarray:
    r"""Return the R2 of the best linear decoder of each feature.

    Parameters
    ----------
    covariance : array, shape (d, d)
        Covariance of the features over stimuli.
    weights : array, shape (d, p)
        Responses are features times weights, plus a constant, plus noise.
    noise : array, shape (p,) or (p, p)
        Variance of each voxel's noise, or its covariance. Of betas that are means over k trials: a kth of that of one.

    Returns
    -------
    ndarray of float64, shape (d,)
        One minus the expected squared error over the variance. NaN for a feature that does not vary.

    Raises
    ------
    ValueError
        If shapes do not fit, a matrix is not symmetric, or the noise is not positive definite.

    Notes
    -----
    With features of covariance C, weights W and noise N, the error of the best linear decoder has covariance

    .. math:: E = C - C W (W^T C W + N)^{-1} W^T C = C (I + W N^{-1} W^T C)^{-1}

    (Wiener 1949; for Gaussian features and noise no other decoder does better). The second form needs no inverse of C,
    which may be singular.

    Examples
    --------
    >>> decoder_ceiling_r2([[4.0]], [[1.0, 1.0]], [4.0, 4.0]).round(3).tolist()
    [0.667]
    """
    covariance, information = _checked(covariance, weights, noise)
    variance = np.diag(covariance)
    error = np.diag(np.linalg.solve((np.eye(len(covariance)) + information[0] @ covariance).T, covariance.T).T)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance > 0, 1 - error / variance, np.nan)


def wiener_decoder(covariance: Any, weights: Any, noise: Any) -> np.ndarray:
    """Return the best linear decoder, shape (p, d): centred betas times it are features less their mean.

    Parameters
    ----------
    covariance, weights, noise
        As for `decoder_ceiling_r2`.
    """
    covariance, (information, whitened) = _checked(covariance, weights, noise)
    # N⁻¹ Wᵀ C (I + W N⁻¹ Wᵀ C)⁻¹
    return whitened @ np.linalg.solve((np.eye(len(covariance)) + information @ covariance).T, covariance.T).T


def _checked(covariance: Any, weights: Any, noise: Any) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return C, W N⁻¹ Wᵀ and N⁻¹ Wᵀ."""
    covariance, weights, noise = (np.asarray(value, dtype=np.float64) for value in (covariance, weights, noise))
    d, p = check_shape("weights", weights, ("d", "p")).shape
    check_shape("covariance", covariance, (d, d))
    for name, value in (("covariance", covariance), ("weights", weights), ("noise", noise)):
        check_finite(name, value)
    if not np.allclose(covariance, covariance.T, rtol=1e-8, atol=1e-10 * abs(covariance).max()):
        raise invalid("covariance", "be symmetric", covariance)
    if noise.ndim == 1:
        check_shape("noise", noise, (p,))
        if (noise <= 0).any():
            raise invalid("noise", "be > 0 for each voxel", f"{noise.min():g}", "Without noise there is no ceiling.")
        whitened = weights.T / noise[:, None]
    else:
        check_shape("noise", noise, (p, p))
        from scipy.linalg import LinAlgError, cho_factor, cho_solve

        if not np.allclose(noise, noise.T, rtol=1e-8, atol=1e-10 * abs(noise).max()):
            raise invalid("noise", "be symmetric", noise)
        try:
            whitened = cho_solve(cho_factor(noise), weights.T)
        except LinAlgError as error:
            raise invalid("noise", "be positive definite", noise, "Without noise there is no ceiling.") from error
    return covariance, (weights @ whitened, whitened)
