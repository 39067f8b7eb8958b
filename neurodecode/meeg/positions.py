"""Where sensors are: flat positions in [0, 1], and their Fourier embedding."""

# R recordings, C channels, H heads; x y position on the flattened head

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_number, check_shape, invalid, soft_import

__all__ = ["UNPLACED", "fourier_embedding", "pad_channels", "position_table", "sensor_positions", "valid_positions"]

# Both coordinates of a channel that has no place: a bad one, one of no sensor, or padding (Defossez et al. 2023).
UNPLACED = -0.1


def valid_positions(positions: Tensor) -> Tensor:
    """Return which channels have a place, bool, shape (...): both coordinates are 0 or larger, and no NaN.

    Parameters
    ----------
    positions : Tensor, shape (..., 2)
        Positions, in [0, 1] where there is one.

    Examples
    --------
    >>> valid_positions(torch.tensor([[0.0, 1.0], [UNPLACED, UNPLACED]])).tolist()
    [True, False]
    """
    return (positions >= 0).all(-1)


def fourier_embedding(positions: Tensor, n_features: int = 2048, *, margin: float = 0.2) -> Tensor:
    r"""Describe positions by the waves that pass through them, as [1]_ does.

    Parameters
    ----------
    positions : Tensor, shape (..., 2)
        x and y, in [0, 1].
    n_features : int
        Length of the embedding, 2 n² for n frequencies along each axis.
    margin : float
        Width of the border around the unit square that belongs to the period of the slowest wave: with it, opposite
        edges of the head are not the same place.

    Returns
    -------
    Tensor, shape (..., n_features)
        First the cosines, then the sines; within each the frequency along y runs fastest. Dtype and device of
        `positions`.

    Raises
    ------
    ValueError
        If `n_features` is not twice a square, or the last axis has not two entries.

    Notes
    -----
    .. math:: \cos 2\pi \frac{i (x + m) + j (y + m)}{1 + 2m}, \quad
              \sin 2\pi \frac{i (x + m) + j (y + m)}{1 + 2m}, \quad i, j = 0 \dots n - 1

    References
    ----------
    .. [1] Defossez et al., Nature Machine Intelligence 5 (2023), 10.1038/s42256-023-00714-5.

    Examples
    --------
    >>> [round(value, 4) for value in fourier_embedding(torch.tensor([0.3, 0.7]), 8)[:7].tolist()]
    [1.0, -0.6235, -0.6235, 1.0, 0.0, -0.7818, 0.7818]
    """
    n_frequencies = frequencies_per_axis(n_features)
    check_number("margin", margin, at_least=0)
    if not positions.is_floating_point():
        raise invalid("positions", "be floating point", positions, "Convert them with positions.float().")
    if positions.ndim == 0 or positions.shape[-1] != 2:
        raise invalid("positions", "have shape (..., 2)", f"{tuple(positions.shape)}")
    step = 2 * math.pi / (1 + 2 * margin)
    k = torch.arange(n_frequencies, device=positions.device, dtype=positions.dtype) * step
    along = (positions + margin)[..., None] * k
    angle = (along[..., 0, :, None] + along[..., 1, None, :]).flatten(-2)
    return torch.cat([angle.cos(), angle.sin()], -1)


def frequencies_per_axis(n_features: int) -> int:
    """Return n of the 2 n² features of an embedding, or say that there is none."""
    check_int("n_features", n_features, at_least=2)
    n = math.isqrt(n_features // 2)
    if 2 * n * n != n_features:
        near = f"{2 * n * n} and {2 * (n + 1) ** 2} are."
        raise invalid("n_features", "be twice a square: cosine and sine of n x n waves", f"{n_features}", near)
    return n


def sensor_positions(info: Any, *, exclude_bads: bool = True) -> Tensor:
    """Return where the sensors of a recording are on the flattened head.

    Parameters
    ----------
    info : mne.Info, or anything with an attribute `info`
        Measurement info, with the places of the sensors.
    exclude_bads : bool
        Take the channels in ``info["bads"]`` as if they had no place, so that a network does not listen to them.

    Returns
    -------
    Tensor, shape (n_channels, 2), float32
        x and y of each channel of ``info["ch_names"]``, in its order. The sensors fill [0, 1] along each axis;
        a channel without a place has `UNPLACED` twice.

    Raises
    ------
    ValueError
        If no channel has a place.

    Notes
    -----
    The places are those of MNE's layout (``mne.channels.find_layout``), scaled per recording to the smallest and
    largest of all that have one, bad ones too: a sensor stays where it is when another one turns bad. Names in layouts
    are matched without blanks (``MEG 0113``), and those of MEG sensors without what CTF systems append to them
    (``MLC11-2908``). Of a recording with MEG and EEG the layout holds the MEG sensors only: pick one kind first.

    Examples
    --------
    >>> import mne
    >>> info = mne.create_info(["Fz", "Pz", "trigger"], 120.0, ["eeg", "eeg", "stim"])
    >>> _ = info.set_montage("biosemi64")
    >>> sensor_positions(info)[:, 1].tolist()
    [1.0, 0.0, -0.10000000149011612]
    """
    info = getattr(info, "info", info)
    mne = soft_import("mne", purpose="Reading sensor positions")
    try:
        layout = mne.channels.find_layout(info, exclude=[])
    except (RuntimeError, ValueError) as error:
        advice = "Set a montage first: for EEG, raw.set_montage('biosemi64') or your own."
        raise invalid("info", "hold places of sensors", f"none ({error})".replace("\n", " "), advice) from error
    names = info["ch_names"]
    places = {}
    if layout is not None:
        for name, row in zip(layout.names, layout.pos, strict=True):
            plain = name.replace(" ", "")
            places[plain] = row[:2]
            places.setdefault(plain.split("-")[0], row[:2])
    positions = torch.full((len(names), 2), math.nan, dtype=torch.float64)
    for k, name in enumerate(names):
        plain = name.replace(" ", "")
        if plain not in places and mne.channel_type(info, k) in ("mag", "grad"):
            plain = plain.split("-")[0]
        if plain in places:
            positions[k] = torch.as_tensor(places[plain], dtype=torch.float64)
    known = ~positions.isnan().any(-1)
    bad = torch.tensor([exclude_bads and name in info["bads"] for name in names], dtype=torch.bool)
    if not (known & ~bad).any():
        raise invalid(
            "info", "hold the place of at least one good sensor", "none", "Set a montage, or look at its bads."
        )
    low, high = positions[known].amin(0), positions[known].amax(0)
    # Sensors in one line have no extent across it: they get 0 there.
    span = torch.where(high > low, high - low, torch.ones_like(high))
    scaled = ((positions - low) / span).nan_to_num(nan=UNPLACED)
    scaled[bad] = UNPLACED
    return scaled.float()


def position_table(positions: Sequence[Tensor], n_channels: int | None = None) -> Tensor:
    """Stack the positions of recordings that differ in their channels.

    Parameters
    ----------
    positions : sequence of Tensor, shapes (C_r, 2)
        Positions of each recording, as `sensor_positions` gives them.
    n_channels : int, optional
        C; by default the largest of C_r.

    Returns
    -------
    Tensor, shape (R, C, 2)
        Channels that a recording lacks have `UNPLACED`; `pad_channels` gives its data as many channels.

    Raises
    ------
    ValueError
        If a recording has more than `n_channels` channels, or there is no recording.

    Examples
    --------
    >>> position_table([torch.zeros(1, 2), torch.ones(2, 2)])[0].tolist()
    [[0.0, 0.0], [-0.10000000149011612, -0.10000000149011612]]
    """
    positions = [torch.as_tensor(rows) for rows in positions]
    if not positions:
        raise invalid("positions", "hold at least one recording", "none")
    for r, rows in enumerate(positions):
        check_shape(f"positions[{r}]", rows, ("C", 2))
    most = max(len(rows) for rows in positions)
    n_channels = most if n_channels is None else check_int("n_channels", n_channels, at_least=most)
    table = positions[0].new_full((len(positions), n_channels, 2), UNPLACED)
    for row, rows in zip(table, positions, strict=True):
        row[: len(rows)] = rows
    return table


def pad_channels(x: Tensor, n_channels: int) -> Tensor:
    """Append channels of zeros to recordings, shape (..., C, T), up to `n_channels`.

    Parameters
    ----------
    x : Tensor, shape (..., C, T)
        Recordings.
    n_channels : int
        How many channels to have, C or more.

    Returns
    -------
    Tensor, shape (..., n_channels, T)
    """
    if x.ndim < 2:
        raise invalid("x", "have shape (..., C, T)", f"{tuple(x.shape)}")
    check_int("n_channels", n_channels, at_least=x.shape[-2])
    return torch.nn.functional.pad(x, (0, 0, 0, n_channels - x.shape[-2]))
