"""Images of the THINGS data base, as the studies that showed them name them.

Hebart et al., PLoS ONE 14 (2019), doi:10.1371/journal.pone.0223792; images in doi:10.17605/OSF.IO/JUM2F. All studies
here have the file name as stimulus and the thing as split_group, so that one table of features serves all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from neuroloaders.checks import invalid, missing_data
from neuroloaders.events_table import EventTable
from neuroloaders.image_splits import ImageSplit, split_images

__all__ = ["THINGS_SETS", "things_image", "things_image_paths", "things_split", "unseen_images"]

# The column `image_set` of the events of these studies.
THINGS_SETS = {
    "train": "shown once, or a few times",
    "test": "shown over and over, for the test of the study",
    "": "no image of THINGS: a catch trial",
}

_FOLDERS = ("images_THINGS/object_images", "object_images", "images", "_image_database_things")


def things_image(path: str) -> tuple[str, str]:
    """Return the name of an image and its category.

    Parameters
    ----------
    path : str
        Any path, or just the name: ``dog_12s.jpg`` is image 12 of a dog.

    Returns
    -------
    image, category : str
        The file name, and what is before its last "_".

    Raises
    ------
    ValueError
        If the name is not of this form.

    Examples
    --------
    >>> things_image("images_meg/air_conditioner/air_conditioner_04s.jpg")
    ('air_conditioner_04s.jpg', 'air_conditioner')
    """
    name = PurePosixPath(path.replace("\\", "/")).name
    stem, _, ending = name.rpartition(".")
    category, _, number = stem.rpartition("_")
    if not category or not number or not ending:
        raise invalid("path", "end in an image of THINGS, such as 'dog_12s.jpg'", repr(path))
    return name, category


def things_image_paths(images: Sequence[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Return where images lie.

    Parameters
    ----------
    images : sequence of str
        Their names, as in the stimuli of events.
    folder : path-like
        The folder with a folder for each category (``object_images``), or one that holds it.

    Returns
    -------
    list of Path
        In the order of `images`.

    Raises
    ------
    FileNotFoundError
        If an image is not there.
    """
    places = [Path(folder) / name for name in _FOLDERS if (Path(folder) / name).is_dir()]
    root = places[0] if places else Path(folder)
    paths = [root / things_image(str(name))[1] / str(name) for name in images]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        wanted = f"{absent[0].parent.name}/{absent[0].name}"
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise missing_data("images of THINGS", [wanted + more], [root], "They are in images_THINGS.zip.")
    return paths


def things_split(events: EventTable, *, valid: float = 0.2, seed: int = 0, valid_by: str = "category") -> ImageSplit:
    """Divide the images of a THINGS study, whose test images its events name.

    Parameters
    ----------
    events : EventTable
        Of all subjects, with the column ``image_set``, as `ThingsMEGStudy` and `ThingsEEG2Study` and their epochs have
        it. Events of other kinds than "image" are left out.
    valid, seed, valid_by
        As for `split_images`. Benchetrit et al. 2023 take single images (``valid_by="image"``).

    Returns
    -------
    ImageSplit
        Of THINGS-MEG, 19 848 images to learn from and to choose on, 200 of the test, and 2400 of the large test: those
        of the test's categories that were shown for training. Of THINGS-EEG2 none are of the large test.

    Raises
    ------
    ValueError
        If there is no such column, an image is in both sets, or a part is empty.
    """
    if "image_set" not in events.extra:
        advice = "Give the test images to split_images."
        raise invalid(
            "events", "have the column 'image_set'", f"{', '.join(events.extra) or 'no extra column'}", advice
        )
    images = events.where(kind="image")
    sets = images.extra["image_set"]
    test = np.unique(images.stimulus[sets == "test"])
    both = np.intersect1d(test, images.stimulus[sets != "test"])
    if len(both):
        raise invalid("events", "have each image in one image_set", f"{str(both[0])!r} in two")
    return split_images(images, test.tolist(), valid=valid, seed=seed, valid_by=valid_by)


def unseen_images(images: Iterable[str], events: EventTable) -> np.ndarray:
    """Return images that were never shown, to enlarge a set of candidates.

    Parameters
    ----------
    images : iterable of str
        Names or paths, such as those of all of THINGS.
    events : EventTable
        All that was shown, to anybody.

    Returns
    -------
    ndarray of str
        File names, sorted: of the 26 107 images of THINGS, 3659 that THINGS-MEG does not show, as in Benchetrit et al.
        2023, arXiv:2310.19812.
    """
    names = [things_image(str(image))[0] for image in images]
    return np.setdiff1d(np.array(names, dtype=str), events.stimulus)
