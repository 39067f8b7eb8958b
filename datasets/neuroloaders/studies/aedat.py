"""Reader of AEDAT 3.1, the format that iniVation's event cameras recorded in: polarity events only."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroloaders.checks import corrupt_file

__all__ = ["PolarityEvents", "read_aedat31"]

_VERSION, _END = b"#!AER-DAT3.1\r\n", b"#!END-HEADER\r\n"
# Type, source; size of an event, place of the time in it, high part of the times, capacity, events, valid events.
_PACKET = struct.Struct("<hh6i")
_POLARITY, _EVENT_BYTES = 1, 8


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PolarityEvents:
    """Events of a camera, in the order of the file.

    Parameters
    ----------
    times_us : ndarray of int64, shape (E,)
        In microseconds, from the camera's start.
    x, y : ndarray of int32, shape (E,)
        Column and row of the pixel; (0, 0) is at the top left.
    polarity : ndarray of int32, shape (E,)
        1: brighter, 0: darker.
    """

    times_us: np.ndarray
    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray


def read_aedat31(path: str | os.PathLike) -> PolarityEvents:
    """Read the polarity events of an AEDAT 3.1 file; packets of other types are skipped.

    Parameters
    ----------
    path : path-like
        A file of the version 3.1, not compressed.

    Returns
    -------
    events : PolarityEvents
        Without those that the camera marked as invalid.

    Raises
    ------
    ValueError
        If the file is of another version, ends within a packet, or a packet contradicts itself.

    Notes
    -----
    A packet is 28 bytes of header and room for ``capacity`` events, of which ``number`` are used. A polarity event is
    two little-endian integers: bit 0 valid, bit 1 polarity, bits 2-16 y, bits 17-31 x; then 31 bits of time, whose
    higher bits are in the header.

    References
    ----------
    .. [1] https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html
    """
    path = Path(path)
    content = path.read_bytes()
    if not content.startswith(_VERSION):
        raise corrupt_file(path, "it does not begin like an AEDAT 3.1 file", "Other versions are not read.")
    end = content.find(_END)
    if end < 0:
        raise corrupt_file(path, "its header does not end")
    words, highs = _polarity_packets(path, content, end + len(_END))
    if not words:
        raise corrupt_file(path, "it holds no polarity events")
    data = np.concatenate([packet[:, 0] for packet in words])
    low = np.concatenate([packet[:, 1] for packet in words])
    if low.size and low.max() >> 31:
        raise corrupt_file(path, "it has a negative time")
    times = low.astype(np.int64) + np.repeat(np.array(highs, np.int64) << 31, [len(packet) for packet in words])
    valid = (data & 1).astype(bool)
    if not valid.all():
        data, times = data[valid], times[valid]
    x, y, polarity = data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1
    return PolarityEvents(
        times_us=times, x=x.astype(np.int32), y=y.astype(np.int32), polarity=polarity.astype(np.int32)
    )


def _polarity_packets(path: Path, content: bytes, start: int) -> tuple[list[np.ndarray], list[int]]:
    """Return each packet as uint32, shape (n, 2), data and time, and the high part of its times."""
    words, highs = [], []
    while start < len(content):
        body = start + _PACKET.size
        if body > len(content):
            raise corrupt_file(path, f"it ends within the packet header at byte {start}")
        kind, _, size, offset, high, capacity, number, _ = _PACKET.unpack_from(content, start)
        if size <= 0 or high < 0 or not 0 <= number <= capacity:
            text = f"the packet header at byte {start} makes no sense (size {size}, {number} of {capacity} events)"
            raise corrupt_file(path, text)
        if body + capacity * size > len(content):
            raise corrupt_file(path, f"it ends within the packet at byte {start}")
        if kind == _POLARITY:
            if (size, offset) != (_EVENT_BYTES, 4):
                raise corrupt_file(path, f"the polarity events at byte {start} have {size} bytes instead of 8")
            packet = np.frombuffer(content, "<u4", count=2 * number, offset=body).reshape(-1, 2)
            words.append(packet)
            highs.append(high)
        start = body + capacity * size
    return words, highs
