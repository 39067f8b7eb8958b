"""What every fitted regression can do: go into a file."""

from __future__ import annotations

import os

from sklearn.utils.validation import check_is_fitted

__all__ = ["Saved"]


class Saved:
    """An estimator that `neurodecode.ridge.load_ridge` can read again."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a safetensors file; `neurodecode.ridge.load_ridge` reads it.

        Parameters
        ----------
        path : path-like
            The file; it is replaced once the new one is complete.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before ``fit``.
        ValueError
            If it holds no coefficients, as after ``smooth_predict``.
        """
        from neurodecode.ridge.storage import save_ridge

        check_is_fitted(self)
        save_ridge(self, path)
