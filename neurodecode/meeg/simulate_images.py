"""MEG of simulated viewers: features of images drive dipoles with a known time course, under noise of known strength.

Everything that a decoder has to find is planted, and what the best of all decoders would reach can be computed.
"""

# S subjects, C sensors, K sources, F features, I images, N presentations, R samples of a response, J latencies

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import logsumexp

from neurodecode.meeg.simulated_head import (
    BRAIN_RADIUS,
    CENTRE,
    dipole_fields,
    head_noise_covariance,
    helmet,
    slow_noise,
)
from neurodecode.scoring.retrieval import Retrieval
from neuroloaders.checks import check_finite, check_int, check_number, check_same_length, check_shape, invalid
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.window_targets import StimulusFeatures
from neuroloaders.window_times import first_samples, n_samples

__all__ = ["SimulatedImages", "drawn_images", "simulate_images"]

# Of the brain's sources: occipital and, below and to both sides, temporal; m, in head coordinates (y: forward).
_VISUAL = np.array([[-0.015, -0.055, 0.045], [0.015, -0.055, 0.045], [-0.04, -0.035, 0.02], [0.04, -0.035, 0.02]])
_NOISE_T = 1e-13  # standard deviation of the noise of a sensor, on average; T
_LEAD_S, _TAIL_S = 2.0, 2.0  # before the first image and after the last


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedImages:
    """A simulated study of looking at images, and what was planted in it.

    Parameters
    ----------
    recordings : RecordingSet
        One recording for each subject and run, in T.
    events : EventTable
        Kind "image"; the image as stimulus, its category as split_group.
    features : StimulusFeatures
        What drives the brain: F numbers for each image.
    onset_s, offset_s : float
        Begin and end of the responses after the image, but for the jitter of latencies: they are zero outside.
    snr : float
        Variance of the signal between onset and offset over that of the noise, both averaged over sensors.
    mixing : mapping of str to ndarray, shape (C, K)
        For each subject: from sources to sensors, in T.
    readout : ndarray, shape (K, F)
        From standardised features to sources.
    time_course : ndarray, shape (K, R)
        Of each source, from the sample of the image on.
    noise_covariance : ndarray, shape (C, C)
        Of one sample of the noise, T².
    autocorrelation : float
        Of the noise from one sample to the next.
    jitter : ndarray, shape (J,)
        Latencies in samples, each as likely, that are added to a presentation's response.
    driving : mapping of str to ndarray, shape (F,)
        Standardised features of each image.
    """

    recordings: RecordingSet
    events: EventTable
    features: StimulusFeatures
    onset_s: float
    offset_s: float
    snr: float
    mixing: Mapping[str, np.ndarray]
    readout: np.ndarray
    time_course: np.ndarray
    noise_covariance: np.ndarray
    autocorrelation: float
    jitter: np.ndarray
    driving: Mapping[str, np.ndarray] = field(repr=False)

    def ideal(
        self,
        trials: EventTable,
        *,
        tmin: float,
        tmax: float,
        candidates: Sequence[str] | None = None,
        average: bool = False,
        chunk_size: int = 64,
    ) -> Retrieval:
        r"""Return what the best of all decoders reaches: the ceiling of any other.

        Parameters
        ----------
        trials : EventTable
            N presentations.
        tmin, tmax : float
            Ends of the window of brain data in s, relative to the image.
        candidates : sequence of str, optional
            Images to choose among, by default those of the trials.
        average : bool
            Use all presentations of an image, of all subjects, together: one query for each image, in sorted order.
        chunk_size : int
            Trials at a time.

        Returns
        -------
        Retrieval
            Ranks of the true images.

        Notes
        -----
        The ideal observer knows mixing, noise and the distribution of latencies, and takes the image of the largest
        likelihood. With noise that is white after W (over sensors by the covariance, over time by the difference of
        first order) and :math:`\mu_{nj}` the response to image n at latency j, that is the largest
        :math:`\log \sum_j \exp(\langle Wx, W\mu_{nj} \rangle - \lVert W\mu_{nj} \rVert^2 / 2)`. Nothing that a decoder
        may do to a window (baseline, scaling, clamping) can add to what it knows.
        """
        check_int("chunk_size", chunk_size, at_least=1)
        names = np.unique(trials.stimulus) if candidates is None else np.asarray(candidates, dtype=str)
        place = {name: number for number, name in enumerate(names.tolist())}
        missing = [name for name in np.unique(trials.stimulus).tolist() if name not in place]
        if missing:
            raise invalid("candidates", "hold the image of each trial", f"none that is {missing[0]!r}")
        sfreq, n_times = self.recordings.sfreq, n_samples(tmin, tmax, self.recordings.sfreq)
        latent = np.stack([self.driving[name] for name in names.tolist()]) @ self.readout.T
        course = self._whitened(np.stack([self._course(round(tmin * sfreq), n_times, j) for j in self.jitter]))
        log_likelihood = np.empty((len(trials), len(names)))
        for name in np.unique(trials.recording):
            recording = self.recordings[str(name)]
            mixing = self.mixing[recording.subject]
            precise = np.linalg.solve(self.noise_covariance, mixing)
            gram = np.einsum("jkt,jlt,kl->jkl", course, course, mixing.T @ precise)
            energy = np.einsum("nk,jkl,nl->jn", latent, gram, latent, optimize=True)
            rows = np.flatnonzero(trials.recording == name)
            begins = first_samples(trials.start[rows], tmin, sfreq, recording.start)
            if (begins < 0).any() or (begins + n_times > recording.n_times).any():
                raise invalid("trials", "have windows inside their recordings", "one that leaves it")
            for part in range(0, len(rows), chunk_size):
                x = np.stack([recording.data[:, b : b + n_times] for b in begins[part : part + chunk_size]])
                seen = np.einsum("ck,bct->bkt", precise, self._whitened(x.astype(np.float64)), optimize=True)
                scores = np.einsum("bkt,jkt,nk->bjn", seen, course, latent, optimize=True) - energy / 2
                log_likelihood[rows[part : part + chunk_size]] = logsumexp(scores, axis=1)
        own = np.array([place[name] for name in trials.stimulus.tolist()])
        if average:
            shown, number = np.unique(own, return_inverse=True)
            total = np.zeros((len(shown), len(names)))
            np.add.at(total, number, log_likelihood)
            log_likelihood, own = total, shown
        true = log_likelihood[np.arange(len(own)), own][:, None]
        greater, equal = (log_likelihood > true).sum(axis=1), (log_likelihood == true).sum(axis=1) - 1
        return Retrieval(greater=greater, equal=equal, n_candidates=len(names))

    def _course(self, first: int, n_times: int, latency: int) -> np.ndarray:
        """Return the time course in a window that begins `first` samples after the image, shape (K, n_times)."""
        out = np.zeros((len(self.time_course), n_times))
        columns = first - latency + np.arange(n_times)
        inside = (columns >= 0) & (columns < self.time_course.shape[1])
        out[:, inside] = self.time_course[:, columns[inside]]
        return out

    def _whitened(self, x: np.ndarray) -> np.ndarray:
        """Return what is left when each sample's prediction from the one before is taken away."""
        rho = self.autocorrelation
        out = x.copy()
        out[..., 1:] = (x[..., 1:] - rho * x[..., :-1]) / np.sqrt(1 - rho**2)
        return out


def drawn_images(
    n_categories: int, n_exemplars: int, n_features: int, *, rng: np.random.Generator, within: float = 0.5
) -> tuple[list[str], list[str], np.ndarray]:
    """Draw embeddings of images that do not exist: a centre for each category, and exemplars around it.

    Parameters
    ----------
    n_categories, n_exemplars, n_features : int
        Categories; images of each; F.
    rng : numpy.random.Generator
        Where they come from.
    within : float
        Share of the variance within categories, in [0, 1].

    Returns
    -------
    names : list of str, length I
        "category/exemplar".
    categories : list of str, length I
        The category of each.
    features : ndarray of float32, shape (I, F)
        Of variance 1.
    """
    for name, value in (("n_categories", n_categories), ("n_exemplars", n_exemplars), ("n_features", n_features)):
        check_int(name, value, at_least=1)
    within = check_number("within", within, at_least=0, at_most=1)
    centres = rng.standard_normal((n_categories, 1, n_features)) * np.sqrt(1 - within)
    features = centres + rng.standard_normal((n_categories, n_exemplars, n_features)) * np.sqrt(within)
    categories = [f"thing-{c:04d}" for c in range(n_categories) for _ in range(n_exemplars)]
    names = [f"{category}/{k % n_exemplars:02d}" for k, category in enumerate(categories)]
    return names, categories, features.reshape(-1, n_features).astype(np.float32)


def simulate_images(
    names: Sequence[str],
    features: Any,
    *,
    rng: np.random.Generator,
    categories: Sequence[str] | None = None,
    n_repeats: int | Sequence[int] = 1,
    n_subjects: int = 4,
    n_runs: int = 2,
    sfreq: float = 120.0,
    spacing_s: tuple[float, float] = (1.3, 1.7),
    onset_s: float = 0.1,
    offset_s: float = 0.5,
    jitter_s: float = 0.0,
    n_sensors: int = 64,
    n_sources: int = 16,
    snr: float = 0.05,
    autocorrelation: float = 0.9,
) -> SimulatedImages:
    """Simulate a study in which every subject sees the same images, in an order of its own.

    Parameters
    ----------
    names : sequence of str, length I
        The images.
    features : array of shape (I, F)
        What the brain makes of them. It is standardised before it drives anything.
    rng : numpy.random.Generator
        Where all comes from: the same generator, the same study.
    categories : sequence of str, length I, optional
        What is on each, by default its name.
    n_repeats : int or sequence of int, length I
        How often each image is shown to each subject.
    n_subjects, n_runs, n_sensors, n_sources : int
        S; recordings of each subject; C; K.
    sfreq : float
        Rate of the recordings, Hz.
    spacing_s : (float, float)
        Least and greatest time from an image to the next, s.
    onset_s, offset_s : float
        Begin and end of responses. Sources answer one after the other between them, each for half of that time.
    jitter_s : float
        Greatest shift of a presentation's response, to either side; s, rounded to samples.
    snr : float
        Variance of the signal between onset and offset over that of the noise, both averaged over sensors and, for the
        signal, over images; 0 for a brain that does not look.
    autocorrelation : float
        Of the noise from one sample to the next, in [0, 1): slow noise, as brains have.

    Returns
    -------
    SimulatedImages

    Notes
    -----
    Dipoles in occipital and temporal cortex, of places and directions that differ between subjects; subjects share what
    sources follow, and when, not how sensors see them. Fields are those of a spherical head in axial gradiometers
    (``mne.make_forward_dipole``). The noise is of 150 dipoles all over the head and, for a fifth of the variance, of
    the sensors, and autoregressive of first order.
    """
    features = np.asarray(features, dtype=np.float64)
    check_shape("features", features, ("I", "F"))
    check_finite("features", features)
    names = [str(name) for name in names]
    categories = names if categories is None else [str(name) for name in categories]
    check_same_length(names=names, features=features, categories=categories)
    repeats = np.full(len(names), n_repeats) if np.ndim(n_repeats) == 0 else np.asarray(n_repeats)
    check_same_length(names=names, n_repeats=repeats)
    if repeats.dtype.kind not in "iu" or (repeats < 0).any() or repeats.sum() < n_runs:
        advice = "An image that nobody sees has 0."
        raise invalid("n_repeats", f"be whole numbers with a sum of at least n_runs={n_runs}", n_repeats, advice)
    for name, value in (("n_subjects", n_subjects), ("n_runs", n_runs), ("n_sources", n_sources)):
        check_int(name, value, at_least=1)
    check_number("sfreq", sfreq, above=0)
    check_number("snr", snr, at_least=0)
    shift = round(check_number("jitter_s", jitter_s, at_least=0) * sfreq)
    least, greatest = spacing_s
    if not 0 < least <= greatest:
        raise invalid("spacing_s", "be two times above 0, the lesser first", spacing_s)
    course = _time_course(n_sources, onset_s, offset_s, shift, sfreq)
    if course.shape[1] + shift > least * sfreq:
        advice = "Responses to two images may not overlap."
        raise invalid("spacing_s", f"begin above offset_s + jitter_s = {offset_s + jitter_s:g}", spacing_s, advice)

    spread = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    readout = rng.standard_normal((n_sources, features.shape[1])) / np.sqrt(features.shape[1])
    info, positions = helmet(n_sensors, sfreq)
    covariance = _NOISE_T**2 * head_noise_covariance(info, rng)
    root = np.linalg.cholesky(covariance)
    power = readout @ np.cov(standard, rowvar=False, ddof=0).reshape(features.shape[1], -1) @ readout.T
    active = course[:, course.any(axis=0)]
    jitter = np.arange(-shift, shift + 1)
    mixing, recordings, events = {}, [], []
    for subject in (f"S{k + 1:02d}" for k in range(n_subjects)):
        gain = dipole_fields(info, _source_places(n_sources, rng), rng)
        signal = np.einsum("ck,kl,cl,kt,lt->ct", gain, power, gain, active, active, optimize=True).mean()
        mixing[subject] = gain * np.sqrt(snr * np.diag(covariance).mean() / signal)
        order = rng.permutation(np.repeat(np.arange(len(names)), repeats))
        for run, shown in enumerate(np.array_split(order, n_runs)):
            steps = np.rint(rng.uniform(least, greatest, len(shown)) * sfreq).astype(int)
            begins = round(_LEAD_S * sfreq) + np.cumsum(steps) - steps[0]
            n_times = int(begins[-1]) + course.shape[1] + round(_TAIL_S * sfreq)
            data = root @ slow_noise((n_sensors, n_times), autocorrelation, rng)
            late = rng.choice(jitter, len(shown))
            latent = standard[shown] @ readout.T
            for first, strength in zip(begins + late, latent, strict=True):
                data[:, first : first + course.shape[1]] += (mixing[subject] * strength) @ course
            recordings.append(ContinuousRecording(
                data=data.astype(np.float32), sfreq=sfreq, ch_names=tuple(info["ch_names"]), subject=subject,
                run=str(run), positions=positions, provenance="simulated",
            ))  # fmt: skip
            events.append(EventTable(
                start=begins / sfreq, recording=recordings[-1].name, kind="image", duration=0.5,
                stimulus=[names[k] for k in shown], split_group=[categories[k] for k in shown],
            ))  # fmt: skip
    return SimulatedImages(
        recordings=RecordingSet(recordings),
        events=concatenate_events(events),
        features=StimulusFeatures(names, features.astype(np.float32)),
        onset_s=onset_s,
        offset_s=offset_s,
        snr=snr,
        mixing=mixing,
        readout=readout,
        time_course=course,
        noise_covariance=covariance,
        autocorrelation=autocorrelation,
        jitter=jitter,
        driving=dict(zip(names, standard, strict=True)),
    )


def _source_places(n_sources: int, rng: np.random.Generator) -> np.ndarray:
    """Return places around those of the visual cortex, all of them inside the brain; m, shape (K, 3)."""
    where = _VISUAL[np.arange(n_sources) % len(_VISUAL)] - CENTRE
    where = where + rng.normal(0, 0.008, where.shape)
    radius = np.linalg.norm(where, axis=1, keepdims=True)
    return CENTRE + where * np.minimum(1.0, BRAIN_RADIUS / radius)


def _time_course(n_sources: int, onset_s: float, offset_s: float, shift: int, sfreq: float) -> np.ndarray:
    """Return cosine arches from onset to offset, each half as long as the whole, shape (K, R)."""
    check_number("onset_s", onset_s, at_least=shift / sfreq, advice="No response may come before its image.")
    check_number("offset_s", offset_s, above=onset_s)
    first, last = round(onset_s * sfreq), round(offset_s * sfreq)
    if last - first < 4:
        raise invalid("offset_s", "be at least four samples after onset_s", f"{last - first} samples")
    width = (last - first) / 2
    begins = first + np.linspace(0, width, n_sources) if n_sources > 1 else np.array([first + width / 2])
    phase = (np.arange(last + 1) - begins[:, None]) / width
    return np.where((phase >= 0) & (phase <= 1), np.sin(np.pi * np.clip(phase, 0, 1)), 0.0)
