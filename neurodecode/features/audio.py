"""What was heard, as features over time: wav2vec 2.0 and mel spectrograms, computed block by block.

A block is what a split keeps together: a sentence, a story. Audio is cut at the borders of the blocks before anything
looks at it, so that no feature of a training sentence has heard the test sentence beside it.
"""

# n samples of audio, F features, T frames

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import (
    check_finite,
    check_int,
    check_number,
    check_shape,
    corrupt_file,
    invalid,
    missing_data,
    soft_import,
)

__all__ = ["AUDIO_FEATURES", "Audio", "MelSpectrum", "Wav2Vec", "audio_features", "audio_table"]


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording of sound.

    Parameters
    ----------
    wave : array of shape (n,) or (n, channels)
        In [-1, 1]; channels are averaged.
    sfreq : float
        Sampling rate, Hz.
    """

    wave: np.ndarray
    sfreq: float

    def __post_init__(self) -> None:
        wave = np.asarray(self.wave, dtype=np.float32)
        if wave.ndim not in (1, 2) or 0 in wave.shape:
            raise invalid("wave", "have shape (n,) or (n, channels), neither of them 0", wave)
        object.__setattr__(self, "wave", check_finite("wave", wave if wave.ndim == 1 else wave.mean(axis=1)))
        object.__setattr__(self, "sfreq", check_number("sfreq", self.sfreq, above=0))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Audio:
        """Read a wav file, any kind of PCM or floating point."""
        from scipy.io import wavfile

        try:
            sfreq, wave = wavfile.read(path)
        except FileNotFoundError as error:
            raise invalid(
                "path", "be a wav file", f"{os.fspath(path)!r}, which is not there", kind=type(error)
            ) from error
        except (ValueError, EOFError) as error:
            raise corrupt_file(path, str(error), "Convert it to a plain PCM wav file.") from error
        if wave.dtype.kind == "i":
            wave = wave / float(-np.iinfo(wave.dtype).min)
        elif wave.dtype == np.uint8:
            wave = (wave - 128.0) / 128.0
        return cls(wave, sfreq)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.wave) / self.sfreq

    def resampled(self, sfreq: int) -> np.ndarray:
        """Return the wave at another whole rate, by a polyphase filter, shape (n,) float32."""
        from scipy.signal import resample_poly

        if float(self.sfreq) != int(self.sfreq):
            raise invalid("sfreq", "be a whole number of Hz to be resampled", f"{self.sfreq}")
        up, down = int(sfreq), int(self.sfreq)
        common = gcd(up, down)
        return resample_poly(self.wave, up // common, down // common).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Wav2Vec:
    """Hidden states of wav2vec 2.0, averaged over layers.

    Parameters
    ----------
    model : Wav2Vec2Model
        From transformers, in evaluation mode.
    layers : tuple of int
        Which hidden states are averaged; 0 is what enters the first layer of the transformer.
    digest : str
        Hash of the weights.
    device : str
        Where to compute.

    Notes
    -----
    Défossez et al. 2023 [1]_ take the mean of layers 14 to 18 of ``facebook/wav2vec2-large-xlsr-53``, 1024 features at
    49.95 Hz. Audio is at 16 kHz with mean 0 and variance 1 over a block, as that model's feature extractor makes it.

    References
    ----------
    .. [1] Défossez et al., Nature Machine Intelligence 5 (2023), doi:10.1038/s42256-023-00714-5.
    """

    model: Any
    layers: tuple[int, ...] = (14, 15, 16, 17, 18)
    digest: str = ""
    device: str = "cpu"

    name = "wav2vec2"
    sfreq = 16_000

    def __post_init__(self) -> None:
        n_layers = self.model.config.num_hidden_layers
        for layer in self.layers:
            check_int("layers", layer, at_least=0, at_most=n_layers, advice=f"The model has {n_layers}.")
        if not self.layers:
            raise invalid("layers", "name at least one layer", "none")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] = "facebook/wav2vec2-large-xlsr-53",
        *,
        layers: Sequence[int] = (14, 15, 16, 17, 18),
        device: str = "cpu",
    ) -> Wav2Vec:
        """Load a model from a folder, or from the cache of the Hugging Face hub; nothing is downloaded.

        Parameters
        ----------
        path : path-like
            A folder with ``config.json`` and ``model.safetensors``, or a name on the hub.
        layers : sequence of int
            As above.
        device : str
            As above.

        Raises
        ------
        FileNotFoundError
            If it is in neither: the message says how to download it.
        """
        transformers = soft_import("transformers", purpose="Wav2Vec")
        try:
            model = transformers.Wav2Vec2Model.from_pretrained(
                os.fspath(path), local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            advice = f"With network: huggingface-cli download {os.fspath(path)}, or pass a folder that holds it."
            raise missing_data(
                os.fspath(path), ["config.json", "model.safetensors"], [path, "the cache of the hub"], advice
            ) from error
        digest = hashlib.sha256()
        for key, tensor in sorted(model.state_dict().items()):
            digest.update(key.encode() + tensor.contiguous().cpu().numpy().tobytes())
        return cls(model.eval().to(device), tuple(layers), digest.hexdigest()[:32], device)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the features depend on, beside the audio."""
        return {"name": self.name, "layers": list(self.layers), "weights": self.digest, "version": 1}

    @torch.no_grad()
    def __call__(self, wave: np.ndarray) -> np.ndarray:
        """Return the features of one block at 16 kHz, shape (F, T)."""
        config = self.model.config
        needed = 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            needed = (needed - 1) * stride + kernel
        # A block that is shorter than the receptive field is filled with silence, to give one frame.
        wave = np.asarray(wave, dtype=np.float32)
        normal = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        normal = np.pad(normal, (0, max(0, needed - len(normal))))
        out = self.model(torch.from_numpy(normal)[None].to(self.device), output_hidden_states=True)
        states = torch.stack([out.hidden_states[layer][0] for layer in self.layers])
        return states.mean(0).T.float().cpu().numpy()


@dataclass(frozen=True)
class MelSpectrum:
    """Mel spectrogram: log10 of the power in bands that are evenly spaced in pitch.

    Parameters
    ----------
    n_mels : int
        Bands.
    n_fft : int
        Window, samples at 16 kHz.
    hop : int
        Samples from one window to the next; 128 gives 125 frames a second.
    offset : float
        Added to the power before the logarithm.

    Notes
    -----
    By default as Défossez et al. 2023: 120 bands, normalised windows, log10(power + 1e-5).
    """

    n_mels: int = 120
    n_fft: int = 512
    hop: int = 128
    offset: float = 1e-5

    name = "mel"
    sfreq = 16_000

    def __post_init__(self) -> None:
        for field in ("n_mels", "n_fft", "hop"):
            check_int(field, getattr(self, field), at_least=1)
        check_number("offset", self.offset, above=0)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the features depend on, beside the audio."""
        return {"name": self.name, **asdict(self), "version": 1}

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        """Return the features of one block at 16 kHz, shape (n_mels, T)."""
        import warnings

        from torchaudio.transforms import MelSpectrogram

        with warnings.catch_warnings():
            # With 257 frequencies the lowest of 120 bands are narrower than one.
            warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
            mel = MelSpectrogram(self.sfreq, self.n_fft, hop_length=self.hop, n_mels=self.n_mels, normalized=True)
        wave = np.pad(wave, (0, max(0, self.n_fft - len(wave))))
        power = mel(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)))
        return torch.log10(power + self.offset).numpy()


AUDIO_FEATURES: dict[str, Callable[..., Any]] = {"wav2vec2": Wav2Vec.load, "mel": MelSpectrum}


def audio_features(
    audio: Audio,
    extractor: Wav2Vec | MelSpectrum,
    *,
    borders: Iterable[float] = (),
    rate: float = 50.0,
    max_block_s: float = 60.0,
) -> np.ndarray:
    """Return features of a recording at an even rate, each block by itself.

    Parameters
    ----------
    audio : Audio
        The recording.
    extractor : Wav2Vec or MelSpectrum
        What is computed: anything with ``sfreq`` and a call from (n,) to (F, T).
    borders : iterable of float
        Seconds at which one block ends and the next begins, in any order; those outside of the recording do nothing.
    rate : float
        Frames a second of the result, Hz.
    max_block_s : float
        Longer blocks are cut into equal parts no longer than this: a transformer's memory grows with the square.

    Returns
    -------
    ndarray of float32, shape (F, T)
        T is ``duration * rate``, rounded up. Frame k holds at time k / rate: it belongs to the block of that time, and
        is that frame of the block whose share of the block holds it (nearest interpolation, as the reference does).
    """
    rate = check_number("rate", rate, above=0)
    max_block_s = check_number("max_block_s", max_block_s, above=0)
    inside = sorted({float(border) for border in borders if 0 < border < audio.duration})
    edges = [0.0]
    for end in [*inside, audio.duration]:
        n_parts = int(np.ceil((end - edges[-1]) / max_block_s - 1e-9))
        edges.extend(np.linspace(edges[-1], end, max(n_parts, 1) + 1)[1:].tolist())
    n_frames = int(np.ceil(audio.duration * rate - 1e-6))
    times = np.arange(n_frames) / rate
    out: np.ndarray | None = None
    for start, stop in itertools.pairwise(edges):
        # A border between two frames belongs to the later block.
        frames = np.flatnonzero((times >= start - 1e-9) & (times < stop - 1e-9))
        first, last = round(start * audio.sfreq), round(stop * audio.sfreq)
        if len(frames) == 0 or first == last:
            continue
        # Cut first: a filter of the resampling would carry sound over the border.
        block = extractor(Audio(audio.wave[first:last], audio.sfreq).resampled(extractor.sfreq))
        if out is None:
            out = np.zeros((len(block), n_frames), dtype=np.float32)
        source = np.floor((times[frames] - start) / (stop - start) * block.shape[1] + 1e-9).astype(int)
        out[:, frames] = block[:, np.clip(source, 0, block.shape[1] - 1)]
    if out is None:
        raise invalid("audio", f"last at least {1 / rate:g} s", f"{audio.duration:g} s")
    return out


def audio_table(
    paths: Sequence[str | os.PathLike[str]],
    extractor: Wav2Vec | MelSpectrum,
    *,
    borders: Mapping[str, Iterable[float]] | None = None,
    rate: float = 50.0,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Return the features of recordings, each computed once and kept.

    Parameters
    ----------
    paths : sequence of path-like
        Wav files; a file that occurs twice, or whose content does, is computed once.
    extractor : Wav2Vec or MelSpectrum
        What is computed.
    borders : mapping of str to iterable of float, optional
        Path -> where its blocks end, in seconds.
    rate : float
        Frames a second, Hz.
    cache : path-like, optional
        Folder to keep them in, under a hash of content, borders, extractor and rate. An interrupted run goes on there.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict of str to ndarray of float32, shape (F, T)
        Path -> features; memory maps where there is a cache.
    """
    from tqdm.auto import tqdm

    borders = {os.fspath(path): sorted(map(float, ends)) for path, ends in (borders or {}).items()}
    unknown = borders.keys() - {os.fspath(path) for path in paths}
    if unknown:
        raise invalid("borders", "name paths that are there", f"{min(unknown)!r}")
    out: dict[str, np.ndarray] = {}
    done: dict[str, np.ndarray] = {}
    for path in tqdm(list(dict.fromkeys(map(os.fspath, paths))), unit="file", disable=not progress):
        made_from = {
            "extractor": extractor.fingerprint,
            "rate": float(rate),
            "borders": borders.get(path, []),
            "audio": _content(path),
        }
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]
        if key not in done:
            done[key] = _kept(cache, key, path, extractor, made_from["borders"], rate)
        out[path] = done[key]
    return out


def _content(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise invalid("paths", "be wav files", f"{path!r}, which cannot be read", kind=type(error)) from error


def _kept(cache: Any, key: str, path: str, extractor: Any, borders: Sequence[float], rate: float) -> np.ndarray:
    """Return features from the cache, or compute them and put them there."""
    if cache is None:
        return audio_features(Audio.read(path), extractor, borders=borders, rate=rate)
    goal = Path(cache) / f"{extractor.name}-{key}.npy"
    if not goal.exists():
        features = audio_features(Audio.read(path), extractor, borders=borders, rate=rate)
        goal.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(goal) as file:
            np.save(file, features, allow_pickle=False)
    try:
        stored = np.load(goal, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise corrupt_file(goal, str(error), "Delete it; it is computed again.") from error
    check_shape(os.fspath(goal), stored, ("F", "T"))
    return stored
