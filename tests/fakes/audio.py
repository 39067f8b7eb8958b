"""Writers of tiny wav files: every sample format, damaged ones, and a folder like the Free Spoken Digit Dataset."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

# Name -> (format tag, bits a sample). 1 is PCM, 3 is IEEE float.
WAV_FORMATS = {
    "8-bit": (1, 8), "16-bit": (1, 16), "24-bit": (1, 24), "32-bit": (1, 32), "float32": (3, 32), "float64": (3, 64),
}  # fmt: skip


def tone(f_hz, sfreq=8000, seconds=0.1, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * f_hz * np.arange(round(seconds * sfreq)) / sfreq)


def sample_bytes(wave, kind):
    """Samples in [-1, 1) as a wav file stores them, little-endian."""
    tag, bits = WAV_FORMATS[kind]
    if tag == 3:
        return wave.astype(f"<f{bits // 8}").tobytes()
    numbers = np.clip(np.round(wave * 2.0 ** (bits - 1)), -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    if bits == 8:
        return (numbers + 128).astype(np.uint8).tobytes()
    return numbers.astype("<i8").reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()


def wav_bytes(wave, sfreq=8000, kind="16-bit", *, tag=None, extra=b""):
    """A whole wav file of (T,) or (T, channels) samples; `tag` puts another format's number into the header."""
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    bits = WAV_FORMATS[kind][1]
    frame = channels * bits // 8
    data = sample_bytes(np.ravel(wave), kind)
    head = struct.pack("<HHIIHH", tag or WAV_FORMATS[kind][0], channels, sfreq, sfreq * frame, frame, bits)
    chunks = b"fmt " + struct.pack("<I", len(head)) + head + extra
    chunks += b"data" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def write_wav(path, wave, sfreq=8000, kind="16-bit", **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(wav_bytes(np.asarray(wave), sfreq, kind, **options))
    return Path(path)


def write_fsdd(folder, *, digits=3, speakers=("ann", "bob", "cy"), takes=8, seconds=0.06):
    """Write ``fsdd/recordings/{digit}_{speaker}_{take}.wav``: two tones after another, at the digit's frequencies."""
    paths = []
    for digit in range(digits):
        for place, speaker in enumerate(speakers):
            for take in range(takes):
                voice = (1 + 0.05 * place) * (1 + 0.002 * take)
                sound = [tone(f * voice, seconds=seconds / 2) for f in (400 + 300 * digit, 2500 - 400 * digit)]
                name = f"{digit}_{speaker}_{take}.wav"
                paths.append(write_wav(Path(folder) / "fsdd" / "recordings" / name, np.concatenate(sound)))
    return paths
