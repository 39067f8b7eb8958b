"""A spiking brain module: the same sensors and subjects, then spiking neurons with learned delays.

It only looks back in time, so that it can run along with a recording, one sample a step.
"""

# B batch, C sensors, D channels of the spatial path, T time steps = samples, F targets

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.aggregation import AGGREGATIONS
from neurodecode.meeg.brain_module import SubjectCalibration, check_outputs
from neurodecode.meeg.drawing import blank, draw_layer, own_generator
from neurodecode.meeg.positions import frequencies_per_axis
from neurodecode.meeg.saved import load_network, save_network
from neurodecode.meeg.spatial_path import SpatialPath
from neurodecode.meeg.subjects import SUBJECT_LAYERS
from neuroloaders.checks import check_int, check_number, check_option, invalid
from snn import LIF, DelayLinear, EnergyReport, energy_report
from snn.sequence import SequenceBatchNorm, SequenceDropout, leaky_integrate
from snn.surrogate import as_surrogate

__all__ = ["SpikingBrainConfig", "SpikingBrainModule", "SpikingStack"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikingBrainConfig:
    """Sizes and options of a `SpikingBrainModule`.

    Parameters
    ----------
    n_heads, fourier_features, dropout_radius, initial_linear, subject, subject_size
        As in `BrainModuleConfig`.
    hidden : tuple of int
        Neurons of each layer; the first turns currents into spikes.
    max_delay : int
        Delays of all further layers are 0..max_delay - 1 samples.
    learn_delay : bool
        False: random delays that stay as they are.
    tau, tau_readout : float
        Membrane time constants of the hidden layers and of the readout, in samples, > 1.
    v_threshold : float
        Threshold.
    surrogate : str
        A key of `snn.surrogate.SURROGATES`.
    dropout : float
        Share of hidden neurons that are silenced in training, for a whole window.
    lookahead : int
        Samples by which the answer comes later: the output for sample t has seen the recording up to t + lookahead. The
        brain follows what it hears: its answer to sample t is still to come.
    dt_ms : float, optional
        Length of a sample, to read delays in ms.
    aggregation : {"mean", "attention", "affine"}, optional
        As in `BrainModuleConfig`, of the membranes of the readout.

    Examples
    --------
    >>> model = SpikingBrainConfig(n_heads=16, initial_linear=16, hidden=(32, 32)).build(2, 8)
    >>> model(torch.zeros(3, 20, 50), torch.tensor([0, 1, 1]), torch.zeros(20, 2)).shape
    torch.Size([3, 8, 50])
    """

    n_heads: int | None = 270
    fourier_features: int = 2048
    dropout_radius: float = 0.2
    initial_linear: int | None = 270
    subject: str = "layer"
    subject_size: int = 64
    hidden: tuple[int, ...] = (256, 256)
    max_delay: int = 25
    learn_delay: bool = True
    tau: float = 2.0
    tau_readout: float = 2.0
    v_threshold: float = 1.0
    surrogate: str = "atan"
    dropout: float = 0.0
    lookahead: int = 0
    dt_ms: float | None = None
    aggregation: str | None = None

    def __post_init__(self) -> None:
        for name in ("n_heads", "initial_linear"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), at_least=1)
        frequencies_per_axis(self.fourier_features)
        check_number("dropout_radius", self.dropout_radius, at_least=0)
        check_option("subject", self.subject, SUBJECT_LAYERS)
        if not isinstance(self.hidden, tuple | list) or not self.hidden:
            raise invalid("hidden", "hold the number of neurons of at least one layer", self.hidden, kind=TypeError)
        # A list, as a file holds it, would make equal configurations differ.
        object.__setattr__(self, "hidden", tuple(check_int("hidden", n, at_least=1) for n in self.hidden))
        for name in ("subject_size", "max_delay"):
            check_int(name, getattr(self, name), at_least=1)
        check_int("lookahead", self.lookahead, at_least=0)
        check_number("tau", self.tau, above=1)
        check_number("tau_readout", self.tau_readout, above=1)
        check_number("v_threshold", self.v_threshold, above=0)
        check_number("dropout", self.dropout, at_least=0, below=1)
        as_surrogate(self.surrogate)
        if self.dt_ms is not None:
            check_number("dt_ms", self.dt_ms, above=0)
        check_option("aggregation", self.aggregation, [None, *AGGREGATIONS])

    def build(
        self,
        n_subjects: int,
        n_outputs: int | Mapping[str, int],
        *,
        n_channels: int | None = None,
        n_times: int | None = None,
        new_subject: str = "mean",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> SpikingBrainModule:
        """Build the network for a data set; the parameters are those of `BrainModuleConfig.build`."""
        return SpikingBrainModule(
            self, n_subjects, n_outputs, n_channels=n_channels, n_times=n_times, new_subject=new_subject,
            generator=generator, device=device, dtype=dtype,
        )  # fmt: skip


class SpikingStack(nn.Module):
    """Currents to spikes, layers of delays and spiking neurons, and a readout that does not spike.

    Parameters
    ----------
    n_inputs, n_outputs : int
        D, F.
    config : SpikingBrainConfig
        Sizes and options.
    generator : torch.Generator, optional
        For the first weights and delays.
    """

    def __init__(
        self, n_inputs: int, n_outputs: int, config: SpikingBrainConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        generator = own_generator(generator)
        delayed = {"learn_delay": config.learn_delay, "dt_ms": config.dt_ms, "generator": generator}
        if not config.learn_delay:
            delayed["rounding"] = "always"
        sizes = [*config.hidden, n_outputs]
        self.encoder = draw_layer(blank(nn.Linear, n_inputs, sizes[0]), generator)
        self.layers = nn.ModuleList(
            DelayLinear(a, b, config.max_delay, **delayed) for a, b in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(SequenceBatchNorm(n) for n in config.hidden)
        self.neurons = nn.ModuleList(
            LIF(config.tau, v_threshold=config.v_threshold, surrogate=config.surrogate) for _ in config.hidden
        )
        self.dropout = SequenceDropout(config.dropout)
        self.readout_leak = 1 - 1 / config.tau_readout
        self.lookahead = config.lookahead

    def forward(self, x: Tensor) -> Tensor:
        """Map currents (T, B, D) to membranes of the readout, (T, B, F)."""
        x = self.encoder(F.pad(x, (0, 0, 0, 0, 0, self.lookahead)))
        for layer, norm, neuron in zip(self.layers, self.norms, self.neurons, strict=True):
            x = layer(self.dropout(neuron(norm(x))))
        return leaky_integrate(x, self.readout_leak)[self.lookahead :]

    def step(self, x: Tensor, state: list | None = None) -> tuple[Tensor, list]:
        """Run one sample, in evaluation mode.

        Parameters
        ----------
        x : Tensor, shape (B, D)
            Currents of this sample.
        state : list, optional
            What the last step returned.

        Returns
        -------
        v : Tensor, shape (B, F)
            Membranes of the readout: of the sample `lookahead` steps ago.
        state : list
            For the next step.
        """
        if self.training:
            raise invalid("the model", "be in evaluation mode to run step by step", "training mode", "Call .eval().")
        n = len(self.neurons)
        delays, membranes, v = state if state is not None else ([None] * n, [None] * n, 0.0)
        x = self.encoder(x)
        for k, (layer, norm, neuron) in enumerate(zip(self.layers, self.norms, self.neurons, strict=True)):
            before = neuron.init_leaky() if membranes[k] is None else membranes[k]
            x, membranes[k] = neuron(norm(x[None])[0], before)
            x, delays[k] = layer.step(x, delays[k])
        v = self.readout_leak * v + x
        return v, [delays, membranes, v]


class SpikingBrainModule(SubjectCalibration):
    """Spatial attention and subject layer, then spiking neurons with learned delays; built by `SpikingBrainConfig`.

    Parameters
    ----------
    config : SpikingBrainConfig
        Sizes and options.
    n_subjects, n_outputs, n_channels, n_times, new_subject, generator, device, dtype
        As in `BrainModuleConfig.build`.

    Attributes
    ----------
    spatial : SpatialPath
        As in `BrainModule`, with the same matrix at inference.
    stack : SpikingStack
        Sequences [T, B, D] to [T, B, F].

    Notes
    -----
    A combination of our own: the spatial part of Defossez et al. 2023 [1]_ and the layers of Hammouamri et al. 2023
    [2]_. The filtered recording is the current into the first layer, at each sample (direct encoding); all further
    layers are fed spikes. It is causal, where `BrainModule` is not.

    References
    ----------
    .. [1] Defossez et al., Nature Machine Intelligence 5 (2023), 10.1038/s42256-023-00714-5.
    .. [2] Hammouamri, Khalfaoui-Hassani & Masquelier, ICLR 2024, arXiv:2306.17670.
    """

    def __init__(
        self,
        config: SpikingBrainConfig,
        n_subjects: int,
        n_outputs: int | Mapping[str, int],
        *,
        n_channels: int | None = None,
        n_times: int | None = None,
        new_subject: str = "mean",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(config, SpikingBrainConfig):
            raise invalid("config", "be a SpikingBrainConfig", config, kind=TypeError)
        generator = own_generator(generator)
        self.sizes = check_outputs(n_outputs)
        self.config = config
        self.by_name = isinstance(n_outputs, Mapping)
        self._built_with: dict[str, Any] = {
            "n_subjects": n_subjects,
            "n_outputs": self.sizes if self.by_name else n_outputs,
            "n_channels": n_channels,
            "n_times": n_times,
            "new_subject": new_subject,
        }
        self.spatial = SpatialPath(
            n_subjects=n_subjects, n_channels=n_channels, n_heads=config.n_heads, n_features=config.fourier_features,
            dropout_radius=config.dropout_radius, initial_linear=config.initial_linear, subject=config.subject,
            subject_size=config.subject_size, new_subject=new_subject, generator=generator,
        )  # fmt: skip
        total = sum(self.sizes.values())
        self.stack = SpikingStack(self.spatial.n_outputs, total, config, generator)
        self.aggregation = None
        if config.aggregation is not None:
            self.aggregation = AGGREGATIONS[config.aggregation](total, n_times, generator, {})
        self.to(device=device, dtype=dtype)

    def current(
        self,
        x: Tensor,
        subjects: Tensor | None = None,
        positions: Tensor | None = None,
        recordings: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the filtered recordings as currents of the stack, (T, B, D); parameters as in `forward`."""
        y = self.spatial(x, subjects, positions, recordings, generator=generator)
        return y.permute(2, 0, 1)  # (B, D, T) -> (T, B, D)

    def forward(
        self,
        x: Tensor,
        subjects: Tensor | None = None,
        positions: Tensor | None = None,
        recordings: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Decode windows of recordings; parameters and result as in `BrainModule.forward`."""
        v = self.stack(self.current(x, subjects, positions, recordings, generator=generator))
        y = v.permute(1, 2, 0)  # (T, B, F) -> (B, F, T)
        if self.aggregation is not None:
            y = self.aggregation(y)
        if not self.by_name:
            return y
        return dict(zip(self.sizes, y.split(list(self.sizes.values()), 1), strict=True))

    def energy_report(
        self,
        x: Tensor,
        subjects: Tensor | None = None,
        positions: Tensor | None = None,
        recordings: Tensor | None = None,
    ) -> EnergyReport:
        """Return the energy of the stack on these windows, see `snn.energy_report`; the spatial path is not counted.

        The first layer is fed currents, and costs a multiply-accumulate a synapse and sample.
        """
        with torch.no_grad():
            training = self.training
            current = self.eval().current(x, subjects, positions, recordings)
            self.train(training)
        return energy_report(self.stack, current, batch_axis=1)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write weights (``model.safetensors``) and ``config.json`` to `folder`, as `BrainModule.save` does."""
        save_network(folder, self, "SpikingBrainModule", self.config, self._built_with)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> SpikingBrainModule:
        """Read a network that `save` wrote, in evaluation mode; parameters and errors as in `BrainModule.load`."""
        return load_network(
            folder, "SpikingBrainModule", lambda config, build: cls(SpikingBrainConfig(**config), **build), device
        )
