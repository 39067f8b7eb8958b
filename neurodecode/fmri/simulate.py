"""A subject whose voxels are known: features of stimuli drive them linearly, with a noise ceiling that is chosen."""

# n stimuli, d features, p voxels, k repeats, t volumes

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neurodecode.fmri.decoder_ceiling import decoder_ceiling_r2
from neurodecode.fmri.trials import HRFS, Design
from neuroloaders.betas import BetaSet
from neuroloaders.checks import (
    check_finite,
    check_int,
    check_number,
    check_option,
    check_same_length,
    check_shape,
    invalid,
    soft_import,
)

__all__ = ["ScanDesign", "SimulatedSubject", "simulate_subject"]

# Mean response of voxels, in standard deviations of their signal: cortex that sees answers to whatever it is.
_MEAN_RESPONSE = 2.0

# Of the run's mean, arbitrary units.
_BASELINE = 1000.0

_HIGH_PASS = 0.01


@dataclass(frozen=True, kw_only=True)
class ScanDesign:
    """How a simulated subject is scanned.

    Parameters
    ----------
    n_runs : int
        Trials are divided among them as evenly as possible.
    t_r : float
        Time between volumes, in seconds.
    spacing_s : float
        From the start of a trial to that of the next, in seconds.
    duration_s : float
        How long a stimulus is shown, in seconds.
    lead_in_s, tail_s : float
        What is scanned before the first trial and after the last has begun, in seconds.
    hrf : str
        What a trial evokes: "spm" or "glover".
    autocorrelation : float
        Of noise from one volume to the next, in [0, 1): autoregressive of first order.
    drift_percent : float
        Standard deviation of each of up to three slow cosines (below 0.01 Hz), in percent of the mean.
    """

    n_runs: int = 4
    t_r: float = 2.0
    spacing_s: float = 6.0
    duration_s: float = 3.0
    lead_in_s: float = 4.0
    tail_s: float = 20.0
    hrf: str = "spm"
    autocorrelation: float = 0.3
    drift_percent: float = 1.0

    def __post_init__(self) -> None:
        check_int("n_runs", self.n_runs, at_least=1)
        for name in ("t_r", "spacing_s", "duration_s"):
            check_number(name, getattr(self, name), above=0, advice="In seconds.")
        check_number("tail_s", self.tail_s, at_least=10, advice="Responses take that long.")
        check_number("lead_in_s", self.lead_in_s, at_least=0)
        check_option("hrf", self.hrf, [name for name in HRFS if " + " not in name])
        check_number("autocorrelation", self.autocorrelation, at_least=0, below=1)
        check_number("drift_percent", self.drift_percent, at_least=0)


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedSubject:
    """What a simulated subject answered, and what was planted in it.

    Parameters
    ----------
    stimuli : ndarray, shape (n,)
        Ids of the stimuli.
    features : ndarray of float64, shape (n, d)
        Their features.
    weights : ndarray of float64, shape (d, p)
        Responses are features times weights plus `offset`, in percent signal change.
    offset : ndarray of float64, shape (p,)
        Response of each voxel to features of 0.
    noise_sd : ndarray of float64, shape (p,)
        Standard deviation of the noise of the beta of one trial, in percent signal change.
    noise_correlation : float
        Correlation of the noise of any two voxels.
    noise_ceiling : ndarray of float64, shape (p,)
        Share of the variance of responses, averaged over `n_repeats` trials, that is signal; in [0, 1].
    n_repeats : int
        How often each stimulus is shown.
    mask : ndarray of bool, shape (x, y, z)
        Where voxels are, in C order.
    affine : ndarray of float64, shape (4, 4)
        From voxel indices to millimetres.
    rois : mapping of str to ndarray of bool, shape (p,)
        Regions: which voxels were given which features.
    region_features : mapping of str to tuple of int
        Columns of `features` that drive each region.
    betas : BetaSet or None
        Single-trial responses, where they were simulated directly.
    bold : tuple of image, shape (x, y, z, t) each
        Runs, where BOLD was simulated.
    events : tuple of DataFrame
        Their events: ``onset``, ``duration``, ``trial_type``, ``stimulus``.
    """

    stimuli: np.ndarray
    features: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    noise_sd: np.ndarray
    noise_correlation: float
    noise_ceiling: np.ndarray
    n_repeats: int
    mask: np.ndarray
    affine: np.ndarray
    rois: Mapping[str, np.ndarray]
    region_features: Mapping[str, tuple[int, ...]]
    betas: BetaSet | None = None
    bold: tuple[Any, ...] = ()
    events: tuple[Any, ...] = field(default=(), repr=False)

    @property
    def responses(self) -> np.ndarray:
        """Responses without noise, in percent signal change, float64, shape (n, p)."""
        return self.features @ self.weights + self.offset

    @property
    def mask_image(self) -> Any:
        """The mask as a nibabel image."""
        nibabel = soft_import("nibabel", purpose="A mask")
        return nibabel.Nifti1Image(self.mask.astype(np.uint8), self.affine)

    def noise_covariance(self, repeats: int | None = None) -> np.ndarray:
        """Return the covariance of the noise of means over some trials, shape (p, p).

        Parameters
        ----------
        repeats : int, optional
            Over how many; by default `n_repeats`.
        """
        repeats = self.n_repeats if repeats is None else check_int("repeats", repeats, at_least=1)
        shared = np.full((len(self.noise_sd),) * 2, self.noise_correlation)
        np.fill_diagonal(shared, 1.0)
        return shared * np.outer(self.noise_sd, self.noise_sd) / repeats

    def decoder_ceiling(self, covariance: Any = None, *, repeats: int | None = None) -> np.ndarray:
        """Return the R2 of the best linear decoder of each feature from averaged betas, shape (d,).

        Parameters
        ----------
        covariance : array of shape (d, d), optional
            Of the features over the stimuli to decode; by default that of `features`.
        repeats : int, optional
            Over how many trials betas are averaged; by default `n_repeats`.

        Notes
        -----
        See `neurodecode.fmri.decoder_ceiling_r2`. It is that of betas which are simulated directly, whose noise is
        independent from trial to trial.
        """
        if covariance is None:
            covariance = np.atleast_2d(np.cov(self.features, rowvar=False))
        return decoder_ceiling_r2(covariance, self.weights, self.noise_covariance(repeats))

    def respond(
        self, features: Any, *, n_repeats: int | None = None, stimuli: Any = None, rng: np.random.Generator
    ) -> BetaSet:
        """Return single-trial betas to other stimuli, repeat after repeat.

        Parameters
        ----------
        features : array, shape (m, d)
            Features of these stimuli, in the units of those that the subject was made with.
        n_repeats : int, optional
            By default that of the subject.
        stimuli : array of shape (m,), optional
            Their ids; by default 0, 1, ...
        rng : numpy.random.Generator
            Where the noise comes from.
        """
        features = np.asarray(features, dtype=np.float64)
        check_shape("features", features, ("m", self.weights.shape[0]))
        stimuli = np.arange(len(features)) if stimuli is None else np.asarray(stimuli)
        check_same_length(features=features, stimuli=stimuli)
        k = self.n_repeats if n_repeats is None else check_int("n_repeats", n_repeats, at_least=1)
        signal = np.tile(features @ self.weights + self.offset, (k, 1))
        noise = _correlated(rng, signal.shape, self.noise_correlation) * self.noise_sd
        return BetaSet(
            betas=(signal + noise).astype(np.float32),
            stimuli=np.tile(stimuli, k),
            sessions=np.ones(len(signal), dtype=np.int64),
            mask=self.mask,
            affine=self.affine,
            rois=self.rois,
            name="simulated",
            provenance="simulated: a linear model of features, and Gaussian noise",
        )


def simulate_subject(
    features: Any,
    *,
    rng: np.random.Generator,
    n_voxels: int = 200,
    n_repeats: int = 3,
    noise_ceiling: Any = 0.5,
    noise_correlation: float = 0.0,
    signal_percent: float = 1.0,
    regions: Mapping[str, Sequence[int]] | None = None,
    stimuli: Any = None,
    bold: bool = True,
    scan: ScanDesign | None = None,
) -> SimulatedSubject:
    r"""Simulate a subject whose voxels are linear in features of stimuli.

    Parameters
    ----------
    features : array, shape (n, d)
        Features of the stimuli, from any extractor.
    rng : numpy.random.Generator
        Where weights, order and noise come from.
    n_voxels : int
        Voxels, p.
    n_repeats : int
        How often each stimulus is shown, k.
    noise_ceiling : float or array of shape (p,)
        Share of the variance of each voxel's response, averaged over the repeats, that is signal; in [0, 1]. A voxel
        of 0 does not see the stimuli.
    noise_correlation : float
        Correlation of the noise of any two voxels, in [0, 1): what limits decoders that average over voxels.
    signal_percent : float
        Standard deviation of the signal of a voxel over the stimuli, in percent signal change.
    regions : mapping of str to sequence of int, optional
        Which columns of `features` drive each region; voxels are divided evenly among regions. By default "early" is
        driven by the first half of the columns, the low-level features, and "higher" by the second half.
    stimuli : array of shape (n,), optional
        Ids; by default 0, 1, ...
    bold : bool
        Whether BOLD is simulated, for `betas_from_bold`, or betas directly, which takes no time.
    scan : ScanDesign, optional
        How BOLD is scanned.

    Returns
    -------
    SimulatedSubject

    Raises
    ------
    ValueError
        If shapes do not fit, a share is out of range, or a region's features do not vary.

    Notes
    -----
    Weights are Gaussian, scaled so that the signal of each voxel has variance :math:`s^2` over the stimuli
    (`signal_percent` squared, ddof = 1). The noise of one trial has variance :math:`s^2 k (1 - c) / c` for a noise
    ceiling c, so that that of the mean over k trials leaves c: ``neurodecode.scoring.noise_ceiling`` finds it again.

    BOLD is 1000 (1 + (X a + drift + noise) / 100) with responses a and their regressors X. The variance of the noise
    is such that betas have the noise that was asked for, on average over trials, if they are estimated by generalised
    least squares, all trials in one model with cosine drifts below 0.01 Hz and the true autocorrelation:
    :math:`[(X^T V^{-1} X)^{-1}]_{ii}` per unit of variance. That is the default of `betas_from_bold`, up to its
    estimate of the autocorrelation, which suffers where trials follow on each other within 4 s. Betas of neighbouring
    trials then have noise that is correlated.
    """
    features = np.asarray(features, dtype=np.float64)
    check_shape("features", features, ("n", "d"))
    check_finite("features", features)
    n, d = features.shape
    if n < 3 or d == 0:
        raise invalid("features", "be of at least 3 stimuli, and one feature", features)
    p = check_int("n_voxels", n_voxels, at_least=1)
    k = check_int("n_repeats", n_repeats, at_least=1)
    share = np.array(np.broadcast_to(_ceilings(noise_ceiling, p), (p,)))
    check_number("noise_correlation", noise_correlation, at_least=0, below=1)
    s = check_number("signal_percent", signal_percent, above=0)
    stimuli = np.arange(n) if stimuli is None else np.asarray(stimuli)
    check_same_length(features=features, stimuli=stimuli)
    if len(np.unique(stimuli)) < n:
        raise invalid("stimuli", "be unique, one for each row of `features`", f"{len(np.unique(stimuli))} of {n}")
    columns = _regions(regions, d)
    if len(columns) > p:
        raise invalid("n_voxels", f"be at least {len(columns)}, the number of regions", f"{p}")
    weights, rois = np.zeros((d, p)), {}
    for (name, used), voxels in zip(columns.items(), np.array_split(np.arange(p), len(columns)), strict=True):
        rois[name] = np.isin(np.arange(p), voxels)
        weights[np.ix_(used, voxels)] = rng.standard_normal((len(used), len(voxels)))
    spread = (features @ weights).std(axis=0, ddof=1)
    if (spread <= 1e-10 * abs(features).max()).any():
        name = next(name for name, roi in rois.items() if roi[spread.argmin()])
        raise invalid("features", f"vary over stimuli in the columns of {name!r}", "constant ones")
    weights *= np.where(share > 0, s / spread, 0.0)
    with np.errstate(divide="ignore"):
        noise_sd = s * np.where(share > 0, np.sqrt(k * (1 - share) / share), np.sqrt(k))
    mask = _box(p)
    subject = SimulatedSubject(
        stimuli=stimuli,
        features=features,
        weights=weights,
        offset=_MEAN_RESPONSE * s - features.mean(axis=0) @ weights,
        noise_sd=noise_sd,
        noise_correlation=float(noise_correlation),
        noise_ceiling=share,
        n_repeats=k,
        mask=mask,
        affine=np.diag([2.0, 2.0, 2.0, 1.0]),
        rois=rois,
        region_features=columns,
    )
    if not bold:
        return dataclasses.replace(subject, betas=subject.respond(features, stimuli=stimuli, rng=rng))
    runs, events = _scanned(subject, ScanDesign() if scan is None else scan, rng)
    return dataclasses.replace(subject, bold=runs, events=events)


def _ceilings(noise_ceiling: Any, p: int) -> np.ndarray:
    share = np.asarray(noise_ceiling, dtype=np.float64)
    if share.ndim:
        check_shape("noise_ceiling", share, (p,), advice="One for each voxel, or a number.")
    if not ((share >= 0) & (share <= 1)).all():
        raise invalid("noise_ceiling", "lie in [0, 1]", f"{share.min():g}..{share.max():g}", "It is a share.")
    return share


def _regions(regions: Mapping[str, Sequence[int]] | None, d: int) -> dict[str, tuple[int, ...]]:
    if regions is None:
        if d == 1:
            return {"early": (0,), "higher": (0,)}
        return {"early": tuple(range(d // 2)), "higher": tuple(range(d // 2, d))}
    if not regions:
        raise invalid("regions", "name at least one region", "none")
    out = {}
    for name, used in regions.items():
        columns = tuple(int(column) for column in used)
        if not columns or min(columns) < 0 or max(columns) >= d or len(set(columns)) < len(columns):
            raise invalid(f"regions[{name!r}]", f"name columns of features, each once, in 0..{d - 1}", f"{columns}")
        out[name] = columns
    return out


def _box(p: int) -> np.ndarray:
    """Return the smallest cube that holds p voxels, with a layer around them that is outside."""
    side = int(np.ceil(p ** (1 / 3) - 1e-9))
    inside = np.arange(side**3).reshape(side, side, side) < p
    return np.pad(inside, 1)


def _correlated(rng: np.random.Generator, shape: tuple[int, int], correlation: float) -> np.ndarray:
    """Return Gaussian noise of variance 1 whose columns correlate."""
    noise = np.sqrt(1 - correlation) * rng.standard_normal(shape)
    if correlation:
        noise += np.sqrt(correlation) * rng.standard_normal((shape[0], 1))
    return noise


def _scanned(
    subject: SimulatedSubject, scan: ScanDesign, rng: np.random.Generator
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    import pandas as pd
    from scipy.signal import lfilter

    nibabel = soft_import("nibabel", purpose="Simulated BOLD")
    n, p, rho = len(subject.stimuli), len(subject.noise_sd), scan.autocorrelation
    order = np.concatenate([rng.permutation(n) for _ in range(subject.n_repeats)])
    if scan.n_runs > len(order):
        raise invalid("n_runs", f"be at most {len(order)}, the number of trials", f"{scan.n_runs}")
    designs, events, variances = [], [], []
    for trials in np.array_split(order, scan.n_runs):
        onset = scan.lead_in_s + np.arange(len(trials)) * scan.spacing_s
        table = pd.DataFrame(
            {
                "onset": onset,
                "duration": scan.duration_s,
                "trial_type": "stimulus",
                "stimulus": subject.stimuli[trials],
            }
        )
        design = Design(
            n_volumes=int(np.ceil((onset[-1] + scan.tail_s) / scan.t_r)),
            t_r=scan.t_r,
            hrf=scan.hrf,
            high_pass=min(_HIGH_PASS, 0.25 / scan.t_r),
        )
        matrix = design.matrix(table, [f"trial_{i:06d}" for i in range(len(trials))]).to_numpy()
        # An autoregressive process of variance 1 is white after x_t - rho x_{t-1}, over sqrt(1 - rho²).
        white = np.concatenate([matrix[:1], (matrix[1:] - rho * matrix[:-1]) / np.sqrt(1 - rho**2)])
        variances.append(np.diag(np.linalg.inv(white.T @ white))[: len(trials)])
        designs.append((trials, matrix))
        events.append(table)
    noise_sd = subject.noise_sd / np.sqrt(np.concatenate(variances).mean())
    runs = []
    for trials, matrix in designs:
        t, m = len(matrix), len(trials)
        # nilearn puts drifts after the trials, the slowest first, and the constant last.
        slow = matrix[:, m:-1][:, :3]
        slow = slow / slow.std(axis=0)
        percent = matrix[:, :m] @ subject.responses[trials]
        percent += scan.drift_percent * (slow @ rng.standard_normal((slow.shape[1], p)))
        innovations = _correlated(rng, (t, p), subject.noise_correlation)
        innovations[1:] *= np.sqrt(1 - rho**2)
        percent += noise_sd * lfilter([1.0], [1.0, -rho], innovations, axis=0)
        volume = np.zeros((*subject.mask.shape, t), dtype=np.float32)
        volume[subject.mask] = (_BASELINE * (1 + percent / 100)).T
        image = nibabel.Nifti1Image(volume, subject.affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((2.0, 2.0, 2.0, scan.t_r))
        runs.append(image)
    return tuple(runs), tuple(events)
