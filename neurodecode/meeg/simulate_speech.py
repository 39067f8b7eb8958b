"""MEG of simulated listeners: the spectrum of speech drives dipoles, a known time later, under noise of known strength.

Everything that a decoder has to find is planted, and what the best of all decoders would reach can be computed.
"""

# S subjects, C sensors, K sources, F features, T samples, B trials, N candidates

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neurodecode.features.audio import Audio, MelSpectrum, audio_features
from neurodecode.meeg.synthetic_speech import Story, make_lexicon, tell_story
from neurodecode.scoring.retrieval import Retrieval
from neuroloaders.checks import check_int, check_number, check_shape, invalid, soft_import
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.window_targets import StimulusSequences
from neuroloaders.window_times import first_samples, n_samples

__all__ = ["SimulatedSpeech", "helmet", "simulate_speech"]

_CENTRE = np.array([0.0, 0.0, 0.04])  # of the head, m
_HEAD, _HELMET = 0.09, 0.11  # radii, m
# Left and right auditory cortex, about; m.
_AUDITORY = np.array([[-0.05, 0.0, 0.055], [0.05, 0.0, 0.055]])
_N_BACKGROUND = 150
_WHITE_SHARE = 0.2
_NOISE_T = 1e-13  # standard deviation of the noise of a sensor, on average; T


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedSpeech:
    """A simulated study of listening, and what was planted in it.

    Parameters
    ----------
    recordings : RecordingSet
        One recording for each subject and story, in T.
    events : EventTable
        Kinds "sound" (one a recording), "sentence" and "word"; words have their text in the extra column "word".
    sounds : mapping of str to Story
        The stories.
    features, envelope : StimulusSequences
        The mel spectrum of each story in decibels / 10, and its mean over bands: what drives the sources, and a part
        of it.
    lag_s : float
        From sound to brain.
    snr : float
        Variance of the signal over that of the noise, both averaged over sensors and samples.
    mixing : mapping of str to ndarray, shape (C, F)
        For each subject: from standardised features to sensors, in T.
    noise_covariance : ndarray, shape (C, C)
        Of one sample of the noise, T².
    autocorrelation : float
        Of the noise from one sample to the next.
    driving : mapping of str to ndarray, shape (F, T_story)
        Standardised features of each story, at the rate of the recordings.
    """

    recordings: RecordingSet
    events: EventTable
    sounds: Mapping[str, Story]
    features: StimulusSequences
    envelope: StimulusSequences
    lag_s: float
    snr: float
    mixing: Mapping[str, np.ndarray]
    noise_covariance: np.ndarray
    autocorrelation: float
    driving: Mapping[str, np.ndarray] = field(repr=False)

    def ideal(self, trials: EventTable, *, tmin: float, tmax: float, chunk_size: int = 64) -> Retrieval:
        r"""Return what the best of all decoders reaches: the ceiling of any other.

        Parameters
        ----------
        trials : EventTable
            B windows, with the story as stimulus and the place in it in the extra column "stimulus_start", as
            `neurodecode.meeg.word_windows` makes them. Each distinct one is a candidate.
        tmin, tmax : float
            Ends of the window of brain data in s, relative to the event.
        chunk_size : int
            Trials at a time.

        Returns
        -------
        Retrieval
            Ranks of the true candidates.

        Notes
        -----
        The ideal observer knows the mixing and the noise, and takes the candidate of the largest likelihood. With
        noise that is white after W (over sensors by the covariance, over time by the difference of first order), and
        :math:`\mu_n` the response to candidate n, that is the largest
        :math:`\langle Wx, W\mu_n \rangle - \lVert W\mu_n \rVert^2 / 2`. Two candidates at the distance
        :math:`d = \lVert W(\mu_1 - \mu_2) \rVert` are told apart with the probability :math:`\Phi(d / 2)`. Nothing that
        a decoder may do to the window (baseline, scaling, clamping) can add to what it knows.
        """
        check_int("chunk_size", chunk_size, at_least=1)
        where = _story_starts(trials)
        keys = [f"{name}@{start:.6f}" for name, start in zip(trials.stimulus, where, strict=True)]
        _, first, number = np.unique(keys, return_index=True, return_inverse=True)
        sfreq, n_times = self.recordings.sfreq, n_samples(tmin, tmax, self.recordings.sfreq)
        offset = round(tmin * sfreq)
        drive = np.stack([self._drive(trials.stimulus[k], where[k], offset, n_times) for k in first])
        drive = self._whitened(drive)
        greater, equal = np.zeros(len(trials), dtype=np.int64), np.zeros(len(trials), dtype=np.int64)
        for name in np.unique(trials.recording):
            recording = self.recordings[str(name)]
            precise = np.linalg.solve(self.noise_covariance, self.mixing[recording.subject])
            gram = self.mixing[recording.subject].T @ precise
            energy = np.einsum("nft,fg,ngt->n", drive, gram, drive, optimize=True)
            rows = np.flatnonzero(trials.recording == name)
            begins = first_samples(trials.start[rows], tmin, sfreq, recording.start)
            if (begins < 0).any() or (begins + n_times > recording.n_times).any():
                raise invalid("trials", "have windows inside their recordings", "one that leaves it")
            for part in range(0, len(rows), chunk_size):
                mine = rows[part : part + chunk_size]
                x = np.stack([recording.data[:, b : b + n_times] for b in begins[part : part + chunk_size]])
                seen = np.einsum("cf,bct->bft", precise, self._whitened(x.astype(np.float64)), optimize=True)
                scores = seen.reshape(len(mine), -1) @ drive.reshape(len(drive), -1).T - energy / 2
                own = scores[np.arange(len(mine)), number[mine]][:, None]
                greater[mine] = (scores > own).sum(axis=1)
                equal[mine] = (scores == own).sum(axis=1) - 1
        return Retrieval(greater=greater, equal=equal, n_candidates=len(first))

    def _drive(self, story: str, where: float, offset: int, n_times: int) -> np.ndarray:
        """Return what the brain hears of a story in a window, shape (F, n_times)."""
        sfreq, table = self.recordings.sfreq, self.driving[story]
        first = int(np.rint(where * sfreq)) + offset - round(self.lag_s * sfreq)
        columns = first + np.arange(n_times)
        inside = (columns >= 0) & (columns < table.shape[1])
        return np.where(inside, table[:, columns.clip(0, table.shape[1] - 1)], 0.0)

    def _whitened(self, x: np.ndarray) -> np.ndarray:
        """Return x without what the sample before tells of the noise, along the last axis."""
        rho = self.autocorrelation
        out = x.copy()
        out[..., 1:] = (x[..., 1:] - rho * x[..., :-1]) / np.sqrt(1 - rho**2)
        return out


def helmet(n_sensors: int) -> tuple[Any, np.ndarray]:
    """Return a helmet of axial gradiometers around the head.

    Parameters
    ----------
    n_sensors : int
        C, spread evenly.

    Returns
    -------
    info : mne.Info
        With the places of the coils.
    positions : ndarray of float32, shape (C, 2)
        Places on the flattened helmet, from 0 to 1.
    """
    mne = soft_import("mne", purpose="A forward model")
    check_int("n_sensors", n_sensors, at_least=4)
    k = np.arange(n_sensors) + 0.5
    z = 1 - 1.15 * k / n_sensors  # from the vertex to a little below the centre
    turn = np.pi * (1 + np.sqrt(5)) * k
    normal = np.column_stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z])
    info = mne.create_info([f"MEG{number:03d}" for number in range(n_sensors)], 120.0, "mag")
    with info._unlock():
        for channel, ez in zip(info["chs"], normal, strict=True):
            across = np.cross([0.0, 1.0, 0.0] if abs(ez[2]) > 0.9 else [0.0, 0.0, 1.0], ez)
            ex = across / np.linalg.norm(across)
            channel["loc"] = np.concatenate([_CENTRE + _HELMET * ez, ex, np.cross(ez, ex), ez])
            channel["coil_type"] = 5001  # axial gradiometers of CTF, 5 cm
        info["dev_head_t"] = mne.transforms.Transform("meg", "head")
    flat = normal[:, :2] * (np.arccos(z) / np.sqrt(1 - z**2))[:, None]
    low, high = flat.min(axis=0), flat.max(axis=0)
    return info, ((flat - low) / (high - low)).astype(np.float32)


def simulate_speech(
    *,
    rng: np.random.Generator,
    n_subjects: int = 3,
    n_stories: int = 1,
    n_sentences: int = 40,
    n_words: int = 40,
    words_per_sentence: Sequence[int] = (5, 9),
    sfreq: float = 120.0,
    n_sensors: int = 64,
    n_sources: int = 10,
    n_mels: int = 20,
    lag_s: float = 0.15,
    snr: float = 0.1,
    autocorrelation: float = 0.9,
    feature_rate: float = 50.0,
    stories: Sequence[Story] | None = None,
) -> SimulatedSpeech:
    """Simulate a study in which every subject hears the same stories.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where all comes from: the same generator, the same study.
    n_subjects, n_stories, n_sentences, n_words, words_per_sentence
        Size of the study: S; recordings of each subject; sentences of each story; the vocabulary; the fewest and the
        most words of a sentence.
    sfreq : float
        Rate of the recordings, Hz.
    n_sensors, n_sources, n_mels : int
        C, K and F. Fewer sources than features: the brain does not carry all of the spectrum.
    lag_s : float
        From sound to brain, a whole number of samples.
    snr : float
        Variance of the signal over that of the noise, both averaged over sensors; 0 for a brain that does not listen.
    autocorrelation : float
        Of the noise from one sample to the next, in [0, 1): slow noise, as brains have.
    feature_rate : float
        Frames a second of the features, Hz.
    stories : sequence of Story, optional
        Sounds to be heard, such as read speech with its words, in place of synthetic ones.

    Returns
    -------
    SimulatedSpeech

    Notes
    -----
    Dipoles in both auditory cortices, of places and directions that differ between subjects, and a rotation of the
    sources of each subject's own: subjects share the features that the brain follows, not how sensors see them. Fields
    are those of a spherical head in axial gradiometers (``mne.make_forward_dipole``). The noise is of 150 dipoles all
    over the head and, for a fifth of the variance, of the sensors, and autoregressive of first order.
    """
    for name, value in (("n_subjects", n_subjects), ("n_stories", n_stories), ("n_sources", n_sources)):
        check_int(name, value, at_least=1)
    check_number("sfreq", sfreq, above=0)
    check_number("snr", snr, at_least=0)
    check_number("autocorrelation", autocorrelation, at_least=0, below=1)
    n_lag = round(check_number("lag_s", lag_s, at_least=0) * sfreq)
    if abs(n_lag / sfreq - lag_s) > 1e-9:
        raise invalid("lag_s", f"be a whole number of samples of {1 / sfreq:g} s", f"{lag_s:g}")
    if stories is None:
        lexicon = make_lexicon(n_words, rng=rng)
        settings = {"words_per_sentence": words_per_sentence, "rng": rng}
        stories = [tell_story(lexicon, n_sentences, **settings) for _ in range(n_stories)]
    sounds = {f"story-{k}": story for k, story in enumerate(stories)}
    mel = MelSpectrum(n_mels=n_mels)
    tables = {name: audio_features(Audio(s.wave, s.sfreq), mel, rate=feature_rate) for name, s in sounds.items()}
    joined = np.concatenate(list(tables.values()), axis=1)
    mean, spread = joined.mean(axis=1, keepdims=True), joined.std(axis=1, keepdims=True)
    spread[spread == 0] = 1.0
    driving = {}
    for name, table in tables.items():
        columns = np.floor(np.arange(int(table.shape[1] * sfreq / feature_rate)) * feature_rate / sfreq + 1e-9)
        driving[name] = ((table - mean) / spread)[:, columns.astype(int)].astype(np.float64)
    info, positions = helmet(n_sensors)
    gains, covariance = _fields(info, n_subjects, n_sources, rng)
    shared = rng.standard_normal((n_sources, n_mels)) / np.sqrt(n_mels)
    power = np.cov(np.concatenate(list(driving.values()), axis=1))
    subjects = [f"S{k + 1:02d}" for k in range(n_subjects)]
    mixing, recordings, events = {}, [], []
    root = np.linalg.cholesky(covariance)
    for subject, gain in zip(subjects, gains, strict=True):
        turned = np.linalg.qr(rng.standard_normal((n_sources, n_sources)))[0]
        plan = gain @ turned @ shared
        signal = np.einsum("cf,fg,cg->c", plan, power, plan).mean()
        mixing[subject] = plan * np.sqrt(snr * np.diag(covariance).mean() / signal)
        for run, (name, story) in enumerate(sounds.items()):
            begin = float(rng.integers(round(1.5 * sfreq), round(3.0 * sfreq))) / sfreq
            heard = mixing[subject] @ driving[name]
            n_times = round((begin + lag_s + 3.0) * sfreq) + heard.shape[1]
            data = root @ _slow_noise((n_sensors, n_times), autocorrelation, rng)
            first = round(begin * sfreq) + n_lag
            data[:, first : first + heard.shape[1]] += heard
            recordings.append(ContinuousRecording(
                data=data.astype(np.float32), sfreq=sfreq, ch_names=tuple(info["ch_names"]), subject=subject,
                run=str(run), positions=positions, provenance="simulated",
            ))  # fmt: skip
            events.append(_events_of(recordings[-1].name, name, story, begin, sfreq))
    return SimulatedSpeech(
        recordings=RecordingSet(recordings),
        events=concatenate_events(events),
        sounds=sounds,
        features=StimulusSequences(tables, sfreq=feature_rate),
        envelope=StimulusSequences({n: t.mean(axis=0, keepdims=True) for n, t in tables.items()}, sfreq=feature_rate),
        lag_s=lag_s,
        snr=snr,
        mixing=mixing,
        noise_covariance=covariance,
        autocorrelation=autocorrelation,
        driving=driving,
    )


def _fields(info: Any, n_subjects: int, n_sources: int, rng: np.random.Generator) -> tuple[list[np.ndarray], Any]:
    """Return the fields of each subject's sources, (C, K) each, and the covariance of the noise, (C, C)."""
    mne = soft_import("mne", purpose="A forward model")
    places = []
    for _ in range(n_subjects):
        side = _AUDITORY[np.arange(n_sources) % 2]
        places.append(side + rng.normal(0, 0.008, side.shape))
    directions = rng.standard_normal((_N_BACKGROUND, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places.append(_CENTRE + 0.078 * rng.uniform(0.2, 1.0, (_N_BACKGROUND, 1)) ** (1 / 3) * directions)
    where = np.concatenate(places)
    towards = rng.standard_normal(where.shape)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    n = len(where)
    # In MNE, dipoles of one object differ in time.
    dipoles = mne.Dipole(np.arange(n) / 1.0, where, np.ones(n), towards, np.full(n, 100.0), verbose="error")
    head = mne.make_sphere_model(_CENTRE, _HEAD, verbose="error")
    fields = mne.make_forward_dipole(dipoles, head, info, verbose="error")[0]["sol"]["data"]
    gains = [fields[:, k * n_sources : (k + 1) * n_sources] for k in range(n_subjects)]
    background = fields[:, n_subjects * n_sources :]
    covariance = background @ background.T
    covariance /= np.diag(covariance).mean()
    covariance = (1 - _WHITE_SHARE) * covariance + _WHITE_SHARE * np.eye(len(covariance))
    return gains, _NOISE_T**2 * covariance


def _slow_noise(shape: tuple[int, int], rho: float, rng: np.random.Generator) -> np.ndarray:
    """Return stationary autoregressive noise of variance 1 along the last axis."""
    from scipy.signal import lfilter

    innovations = rng.standard_normal(shape)
    innovations[:, 1:] *= np.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], innovations, axis=1)


def _events_of(recording: str, name: str, story: Story, begin: float, sfreq: float) -> EventTable:
    """Return the events of a recording, at times of its samples, so that no rounding is left to the reader."""
    length = len(story.wave) / story.sfreq
    rows = [("sound", 0.0, length, name, "")]
    rows += [("sentence", start, stop - start, text, "") for start, stop, text in story.sentences]
    rows += [("word", start, stop - start, word, word) for start, stop, word in story.words]
    kind, start, duration, stimulus, word = (np.array(column) for column in zip(*rows, strict=True))
    return EventTable(
        start=np.rint((start + begin) * sfreq) / sfreq,
        recording=recording,
        kind=kind,
        duration=duration,
        stimulus=stimulus,
        extra={"word": word},
    )


def _story_starts(trials: EventTable) -> np.ndarray:
    if "stimulus_start" not in trials.extra:
        raise invalid("trials", "have the column 'stimulus_start'", trials, "Make them with word_windows.")
    where = trials.extra["stimulus_start"]
    return check_shape("trials.extra['stimulus_start']", where, (len(trials),))
