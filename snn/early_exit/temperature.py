"""The temperature alpha: fitted so that softmax(O_t / alpha) says how probable the answer is."""

# J checks, N samples, K classes, P = J * N pooled predictions

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_finite, check_option, check_shape, invalid
from snn.early_exit.calibration import expected_calibration_error

__all__ = ["CALIBRATORS", "fit_alpha"]

# Rows of which the probabilities are computed at a time.
_BLOCK = 65536
# ECE has steps and more than one valley: it is looked at from a tenth of the other optimum to ten times it.
_N_GRID, _SPAN = 81, 10.0


def _nll(below_top: Tensor, target: Tensor) -> float:
    """Minimise the negative log-likelihood: find where its derivative in 1 / alpha is 0."""
    from scipy.optimize import brentq

    of_target = below_top.gather(1, target[:, None])[:, 0]
    n_classes = below_top.shape[1]
    # The derivative in beta = 1 / alpha is the mean of E_p[O] - O_y. It grows with beta (the likelihood is
    # log-concave), from beta = 0, where p is uniform, ...
    at_zero = (below_top.mean(1) - of_target).mean().item()
    if at_zero >= 0:
        advice = "Check that `y` and the classes have the same order, and that the network has learned something."
        raise invalid("y", "be more probable than other classes by the logits of `x`", "labels that are not", advice)
    if bool((of_target == 0).all()):
        # ... to beta = inf, where it is the mean of max O - O_y: with nothing wrong, never above 0.
        n_right = len(target)
        warnings.warn(
            f"All {n_right} answers at all checked steps are right, so no `alpha` is the best: the smaller, the "
            "better. It is set so that the mean lead over the other classes gives (n + 1) / (n + 2), the rule of "
            "succession for n of n right. Fit on more data, or give `alpha`.",
            stacklevel=4,
        )
        lead = -below_top.sum(1).mean().item() / (n_classes - 1)
        return lead / math.log((n_right + 1) * (n_classes - 1))

    def slope(log_beta: float) -> float:
        beta, total = math.exp(log_beta), 0.0
        for part, own in zip(below_top.split(_BLOCK), of_target.split(_BLOCK), strict=True):
            expected = (torch.softmax(part * beta, 1) * part).sum(1)
            total += (expected - own).sum().item()
        return total / len(of_target)

    # In log beta both ends are within a few doublings of the logits' own scale, whatever their unit.
    scale = math.log(below_top.abs().mean().item())
    low, high = -scale, -scale
    while slope(low) > 0:
        low -= 2.0
    while slope(high) < 0:
        high += 2.0
    return math.exp(-brentq(slope, low, high, xtol=1e-12, rtol=1e-12)) if low < high else math.exp(-low)


def _ece(below_top: Tensor, target: Tensor) -> float:
    """Minimise the expected calibration error over a grid around the other optimum, of equals the middle one."""
    centre = _nll(below_top, target)
    correct = (below_top.argmax(1) == target).numpy()

    def error(alpha: float) -> float:
        parts = [torch.softmax(part / alpha, 1).amax(1) for part in below_top.split(_BLOCK)]
        return expected_calibration_error(torch.cat(parts).numpy(), correct)

    best = centre
    for span in (_SPAN, _SPAN ** (2 / (_N_GRID - 1))):
        grid = best * np.geomspace(1 / span, span, _N_GRID)
        errors = np.array([error(alpha) for alpha in grid])
        lowest = np.flatnonzero(errors == errors.min())
        best = float(grid[lowest[len(lowest) // 2]])
    return best


# Name -> function (O_t minus its largest class (P, K), labels (P,)) -> alpha.
CALIBRATORS: dict[str, Callable[[Tensor, Tensor], float]] = {"nll": _nll, "ece": _ece}


def fit_alpha(readouts: Tensor, y: Tensor, *, calibrator: str = "nll") -> float:
    """Fit the temperature on validation data.

    Parameters
    ----------
    readouts : Tensor, shape (J, N, K)
        Evidence O_t at the checked steps.
    y : Tensor, shape (N,), integer
        Classes of these samples.
    calibrator : str
        A key of `CALIBRATORS`: what is minimised. ``"nll"``, the negative log-likelihood, is convex in 1 / alpha and
        its optimum is found exactly; ``"ece"``, the expected calibration error, is searched on a grid.

    Returns
    -------
    float
        alpha, in units of the logits.

    Raises
    ------
    ValueError
        If the logits prefer other classes than `y` on average: no alpha helps.

    Notes
    -----
    All checked steps of all samples are pooled with equal weight, because one alpha and one threshold serve all of
    them. Fitted at T alone, alpha would be right where no decision is left to take. It is a compromise: a sum over time
    grows in proportion to t, so that one alpha makes early checks too modest and late ones too sure, the more so the
    larger T is. The threshold is chosen with this alpha, so the decision adapts to it; how far the confidence at the
    exits is from a probability is `Evaluation.ece`.

    The paper [1]_ sets alpha by reliability diagrams; that a number is minimised instead is ours, after the temperature
    scaling of [2]_.

    If no answer is wrong at any check, the likelihood has no optimum; a warning says so, and what is returned then.

    References
    ----------
    .. [1] Li, Jones & Furber, "Unleashing the Potential of Spiking Neural Networks with Dynamic Confidence",
       ICCV 2023 (arXiv:2303.10276).
    .. [2] Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599).

    Examples
    --------
    Of three answers two are right, and each is ahead by 2: it should be as sure as 2/3, so alpha = 2 / log 2.

    >>> alpha = fit_alpha(torch.tensor([[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]]), torch.tensor([0, 0, 0]))
    >>> round(alpha * math.log(2), 6)
    2.0
    """
    check_option("calibrator", calibrator, CALIBRATORS)
    check_shape("readouts", readouts, ("J", "N", "K"))
    check_shape("y", y, (readouts.shape[1],))
    check_finite("readouts", readouts)
    below_top = readouts.double().flatten(0, 1)
    below_top = below_top - below_top.amax(1, keepdim=True)
    return CALIBRATORS[calibrator](below_top, y.long().cpu().repeat(readouts.shape[0]))
