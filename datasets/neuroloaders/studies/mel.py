"""Waveforms to mel spectrograms in dB, as in the paper on learnable delays.

B waveforms, T time steps, C mel filters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_number, check_option, check_shape, invalid

__all__ = ["MEL_COMPAT", "MelConfig", "mel_features", "mel_front_end"]

MEL_COMPAT = {
    None: "filters end at half the sampling rate",
    "dcls-paper": "filters end at 14 kHz although the waveform has nothing above 4 kHz, as in Hammouamri et al.",
}
_PAPER_F_MAX = 14_000.0  # Hz, of github.com/Thvnvtos/SNN-delays, datasets.py @ 84fa1668


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """How a waveform becomes a spectrogram on the mel scale.

    Parameters
    ----------
    sfreq : int
        Sampling rate of the recordings, in Hz.
    n_samples : int
        Every recording is cut at its end, or filled with zeros, to this many samples.
    resample_hz : int
        Sampling rate before the spectrogram.
    n_fft : int
        Window of the spectrogram in samples at `resample_hz`, of the Hann kind.
    hop : int
        Samples from one window to the next; 80 at 8 kHz is 10 ms.
    n_mels : int
        Triangular filters, evenly spaced on the mel scale (HTK's formula) from `f_min` to `f_max`.
    f_min, f_max : float
        In Hz. By default `f_max` is half of `resample_hz`, with 'dcls-paper' 14000.
    compat : str, optional
        A key of `MEL_COMPAT`.
    version : int
        Of the code that computes; part of the cache's key.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or `f_max` lies above half of `resample_hz` without ``compat='dcls-paper'``.

    Notes
    -----
    With 129 frequencies for 140 filters some filters lie between two frequencies and hold nothing: 7 of the default
    ones. With 'dcls-paper' the filters from number 87 on lie above 4 kHz: 53 of 140 channels are constant, and the
    others are coarser than they look. Both are what torchaudio makes of these settings.
    """

    sfreq: int = 16_000
    n_samples: int = 16_000
    resample_hz: int = 8_000
    n_fft: int = 256
    hop: int = 80
    n_mels: int = 140
    f_min: float = 50.0
    f_max: float | None = None
    compat: str | None = None
    version: int = 1

    def __post_init__(self) -> None:
        check_option("compat", self.compat, MEL_COMPAT)
        for name in ("sfreq", "n_samples", "resample_hz", "n_fft", "hop", "n_mels"):
            check_int(name, getattr(self, name), at_least=1)
        nyquist = self.resample_hz / 2
        if self.f_max is None:
            object.__setattr__(self, "f_max", nyquist if self.compat is None else _PAPER_F_MAX)
        check_number("f_min", self.f_min, at_least=0)
        check_number("f_max", self.f_max, above=self.f_min)
        if self.f_max > nyquist and self.compat is None:
            advice = "Filters above it hold nothing. To do as the paper did, pass compat='dcls-paper'."
            raise invalid("f_max", f"be at most {nyquist:g} Hz, half of resample_hz", f"{self.f_max:g}", advice)
        if self.n_samples * self.resample_hz // self.sfreq <= self.n_fft // 2:
            advice = "Give more samples or a smaller n_fft."
            raise invalid("n_samples", "last longer than half a window", f"{self.n_samples}", advice)

    @property
    def n_times(self) -> int:
        """Windows of a recording, the first and last centred on its ends: 101."""
        # torchaudio's Resample rounds up.
        return -(-self.n_samples * self.resample_hz // self.sfreq) // self.hop + 1


def mel_features(waveforms: Tensor, config: MelConfig | None = None) -> Tensor:
    """Return the mel spectrograms of waveforms, in dB.

    Parameters
    ----------
    waveforms : Tensor of float, shape (B, n)
        In [-1, 1], at ``config.sfreq``; of any length.
    config : MelConfig, optional
        Settings.

    Returns
    -------
    features : Tensor, shape (B, T, C)
        ``10 log10`` of the power in each filter, at least -100 dB.

    Raises
    ------
    ValueError
        If `waveforms` has another shape.

    Notes
    -----
    To `n_samples`, resampled, power spectrogram, mel filters, decibels: the order and the functions (torchaudio's)
    of [1]_, without its augmentation. Nothing is normalised.

    References
    ----------
    .. [1] Hammouamri, Khalfaoui-Hassani & Masquelier, ICLR 2024, arXiv:2306.17670
    """
    check_shape("waveforms", waveforms, ("B", "n"))
    return mel_front_end(config or MelConfig())(waveforms)


def mel_front_end(config: MelConfig) -> Callable[[Tensor], Tensor]:
    """Return the function from waveforms (B, n) to features (B, T, C); make it once for many batches."""
    from torchaudio import transforms

    with warnings.catch_warnings():
        # Known, and said in MelConfig's notes.
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        mel = transforms.MelScale(
            n_mels=config.n_mels,
            sample_rate=config.resample_hz,
            f_min=config.f_min,
            f_max=config.f_max,
            n_stft=config.n_fft // 2 + 1,
        )
    steps = torch.nn.Sequential(
        transforms.Resample(config.sfreq, config.resample_hz),
        transforms.Spectrogram(n_fft=config.n_fft, hop_length=config.hop, power=2),
        mel,
        transforms.AmplitudeToDB(),
    )

    def features(waveforms: Tensor) -> Tensor:
        missing = config.n_samples - waveforms.shape[1]
        # A negative number of zeros cuts.
        equal = torch.nn.functional.pad(waveforms, (0, missing))
        return steps.to(waveforms)(equal).transpose(1, 2)

    return features
