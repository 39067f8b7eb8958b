"""Generators by name."""

from __future__ import annotations

import os

import torch

from neurodecode.generate.backend import DiffusionBackend
from neurodecode.generate.ip_adapter import IPAdapter
from neurodecode.generate.unclip import StableUnCLIP
from neurodecode.generate.versatile import VersatileDiffusion
from neuroloaders.checks import check_option, invalid
from neuroloaders.runs import choose_device

__all__ = ["BACKENDS", "DTYPES", "load_backend"]

# Name of a generator -> its class.
BACKENDS: dict[str, type[DiffusionBackend]] = {
    kind.name: kind for kind in (VersatileDiffusion, IPAdapter, StableUnCLIP)
}

# Names of types that networks compute in.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_backend(
    name: str,
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    offload: bool = False,
    slicing: bool = False,
    adapter: str | os.PathLike[str] | None = None,
    image_encoder: str | os.PathLike[str] | None = None,
) -> DiffusionBackend:
    """Return a generator of images; nothing is downloaded.

    Parameters
    ----------
    name : str
        A key of `BACKENDS`: "versatile" (Brain-Diffuser's, text and image), "ip-adapter", "unclip".
    path : path-like
        A folder in the layout of diffusers, or the name of a model on the Hugging Face hub that was downloaded before;
        weights in safetensors.
    device : str or torch.device, optional
        Where to compute; by default a GPU if there is one.
    dtype : torch.dtype or str, optional
        What networks compute in, a key of `DTYPES`; by default float16 on a GPU, else float32. Extractors compute in
        float32.
    offload : bool
        Keep networks on the CPU while they do not compute, and extractors altogether: for GPUs of 12 GB.
    slicing : bool
        Less at a time in encoder, decoder and guidance: less memory, slower.
    adapter, image_encoder : path-like, optional
        Of "ip-adapter" only, which needs the first: see `IPAdapter.load`.

    Returns
    -------
    DiffusionBackend
        Call its ``generate``, or give it to `neurodecode.fmri.BrainDiffuser`; its ``extractors`` give the features it
        is guided by.

    Raises
    ------
    FileNotFoundError
        If the model is not on this machine: the message says how to download it.
    ValueError, TypeError
        If it is damaged or another kind of model, or options are unknown.
    """
    kind = BACKENDS[check_option("name", name, BACKENDS)]
    given = {"adapter": adapter, "image_encoder": image_encoder}
    options = {key: value for key, value in given.items() if value is not None}
    if name == "ip-adapter" and adapter is None:
        raise invalid("adapter", "be the file of the adapter's weights", "nothing")
    if name != "ip-adapter" and options:
        raise invalid(next(iter(options)), f"not be given for {name!r}", "a value", kind=TypeError)
    device = choose_device(device)
    if isinstance(dtype, str):
        dtype = DTYPES[check_option("dtype", dtype, DTYPES)]
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    check_option("dtype", dtype, DTYPES.values())
    return kind.load(path, device=device, dtype=dtype, offload=offload, slicing=slicing, **options)
