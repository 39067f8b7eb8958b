"""What a brain module is made of: the published networks as data, and their ablations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neurodecode.meeg.aggregation import AGGREGATIONS
from neurodecode.meeg.convolutions import ACTIVATIONS
from neurodecode.meeg.positions import frequencies_per_axis
from neurodecode.meeg.subjects import SUBJECT_LAYERS
from neuroloaders.checks import check_int, check_number, check_option, invalid

if TYPE_CHECKING:
    from neurodecode.meeg.brain_module import BrainModule

__all__ = ["ABLATIONS", "BRAIN_MODULES", "BrainModuleConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BrainModuleConfig:
    """Sizes and options of a `BrainModule`; the defaults are those of Defossez et al. 2023 [1]_.

    Parameters
    ----------
    n_heads : int, optional
        Virtual sensors of the spatial attention. None: no attention; the network is then for one set of sensors.
    fourier_features : int
        Length of the embedding of positions, twice a square.
    dropout_radius : float
        Radius, in the unit of positions, of the disc of sensors that is silenced in training. 0: none.
    initial_linear : int, optional
        Outputs of the 1x1 layer. None: none.
    subject : {"layer", "embedding", "none"}
        What belongs to a subject, a key of `neurodecode.meeg.SUBJECT_LAYERS`.
    subject_size : int
        Length of the subject embedding.
    hidden, depth, kernel_size, dilation_period, glu_every, skip, activation, batch_norm
        As in `neurodecode.meeg.ConvolutionStack`.
    final_width : int, optional
        Features between the two last maps. None: a single map.
    aggregation : {"mean", "attention", "affine"}, optional
        How a window becomes one vector, a key of `neurodecode.meeg.AGGREGATIONS`. None: an output at each sample.
    latent : int
        With an aggregation: features that are aggregated, and that the heads read.
    head_depth : int
        With an aggregation: blocks of each head.

    Raises
    ------
    ValueError, TypeError
        If a value cannot be.

    References
    ----------
    .. [1] Defossez, Caucheteux, Rapin, Kabeli & King, Nature Machine Intelligence 5 (2023),
       10.1038/s42256-023-00714-5.

    Examples
    --------
    >>> config = dataclasses.replace(BRAIN_MODULES["defossez"], hidden=64, depth=4)
    >>> model = config.build(n_subjects=2, n_outputs=16, generator=torch.Generator().manual_seed(0)).eval()
    >>> x, positions = torch.zeros(3, 20, 60), torch.rand(20, 2, generator=torch.Generator().manual_seed(1))
    >>> model(x, torch.tensor([0, 1, 1]), positions).shape
    torch.Size([3, 16, 60])
    """

    n_heads: int | None = 270
    fourier_features: int = 2048
    dropout_radius: float = 0.2
    initial_linear: int | None = 270
    subject: str = "layer"
    subject_size: int = 64
    hidden: int = 320
    depth: int = 10
    kernel_size: int = 3
    dilation_period: int = 5
    glu_every: int = 2
    skip: bool = True
    activation: str = "gelu"
    batch_norm: bool = True
    final_width: int | None = 640
    aggregation: str | None = None
    latent: int = 2048
    head_depth: int = 1

    def __post_init__(self) -> None:
        for name in ("n_heads", "initial_linear", "final_width"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), at_least=1)
        for name in ("subject_size", "hidden", "depth", "kernel_size", "dilation_period", "latent", "head_depth"):
            check_int(name, getattr(self, name), at_least=1)
        frequencies_per_axis(self.fourier_features)
        check_number("dropout_radius", self.dropout_radius, at_least=0)
        check_int("glu_every", self.glu_every, at_least=0)
        if self.kernel_size % 2 == 0:
            raise invalid("kernel_size", "be odd, so that samples stay in their place", f"{self.kernel_size}")
        check_option("subject", self.subject, SUBJECT_LAYERS)
        check_option("activation", self.activation, ACTIVATIONS)
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
    ) -> BrainModule:
        """Build the network for a data set.

        Parameters
        ----------
        n_subjects : int
            Subjects of the training.
        n_outputs : int or mapping of str to int
            F, targets; or those of several heads by name, which then gives outputs by name.
        n_channels : int, optional
            C; needed without spatial attention. With it, networks take any number of channels.
        n_times : int, optional
            T, samples of a window; needed for the aggregation ``"affine"``.
        new_subject : {"mean", "raise"}
            What a subject that was not trained on is given, a key of `neurodecode.meeg.NEW_SUBJECT`.
        generator : torch.Generator, optional
            For the first weights, which it makes the same on all devices; by default a new one with a seed from the
            system.
        device, dtype : optional
            Of the weights.

        Returns
        -------
        BrainModule
            In training mode.
        """
        from neurodecode.meeg.brain_module import BrainModule

        return BrainModule(
            self, n_subjects, n_outputs, n_channels=n_channels, n_times=n_times, new_subject=new_subject,
            generator=generator, device=device, dtype=dtype,
        )  # fmt: skip


_DEFOSSEZ = BrainModuleConfig()
_SMALL = BrainModuleConfig(n_heads=32, fourier_features=512, initial_linear=32, hidden=64, depth=4, final_width=128)

BRAIN_MODULES: dict[str, BrainModuleConfig] = {
    # 7 596 754 parameters + 72 900 a subject for 1024 targets; an output at each of 343 samples (120 Hz).
    "defossez": _DEFOSSEZ,
    # Benchetrit, Banville & King, arXiv:2310.19812, table S1: 6 424 472 with 272 channels, 181 samples, 4 subjects and
    # 768 targets. Its rows do not tell dilations: they go on as in Defossez et al.
    "benchetrit": dataclasses.replace(_DEFOSSEZ, depth=4, aggregation="affine"),
    # Ours, for tests, small data sets and processors without a GPU.
    "small": _SMALL,
    "small-images": dataclasses.replace(_SMALL, aggregation="affine", latent=256),
}

# The ablations of Defossez et al. 2023, in the order of their table: what to change.
ABLATIONS: dict[str, dict[str, Any]] = {
    "subject embedding": {"subject": "embedding"},
    "no sensor dropout": {"dropout_radius": 0.0},
    "relu": {"activation": "relu"},
    "no skip": {"skip": False},
    "no final convolutions": {"final_width": None},
    "no initial linear": {"initial_linear": None},
    "no spatial attention": {"n_heads": None},
    "no glu": {"glu_every": 0},
    "no subject layer": {"subject": "none"},
}
