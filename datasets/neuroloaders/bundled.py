"""Small real data that come with an installed package: they need no network and no disk."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuroloaders.checks import check_option
from neuroloaders.images import ImageSet, pair_of_sets
from neuroloaders.splits import stratified_holdout

__all__ = ["EXAMPLE_DATA", "example_data"]


def example_data(name: str = "digits") -> tuple[ImageSet, ImageSet]:
    """Return a small real data set that is installed already.

    Parameters
    ----------
    name : str
        A key of `EXAMPLE_DATA`. 'digits': 1797 handwritten digits, 8 x 8 pixels.

    Returns
    -------
    train, test : ImageSet
        A fixed split, every class in proportion.

    Raises
    ------
    ValueError
        If `name` is unknown.
    """
    return EXAMPLE_DATA[check_option("name", name, EXAMPLE_DATA)]()


def _digits() -> tuple[ImageSet, ImageSet]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 0..16 (dots in a 4 x 4 block) to 0..255, to the nearest whole number: 16 becomes 255.
    images = np.rint(bunch.images[:, None] * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    train, test = stratified_holdout(labels, fraction=0.2, seed=0)
    return pair_of_sets(
        (images[train], labels[train]),
        (images[test], labels[test]),
        classes=tuple(map(str, bunch.target_names)),
        name="digits",
        provenance=(
            "scikit-learn's load_digits: the test part of 'Optical Recognition of Handwritten Digits', "
            "E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998), CC BY 4.0. Split by us: 20% "
            "of each class for testing, seed 0. The writers are not named: one may be in both parts."
        ),
    )


EXAMPLE_DATA: dict[str, Callable[[], tuple[ImageSet, ImageSet]]] = {"digits": _digits}
