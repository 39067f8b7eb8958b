"""The data sets that recipes train on: what they look like, and how they are loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from neuroloaders.checks import check_option, invalid
from neuroloaders.features import FeatureSet
from neuroloaders.spikes import SpikeSet
from neuroloaders.studies import MelConfig, load_heidelberg, load_speech_commands

__all__ = ["RECIPE_DATA", "RecipeData", "check_recipe_data", "load_recipe_data"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeData:
    """What a network must fit.

    Attributes
    ----------
    kind : type
        `SpikeSet` or `FeatureSet`.
    n_channels : int
        Units of a cochlea, before neighbours are pooled, or mel filters.
    n_classes : int
        Words.
    load : callable
        ``load(mel, **where)``: the official splits by name; `mel` is for spectrograms.
    """

    kind: type[SpikeSet] | type[FeatureSet]
    n_channels: int
    n_classes: int
    load: Callable[..., Mapping[str, SpikeSet | FeatureSet]]


def _shd(mel: MelConfig, **where: object) -> Mapping[str, SpikeSet]:
    return load_heidelberg("shd", **where)


def _ssc(mel: MelConfig, **where: object) -> Mapping[str, SpikeSet]:
    return load_heidelberg("ssc", **where)


RECIPE_DATA: dict[str, RecipeData] = {
    "shd": RecipeData(kind=SpikeSet, n_channels=700, n_classes=20, load=_shd),
    "ssc": RecipeData(kind=SpikeSet, n_channels=700, n_classes=35, load=_ssc),
    "gsc": RecipeData(kind=FeatureSet, n_channels=140, n_classes=35, load=load_speech_commands),
}


def load_recipe_data(
    data: str,
    mel: MelConfig | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    progress: bool = True,
) -> Mapping[str, SpikeSet | FeatureSet]:
    """Load the official splits of a data set.

    Parameters
    ----------
    data : str
        A key of `RECIPE_DATA`.
    mel : MelConfig, optional
        For "gsc": the front end, by default that of `neuroloaders.load_speech_commands`.
    data_dir, offline
        As for `neuroloaders.fetch`, which finds or downloads the files.
    progress : bool
        Show progress bars while downloading, and while reading the first time.

    Returns
    -------
    dict of str to SpikeSet or FeatureSet
        "train", "test", and "valid" where there is an official one.

    Raises
    ------
    OSError, ValueError
        If files are not there, or damaged.
    """
    source = RECIPE_DATA[check_option("data", data, RECIPE_DATA)]
    return source.load(mel or MelConfig(), data_dir=data_dir, offline=offline, progress=progress)


def check_recipe_data(name: str, given: SpikeSet | FeatureSet, data: str) -> None:
    """Raise unless a set has the kind, channels and classes of a key of `RECIPE_DATA`."""
    source = RECIPE_DATA[data]
    if not isinstance(given, source.kind):
        raise invalid(name, f"be a {source.kind.__name__} for data={data!r}", given, kind=TypeError)
    n_channels = given.n_units if isinstance(given, SpikeSet) else given.features.shape[2]
    if (n_channels, len(given.classes)) != (source.n_channels, source.n_classes):
        required = f"have {source.n_channels} channels and {source.n_classes} classes for data={data!r}"
        raise invalid(name, required, f"{n_channels} channels and {len(given.classes)} classes")
