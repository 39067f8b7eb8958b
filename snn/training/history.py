"""The course of a training run."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from neuroloaders.checks import check_option
from neuroloaders.runs import atomic_write, to_csv

__all__ = ["History"]


@dataclasses.dataclass
class History:
    """One row an epoch.

    Attributes
    ----------
    rows : list of dict
        Keys ``epoch`` (from 0), ``train_loss``, ``train_accuracy``, ``valid_loss``, ``valid_accuracy``, ``lr``
        (of the first parameter group, in the epoch's last step) and ``seconds`` (wall time). Training scores
        are of the model in training mode, while it changes; without validation data there are no ``valid_``
        keys.
    monitor : str
        What "best" means: ``"loss"`` or a metric's name.
    kept_epoch : int or None
        The epoch whose weights the model has; None until the run is complete.
    """

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    monitor: str = "accuracy"
    kept_epoch: int | None = None

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the best `monitor` on the validation data; None without such data."""
        column = f"valid_{self.monitor}"
        if not self.rows or column not in self.rows[0]:
            return None
        sign = -1 if self.monitor == "loss" else 1
        # max returns the first of equals
        return max(range(len(self.rows)), key=lambda epoch: sign * self.rows[epoch][column])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> list[Any]:
        """Return one column, a value an epoch."""
        columns = list(self.rows[0]) if self.rows else []
        check_option("column", column, columns)
        return [row[column] for row in self.rows]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows to `path`; floats read back exactly."""
        with atomic_write(path, "w") as out:
            out.write(to_csv(self.rows))

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        shown = len(self.rows) - 1 if self.best_epoch is None else self.best_epoch
        scores = ", ".join(
            f"{key}={value:.4g}" for key, value in self.rows[shown].items() if key.startswith(("train_", "valid_"))
        )
        label = "last" if self.best_epoch is None else "best"
        return f"History({len(self.rows)} epochs; {label} epoch {shown}: {scores}; kept epoch {self.kept_epoch})"
