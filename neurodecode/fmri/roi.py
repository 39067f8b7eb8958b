"""What a region of the brain contributes: scenes from artificial activity, and where the weights of a decoder lie.

A region is a mask over the voxels that a decoder was fitted on. With that region at 1 and all else at 0, a linear
decoder gives latents, and a generator turns them into the scene that the region drives best (Ozcelik & VanRullen 2023
[1]_, Figure 7). The weights themselves say which voxels low-level and high-level features are read from (Figure 8).
All of it comes from the duals: no weight matrix is formed, which at the size of NSD would take 22 GB.

References
----------
.. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.
"""

# R regions, p voxels, m targets, w targets of a chunk

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from neurodecode.ridge.estimator import MultiTargetRidge
from neurodecode.ridge.side_by_side import Layout
from neurodecode.ridge.standardise import PredictionScaler, StandardizedRidge
from neuroloaders.checks import check_number, check_option, check_shape, invalid

__all__ = ["PAPER_NORMS", "SPREADS", "region_latents", "region_preference", "voxel_weights"]

# Lengths that the reference gives to the response of a region, before the intercept, and (low level) at the end.
PAPER_NORMS = {"low_level": (50.0, 80.0), "text": (9.0, None), "image": (15.0, None)}


def _by_training(latents: np.ndarray, scaler: PredictionScaler) -> np.ndarray:
    return np.asarray(scaler.transform(latents), dtype=np.float64)


def _by_regions(latents: np.ndarray, scaler: PredictionScaler) -> np.ndarray:
    if len(latents) < 2:
        advice = "Use spread='training', which works for a single one."
        raise invalid("rois", "name at least 2 regions for spread='regions'", f"{len(latents)}", advice)
    spread = latents.std(axis=0)
    z = (latents - latents.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return z * scaler.target_std_ + scaler.target_mean_


# Where the statistics come from that low-level latents are standardised by.
SPREADS: dict[str, Callable[[np.ndarray, PredictionScaler], np.ndarray]] = {
    "training": _by_training,
    "regions": _by_regions,
}


def region_latents(
    model: StandardizedRidge,
    layout: Layout,
    rois: Mapping[str, Any],
    *,
    norms: Mapping[str, tuple[float, float | None]] = PAPER_NORMS,
    spread: str = "training",
) -> dict[str, np.ndarray]:
    r"""Return the latents of scenes that single regions drive.

    Parameters
    ----------
    model : StandardizedRidge
        Fitted from betas to latents.
    layout : Layout
        Which targets are which kind of latent.
    rois : mapping of str to array of bool, each of shape (n_voxels,)
        The regions, such as the ``rois`` of a `neuroloaders.BetaSet`.
    norms : mapping of str to pair of float
        For each kind of latent: the length of the response, and the final length, which only kinds that are
        standardised have; None for the others. By default those of the reference code.
    spread : {"training", "regions"}
        Standardise the kinds with a final length by the leave-one-out predictions of training rows, or, as the
        reference does, by the regions that are asked for: each scene then depends on the other regions.

    Returns
    -------
    dict of str to ndarray of float32, shape (n_rois, ...)
        Latents of each kind; pass them to a generator.

    Raises
    ------
    ValueError
        If a mask has another number of voxels than the decoder, holds no voxel, or a kind has no norm.

    Notes
    -----
    With weights W, intercept b and the mask r of a region, latents are :math:`n\, W r / \lVert W r \rVert + b`, the
    length taken over all targets of the kind. Those with a final length are then z-scored, given mean and standard
    deviation of the training targets, and scaled to that length. Voxels are in the units that the decoder was fitted
    in: with z-scored betas each voxel of the region is one standard deviation above its mean.
    """
    check_option("spread", spread, SPREADS)
    ridge = _fitted(model)
    if layout.n_targets != len(ridge.alpha_):
        raise invalid("layout", f"name {len(ridge.alpha_)} targets, those of the model", f"{layout.n_targets}")
    for name in layout.shapes:
        if name not in norms:
            raise invalid("norms", "have an entry for each kind of latent", f"none for {name!r}")
    masks = _masks(rois, ridge.n_features_in_)
    response, intercept = _responses(ridge, masks)
    out = {}
    for name, where in layout.columns.items():
        first, final = norms[name]
        first = check_number(f"norms[{name!r}]", first, above=0)
        part = response[:, where]
        length = np.linalg.norm(part, axis=1, keepdims=True)
        if (length == 0).any():
            silent = [roi for roi, value in zip(rois, length[:, 0], strict=True) if value == 0]
            raise invalid("rois", f"each have a voxel with a weight for {name!r}", f"none in {silent[0]!r}")
        latents = part / length * first + intercept[where]
        if final is not None:
            scaler = model.scaler_
            kept = (scaler.prediction_mean_, scaler.prediction_std_, scaler.target_mean_, scaler.target_std_)
            latents = SPREADS[spread](latents, PredictionScaler("loo")._set(*(values[where] for values in kept)))
            latents *= check_number(f"norms[{name!r}]", final, above=0) / np.linalg.norm(latents, axis=1, keepdims=True)
        out[name] = latents.reshape(len(masks), *layout.shapes[name]).astype(np.float32)
    return out


def voxel_weights(model: StandardizedRidge | MultiTargetRidge, layout: Layout) -> dict[str, np.ndarray]:
    """Return how much each kind of latent is read from each voxel: the sum of absolute weights over its targets.

    Parameters
    ----------
    model : StandardizedRidge or MultiTargetRidge
        Fitted from betas to latents.
    layout : Layout
        Which targets are which kind of latent.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_voxels,)
        For each kind; 0 for voxels that were dropped.

    Notes
    -----
    Weights are streamed, some targets at a time. A weight is not an activation: a voxel that carries noise only gets
    weight where that noise is shared with voxels that carry signal (Haufe et al. 2014,
    doi:10.1016/j.neuroimage.2013.10.067).
    """
    ridge = _fitted(model)
    sums = {name: np.zeros(ridge.n_features_in_) for name in layout.shapes}
    for part, block in ridge.weight_chunks():
        block = abs(ridge._features.lib.numpy(block)).astype(np.float64)
        for name, where in layout.columns.items():
            low, high = max(part.start, where.start), min(part.stop, where.stop)
            if low < high:
                sums[name] += block[low - part.start : high - part.start].sum(axis=0)
    return sums


def region_preference(
    weights: Mapping[str, np.ndarray], rois: Mapping[str, Any], *, high: tuple[str, ...] = ("text", "image")
) -> dict[str, float]:
    """Return, for each region, how much more its voxels weigh for high-level than for low-level latents.

    Parameters
    ----------
    weights : mapping of str to ndarray, shape (n_voxels,)
        From `voxel_weights`.
    rois : mapping of str to array of bool, shape (n_voxels,)
        The regions.
    high : tuple of str
        Kinds that count as high-level, those of them that `weights` has; all others are low-level.

    Returns
    -------
    dict of str to float
        Difference of percentile ranks over voxels, averaged over the region's voxels, from -100 (low-level only) to
        100.
    """
    from scipy.stats import rankdata

    n = len(next(iter(weights.values())))
    sides = {
        "high": [values for name, values in weights.items() if name in high],
        "low": [values for name, values in weights.items() if name not in high],
    }
    for side, found in sides.items():
        if not found:
            raise invalid("weights", f"have a {side}-level kind", f"{', '.join(weights)}; high: {', '.join(high)}")
    percentile = {side: rankdata(np.sum(found, axis=0)) / n * 100 for side, found in sides.items()}
    difference = percentile["high"] - percentile["low"]
    return {name: float(difference[mask].mean()) for name, mask in zip(rois, _masks(rois, n), strict=True)}


def _fitted(model: Any) -> MultiTargetRidge:
    ridge = getattr(model, "ridge_", model)
    if not isinstance(ridge, MultiTargetRidge) or getattr(ridge, "_coefficients", None) is None:
        advice = "Fit it with fit(), which keeps its duals."
        raise invalid("model", "be a fitted StandardizedRidge or MultiTargetRidge", model, advice, kind=TypeError)
    return ridge


def _masks(rois: Mapping[str, Any], n_voxels: int) -> np.ndarray:
    """Return the regions as rows of bool, shape (n_rois, n_voxels)."""
    if not rois:
        raise invalid("rois", "name at least one region", "none")
    out = []
    for name, mask in rois.items():
        mask = np.asarray(mask)
        check_shape(f"rois[{name!r}]", mask, (n_voxels,), advice="One entry for each voxel of the decoder.")
        if mask.dtype != bool:
            raise invalid(f"rois[{name!r}]", "be an array of bool", mask, "Say which values belong to it: labels > 0.")
        if not mask.any():
            raise invalid(f"rois[{name!r}]", "hold at least one voxel", "none", "Leave this region out.")
        out.append(mask)
    return np.stack(out)


def _responses(ridge: MultiTargetRidge, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return W r of each region, shape (R, m), and the intercepts, shape (m,), in float64."""
    features = ridge._features
    lib, kept = features.lib, np.flatnonzero(ridge.kept_features_)
    # One row more, the mean of the features, whose response is what the intercept lacks to the mean of the targets.
    rows = lib.array(masks[:, kept].astype(np.float64), features.dtype)
    rows = lib.numpy(rows @ features.x.T if features.dual else rows)
    mean = lib.numpy(features.mean @ features.x.T if features.dual else features.mean)[None]
    inputs = lib.array(np.concatenate([rows, mean]), features.dtype)
    out = np.empty((len(masks) + 1, len(ridge.alpha_)))
    for part in ridge._parts(len(out)):
        out[:, part] = lib.numpy(inputs @ ridge._coefficients[:, part])
    return out[:-1], lib.numpy(ridge._mean).astype(np.float64) - out[-1]
