"""Which samples are trained on, which choose the epoch, and which are reported.

A published accuracy means little without its protocol: on SHD, choosing the epoch on the test set adds about one
percentage point to what a held-out validation set gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from neuroloaders.checks import check_option, invalid

__all__ = ["PROTOCOLS", "split_by_protocol"]

Set = TypeVar("Set")  # SpikeSet, FeatureSet: what has labels, groups, `holdout` and `hold_group_out`
_SHOWN = 12  # names in an error message

logger = logging.getLogger(__name__)


def split_by_protocol(
    sets: Mapping[str, Set],
    protocol: str = "validation",
    *,
    fraction: float | None = None,
    seed: int = 0,
    speaker: str | None = None,
) -> tuple[Set, Set, Set]:
    """Return what to train on, what to choose the epoch on, and what to report.

    Parameters
    ----------
    sets : mapping of str to SpikeSet or FeatureSet
        The official splits: 'train', 'test' and perhaps 'valid'.
    protocol : str
        A key of `PROTOCOLS`. 'validation' takes the official validation set if there is one, else carves one out of
        the training set, every class in proportion. 'speaker' holds out everything that one speaker of the training
        set said, so that epochs are chosen on a voice that was never heard. 'test-selection' chooses on the test
        set, as many papers on SHD do: the result is no estimate of accuracy on new data, and a warning is logged.
    fraction : float, optional
        For 'validation' without an official validation set: the share held out, 0.1 by default.
    seed : int
        For 'validation': names the choice of samples.
    speaker : str, optional
        For 'speaker': a name in the training set's ``group_names``.

    Returns
    -------
    train, valid, test : SpikeSet or FeatureSet
        With 'test-selection' the second is the third, and its ``split`` says 'test'.

    Raises
    ------
    ValueError
        If the protocol is unknown, an option does not belong to it, or the speaker is not in the training set.
    """
    choose = PROTOCOLS[check_option("protocol", protocol, PROTOCOLS)]
    for needed in ("train", "test"):
        if needed not in sets:
            raise invalid("sets", "have the splits 'train' and 'test'", f"{', '.join(map(repr, sets))}")
    for option, value, owner in (("fraction", fraction, "validation"), ("speaker", speaker, "speaker")):
        if value is not None and protocol != owner:
            raise invalid(option, f"be left out with protocol {protocol!r}", f"{value}", f"It belongs to {owner!r}.")
    train, valid = choose(sets, fraction=fraction, seed=seed, speaker=speaker)
    return train, valid, sets["test"]


def _validation(sets: Mapping[str, Any], *, fraction: float | None, seed: int, speaker: str | None) -> tuple[Any, Any]:
    if "valid" not in sets:
        return sets["train"].holdout(0.1 if fraction is None else fraction, seed)
    if fraction is not None:
        raise invalid("fraction", "be left out", f"{fraction}", "These sets have an official validation set.")
    return sets["train"], sets["valid"]


def _speaker(sets: Mapping[str, Any], *, fraction: float | None, seed: int, speaker: str | None) -> tuple[Any, Any]:
    train = sets["train"]
    if train.groups is None:
        raise invalid("protocol", "be another one", "'speaker'", "These sets do not say who spoke.")
    present = [train.group_names[group] for group in torch.unique(train.groups).tolist()]
    if speaker not in present:
        names = ", ".join(map(repr, present[:_SHOWN])) + (", ..." if len(present) > _SHOWN else "")
        raise invalid("speaker", f"be one of the training set's: {names}", repr(speaker))
    return train.hold_group_out(speaker)


def _test_selection(
    sets: Mapping[str, Any], *, fraction: float | None, seed: int, speaker: str | None
) -> tuple[Any, Any]:
    logger.warning(
        "Protocol 'test-selection': the test set also chooses the epoch, so the accuracy reported is too high. "
        "Say so beside the number."
    )
    return sets["train"], sets["test"]


PROTOCOLS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "validation": _validation,
    "speaker": _speaker,
    "test-selection": _test_selection,
}
