"""Many brain modules of one kind, each with weights of its own, run and trained as one.

Decoding moment by moment takes a network for each of some sixty windows. One after the other, most of the time goes
into many small operations; here each layer is one batched matrix product over all networks.
"""

# M models, B batch, C channels, D hidden, K, L latents, F targets, T samples, R recordings, S subjects

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.brain_module import BrainModule
from neurodecode.meeg.spatial import attention_weights, without_disc
from neurodecode.meeg.subjects import UNSEEN
from neuroloaders.checks import check_int, check_shape, invalid

__all__ = ["StackedBrainModule", "calls"]

# How often a batch went through all models at once: "even" for windows of one length, "masked" for several.
calls: Counter[str] = Counter()

_BUFFERS = ("running_mean", "running_var")


class StackedBrainModule(nn.Module):
    """M `BrainModule`s with the same configuration, as one module.

    Parameters
    ----------
    modules : sequence of BrainModule
        With an aggregation, built for the same subjects, channels and outputs. They are copied.
    n_times : sequence of int, optional
        Samples of the windows of each; by default what they were built for.

    Attributes
    ----------
    n_models : int
        M.
    n_times : tuple of int
        T of each.
    weights : ParameterDict
        Under the names of `BrainModule`, with ``/`` for the dots, and M as the first axis.

    Raises
    ------
    ValueError, TypeError
        If modules differ, have no aggregation, or have added subjects.

    Notes
    -----
    Each model has the outputs, gradients and running statistics that it would have by itself. Shorter windows are
    filled up at their end, and what is beyond is zero after each layer and no part of batch statistics and sums; so a
    model sees no sample outside its window. Optimisers that treat each number by itself (Adam, AdamW, SGD) then change
    each model as they would change it alone, if the sum of the models' losses is differentiated. Clipping the norm of
    the gradient would couple them. (What a normalisation takes away again, such as a bias before batch normalisation,
    has a gradient of rounding noise alone, which Adam scales up: there, weights differ, as between two computers.)

    In training, the disc of silenced sensors is the same for all models of a batch.

    Examples
    --------
    >>> from neurodecode.meeg.config import BRAIN_MODULES
    >>> config, generator = BRAIN_MODULES["small-images"], torch.Generator().manual_seed(0)
    >>> modules = [config.build(1, 8, n_times=n, generator=generator) for n in (12, 15)]
    >>> x, subjects, positions = torch.zeros(2, 3, 20, 15), torch.zeros(3, dtype=torch.int64), torch.rand(20, 2)
    >>> StackedBrainModule(modules)(x, subjects, positions).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, modules: Sequence[BrainModule], n_times: Sequence[int] | None = None) -> None:
        super().__init__()
        modules = list(modules)
        _check_modules(modules)
        self.config, self.by_name = modules[0].config, modules[0].by_name
        self._build = dict(modules[0]._built_with)
        lengths = [module._built_with["n_times"] for module in modules] if n_times is None else list(n_times)
        if None in lengths:
            raise invalid("n_times", "be given for modules that were built for any", "None")
        if len(lengths) != len(modules):
            raise invalid("n_times", f"hold {len(modules)} numbers, one for each module", f"{len(lengths)}")
        for module, length in zip(modules, lengths, strict=True):
            check_int("n_times", length, at_least=1)
            if self.config.aggregation == "affine" and length != len(module.aggregation.weight):
                raise invalid("n_times", "be what the modules were built for", f"{length}")
        self.n_times, self.n_models = tuple(lengths), len(modules)
        self.dilations, self.head_names = modules[0].convolutions.dilations, tuple(modules[0].heads)
        self.dropout_radius = margin = None
        if modules[0].spatial.attention is not None:
            self.dropout_radius = modules[0].spatial.attention.dropout_radius
            margin = modules[0].spatial.attention.margin
        self._margin = margin
        states = [module.state_dict() for module in modules]
        self.weights = nn.ParameterDict({
            _key(name): nn.Parameter(self._stack([state[name].detach() for state in states]))
            for name, _ in modules[0].named_parameters()
        })  # fmt: skip
        for name, _ in modules[0].named_buffers():
            self.register_buffer(_key(name), self._stack([state[name] for state in states]).clone())
        longest = max(self.n_times)
        like = next(iter(self.weights.values()))
        inside = torch.arange(longest, device=like.device) < torch.tensor(self.n_times, device=like.device)[:, None]
        self.even = min(self.n_times) == longest
        # 1 inside of a window, 0 beyond; and the number of samples inside.
        self.register_buffer("_inside", inside.to(like.dtype), persistent=False)
        self.train(modules[0].training)

    def forward(
        self,
        x: Tensor,
        subjects: Tensor | None = None,
        positions: Tensor | None = None,
        recordings: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Decode the windows of each model.

        Parameters
        ----------
        x : Tensor, shape (M, B, C, T)
            Windows of each model, T the longest of `n_times`. What is beyond the length of a model may be any finite
            number. See `neurodecode.meeg.time_windows.cut_windows`.
        subjects, positions, recordings, generator
            As for `BrainModule`, the same for all models; positions of each item by itself are (B, C, 2) with
            ``recordings=torch.arange(B)``.

        Returns
        -------
        Tensor, shape (M, B, F), or a dict of such by name
        """
        check_shape("x", x, (self.n_models, "B", "C", self._inside.shape[1]))
        calls["even" if self.even else "masked"] += 1
        hidden = self._convolved(self._masked(self._spatial(x, subjects, positions, recordings, generator)))
        latent = self._aggregated(hidden)
        outputs = {}
        for name in self.head_names:
            z = latent
            for k in range(self.config.head_depth):
                z = F.gelu(F.layer_norm(z, z.shape[-1:]))
                weight, bias = (self._weight(f"heads.{name}.maps.{k}.{part}") for part in ("weight", "bias"))
                z = torch.baddbmm(bias[:, None], z, weight.transpose(1, 2))
            outputs[name] = z
        return outputs if self.by_name else outputs[self.head_names[0]]

    def unstack(self) -> list[BrainModule]:
        """Return the M models by themselves, as copies in the mode and at the place of this one."""
        like, modules = next(iter(self.weights.values())), []
        stored = {name: value for name, value in self.named_buffers() if not name.startswith("_")}
        stored |= {name: value for name, value in self.weights.items()}
        for m, length in enumerate(self.n_times):
            build = {**self._build, "n_times": length}
            module = BrainModule(self.config, **build, generator=torch.Generator(), device=like.device,
                                 dtype=like.dtype)  # fmt: skip
            state = {}
            for name, value in module.state_dict().items():
                own = stored[_key(name)][m].detach()
                state[name] = own[: len(value)] if name == "aggregation.weight" else own
            module.load_state_dict(state)
            modules.append(module.train(self.training))
        return modules

    # --- layers ---------------------------------------------------------------------------------------------------

    def _spatial(
        self,
        x: Tensor,
        subjects: Tensor | None,
        positions: Tensor | None,
        recordings: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return (M, D, B, T)."""
        self._check(x, subjects, positions, recordings)
        n_batch, n_times = x.shape[1], x.shape[3]
        if self.config.n_heads is not None:
            table = positions if positions.ndim == 3 else positions[None]
            kept = None
            if self.training and self.dropout_radius > 0:
                centre = torch.rand(2, generator=generator, device=table.device, dtype=torch.float32)
                kept = without_disc(table, centre.to(table.dtype), self.dropout_radius)
            heads = self._weight("spatial.attention.heads")
            shares = attention_weights(table, heads.flatten(0, 1), kept, margin=self._margin)
            shares = shares.unflatten(1, heads.shape[:2]).transpose(0, 1)  # (M, R, H, C)
            if shares.shape[1] == 1:
                x = (shares[:, 0] @ x.transpose(1, 2).flatten(2)).unflatten(2, (n_batch, n_times))
            else:
                x = (shares.index_select(1, recordings) @ x).transpose(1, 2)
        else:
            x = x.transpose(1, 2)
        if self.config.initial_linear is not None:
            x = self._map(x, "spatial.linear")
        if self.config.subject == "none":
            return x
        table = self._weight("spatial.subject.weight")
        if not self.training and self._build["new_subject"] == "mean":
            table = torch.cat([table, table.mean(1, keepdim=True)], 1)
            subjects = torch.where(subjects == UNSEEN, table.shape[1] - 1, subjects)
        own = table.index_select(1, subjects)
        if self.config.subject == "layer":
            return (own.transpose(2, 3) @ x.transpose(1, 2)).transpose(1, 2)
        vectors = own.to(x.dtype).transpose(1, 2)[..., None].expand(-1, -1, -1, n_times)
        return torch.cat([x, vectors], 1)

    def _convolved(self, x: Tensor) -> Tensor:
        """Map (M, C, B, T) to (M, D, B, T)."""
        config = self.config
        activation = F.gelu if config.activation == "gelu" else F.relu
        for k, dilation in enumerate(self.dilations):
            y = self._convolution(x, f"convolutions.layers.{k}.0", dilation)
            if config.batch_norm:
                y = self._normalised(y, f"convolutions.layers.{k}.1")
            y = self._masked(activation(y))
            x = x + y if config.skip and x.shape[1] == y.shape[1] else y
            if config.glu_every and (k + 1) % config.glu_every == 0:
                x = self._masked(F.glu(self._convolution(x, f"convolutions.gates.{k}.0", 1), 1))
        return x

    def _convolution(self, x: Tensor, name: str, dilation: int) -> Tensor:
        weight, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        n_times, half = x.shape[3], weight.shape[3] // 2
        # Taps that reach beyond the window at all of its samples see nothing but zeros.
        taps = [j for j in range(weight.shape[3]) if abs(j - half) * dilation < n_times]
        pad = (half - taps[0]) * dilation
        wide = F.pad(x, (pad, pad))
        places = [pad + (j - half) * dilation for j in taps]
        columns = torch.cat([wide[..., place : place + n_times] for place in places], 1)
        kernel = weight[..., taps[0] : taps[-1] + 1].transpose(2, 3).flatten(2)
        out = torch.baddbmm(bias[..., None], kernel, columns.flatten(2))
        return out.unflatten(2, x.shape[2:])

    def _normalised(self, x: Tensor, name: str, momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
        """Normalise each channel of each model over its batch and the samples inside of its windows."""
        weight, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        mean, var = (getattr(self, _key(f"{name}.{part}")) for part in _BUFFERS)
        if self.training:
            getattr(self, _key(f"{name}.num_batches_tracked")).add_(1)
        if self.even or not self.training:
            rows = x.reshape(1, -1, x.shape[2] * x.shape[3])
            flat = [one.flatten() for one in (mean, var, weight, bias)]
            return F.batch_norm(rows, *flat, self.training, momentum, eps).view(x.shape)
        inside = self._inside[:, None, None]
        count = x.shape[2] * self._inside.sum(1)[:, None]
        own_mean = (x * inside).sum((2, 3)) / count
        centred = (x - own_mean[..., None, None]) * inside
        own_var = (centred * centred).sum((2, 3)) / count
        with torch.no_grad():
            mean.lerp_(own_mean, momentum)
            var.lerp_(own_var * count / (count - 1), momentum)
        scale = weight * (own_var + eps).rsqrt()
        return centred * scale[..., None, None] + bias[..., None, None]

    def _aggregated(self, x: Tensor) -> Tensor:
        """Map (M, D, B, T) to (M, B, L): sums over time first, as `neurodecode.meeg.aggregation` does."""
        if self.config.final_width is not None:
            x = F.gelu(self._map(x, "final.first"))
        weight, bias = self._weight("final.last.weight")[..., 0], self._weight("final.last.bias")
        offset: Tensor = bias[:, None]
        inside = self._inside
        if self.config.aggregation == "affine":
            shares = self._weight("aggregation.weight") * inside
            extra = self._weight("aggregation.bias")
            offset = offset * shares.sum(1)[:, None, None] + extra[:, None]
            shares = shares[:, None]
        elif self.config.aggregation == "mean":
            shares = (inside / inside.sum(1, keepdim=True))[:, None]
        else:
            keys, own = self._weight("aggregation.keys.weight"), self._weight("aggregation.keys.bias")
            at_zero = (keys @ bias[..., None])[..., 0] + own
            scores = torch.tanh(torch.baddbmm(at_zero[..., None], keys @ weight, x.flatten(2)))
            scores = (self._weight("aggregation.score.weight") @ scores).unflatten(2, x.shape[2:])[:, 0]
            shares = scores.masked_fill(inside[:, None] == 0, torch.finfo(scores.dtype).min).softmax(-1)
        summed = (x * shares[:, None]).sum(-1)  # (M, K, B)
        return summed.transpose(1, 2) @ weight.transpose(1, 2) + offset

    def _map(self, x: Tensor, name: str) -> Tensor:
        """Apply a map of kernel 1 to (M, C, B, T)."""
        weight, bias = self._weight(f"{name}.weight").flatten(2), self._weight(f"{name}.bias")
        return torch.baddbmm(bias[..., None], weight, x.flatten(2)).unflatten(2, x.shape[2:])

    def _masked(self, x: Tensor) -> Tensor:
        return x if self.even else x * self._inside[:, None, None]

    # --- names and checks -----------------------------------------------------------------------------------------

    def _weight(self, name: str) -> Tensor:
        return self.weights[_key(name)]

    def _stack(self, values: list[Tensor]) -> Tensor:
        if values[0].ndim == 1 and len({len(value) for value in values}) > 1:
            longest = max(map(len, values))
            values = [F.pad(value, (0, longest - len(value))) for value in values]
        return torch.stack(values)

    def _check(self, x: Tensor, subjects: Tensor | None, positions: Tensor | None, recordings: Tensor | None) -> None:
        n_batch, n_channels = x.shape[1:3]
        if self.config.n_heads is None and n_channels != self._build["n_channels"]:
            raise invalid("x", f"have {self._build['n_channels']} channels", f"{n_channels}")
        if self.config.n_heads is not None:
            check_shape("positions", positions, ("R", n_channels, 2) if recordings is not None else (n_channels, 2))
            if recordings is not None:
                check_shape("recordings", recordings, (n_batch,))
        if self.config.subject != "none":
            check_shape("subjects", subjects, (n_batch,), advice="The number of the subject of each item.")
            if not (subjects.is_cuda and self.training) and n_batch:
                low, high = (int(value) for value in subjects.aminmax())
                least = UNSEEN if self._build["new_subject"] == "mean" and not self.training else 0
                if low < least or high >= self._build["n_subjects"]:
                    known = f"hold numbers from {least} to {self._build['n_subjects'] - 1}"
                    raise invalid("subjects", known, f"{low if low < least else high}")


def _key(name: str) -> str:
    return name.replace(".", "/")


def _check_modules(modules: list[BrainModule]) -> None:
    if not modules or not all(isinstance(module, BrainModule) for module in modules):
        came = "none" if not modules else next(m for m in modules if not isinstance(m, BrainModule))
        raise invalid("modules", "be BrainModules, at least one", came, kind=TypeError)
    first = modules[0]
    if first.config.aggregation is None:
        advice = "BRAIN_MODULES['benchetrit'] and 'small-images' have one."
        raise invalid("modules", "have an aggregation over time", "None", advice)
    for module in modules:
        if {**module._built_with, "n_times": None} != {**first._built_with, "n_times": None} or (
            module.config != first.config
        ):
            raise invalid("modules", "be built with the same settings, but for n_times", "others")
        if module.spatial.subject is not None and module.spatial.subject.added:
            raise invalid("modules", "have no added subjects", "one with some", "Stack before subjects are added.")
    for a, b in itertools.pairwise(modules):
        pa, pb = next(a.parameters()), next(b.parameters())
        if (pa.dtype, pa.device) != (pb.dtype, pb.device):
            raise invalid("modules", "be of one dtype on one device", f"{pa.dtype} and {pb.dtype}")
