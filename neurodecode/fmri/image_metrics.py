"""How good are reconstructed images: the eight metrics of Brain-Diffuser, with what the means alone leave out."""

# n images

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.fmri.image_networks import ImageNetworks
from neurodecode.fmri.image_pixels import (
    SSIM_MODES,
    as_bytes,
    check_images,
    pixel_correlation,
    resize,
    ssim,
    to_grey,
)
from neurodecode.fmri.published import PAPER_TABLE
from neurodecode.scoring.intervals import Interval, bootstrap_interval
from neurodecode.scoring.n_way import Identification, identification_table
from neurodecode.scoring.permutation import PermutationTest, permuted_table
from neurodecode.scoring.similarity import named_matrix, prepared
from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_int, check_number, check_option, check_same_length, invalid

__all__ = ["KINDS", "METRICS", "ImageMetrics", "Metric", "image_metrics"]

# Images that are resized and compared pixel by pixel at a time.
_AT_A_TIME = 16


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What one of the eight is.

    Parameters
    ----------
    title : str
        Its name in tables.
    kind : {"pixels", "identification", "distance"}
        Pixels compared; 2-way identification by correlation of features; correlation distance of features.
    """

    title: str
    kind: str

    @property
    def larger_is_better(self) -> bool:
        """Whether more is better."""
        return self.kind != "distance"


# Name -> the metric, in the order of the paper's tables. Names of features are those of the networks' layers.
METRICS: dict[str, Metric] = {
    "pixcorr": Metric(title="PixCorr", kind="pixels"),
    "ssim": Metric(title="SSIM", kind="pixels"),
    "alexnet2": Metric(title="AlexNet(2)", kind="identification"),
    "alexnet5": Metric(title="AlexNet(5)", kind="identification"),
    "inception": Metric(title="Inception", kind="identification"),
    "clip": Metric(title="CLIP", kind="identification"),
    "efficientnet": Metric(title="EffNet-B", kind="distance"),
    "swav": Metric(title="SwAV", kind="distance"),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageMetrics:
    """Scores of reconstructed images.

    Parameters
    ----------
    values : dict of str to ndarray of float64, each of shape (n_images,)
        Score of each image: "pixcorr", "ssim_columns", "ssim_2d", and the layers of the networks.
    intervals : dict of str to Interval
        Means with bootstrap intervals over images; the foils of identification count as given.
    tests : dict of str to PermutationTest
        For identification: is it better than with images in each other's places?
    matched : dict of str to Identification
        Identification among images of the same category; empty where no categories were given.
    ssim : {"columns", "2d"}
        Which of the two is called SSIM in tables.
    networks : str
        Where the networks come from; "none" without networks.
    comparable : bool
        Whether feature metrics may be set beside published ones.
    n_images : int
        Number of images.
    """

    values: dict[str, np.ndarray]
    intervals: dict[str, Interval]
    tests: dict[str, PermutationTest]
    matched: dict[str, Identification]
    ssim: str
    networks: str
    comparable: bool
    n_images: int

    @property
    def scores(self) -> dict[str, float]:
        """Mean of each of the eight metrics that was computed, in the paper's order."""
        keys = {name: f"ssim_{self.ssim}" if name == "ssim" else name for name in METRICS}
        return {name: self.intervals[key].estimate for name, key in keys.items() if key in self.intervals}

    def table(self, paper: str = "Brain-Diffuser") -> str:
        """Return the metrics as lines of text: paper, this run, interval, p.

        Parameters
        ----------
        paper : str
            Whose numbers to set beside: a key of `neurodecode.fmri.published.PAPER_TABLE`.

        Returns
        -------
        str
            One line a metric, and lines on what is not comparable.
        """
        row = PAPER_TABLE[check_option("paper", paper, PAPER_TABLE)]
        lines = [f"{'':18}{'paper':>8}{'this run':>10}  {'95 % interval' if self._level == 0.95 else 'interval':18}p"]
        for name, metric in METRICS.items():
            modes = ("columns", "2d") if name == "ssim" else (None,)
            for mode in modes:
                key = name if mode is None else f"ssim_{mode}"
                title = metric.title if mode is None else f"SSIM ({mode})"
                told = getattr(row, name) if mode is None or row.ssim_mode in (mode, "unknown") else None
                lines.append(self._line(key, title + ("" if metric.larger_is_better else " (low)"), told))
        lines += [
            f"{METRICS[name].title}, foils of the same category: {found.accuracy:.3f}"
            for name, found in self.matched.items()
        ]
        lines.append(f"Paper: {paper}; {row.data}. {row.source}.")
        if row.ssim_mode == "unknown":
            lines.append("Which SSIM the paper means is not known.")
        if not row.checked:
            lines.append("The paper's numbers are from memory: check them.")
        lines.append(f"Networks: {self.networks}. {self.n_images} images.")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings, as JSON holds them."""
        return {
            "scores": self.scores,
            "ssim": self.ssim,
            "networks": self.networks,
            "comparable": self.comparable,
            "n_images": self.n_images,
            "intervals": {key: [found.low, found.high] for key, found in self.intervals.items()},
            "level": self._level,
            "p": {key: found.p for key, found in self.tests.items()},
            "matched": {key: found.accuracy for key, found in self.matched.items()},
            "values": {key: found.tolist() for key, found in self.values.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as a JSON file.

        Parameters
        ----------
        path : path-like
            The file; it is whole or not there.
        """
        with atomic_write(path, "w") as file:
            json.dump(self.as_dict(), file, indent=1, allow_nan=False)

    @property
    def _level(self) -> float:
        return self.intervals["pixcorr"].level

    def _line(self, key: str, title: str, told: float | None) -> str:
        left = f"{title:18}{'-' if told is None else f'{told:.3f}':>8}"
        if key not in self.intervals:
            return f"{left}{'-':>10}"
        found = self.intervals[key]
        borders = f"[{found.low:.3f}, {found.high:.3f}]"
        p = f"{self.tests[key].p:.3g}" if key in self.tests else ""
        return f"{left}{found.estimate:>10.3f}  {borders:18}{p}".rstrip()


class _Identified:
    """2-way identification by correlation, with its test, and with foils of the same category."""

    def __init__(self, real: np.ndarray, made: np.ndarray, categories: Any, n_permutations: int, rng: Any) -> None:
        matrix, width = named_matrix(("real", "made"), real, made, similarity="correlation")
        table, groups = identification_table(matrix, width, 2)
        self.values = np.diag(table).copy()
        self.test = permuted_table(table, groups, n_permutations=n_permutations, rng=rng)
        self.matched = None
        if categories is not None:
            table, groups = identification_table(matrix, width, 2, categories=categories)
            foils = np.zeros(len(real), dtype=np.int64)
            for members in groups:
                foils[members] = len(members) - 1
            self.matched = Identification(per_item=np.diag(table).copy(), n_foils=foils, n=2)


class _Distances:
    """Correlation distance, 1 - r, as SciPy's ``correlation``."""

    def __init__(self, real: np.ndarray, made: np.ndarray, categories: Any, n_permutations: int, rng: Any) -> None:
        rows = slice(0, len(real))
        a, b = (prepared(name, x, rows, "correlation", x)[0] for name, x in (("real", real), ("made", made)))
        self.values = 1 - np.clip((a * b).sum(axis=1), -1, 1)
        self.test = self.matched = None


# Kind of feature metric -> what computes it.
KINDS: dict[str, Callable[..., Any]] = {"identification": _Identified, "distance": _Distances}


def image_metrics(
    real: Any,
    made: Any,
    *,
    networks: ImageNetworks | None = None,
    ssim: str = "2d",
    size: int | None = 425,
    categories: Any = None,
    level: float = 0.95,
    n_resamples: int = 10_000,
    n_permutations: int = 1000,
    batch_size: int = 32,
    rng: np.random.Generator | None = None,
    progress: bool = False,
) -> ImageMetrics:
    """Score reconstructed images by the eight metrics of Brain-Diffuser.

    Parameters
    ----------
    real : array, tensor or memory map, shape (n_images, 3, H, W)
        The images that were seen, each once: floating point in [0, 1], or uint8.
    made : array, tensor or memory map, shape (n_images, 3, h, w)
        Their reconstructions, in the same order. They are rounded to bytes, as PNG files would hold them.
    networks : ImageNetworks, optional
        `load_image_networks` or `tiny_image_networks`. Without them PixCorr and SSIM alone are computed.
    ssim : {"2d", "columns"}
        Which of the two is called SSIM in the scores; both are always computed. "2d" is that of Wang et al. 2004,
        "columns" what the paper's code computes: see `neurodecode.fmri.image_pixels.ssim`.
    size : int or None
        Side in pixels at which images are compared pixel by pixel, 425 in the paper (NSD's own); both are resampled to
        it by Pillow, bicubic. None: at the size of `real`, which must be square.
    categories : array of shape (n_images,), optional
        Category of each image: identification is then also reported with foils of the same category alone.
    level : float
        Nominal coverage of the intervals.
    n_resamples : int
        Bootstrap resamples.
    n_permutations : int
        Permutations of the tests.
    batch_size : int
        Images at a time in the networks.
    rng : numpy.random.Generator, optional
        For intervals and tests; by default ``np.random.default_rng(0)``, so that a report comes out the same again.
    progress : bool
        Show progress bars (tqdm).

    Returns
    -------
    ImageMetrics
        Scores of each image, means, intervals, p values; `ImageMetrics.table` sets them beside published ones.

    Raises
    ------
    ValueError
        If there are fewer than two images, numbers differ, values lie outside [0, 1], or an image is of one colour, for
        which correlations are not defined.

    Notes
    -----
    Ozcelik & VanRullen 2023 [1]_. PixCorr: Pearson's correlation of all pixels and colours. AlexNet after its second
    and fifth convolution, Inception and CLIP: 2-way identification by correlation of features, see
    `neurodecode.scoring.n_way`. EfficientNet-B1 and SwAV: mean correlation distance of features.

    Further than the paper: intervals over images, p values by permutation of image identity in place of a binomial test
    that takes all n (n - 1) comparisons for independent (`neurodecode.scoring.binomial_p`), and foils of the same
    category. How much of a score retrieval would reach says `neurodecode.fmri.image_baseline.nearest_training_image`.

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.

    Examples
    --------
    >>> images = np.random.default_rng(0).uniform(size=(4, 3, 32, 32))
    >>> image_metrics(images, images, size=32).scores
    {'pixcorr': 1.0, 'ssim': 1.0}
    """
    check_option("ssim", ssim, SSIM_MODES)
    check_images("real", real)
    check_images("made", made)
    if check_same_length(real=real, made=made) < 2:
        raise invalid("real", "hold at least 2 images", real)
    if size is None:
        if real.shape[2] != real.shape[3]:
            raise invalid("real", "be square for size=None", real, "Give a size to resample to.")
        size = int(real.shape[2])
    check_int("size", size, at_least=11, advice="SSIM looks at windows of 11 pixels.")
    check_number("level", level, above=0, below=1)
    if networks is not None and not isinstance(networks, ImageNetworks):
        raise invalid("networks", "come from load_image_networks or tiny_image_networks", networks, kind=TypeError)
    rng = np.random.default_rng(0) if rng is None else rng
    values = _pixel_scores(real, made, size, progress)
    tests, matched = {}, {}
    if networks is not None:
        scored = [layer for layer in networks.layers if layer in METRICS]
        first = networks.features(real, scored, name="real", batch_size=batch_size, progress=progress)
        second = networks.features(made, scored, name="made", batch_size=batch_size, progress=progress)
        for layer in scored:
            # Popped: AlexNet's second layer is half a gigabyte for a thousand images.
            found = KINDS[METRICS[layer].kind](first.pop(layer), second.pop(layer), categories, n_permutations, rng)
            values[layer] = found.values
            if found.test is not None:
                tests[layer] = found.test
            if found.matched is not None:
                matched[layer] = found.matched
    _check_defined(values)
    return ImageMetrics(
        values=values,
        intervals={
            key: bootstrap_interval(found, level=level, n_resamples=n_resamples, rng=rng)
            for key, found in values.items()
        },
        tests=tests,
        matched=matched,
        ssim=ssim,
        networks="none" if networks is None else networks.provenance,
        comparable=networks is not None and networks.comparable,
        n_images=len(real),
    )


def _pixel_scores(real: Any, made: Any, size: int, progress: bool) -> dict[str, np.ndarray]:
    """Return PixCorr and both kinds of SSIM of each image."""
    n = len(real)
    values = {key: np.empty(n) for key in ("pixcorr", "ssim_columns", "ssim_2d")}
    parts: Any = [slice(first, min(first + _AT_A_TIME, n)) for first in range(0, n, _AT_A_TIME)]
    if progress:
        from tqdm.auto import tqdm

        parts = tqdm(parts, desc="PixCorr, SSIM")
    for part in parts:
        a = resize(as_bytes("real", real[part]), size, "bicubic")
        b = resize(as_bytes("made", made[part]), size, "bicubic")
        values["pixcorr"][part] = pixel_correlation(a, b)
        for mode in SSIM_MODES:
            values[f"ssim_{mode}"][part] = ssim(to_grey(a), to_grey(b), mode)
    return values


def _check_defined(values: Mapping[str, np.ndarray]) -> None:
    for key, found in values.items():
        bad = np.flatnonzero(np.isnan(found))
        if len(bad):
            advice = "Look at it: a decoder that fails often makes such images. Leave it out in all of the metrics."
            raise invalid("made", "differ from pixel to pixel, as `real`", f"NaN for {key} of image {bad[0]}", advice)
