"""What belongs to a subject: a matrix over the virtual sensors, or a vector beside them."""

# S subjects, B batch, D channels, T samples

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodecode.meeg.drawing import draw_normal
from neuroloaders.checks import check_int, check_option, invalid

__all__ = ["NEW_SUBJECT", "SUBJECT_LAYERS", "UNSEEN", "SubjectEmbedding", "SubjectLayer", "SubjectTable"]

# The number of a subject that the network was not trained on.
UNSEEN = -1

NEW_SUBJECT = {
    "mean": "a subject with the number -1 is given the average of the subjects of the training",
    "raise": "the number -1 is an error",
}


class SubjectTable(nn.Module):
    """Numbers of each subject of the training, and of those added later.

    Parameters
    ----------
    n_subjects : int
        S, subjects of the training.
    shape : tuple of int
        Shape of what belongs to one.
    std : float
        Standard deviation of the first values.
    new_subject : {"mean", "raise"}
        What a subject that was not trained on is given, a key of `NEW_SUBJECT`.
    generator, device, dtype
        As in `neurodecode.meeg.SpatialAttention`.

    Attributes
    ----------
    weight : Parameter, shape (S, *shape)
        The subjects of the training.
    added : ParameterList
        One parameter of shape `shape` for each added subject, so that an optimiser can be given that one alone.
    """

    def __init__(
        self,
        n_subjects: int,
        shape: tuple[int, ...],
        std: float,
        *,
        new_subject: str = "mean",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("n_subjects", n_subjects, at_least=1)
        self.new_subject = check_option("new_subject", new_subject, NEW_SUBJECT)
        self.weight = nn.Parameter(torch.empty(n_subjects, *shape, device=device, dtype=dtype))
        self.added = nn.ParameterList()
        draw_normal(self.weight, std, generator)

    @property
    def n_subjects(self) -> int:
        """Subjects of the training and added ones."""
        return len(self.weight) + len(self.added)

    def add(self, like: int | None = None) -> int:
        """Add a subject, and return its number.

        Parameters
        ----------
        like : int, optional
            Start from this subject; by default from the average of those of the training.
        """
        if like is None:
            start = self.weight.detach().mean(0)
        else:
            check_int("like", like, at_least=0, at_most=self.n_subjects - 1)
            start = self.of(like).detach().clone()
        self.added.append(nn.Parameter(start))
        return self.n_subjects - 1

    def of(self, subject: int) -> Tensor:
        """Return what belongs to one subject, shape `shape`; -1 gives the average of the training."""
        if subject < 0:
            return self.weight.mean(0)
        n = len(self.weight)
        return self.weight[subject] if subject < n else self.added[subject - n]

    def rows(self, subjects: Tensor) -> Tensor:
        """Return what belongs to each of `subjects`, int (B,): shape (B, *shape)."""
        table = self.weight
        if self.added:
            table = torch.cat([table, *(one[None] for one in self.added)])
        if self.new_subject == "mean" and not self.training:
            table = torch.cat([table, self.weight.mean(0, keepdim=True)])
            subjects = torch.where(subjects == UNSEEN, len(table) - 1, subjects)
        # Not table[subjects]: that would take -1 as the last subject, silently.
        return table.index_select(0, subjects)

    def check(self, subjects: Tensor) -> None:
        """Raise if a number belongs to no subject. On a GPU in training it is left to the device, as it would wait."""
        if subjects.is_cuda and self.training:
            return
        low, high = (int(value) for value in subjects.aminmax()) if subjects.numel() else (0, 0)
        least = UNSEEN if self.new_subject == "mean" and not self.training else 0
        if low < least or high >= self.n_subjects:
            came = f"{low if low < least else high}"
            advice = "Calibrate a new subject with add_subject()."
            if self.new_subject == "mean":
                advice = "In evaluation -1 stands for an unknown subject, who is given the average; " + advice
            raise invalid("subjects", f"hold numbers from {least} to {self.n_subjects - 1}", came, advice)

    def extra_repr(self) -> str:
        """Show sizes."""
        return f"{self.n_subjects} subjects, shape={tuple(self.weight.shape[1:])}, new_subject={self.new_subject!r}"


class SubjectLayer(SubjectTable):
    """A linear map of the channels for each subject [1]_, without bias.

    Parameters
    ----------
    n_channels : int
        D; the map is D x D.
    n_subjects, new_subject, generator, device, dtype
        As in `SubjectTable`.

    Notes
    -----
    ``y[d] = sum_c x[c] weight[subject, c, d]``: the first axis of a map is its input. Maps start from a normal
    distribution with variance 1 / D. Channels leave as many as they came.

    References
    ----------
    .. [1] Defossez et al., Nature Machine Intelligence 5 (2023), 10.1038/s42256-023-00714-5.
    """

    def __init__(
        self,
        n_channels: int,
        n_subjects: int,
        *,
        new_subject: str = "mean",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_int("n_channels", n_channels, at_least=1)
        super().__init__(
            n_subjects, (n_channels, n_channels), n_channels**-0.5,
            new_subject=new_subject, generator=generator, device=device, dtype=dtype,
        )  # fmt: skip
        self.n_outputs = n_channels

    def forward(self, x: Tensor, subjects: Tensor) -> Tensor:
        """Map (B, D, T), of subjects int (B,), to (B, D, T)."""
        return self.rows(subjects).transpose(1, 2) @ x


class SubjectEmbedding(SubjectTable):
    """A learned vector for each subject, beside the channels at all times: the ablation of `SubjectLayer`.

    Parameters
    ----------
    n_channels : int
        D, channels that come in.
    n_subjects : int
        S.
    size : int
        Length of the vector; D + size channels leave.
    new_subject, generator, device, dtype
        As in `SubjectTable`.

    Notes
    -----
    Vectors start from a standard normal distribution, as ``nn.Embedding`` does.
    """

    def __init__(
        self,
        n_channels: int,
        n_subjects: int,
        size: int = 64,
        *,
        new_subject: str = "mean",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_int("n_channels", n_channels, at_least=1)
        check_int("size", size, at_least=1)
        super().__init__(
            n_subjects, (size,), 1.0, new_subject=new_subject, generator=generator, device=device, dtype=dtype
        )
        self.n_outputs = n_channels + size

    def forward(self, x: Tensor, subjects: Tensor) -> Tensor:
        """Append the vectors of subjects int (B,) to (B, D, T): (B, D + size, T)."""
        vectors = self.rows(subjects).to(x.dtype)
        return torch.cat([x, vectors[..., None].expand(-1, -1, x.shape[-1])], 1)


# name of `BrainModuleConfig.subject` -> what it does
SUBJECT_LAYERS = {
    "layer": "a linear map of the channels for each subject",
    "embedding": "a vector for each subject beside the channels",
    "none": "all subjects are the same",
}
