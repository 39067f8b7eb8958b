"""How DCLS-Delays was trained on spoken words, as settings that can be read, varied and run."""

# T time steps, B batch, C channels, D lags

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from neuroloaders.checks import check_int, check_number, check_option, invalid
from neuroloaders.events import BINNINGS
from neuroloaders.features import FeatureSet, time_first
from neuroloaders.resident import ResidentLoader
from neuroloaders.runs import choose_device, generator, spawn_seeds, world
from neuroloaders.spike_loader import SpikeLoader
from neuroloaders.spikes import SpikeSet
from neuroloaders.studies import MelConfig
from snn.delays import SigmaSchedule, delay_layers, delay_param_groups, ms_to_steps
from snn.models import DELAYS, DelayMLP, delay_mlp
from snn.recipes.data import RECIPE_DATA, check_recipe_data
from snn.surrogate import Surrogate
from snn.training import History, TrainConfig, fit

__all__ = ["COMPAT", "LOSSES", "RECIPES", "DelayRecipe"]

# name -> how class scores are made of the readout (a key of `snn.models.READOUTS`); their cross entropy is the loss
LOSSES = {
    "paper": "softmax_sum",  # probabilities are summed over time, and the cross entropy takes a second softmax
    "likelihood": "log_mean_softmax",  # the mean probability over time is a probability: its negative logarithm
}
COMPAT = {
    None: "padding counts for nothing, bins have fixed edges, first delays are even, mel filters end at 4 kHz",
    "dcls-paper": "padding counts as silence, bins as in spikingjelly in 2023, a fraction of 1 / D of the first "
    "delays is the longest, mel filters up to 14 kHz",
}
_MEL_HZ = 8_000  # at which spectrograms of "gsc" are computed


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DelayRecipe:
    """Data, network and training of DCLS-Delays [1]_; `RECIPES` holds those of its tables.

    Vary one with `dataclasses.replace`.

    Parameters
    ----------
    data : str
        A key of `RECIPE_DATA`.
    hidden : tuple of int
        Neurons of each hidden layer.
    tau_ms : float
        Membrane time constant of hidden neurons and readout, in ms; more than `dt_ms`.
    max_delay_ms : float
        Longest delay in ms. In steps it is made odd by adding one, as DCLS needs it: see `taps`.
    dropout : float
        Share of hidden neurons that are silenced for a whole sample in training.
    epochs : int
        At least 4. All schedules stretch with it.
    batch_size : int
        B, also in evaluation.
    dt_ms : float
        Length of a time step in ms.
    pool_units : int
        Neighbouring units that are counted as one; 1 for spectrograms.
    kernel_count : int
        Synapses, each with its own weight and delay, between each pair of neurons: KC in the paper.
    delays : str
        A key of `snn.models.DELAYS`, for ablations.
    loss : str
        A key of `LOSSES`.
    lr, delay_lr : float
        Peak rates of weights (one cycle) and of delays in steps (cosine); both move once an epoch.
    weight_decay : float
        Of weights alone, added to the gradient (L2).
    binning : str, optional
        A key of `neuroloaders.BINNINGS`. By default "ceil", with ``compat="dcls-paper"`` "sj2023".
    compat : str, optional
        A key of `COMPAT`.

    Raises
    ------
    TypeError, ValueError
        Named after the argument.

    Notes
    -----
    LIF neurons with a hard reset, without scaled input, and with the gradient of an arc tangent of sharpness 5.
    Weights are drawn as by He et al. 2015, delays evenly. The width of the kernels falls geometrically from half the
    longest delay to 0.5 steps in the first quarter of the epochs. Every layer lengthens the sequence by
    `tail_steps`.

    With ``compat="dcls-paper"`` delays are drawn from (0, D) and moved back to D - 1, which as many exceed as one
    step holds: in DCLS positions, U(-(D + 1) / 2, D // 2).

    Deviations from the code of [1]_, also with `compat`: events have the times of the files, not rounded to float16
    once more; accuracies are means over samples, not over batches; random numbers come in another order.

    References
    ----------
    .. [1] Hammouamri, Khalfaoui-Hassani & Masquelier, ICLR 2024, arXiv:2306.17670, and
       github.com/Thvnvtos/SNN-delays.

    Examples
    --------
    >>> recipe = RECIPES["shd"]
    >>> recipe.taps, round(recipe.tau, 6), recipe.tail_steps
    (25, 1.005, 12)
    >>> one_layer = dataclasses.replace(recipe, hidden=(128,), loss="likelihood")
    """

    data: str
    hidden: tuple[int, ...]
    tau_ms: float
    max_delay_ms: float
    dropout: float
    epochs: int
    batch_size: int
    dt_ms: float = 10.0
    pool_units: int = 5
    kernel_count: int = 1
    delays: str = "learned"
    loss: str = "paper"
    lr: float = 5e-3
    delay_lr: float = 0.1
    weight_decay: float = 1e-5
    binning: str | None = None
    compat: str | None = None

    def __post_init__(self) -> None:
        source = RECIPE_DATA[check_option("data", self.data, RECIPE_DATA)]
        if not isinstance(self.hidden, list | tuple):
            raise invalid("hidden", "be a tuple of sizes, one a layer", self.hidden, kind=TypeError)
        # Lists, as JSON gives them back, become tuples.
        object.__setattr__(self, "hidden", tuple(check_int("hidden", size, at_least=1) for size in self.hidden))
        check_number("dt_ms", self.dt_ms, above=0)
        check_number("tau_ms", self.tau_ms, above=self.dt_ms, advice="A neuron forgets within a step otherwise.")
        ms_to_steps(self.max_delay_ms, self.dt_ms)
        check_number("dropout", self.dropout, at_least=0, below=1)
        check_int("epochs", self.epochs, at_least=4, advice="One cycle of the learning rate takes 4.")
        check_int("batch_size", self.batch_size, at_least=1)
        check_int("pool_units", self.pool_units, at_least=1)
        if source.n_channels % self.pool_units or (source.kind is FeatureSet and self.pool_units != 1):
            required = "be 1" if source.kind is FeatureSet else f"divide {source.n_channels}"
            raise invalid("pool_units", f"{required} for data={self.data!r}", f"{self.pool_units}")
        check_int("kernel_count", self.kernel_count, at_least=1)
        check_option("delays", self.delays, DELAYS)
        check_option("loss", self.loss, LOSSES)
        for name in ("lr", "delay_lr"):
            check_number(name, getattr(self, name), above=0)
        check_number("weight_decay", self.weight_decay, at_least=0)
        check_option("binning", self.binning, [None, *BINNINGS])
        check_option("compat", self.compat, COMPAT)

    @property
    def taps(self) -> int:
        """D: delays are 0..D - 1 steps."""
        steps = ms_to_steps(self.max_delay_ms, self.dt_ms)
        return steps + 1 - steps % 2

    @property
    def tau(self) -> float:
        """Membrane time constant in steps."""
        return self.tau_ms / self.dt_ms

    @property
    def tail_steps(self) -> int:
        """By how much each layer lengthens the sequence; 0 without delays."""
        return 0 if self.delays == "none" else (self.taps - 1) // 2

    @property
    def bins(self) -> str:
        """How time is divided, a key of `neuroloaders.BINNINGS`."""
        return self.binning or ("ceil" if self.compat is None else "sj2023")

    @property
    def mel(self) -> MelConfig:
        """The front end of "gsc"."""
        return MelConfig(hop=ms_to_steps(self.dt_ms, 1000 / _MEL_HZ), resample_hz=_MEL_HZ, compat=self.compat)

    @property
    def sigma_schedule(self) -> SigmaSchedule | None:
        """How the width of the kernels shrinks; None if no delays are learned."""
        return SigmaSchedule(epochs=self.epochs // 4) if self.delays == "learned" else None

    def build(self, *, generator: torch.Generator | None = None) -> DelayMLP:
        """Return the untrained network.

        Parameters
        ----------
        generator : torch.Generator, optional
            For weights and delays; by default a new one with a seed from the system.
        """
        source = RECIPE_DATA[self.data]
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        model = delay_mlp(
            source.n_channels // self.pool_units,
            source.n_classes,
            hidden=self.hidden,
            max_delay=self.taps,
            delays=self.delays,
            tau=self.tau,
            surrogate=Surrogate(name="atan", alpha=5.0),
            dropout=self.dropout,
            kernel_count=self.kernel_count,
            readout=LOSSES[self.loss],
            tail_steps=self.tail_steps,
            mask_padding=self.compat is None,
            dt_ms=self.dt_ms,
            generator=generator,
        )
        if self.compat is not None and self.delays == "learned":
            with torch.no_grad():
                for _, layer in delay_layers(model):
                    layer.delay.uniform_(0, self.taps, generator=generator).clamp_(max=self.taps - 1)
        return model

    def loader(
        self,
        data: SpikeSet | FeatureSet,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        device: str | torch.device | None = None,
    ) -> ResidentLoader:
        """Return batches (x, lengths, labels) of spikes or (x, labels) of spectrograms, x of shape (T, B, C).

        Parameters
        ----------
        data : SpikeSet or FeatureSet
            Any split of the recipe's data set.
        shuffle : bool
            Another order in every epoch.
        generator : torch.Generator, optional
            Its seed decides the orders.
        device : str or torch.device, optional
            None takes a GPU if there is one; under torchrun, each process its own, and its share of every batch.

        Raises
        ------
        TypeError, ValueError
            If the set is of another kind, or has other channels or classes.
        """
        check_recipe_data("data", data, self.data)
        rank, _, world_size = world()
        order: dict[str, Any] = {"batch_size": self.batch_size, "shuffle": shuffle, "generator": generator}
        order |= {"device": choose_device(device), "rank": rank, "world_size": world_size}
        if isinstance(data, FeatureSet):
            return ResidentLoader(data.features, data.labels, transform=time_first, **order)
        return SpikeLoader(data, dt_ms=self.dt_ms, pool_units=self.pool_units, mode=self.bins, **order)

    def train_config(self, *, seed: int = 0, select: str = "best") -> TrainConfig:
        """Return the settings of `snn.fit`, which also needs `param_groups` and `sigma_schedule`.

        Parameters
        ----------
        seed, select
            As in `snn.TrainConfig`.
        """
        return TrainConfig(
            epochs=self.epochs, lr=self.lr, optimizer="adam", weight_decay=self.weight_decay,
            schedule="onecycle", schedule_every="epoch", loss="cross_entropy", select=select, seed=seed,
        )  # fmt: skip

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters of `model` with the rates, decays and schedules of the recipe, for `snn.fit`."""
        rates = {"lr": self.lr, "delay_lr": self.delay_lr, "weight_decay": self.weight_decay}
        return delay_param_groups(model, delay_schedule="cosine", **rates)

    def fit(
        self,
        train: SpikeSet | FeatureSet,
        valid: SpikeSet | FeatureSet | None,
        *,
        seed: int = 0,
        select: str = "best",
        run_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        progress: bool = False,
        on_log: Callable[[dict[str, Any]], None] | None = None,
    ) -> tuple[DelayMLP, History]:
        """Build a network and train it.

        Parameters
        ----------
        train, valid : SpikeSet or FeatureSet
            `valid` chooses the epoch; with ``select="last"`` it may be None. For loaders of your own, give what
            `build`, `train_config`, `param_groups` and `sigma_schedule` return to `snn.fit`.
        seed : int
            Of weights, delays, the order of samples, and dropout.
        select : {"best", "last"}
            Which epoch's weights the network has at the end.
        run_dir, device, progress, on_log
            As in `snn.fit`.

        Returns
        -------
        model : DelayMLP
            In evaluation mode.
        history : History
        """
        seeds = spawn_seeds(seed, "weights", "order", "training")
        model = self.build(generator=generator(seeds["weights"]))
        orders = generator(seeds["order"])
        history = fit(
            model,
            self.loader(train, shuffle=True, generator=orders, device=device),
            None if valid is None else self.loader(valid, device=device),
            self.train_config(seed=seeds["training"], select=select),
            run_dir=run_dir,
            device=device,
            progress=progress,
            on_log=on_log,
            before_epoch=self.sigma_schedule,
            param_groups=self.param_groups,
        )
        return model, history


_SHD = DelayRecipe(
    data="shd", hidden=(256, 256), tau_ms=10.05, max_delay_ms=250, dropout=0.4, epochs=150, batch_size=256
)
_SSC = DelayRecipe(data="ssc", hidden=(512, 512), tau_ms=15, max_delay_ms=300, dropout=0.25, epochs=60, batch_size=128)
_GSC = dataclasses.replace(_SSC, data="gsc", pool_units=1, epochs=100)


def _sizes(name: str, base: DelayRecipe) -> dict[str, DelayRecipe]:
    deep = dataclasses.replace(base, hidden=(*base.hidden, 512))
    one = {name: base, f"{name}-3l": deep}
    return one | {f"{key}-2kc": dataclasses.replace(recipe, kernel_count=2) for key, recipe in one.items()}


# The best configurations of the paper's code: two hidden layers and one kernel a connection, unless the name says more.
RECIPES: dict[str, DelayRecipe] = {"shd": _SHD, **_sizes("ssc", _SSC), **_sizes("gsc", _GSC)}
