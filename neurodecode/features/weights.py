"""Networks from a folder or from what was downloaded before: complete, without pickle, and with a fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroloaders.checks import corrupt_file, invalid

__all__ = ["hash_module", "load_pretrained", "module_state", "quiet_loading"]

# Entries of a configuration that say where a model comes from and not what it computes.
_NO_INFLUENCE = ("architectures", "dtype", "torch_dtype", "transformers_version")


def hash_module(module: nn.Module) -> str:
    """Return the hash of a network: its class, the configuration it carries, and every tensor with name and type."""
    head = f"{type(module).__name__} {json.dumps(_architecture(module), sort_keys=True, default=str)}"
    digest = hashlib.sha256(head.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        # As bytes, since NumPy knows no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def module_state(module: nn.Module) -> Any:
    """Return what changes when a tensor of the network is replaced or written to; None if torch does not count that."""
    tensors = module.state_dict(keep_vars=True)
    if any(tensor.is_inference() for tensor in tensors.values()):
        return None
    return tuple((name, id(t), t.data_ptr(), t._version, t.dtype) for name, t in tensors.items())


def load_pretrained(
    load: Callable[..., Any],
    path: str | os.PathLike[str],
    *,
    subfolder: str | None = None,
    weights: bool = True,
    dtype: torch.dtype = torch.float32,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Call a ``from_pretrained`` without network or pickle; raise if something is missing in what it finds.

    Parameters
    ----------
    load : callable
        A ``from_pretrained`` of transformers or diffusers.
    path : path-like
        A folder in their layout, or the name of a model on the Hugging Face hub that was downloaded before.
    subfolder : str, optional
        Where in it: ``"vae"``.
    weights : bool
        Whether it loads weights; a tokenizer has none.
    dtype : torch.dtype
        What the weights are turned into, whatever they are stored in.
    options : mapping, optional
        What else it is called with.

    Raises
    ------
    FileNotFoundError
        If the model is not on this machine; the message says how to download it.
    ValueError
        If the file is damaged, or weights of the network are not in it.
    """
    place = os.fspath(path) + (f" (subfolder {subfolder})" if subfolder else "")
    given = {"local_files_only": True, "subfolder": subfolder or "", **(options or {})}
    if weights:
        given |= {"use_safetensors": True, "output_loading_info": True}
    try:
        with quiet_loading():
            found = load(os.fspath(path), **given)
    except OSError as error:
        raise _not_there(path, subfolder, place, error) from error
    except Exception as error:
        if Path(path).is_dir() and not (Path(path) / (subfolder or "") / "config.json").exists():
            raise _not_there(path, subfolder, place, error) from error
        # safetensors raises a class of its own; transformers, a RuntimeError where shapes differ.
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise corrupt_file(place, f"it is damaged, or another kind of model ({reason})") from error
    if not weights:
        return found
    model, info = found
    missing = sorted(map(str, info.get("missing_keys", ())))
    if missing or info.get("mismatched_keys"):
        # They would be drawn at random, and the features would mean nothing.
        what = (
            f"{len(missing)} tensors of {type(model).__name__} are missing (first: {missing[0]!r})" if missing else ""
        )
        what = what or f"tensors have other shapes ({next(iter(info['mismatched_keys']))})"
        raise corrupt_file(place, what, "Choose a folder that holds this kind of model.")
    # Not the method of diffusers, which warns of modules that are to stay in float32 even where there is none.
    return nn.Module.to(model, dtype=dtype)


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep back what libraries say while they load or save, and what is not about the user."""

    def is_wanted(record: logging.LogRecord) -> bool:
        # A table of the tensors that are not used: of CLIP's file, each encoder takes its own half.
        return "LOAD REPORT" not in str(record.msg)

    from transformers.utils import logging as bars

    log = logging.getLogger("transformers.modeling_utils")
    shows_bars = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    log.addFilter(is_wanted)
    try:
        with warnings.catch_warnings():
            # Of huggingface_hub, about an option that diffusers passes.
            warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
            yield
    finally:
        log.removeFilter(is_wanted)
        if shows_bars:
            bars.enable_progress_bar()


def _not_there(path: Any, subfolder: str | None, place: str, error: Exception) -> Exception:
    folder = Path(path) / (subfolder or "")
    if folder.is_dir():
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        required = "be a folder with config.json and weights in safetensors (or the files of a tokenizer)"
        return invalid("path", required, repr(place), f"{reason}.", kind=FileNotFoundError)
    required = "be a folder, or a model of the Hugging Face hub that was downloaded before"
    advice = f"Download it once: hf download {os.fspath(path)}"
    return invalid("path", required, repr(place), advice, kind=FileNotFoundError)


def _architecture(module: nn.Module) -> Any:
    """Return what a configuration says beyond the shapes of weights: activations, epsilons, numbers of heads."""
    config = getattr(module, "config", None)
    if config is None:
        return repr(module)
    # Of transformers what differs from the defaults, so that new defaults of a later version change nothing.
    items = config.to_diff_dict() if hasattr(config, "to_diff_dict") else config
    items = items if isinstance(items, Mapping) else {"config": str(items)}
    return {key: value for key, value in items.items() if not key.startswith("_") and key not in _NO_INFLUENCE}
