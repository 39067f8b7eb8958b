"""From the name of a recipe to accuracies that say how they were chosen."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from neuroloaders.checks import check_option, invalid
from neuroloaders.features import FeatureSet
from neuroloaders.runs import RunFolder, load_state, spawn_seeds, world
from neuroloaders.spikes import SpikeSet
from neuroloaders.studies import split_by_protocol
from snn.experiment import TRAINING
from snn.models import DelayMLP
from snn.recipes.data import load_recipe_data
from snn.recipes.recipe import RECIPES, DelayRecipe
from snn.training import History, evaluate
from snn.training.state import FILE

__all__ = ["RecipeResult", "run_recipe"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class RecipeResult:
    """What one training gave, on test data.

    Attributes
    ----------
    name : str
        The recipe's key in `RECIPES`, or "own".
    recipe : DelayRecipe
        What was run.
    protocol : str
        A key of `neuroloaders.PROTOCOLS`.
    seed : int
        Of weights, order, dropout, and of the validation set where it is carved out.
    model : DelayMLP
        With the weights of the chosen epoch, `history.kept_epoch`.
    history : History
        Its ``valid_`` columns are of the data that chose the epoch: with "test-selection", of the test data.
    last_accuracy : float
        After the last epoch, which nothing has chosen.
    chosen_accuracy : float or None
        After the epoch with the best accuracy on validation data. None with "test-selection": there are none.
    best_on_test : float or None
        With "test-selection", the accuracy after the epoch with the best accuracy on the test data themselves: what
        the paper reports for SHD. It is too high as an estimate for new data. None with all other protocols.
    """

    name: str
    recipe: DelayRecipe
    protocol: str
    seed: int
    model: DelayMLP
    history: History
    last_accuracy: float
    chosen_accuracy: float | None
    best_on_test: float | None

    def as_row(self) -> dict[str, Any]:
        """Return one row of a table: names, seed, the epoch chosen (from 0), accuracies, as JSON can hold them."""
        keys = ("name", "protocol", "seed", "last_accuracy", "chosen_accuracy", "best_on_test")
        row = {key: getattr(self, key) for key in keys}
        return row | {"epochs": len(self.history), "chosen_epoch": self.history.kept_epoch}

    def __repr__(self) -> str:
        scores = {"last epoch": self.last_accuracy, "epoch chosen on validation data": self.chosen_accuracy}
        scores["epoch chosen on the test data"] = self.best_on_test
        text = ", ".join(f"{what} {score:.2%}" for what, score in scores.items() if score is not None)
        return f"RecipeResult({self.name}, protocol {self.protocol!r}, seed {self.seed}; test accuracy: {text})"


def run_recipe(
    recipe: str | DelayRecipe,
    *,
    protocol: str = "validation",
    fraction: float | None = None,
    speaker: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    data_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    sets: Mapping[str, SpikeSet | FeatureSet] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> RecipeResult:
    """Load the data of a recipe, train its network once, and test it after the last epoch and after the chosen one.

    Parameters
    ----------
    recipe : str or DelayRecipe
        A key of `RECIPES`, or a recipe of your own.
    protocol : str
        A key of `neuroloaders.PROTOCOLS`: which data choose the epoch. Test data do only with "test-selection".
    fraction, speaker
        As for `neuroloaders.split_by_protocol`.
    seed : int
        Of everything random: weights and delays, order, dropout, and the validation set where it is carved out.
    epochs : int, optional
        Instead of the recipe's own.
    data_dir, offline
        As for `neuroloaders.fetch`, which finds or downloads the data.
    sets : mapping of str to SpikeSet or FeatureSet, optional
        The official splits, where they are loaded already, see `load_recipe_data`: for several seeds.
    run_dir : path-like, optional
        Folder for the settings and, below, the training. The same call with the same folder goes on where it
        stopped. Required under torchrun; otherwise a temporary one is used.
    device, on_log
        As in `snn.fit`.
    progress : bool
        Show progress bars.

    Returns
    -------
    RecipeResult

    Raises
    ------
    OSError, TypeError, ValueError
        If an argument does not fit, data are not there, or the folder holds a run with other settings.

    Notes
    -----
    Test accuracies are means over samples, of networks with whole-step delays. The weights after the last epoch are
    taken from the checkpoint that `snn.fit` writes, so one training gives both.

    Examples
    --------
    The numbers for a paper::

        sets = load_recipe_data("shd")
        rows = [run_recipe("shd", seed=seed, sets=sets, run_dir=f"runs/shd-{seed}").as_row() for seed in range(3)]
    """
    name = "own"
    if isinstance(recipe, str):
        name, recipe = recipe, RECIPES[check_option("recipe", recipe, RECIPES)]
    elif not isinstance(recipe, DelayRecipe):
        raise invalid("recipe", "be a DelayRecipe or a key of RECIPES", recipe, kind=TypeError)
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=epochs)
    rank, _, world_size = world()
    if run_dir is None and world_size > 1:
        raise invalid("run_dir", "be given under torchrun", "None", "All processes read the checkpoint in it.")
    split_seed = spawn_seeds(seed, "split")["split"]
    if sets is None:
        sets = load_recipe_data(recipe.data, recipe.mel, data_dir=data_dir, offline=offline, progress=progress)
    train, valid, test = split_by_protocol(sets, protocol, fraction=fraction, speaker=speaker, seed=split_seed)
    settings = {"recipe": dataclasses.asdict(recipe), "protocol": protocol, "fraction": fraction, "speaker": speaker}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if run_dir is None else run_dir
        if rank == 0:
            RunFolder(folder).claim({**settings, "seed": seed})
        training = Path(folder) / TRAINING
        model, history = recipe.fit(
            train, valid, seed=seed, run_dir=training, device=device, progress=progress, on_log=on_log
        )
        on_test = recipe.loader(test, device=device)
        # First the weights that the model has: under torchrun this waits until rank 0 has written all of its files.
        chosen = evaluate(model, on_test)["accuracy"]
        last = chosen
        if history.kept_epoch != len(history) - 1:
            kept = {key: value.clone() for key, value in model.state_dict().items()}
            model.load_state_dict(load_state(training / FILE)["model"])
            last = evaluate(model, on_test)["accuracy"]
            model.load_state_dict(kept)
    selects = protocol == "test-selection"
    return RecipeResult(
        name=name,
        recipe=recipe,
        protocol=protocol,
        seed=seed,
        model=model,
        history=history,
        last_accuracy=last,
        chosen_accuracy=None if selects else chosen,
        best_on_test=chosen if selects else None,
    )
