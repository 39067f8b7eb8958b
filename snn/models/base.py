"""Networks whose time is folded into the batch: the contract all image architectures share.

A network is written once, as an ordinary ``nn.Module`` on tensors ``[N, C, H, W]``. As an ANN, N = B. As a
spiking network of T steps every stateless layer sees N = T * B rows, step-major (``reshape(T, B, ...)``), and
every activation is a neuron that unfolds time itself and folds it back. The first weighted layer runs once on
the static image (direct encoding); the first neuron repeats its current over time.
"""

# T time steps, B batch, N = T * B rows (or B before the first neuron), C channels, H W image, K classes

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuroloaders.checks import check_int, check_number, check_shape, invalid

__all__ = ["FoldedNetwork", "TimeSharedDropout", "init_weights", "timed_modules"]

_ACTIVATION_NAME = re.compile(r"(?:^|\.)act\d+$")


class TimeSharedDropout(nn.Module):
    """Dropout whose mask is the same at every time step of a sample.

    Parameters
    ----------
    p : float
        Probability of dropping an element, in [0, 1).

    Attributes
    ----------
    n_steps : int
        T. The rows of the input are T * B, step-major. Set by :class:`FoldedNetwork`.

    Raises
    ------
    ValueError
        If `p` is outside [0, 1), or (in training) if the rows of the input are no multiple of `n_steps`.

    Notes
    -----
    One mask per sample and forward pass, element by element, scaled by 1 / (1 - p) as in ``nn.Dropout``;
    identity in evaluation mode. Sharing it over time is the rule of DIET-SNN (arXiv:2008.03658) and IIR-SNN
    (arXiv:2110.05929): a mask drawn anew at each step would let every neuron through at some step. The mask
    is drawn from torch's default generator, as in ``nn.Dropout``.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_number("p", p, at_least=0, below=1)
        self.n_steps = 1

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of `x`, shape (T * B, ...); the same elements at every step."""
        if not self.training or self.p == 0:
            return x
        if x.shape[0] % self.n_steps:
            raise invalid(
                "x",
                f"have a multiple of n_steps = {self.n_steps} rows",
                f"{x.shape[0]}",
                "Fold time into the batch, step-major: x.flatten(0, 1).",
            )
        steps = x.reshape(self.n_steps, x.shape[0] // self.n_steps, *x.shape[1:])
        mask = F.dropout(torch.ones_like(steps[0]), self.p)
        return (steps * mask).reshape(x.shape)

    def extra_repr(self) -> str:
        """Show `p` and `n_steps` in the printed network."""
        return f"p={self.p}, n_steps={self.n_steps}"


def timed_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of every submodule that has `n_steps`, without `model` itself."""
    for name, module in model.named_modules():
        if module is not model and hasattr(module, "n_steps"):
            yield name, module


@torch.no_grad()
def init_weights(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of all Conv2d and Linear layers in place, biases 0.

    Parameters
    ----------
    model : nn.Module
        The network. Parameters on the device "meta" are left alone.
    generator : torch.Generator, optional
        Where the numbers come from. They are drawn on its device in float32 and then copied, so that a seed
        gives the same weights on every device and in every dtype. None takes a new generator with a seed from
        the system. The global generator is never used.

    Notes
    -----
    Convolutions: normal, standard deviation sqrt(2 / (k_h k_w C_out)) (He et al. 2015, fan-out). Linear:
    normal, standard deviation 0.01. These are the values of the IIR-SNN code.
    """
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            std = math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels))
        elif isinstance(module, nn.Linear):
            std = 0.01
        else:
            continue
        if not module.weight.is_meta:
            drawn = torch.empty(module.weight.shape, device=generator.device, dtype=torch.float32)
            module.weight.copy_(drawn.normal_(0, std, generator=generator))
        if module.bias is not None:
            module.bias.zero_()


class FoldedNetwork(nn.Module):
    """Base of the image networks: checks the input, keeps `n_steps` consistent, sums the readout over time.

    Parameters
    ----------
    in_shape : tuple of int
        (C, H, W) of one image.
    n_classes : int
        K.

    Attributes
    ----------
    activation_names : tuple of str
        The activations in the order they run, for ``get_submodule`` and ``set_submodule``. Each is a module
        of its own.
    first_activation : str
        The one that receives the current of the static image once, [B, ...], and must give [T * B, ...]: a
        neuron there is built with ``repeat_input=True``.

    Notes
    -----
    A subclass defines ``_rows(x)``, [B, C, H, W] -> [N, K], names its activations ``act1``, ``act2``, ...,
    registers them in the order they run, and ends its constructor with ``self._finish(generator)``.
    """

    activation_names: tuple[str, ...]

    def __init__(self, in_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        self.in_shape = in_shape
        self.n_classes = check_int("n_classes", n_classes, at_least=1)
        self._n_steps = 1

    def _finish(self, generator: torch.Generator | None) -> None:
        names = [name for name, _ in self.named_modules(remove_duplicate=False) if _ACTIVATION_NAME.search(name)]
        if len({id(self.get_submodule(name)) for name in names}) != len(names):
            raise invalid(
                "activation",
                "make a new module at every call",
                "the same module twice",
                "Pass the class or a function, not an instance: activation=nn.ReLU.",
            )
        self.activation_names = tuple(names)
        init_weights(self, generator)
        first = self.get_submodule(self.first_activation)
        if hasattr(first, "repeat_input"):
            first.repeat_input = True
        self.n_steps = getattr(first, "n_steps", 1)

    @property
    def first_activation(self) -> str:
        """Name of the activation after the first weighted layer."""
        return self.activation_names[0]

    @property
    def n_steps(self) -> int:
        """T; setting it sets `n_steps` of every submodule that has one (neurons, dropout)."""
        return self._n_steps

    @n_steps.setter
    def n_steps(self, value: int) -> None:
        self._n_steps = check_int("n_steps", value, at_least=1)
        for _, module in timed_modules(self):
            module.n_steps = self._n_steps

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the readout of every time step.

        Parameters
        ----------
        x : Tensor, shape (B, C, H, W)
            Static images, presented at every step.

        Returns
        -------
        Tensor, shape (T, B, K)
            Output of the last layer at each step, not yet summed.

        Raises
        ------
        ValueError
            If `x` does not fit `in_shape`, or the activations do not agree with `n_steps`.
        """
        # Compared here and worded by check_shape, so that a compiled network stays free in its batch size.
        if x.ndim != 4 or tuple(x.shape[1:]) != self.in_shape:
            check_shape("x", x, ("B", *self.in_shape), advice="The network was built for this in_shape = (C, H, W).")
        for name, module in timed_modules(self):
            if module.n_steps != self._n_steps:
                raise invalid(
                    f"{name}.n_steps",
                    f"be {self._n_steps} as in the whole network",
                    f"{module.n_steps}",
                    "Set model.n_steps after the last activation is swapped.",
                )
        rows = self._rows(x)
        if rows.shape[0] != self._n_steps * x.shape[0]:
            raise invalid(
                self.first_activation,
                f"turn {x.shape[0]} rows into n_steps * B = {self._n_steps * x.shape[0]}",
                f"{rows.shape[0]} rows at the readout",
                "Put a neuron with repeat_input=True there, or set model.n_steps = 1.",
            )
        return rows.reshape(self._n_steps, x.shape[0], self.n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (B, K), of images, shape (B, C, H, W): the readout summed over time."""
        logits = self.step_logits(x)
        return logits[0] if self._n_steps == 1 else logits.sum(0)

    def _rows(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _rows(x), [B, C, H, W] -> [N, K].")


def check_in_shape(in_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return `in_shape` as three positive ints (C, H, W)."""
    if not isinstance(in_shape, (tuple, list)) or len(in_shape) != 3:
        raise invalid("in_shape", "be three whole numbers (C, H, W)", in_shape)
    channels, height, width = (check_int("in_shape", size, at_least=1) for size in in_shape)
    return channels, height, width


def scaled(size: int, width: float) -> int:
    """Return `size` channels or units scaled by `width`, at least 1."""
    return max(1, round(size * width))


def conv_block(
    index: int,
    c_in: int,
    c_out: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    batch_norm: bool,
    activation: Callable[[], nn.Module] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, nn.Module]:
    """Return the named layers ``conv<i>``, ``bn<i>`` and ``act<i>`` of one convolution block.

    With `batch_norm` the convolution has no bias: folding the normalisation creates it. Without, it has one:
    this is the folded form, with the same parameter names.
    """
    place = {"device": device, "dtype": dtype}
    shape = {"stride": stride, "padding": kernel_size // 2, "bias": not batch_norm}
    layers: dict[str, nn.Module] = {}
    layers[f"conv{index}"] = _without_values(nn.Conv2d, c_in, c_out, kernel_size, **shape, **place)
    if batch_norm:
        layers[f"bn{index}"] = nn.BatchNorm2d(c_out, **place)
    if activation is not None:
        layers[f"act{index}"] = new_activation(activation)
    return layers


def new_linear(n_in: int, n_out: int, **place) -> nn.Linear:
    """Return a Linear without bias (as in the IIR-SNN code) and without values yet."""
    return _without_values(nn.Linear, n_in, n_out, bias=False, **place)


def _without_values(layer: type[nn.Module], *sizes: int, device=None, **options) -> nn.Module:
    # The constructor's own draw would move the global generator, and init_weights replaces it anyway.
    # skip_init takes device=None for "meta", not for the default.
    return nn.utils.skip_init(layer, *sizes, device=device or torch.get_default_device(), **options)


def new_activation(activation: Callable[[], nn.Module]) -> nn.Module:
    """Call the factory and check that a module came."""
    if isinstance(activation, nn.Module) or not callable(activation):
        raise invalid(
            "activation",
            "make a module when called without arguments",
            activation,
            "Pass the class or a function, not an instance: activation=nn.ReLU.",
            kind=TypeError,
        )
    module = activation()
    if not isinstance(module, nn.Module):
        raise invalid("activation", "make an nn.Module when called", module, kind=TypeError)
    return module
