"""From the largest probability to how often such answers are right: what one temperature cannot say."""

# P predictions, M knots

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from neuroloaders.checks import check_int, check_same_length, check_shape, invalid

__all__ = ["RECALIBRATORS", "Recalibration", "fit_isotonic"]


@dataclass(frozen=True, slots=True, repr=False)
class Recalibration:
    """A map from probabilities to confidences that never falls: straight lines between knots.

    Parameters
    ----------
    probability : tuple of float, length M
        Where the knots are, ascending.
    confidence : tuple of float, length M
        What is reported there, in [0, 1], never falling. Beyond the first and the last knot it stays.
    """

    probability: tuple[float, ...]
    confidence: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the knots."""
        if not check_same_length(probability=self.probability, confidence=self.confidence):
            raise invalid("probability", "have at least one knot", "none")
        for name, values in (("probability", self.probability), ("confidence", self.confidence)):
            inside = all(0.0 <= value <= 1.0 for value in values)
            if not inside or any(b < a for a, b in pairwise(values)):
                raise invalid(name, "ascend within [0, 1]", f"{values}")

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Return the confidence of each probability, any shape."""
        return np.interp(probability, self.probability, self.confidence)

    def __repr__(self) -> str:
        return f"Recalibration({len(self.probability)} knots, to {self.confidence[0]:.3f} .. {self.confidence[-1]:.3f})"


def fit_isotonic(probability: ArrayLike, correct: ArrayLike, n_samples: int) -> Recalibration:
    """Fit the map that never falls and is nearest to the answers' being right, in squares.

    Parameters
    ----------
    probability : array, shape (P,)
        Largest probability of each prediction on validation data.
    correct : array, shape (P,), bool
        Whether it is right.
    n_samples : int
        Samples that they are predictions of, at several checks each.

    Returns
    -------
    Recalibration
        Its confidences lie in [1 / (n + 2), (n + 1) / (n + 2)], with n the number of samples: by the rule of
        succession, no more can be known after n samples of which all or none were right.

    Notes
    -----
    Isotonic regression as in [1]_, of the top label alone; scikit-learn's.

    References
    ----------
    .. [1] Zadrozny & Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates", KDD 2002.

    Examples
    --------
    >>> recalibration = fit_isotonic([0.5, 0.5, 0.9, 0.9], [True, False, True, True], n_samples=4)
    >>> recalibration(np.array([0.5, 0.7, 0.9])).round(3)
    array([0.5  , 0.667, 0.833])
    """
    from sklearn.isotonic import IsotonicRegression

    probability = np.asarray(probability, dtype=np.float64)
    check_shape("probability", probability, ("P",))
    check_same_length(probability=probability, correct=correct)
    check_int("n_samples", n_samples, at_least=1)
    fitted = IsotonicRegression().fit(probability, np.asarray(correct, dtype=np.float64))
    least = 1 / (n_samples + 2)
    confidence = fitted.y_thresholds_.clip(least, 1 - least)
    return Recalibration(tuple(fitted.X_thresholds_.tolist()), tuple(confidence.tolist()))


# Name -> function (largest probabilities (P,), whether right (P,), number of samples) -> map, or None to leave them.
RECALIBRATORS: dict[str, Callable[[ArrayLike, ArrayLike, int], Recalibration | None]] = {
    "isotonic": fit_isotonic,
    "none": lambda probability, correct, n_samples: None,
}
