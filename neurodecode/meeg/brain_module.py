"""The network that Defossez et al. and Benchetrit et al. decode speech and images with, from M/EEG."""

# B batch, C channels, T samples, R recordings, D hidden, L latent, F targets

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neurodecode.meeg.aggregation import AGGREGATIONS
from neurodecode.meeg.config import BrainModuleConfig
from neurodecode.meeg.convolutions import ConvolutionStack
from neurodecode.meeg.drawing import own_generator
from neurodecode.meeg.heads import PointwiseHead, ProjectionHead
from neurodecode.meeg.saved import load_network, save_network
from neurodecode.meeg.spatial_path import SpatialPath
from neuroloaders.checks import check_int, invalid

__all__ = ["BrainModule", "SubjectCalibration", "check_outputs"]

# The name of the head where there is one only, in weights.
_ONLY = "output"


def check_outputs(n_outputs: int | Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of the heads by name; a single size has the name "output"."""
    if not isinstance(n_outputs, Mapping):
        return {_ONLY: check_int("n_outputs", n_outputs, at_least=1)}
    if not n_outputs:
        raise invalid("n_outputs", "name at least one head", n_outputs)
    for name, size in n_outputs.items():
        if not isinstance(name, str) or not name or "." in name:
            raise invalid("n_outputs", "have names without dots", name)
        check_int(f"n_outputs[{name!r}]", size, at_least=1)
    return dict(n_outputs)


class SubjectCalibration(nn.Module):
    """Base of networks with a `spatial` path: subjects that come after the training."""

    spatial: SpatialPath

    @property
    def n_subjects(self) -> int:
        """Subjects of the training and added ones; 0 where all are the same to the network."""
        return 0 if self.spatial.subject is None else self.spatial.subject.n_subjects

    def add_subject(self, *, like: int | None = None, freeze: bool = True) -> int:
        """Add a subject to a trained network, to be calibrated with little data.

        Parameters
        ----------
        like : int, optional
            Start from the layer of this subject; by default from the average of those of the training.
        freeze : bool
            Let only the new layer learn from now on: all other parameters get ``requires_grad=False``.

        Returns
        -------
        int
            The number of the subject, for `subjects`. Its layer is ``model.subject_parameter(number)``.

        Raises
        ------
        ValueError
            If the network has no part that belongs to subjects.

        Notes
        -----
        Leave the network in evaluation mode while it is calibrated, ``model.eval()``: in training mode the batch
        normalisation would move towards the new subject, for all subjects. Gradients flow in both.
        """
        if self.spatial.subject is None:
            raise invalid("subject", "be 'layer' or 'embedding' to add a subject", "'none'", "All share one network.")
        number = self.spatial.subject.add(like)
        if freeze:
            self.requires_grad_(False)
        self.subject_parameter(number).requires_grad_(True)
        return number

    def subject_parameter(self, subject: int) -> nn.Parameter:
        """Return the parameter of an added subject, for an optimiser."""
        table = self.spatial.subject
        if table is None:
            raise invalid("subject", "be 'layer' or 'embedding' to have parameters", "'none'")
        n_trained = len(table.weight)
        advice = "Those of the training share one parameter, model.spatial.subject.weight."
        if not table.added:
            raise invalid("subject", "be an added subject", f"{subject}, and none was added", advice)
        check_int("subject", subject, at_least=n_trained, at_most=self.n_subjects - 1, advice=advice)
        return table.added[subject - n_trained]


class BrainModule(SubjectCalibration):
    """Spatial attention, subject layer, dilated convolutions and heads; built by `BrainModuleConfig.build`.

    Parameters
    ----------
    config : BrainModuleConfig
        Sizes and options.
    n_subjects, n_outputs, n_channels, n_times, new_subject, generator, device, dtype
        As in `BrainModuleConfig.build`.

    Attributes
    ----------
    spatial : SpatialPath
        From sensors to channels that mean the same for all recordings and subjects.
    convolutions : ConvolutionStack
    final : PointwiseHead or None
        With an aggregation: the map to what is aggregated.
    aggregation : Module or None
    heads : ModuleDict

    Notes
    -----
    Published counts of parameters, which `count_parameters` gives by part: 7 596 754 + 72 900 a subject for Defossez
    et al. [1]_ with 1024 targets, whatever the number of channels; 6 424 472 for Benchetrit et al. [2]_ with 4
    subjects, 181 samples and 768 targets. Deviations: see `SpatialAttention`. The last map of [1]_ is a transposed
    convolution of kernel 1, here a convolution of kernel 1, which is the same.

    In evaluation mode and without gradients (``torch.no_grad``, ``torch.inference_mode``) the spatial path is one
    matrix for each pair of recording and subject, which is kept: give positions as a table with `recordings`, or as
    one layout. What is kept is made anew when weights or positions change, dropped by ``train()``, and not used under
    ``torch.compile``.

    References
    ----------
    .. [1] Defossez, Caucheteux, Rapin, Kabeli & King, Nature Machine Intelligence 5 (2023),
       10.1038/s42256-023-00714-5.
    .. [2] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.
    """

    def __init__(
        self,
        config: BrainModuleConfig,
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
        if not isinstance(config, BrainModuleConfig):
            raise invalid("config", "be a BrainModuleConfig", config, "BRAIN_MODULES holds some.", kind=TypeError)
        sizes = check_outputs(n_outputs)
        given: dict[str, Any] = {"generator": own_generator(generator), "device": device, "dtype": dtype}
        self.config = config
        self.by_name = isinstance(n_outputs, Mapping)
        self._built_with = {
            "n_subjects": n_subjects,
            "n_outputs": sizes if self.by_name else n_outputs,
            "n_channels": n_channels,
            "n_times": n_times,
            "new_subject": new_subject,
        }
        self.spatial = SpatialPath(
            n_subjects=n_subjects, n_channels=n_channels, n_heads=config.n_heads, n_features=config.fourier_features,
            dropout_radius=config.dropout_radius, initial_linear=config.initial_linear, subject=config.subject,
            subject_size=config.subject_size, new_subject=new_subject, **given,
        )  # fmt: skip
        self.convolutions = ConvolutionStack(
            self.spatial.n_outputs, config.hidden, config.depth, kernel_size=config.kernel_size,
            dilation_period=config.dilation_period, glu_every=config.glu_every, skip=config.skip,
            activation=config.activation, batch_norm=config.batch_norm, **given,
        )  # fmt: skip
        self.final = self.aggregation = None
        if config.aggregation is None:
            heads = {name: PointwiseHead(config.hidden, n, config.final_width, **given) for name, n in sizes.items()}
        else:
            place = {"device": device, "dtype": dtype}
            self.final = PointwiseHead(config.hidden, config.latent, config.final_width, **given)
            self.aggregation = AGGREGATIONS[config.aggregation](config.latent, n_times, given["generator"], place)
            heads = {name: ProjectionHead(config.latent, n, config.head_depth, **given) for name, n in sizes.items()}
        # In the order given, which is that of the weights in a file.
        self.heads = nn.ModuleDict(heads)

    def forward(
        self,
        x: Tensor,
        subjects: Tensor | None = None,
        positions: Tensor | None = None,
        recordings: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Decode windows of recordings.

        Parameters
        ----------
        x : Tensor, shape (B, C, T)
            Windows: baseline subtracted, scaled and clipped. Without clipping the published accuracy falls from 43 to
            10 percent. Channels without a place may hold any finite numbers.
        subjects : Tensor of int, shape (B,), optional
            Number of the subject of each item. In evaluation mode -1 stands for one the network was not trained on,
            see `NEW_SUBJECT`. Not needed where all subjects are the same to the network.
        positions : Tensor, shape (B, C, 2), (R, C, 2) or (C, 2)
            Sensor positions: of each item, of each recording if `recordings` is given, or of all. The table is the
            fastest in training: attention is computed once a recording. Not needed without attention.
        recordings : Tensor of int, shape (B,), optional
            Row of `positions` for each item.
        generator : torch.Generator, optional
            For the sensor dropout, in training, on the device of `positions`; by default torch's own.

        Returns
        -------
        Tensor, shape (B, F, T), or (B, F) with an aggregation; or a dict of such by name
            A dict if `n_outputs` was one.

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit, or a number is no subject or recording.
        """
        hidden = self.convolutions(self.spatial(x, subjects, positions, recordings, generator=generator))
        if self.aggregation is not None:
            last = self.final.last
            hidden = self.aggregation.projected(self.final.before_last(hidden), last.weight[..., 0], last.bias)
        outputs = {name: head(hidden) for name, head in self.heads.items()}
        return outputs if self.by_name else outputs[_ONLY]

    @property
    def receptive_field(self) -> int:
        """Samples of the recording that one sample of the output depends on, without aggregation."""
        return self.convolutions.receptive_field

    def count_parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part, by the rows of Benchetrit et al.'s table S1, and the total.

        Examples
        --------
        >>> from neurodecode.meeg import BRAIN_MODULES
        >>> BRAIN_MODULES["benchetrit"].build(4, 768, n_times=181).count_parameters()["total"]
        6424472
        """
        stack = self.convolutions
        every = self.config.glu_every or len(stack.layers)
        rows = {
            "spatial attention": [self.spatial.attention],
            "initial linear": [self.spatial.linear],
            "subjects": [self.spatial.subject],
        }
        for first in range(0, len(stack.layers), every):
            last = min(first + every, len(stack.layers))
            gates = [stack.gates[str(k)] for k in range(first, last) if str(k) in stack.gates]
            rows[f"block {first // every + 1}"] = [*stack.layers[first:last], *gates]
        rows |= {"final": [self.final], "aggregation": [self.aggregation]}
        rows |= {f"head {name}" if self.by_name else "head": [head] for name, head in self.heads.items()}
        counts = {
            row: sum(p.numel() for part in parts if part is not None for p in part.parameters())
            for row, parts in rows.items()
        }
        return {row: n for row, n in counts.items() if n} | {"total": sum(counts.values())}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write weights (``model.safetensors``) and ``config.json`` to `folder`; `load` reads them.

        Parameters
        ----------
        folder : path-like
            Made if it is not there. Weights of another configuration that lie there are not replaced.

        Raises
        ------
        ValueError
            If a network of another configuration lies there.
        """
        save_network(folder, self, "BrainModule", self.config, self._built_with)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> BrainModule:
        """Read a network that `save` wrote.

        Parameters
        ----------
        folder : path-like
            The folder.
        device : optional
            Where to put it; by default the CPU.

        Returns
        -------
        BrainModule
            In evaluation mode, with the subjects that were added.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If files are damaged, or of another network.
        """
        return load_network(
            folder, "BrainModule", lambda config, build: cls(BrainModuleConfig(**config), **build), device
        )
