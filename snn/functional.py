"""Spiking neurons as pure functions: input and state in, spikes and state out."""

# T time, B batch, C channels

from __future__ import annotations

import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_number, check_option, invalid
from snn import kernels
from snn.kernels.spec import NeuronSpec, compute_dtype
from snn.surrogate import Surrogate, as_surrogate, spike

__all__ = ["if_", "lif", "spike"]


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    tau: float | Tensor | None = None,
    leak: float | Tensor | None = None,
    v_threshold: float | Tensor = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = False,
    detach_reset: bool = True,
    compare: str = "ge",
    surrogate: str | Surrogate = "atan",
    n_steps: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Run leaky integrate-and-fire neurons over all time steps.

    Parameters
    ----------
    x : Tensor, shape (T, B, C, ...)
        Input current, in units of the threshold. With `n_steps`, shape (B, C, ...): the same current at each step,
        which is read once and not copied T times.
    v : Tensor, shape (B, C, ...), optional
        Membrane potential before the first step; by default at rest, which is `v_reset`, or 0 with a soft reset.
    tau : float or Tensor
        Membrane time constant in time steps, > 1; from ms, ``tau_ms / dt_ms``. A tensor of shape (C,) gives each
        channel its own; it may require grad. Give either `tau` or `leak`.
    leak : float or Tensor
        Instead of `tau`: the factor on the membrane at each step, ``h = leak * v + x``, in [0, 1]; 1 does not leak.
    v_threshold : float or Tensor
        Threshold, > 0; a tensor of shape (C,) for one per channel, which may require grad.
    v_reset : float or None
        Potential after a spike (hard reset). None: the threshold is subtracted instead (soft reset).
    decay_input : bool
        Divide the input by `tau` too, as the differential equation would have it.
    detach_reset : bool
        Let no gradient through the spike of the reset.
    compare : {"ge", "gt"}
        Whether a membrane exactly at threshold spikes: yes ("ge", as in spikingjelly) or no ("gt", as in snntorch).
    surrogate : str or Surrogate
        Surrogate gradient, a key of `snn.surrogate.SURROGATES`.
    n_steps : int, optional
        Number of steps if `x` is constant and has no time axis.
    backend : str
        "auto", or a key of `snn.kernels.BACKENDS`.

    Returns
    -------
    spikes : Tensor, shape (T, B, C, ...)
        0 or 1, dtype and device of `x`.
    v : Tensor, shape (B, C, ...)
        Membrane potential after the last step; float32 if `x` is of lower precision, else the dtype of `x`.

    Raises
    ------
    ValueError
        For shapes that do not fit, options that do not exist, or NaN in the input (on the CPU).
    TypeError
        If `x` is no floating-point tensor.

    Notes
    -----
    With :math:`\lambda = 1 - 1/\tau`,

    .. math:: h_t = v_{t-1} - (v_{t-1} - v_r) / \tau + x_t, \quad s_t = \Theta(h_t - \vartheta), \quad
              v_t = (1 - s_t) h_t + s_t v_r \;\text{(hard)} \quad\text{or}\quad h_t - s_t \vartheta \;\text{(soft)}

    The reset happens in the step of the spike, as in spikingjelly [1]_. snntorch's ``Leaky`` resets one step later by
    default: its spikes are the same for ``reset_mechanism="zero"`` and, without leak, for ``"subtract"``.
    A NaN in the input stays in the membrane; on the CPU the last membrane is looked at, which costs next to nothing.
    On CUDA that look would make the host wait, so it is left to the training loop, which checks the loss.
    Integration is in float32 for inputs of half precision.

    References
    ----------
    .. [1] Fang et al., Science Advances 9 (2023), doi:10.1126/sciadv.adi1480.

    Examples
    --------
    >>> import torch
    >>> spikes, v = lif(torch.full((3, 1, 1), 0.6), tau=2.0)
    >>> spikes.flatten().tolist()
    [0.0, 0.0, 1.0]
    """
    if (tau is None) == (leak is None):
        raise invalid("tau", "be given, or `leak` instead of it", "neither" if tau is None else "both", "Give one.")
    if leak is not None and decay_input:
        raise invalid("decay_input", "be False with `leak`", True, "Give `tau`, or scale the input yourself.")
    if leak is None:
        charge, decay = "tau_decay_input" if decay_input else "tau", _parameter("tau", tau, x, above=1.0)
    else:
        charge, decay = "leak", _parameter("leak", leak, x, at_least=0.0, at_most=1.0)
    return _run(x, v, decay, charge, v_threshold, v_reset, detach_reset, compare, surrogate, n_steps, backend)


def if_(
    x: Tensor,
    v: Tensor | None = None,
    *,
    v_threshold: float | Tensor = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = True,
    compare: str = "ge",
    surrogate: str | Surrogate = "atan",
    n_steps: int | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run integrate-and-fire neurons, which do not leak, over all time steps.

    The parameters and results are those of `lif`, with ``leak=1``.

    Examples
    --------
    >>> import torch
    >>> spikes, v = if_(torch.full((4, 1, 1), 0.5), v_reset=None)
    >>> spikes.flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    decay = _parameter("leak", 1.0, x)
    return _run(x, v, decay, "leak", v_threshold, v_reset, detach_reset, compare, surrogate, n_steps, backend)


def _run(
    x: Tensor,
    v: Tensor | None,
    decay: Tensor,
    charge: str,
    v_threshold: float | Tensor,
    v_reset: float | None,
    detach_reset: bool,
    compare: str,
    surrogate: str | Surrogate,
    n_steps: int | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Check what the user passed, spread the parameters over the channels, and call the backend."""
    state_shape = _check_input(x, n_steps)
    dtype = compute_dtype(x.dtype)
    check_option("compare", compare, ("ge", "gt"))
    if v_reset is not None:
        check_number("v_reset", v_reset)
    threshold = _parameter("v_threshold", v_threshold, x, above=0.0)
    if v is None:
        v = x.new_full((), 0.0 if v_reset is None else v_reset, dtype=dtype).expand(state_shape)
    elif not isinstance(v, Tensor) or v.shape != state_shape:
        raise invalid(
            "v",
            f"be a tensor of shape {tuple(state_shape)}, that of one step of `x`",
            v,
            "Leave it out to start at rest.",
        )
    elif v.device != x.device:
        raise invalid("v", f"be on the device of `x`, {x.device}", f"{v.device}", "Move it with v.to(x.device).")
    spec = NeuronSpec(
        charge=charge,
        hard_reset=v_reset is not None,
        v_reset=0.0 if v_reset is None else float(v_reset),
        strict=compare == "gt",
        detach_reset=detach_reset,
        surrogate=as_surrogate(surrogate),
    )
    decay = _per_channel("leak" if charge == "leak" else "tau", decay, state_shape)
    threshold = _per_channel("v_threshold", threshold, state_shape)
    name = kernels.choose_backend(backend, x)
    spikes, v_out = kernels.multi_step(x, v.to(dtype), decay, threshold, n_steps, spec, name)
    if v_out.device.type == "cpu" and not torch.compiler.is_compiling() and _has_nan(v_out.detach()):
        raise invalid("x", "hold no NaN", "a membrane that is NaN", "Look at the input and at the learning rate.")
    return spikes, v_out


def _has_nan(v: Tensor) -> bool:
    """Look at the sum first, which is quick; opposite infinities can make it NaN too."""
    return bool(v.sum().isnan()) and bool(v.isnan().any())


def _check_input(x: Tensor, n_steps: int | None) -> torch.Size:
    """Return the shape of one step."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise invalid("x", "be a floating-point tensor", x, "Convert it with x.float().", kind=TypeError)
    if n_steps is None:
        if x.ndim < 3:
            raise invalid("x", "have shape (T, B, C, ...)", f"{tuple(x.shape)}", "Add the missing axis: x[:, None].")
        return x.shape[1:]
    check_int("n_steps", n_steps, at_least=1)
    if x.ndim < 2:
        raise invalid("x", "have shape (B, C, ...) with `n_steps`", f"{tuple(x.shape)}", "Add the batch axis: x[None].")
    return x.shape


def _parameter(name: str, value: float | Tensor, x: Tensor, **bounds: float) -> Tensor:
    """Turn a number or a tensor into a tensor beside `x`. Bounds of tensors are the business of their modules."""
    dtype = compute_dtype(x.dtype) if isinstance(x, Tensor) and x.is_floating_point() else torch.float32
    if isinstance(value, Tensor):
        if value.device != x.device:
            raise invalid(name, f"be on the device of `x`, {x.device}", f"{value.device}", "Move one of them.")
        return value.to(dtype)
    return torch.tensor(check_number(name, value, **bounds), dtype=dtype, device=getattr(x, "device", None))


def _per_channel(name: str, value: Tensor, state_shape: torch.Size) -> Tensor:
    """View a parameter of shape () or (C,) so that it lies along axis 1 of (B, C, ...)."""
    if value.numel() == 1:
        return value.reshape(())
    if value.ndim != 1 or value.shape[0] != state_shape[1]:
        raise invalid(
            name, f"be one number, or one per channel, shape ({state_shape[1]},)", f"shape {tuple(value.shape)}"
        )
    return value.view(-1, *[1] * (len(state_shape) - 2))
