"""Delays one time step at a time: a ring of the last inputs takes the place of the sequence."""

# B batch, O outputs, I inputs, K kernels a connection, D lags

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuroloaders.checks import invalid
from snn.delays.lags import dense_kernel
from snn.delays.paths import check_delay
from snn.delays.taps import rounded

__all__ = ["DelayState", "step"]


@dataclass(slots=True)
class DelayState:
    """The last inputs of a delay layer.

    Attributes
    ----------
    ring : Tensor, shape (D, B, I)
        Inputs of the last D steps.
    now : int
        Where in the ring the latest one is.
    """

    ring: Tensor
    now: int


def step(
    x: Tensor,
    weight: Tensor,
    delay: Tensor,
    sigma: Tensor,
    state: DelayState | None,
    max_delay: int,
    kernel: str,
    round_delays: bool,
) -> tuple[Tensor, DelayState]:
    """Transmit one step through the synapses of `snn.delays.paths.delay_linear`.

    Parameters
    ----------
    x : Tensor, shape (B, I)
    weight, delay, sigma, max_delay, kernel, round_delays
        As in `delay_linear`.
    state : DelayState or None
        Written to.

    Returns
    -------
    y : Tensor, shape (B, O)
    state : DelayState

    Raises
    ------
    ValueError
        If the input does not fit the weights or the state.
    """
    n_inputs = weight.shape[1]
    if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != n_inputs:
        raise invalid("x", f"have shape (B, {n_inputs}), one time step", x)
    check_delay(delay)
    delay = delay.clamp(0, max_delay - 1)
    if state is None:
        state = DelayState(weight.new_zeros((max_delay, *x.shape)), max_delay - 1)
    if not isinstance(state, DelayState):
        raise invalid("state", "be what the last step returned, or None", state, kind=TypeError)
    if state.ring.shape != (max_delay, *x.shape):
        raise invalid(
            "state", f"be of {max_delay} steps of shape {tuple(x.shape)}", state.ring, "Start with state=None."
        )
    now = (state.now + 1) % max_delay
    state.ring[now] = x.detach()
    state.now = now
    if round_delays:
        lags = rounded(delay, max_delay).long().expand(weight.shape)
        inputs = torch.arange(n_inputs, device=x.device)[None, :, None]
        # (O, I, K, B): what left i so many steps ago.
        arriving = state.ring[(now - lags) % max_delay, :, inputs]
        return torch.einsum("oik,oikb->bo", weight, arriving), state
    taps = dense_kernel(weight, delay, sigma, max_delay, kernel, False)
    order = (now - torch.arange(max_delay, device=x.device)) % max_delay
    return torch.einsum("oid,dbi->bo", taps, state.ring[order]), state
