"""The backend of plain torch operations: all lanes side by side, one step after the other, on any device.

It says in a few lines what the compiled loop does, and rounds as that does: in float64 on the CPU all numbers are the
same. On CUDA the order in which spikes are added is not fixed.
"""

# T time, B lanes, N neurons, R kinds of synapses, U different networks, Q distinct delays

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import invalid
from reservoir.backends.spec import Plan, not_finite, parameters, recent_spikes
from reservoir.izhikevich import BENT, PARAMETERS, SCHEMES
from reservoir.noise import STREAMS, block_normals, philox
from reservoir.recording import Sink
from reservoir.state import State

__all__ = ["run"]


def run(plan: Plan, state: State, sink: Sink) -> np.ndarray:
    """Run a plan; the contract is that of `reservoir.backends.run`.

    Parameters
    ----------
    plan : Plan
        What to run.
    state : State
        Overwritten at the end.
    sink : Sink
        Where spikes and traces go.

    Returns
    -------
    ndarray of int64, shape (B,)
        How often v was held at its lower bound.
    """
    try:
        device = torch.device(plan.device or "cpu")
    except RuntimeError as error:
        raise invalid("device", "be a torch device", repr(plan.device), "For example 'cuda'.") from error
    with torch.no_grad():
        lanes = _Lanes(plan, state, device)
        for t in range(plan.n_steps):
            lanes.step(t, sink)
        lanes.flush(sink)
        lanes.give_back(state)
    return lanes.clamped.cpu().numpy()


class _Lanes:
    """All lanes, as tensors."""

    def __init__(self, plan: Plan, state: State, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.is_bent = any(net.is_bent for net in plan.networks)
        nets = list({id(net): net for net in plan.networks}.values())
        index = {id(net): k for k, net in enumerate(nets)}
        self.net_of = self._tensor(np.array([index[id(net)] for net in plan.networks], dtype=np.int64))
        pairs = [parameters(net, plan.dtype) for net in nets]
        rows = self._tensor(np.stack([values for values, _ in pairs], axis=1))
        # One row for all lanes where there is one network.
        rows = rows if len(nets) == 1 else rows[:, self.net_of]
        self.p = dict(zip((*PARAMETERS, *BENT), rows, strict=True))
        numbers = self._tensor(np.stack([numbers for _, numbers in pairs], axis=1))
        self.numbers = (numbers if len(nets) == 1 else numbers[:, self.net_of])[..., None]
        self.rising = state.h.shape[1] > 0
        decays = np.array([[synapse.decays(net.dt_ms) for synapse in net.synapses] for net in nets])
        decays = self._tensor(decays.astype(plan.dtype))[self.net_of if len(nets) > 1 else slice(None)]
        self.fast, self.slow = decays[:, :, 0, None], decays[:, :, 1, None]
        self.v, self.u, self.s, self.h, self.fed = (
            self._tensor(array) for array in (state.v, state.u, state.s, state.h, state.fed)
        )
        self.bias = np.stack([net.bias.astype(plan.dtype) for net in plan.networks])
        self.base = torch.empty_like(self.v)
        noise = np.stack([net.noise.astype(plan.dtype) for net in plan.networks])
        self.noise = self._tensor(noise).double() if noise.any() else None
        self.seeds = self._tensor(state.seeds.view(np.int64))[:, None]
        self._wire(nets)
        self.clamped = torch.zeros(plan.n_lanes, dtype=torch.int64, device=device)
        self.history: deque[Tensor] = deque(maxlen=self.max_delay + 1)
        for age in range(self.max_delay, 0, -1):
            flat = []
            for lane in range(plan.n_lanes):
                recent = dict(recent_spikes(state.recent, lane, self.max_delay))
                flat.append(recent[age] + lane * plan.n)
            self.history.append(self._tensor(np.concatenate(flat)))
        self.found: list[np.ndarray] = []
        self.first, self.row = 0, 0

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.device)

    def _wire(self, nets: list[Any]) -> None:
        """Lay the synapses of all networks end to end, with the segments of every delay that occurs in any."""
        n, dtype = self.plan.n, self.plan.dtype
        self.delays = sorted({int(d) for net in nets for d in net.wiring.delays}, reverse=True)
        self.max_delay = self.delays[0]
        start = np.zeros((len(self.delays), len(nets), n), dtype=np.int64)
        length = np.zeros_like(start)
        posts, weights, offset, self.offset = [], [], 0, []
        for k, net in enumerate(nets):
            wiring = net.wiring
            for q, delay in enumerate(wiring.delays):
                bounds = wiring.start[q * n : (q + 1) * n + 1]
                row = self.delays.index(int(delay))
                start[row, k], length[row, k] = bounds[:-1] + offset, np.diff(bounds)
            scale = np.array([synapse.scale for synapse in net.synapses])[net.receptor]
            posts.append(wiring.post.astype(np.int64))
            weights.append(wiring.weights_as(dtype, scale))
            self.offset.append(offset)
            offset += len(wiring.post)
        self.start, self.length = (self._tensor(a.reshape(len(self.delays), -1)) for a in (start, length))
        self.post, self.weight = self._tensor(np.concatenate(posts)), self._tensor(np.concatenate(weights))
        self.receptor = self._tensor(np.stack([net.receptor for net in nets]).astype(np.int64)).reshape(-1)

    def _drive(self, t: int) -> Tensor:
        """Add up what drives a step, in the order of the specification."""
        plan = self.plan
        for lane, schedule in enumerate(plan.schedules):
            k = int(np.searchsorted(schedule.edges, t))
            if t == 0 or (k < len(schedule.edges) and schedule.edges[k] == t):
                self.base[lane] = self._tensor(schedule.base(t, self.bias[lane]))
        current = self.base.clone()
        for r in range(self.s.shape[1]):
            current += self.s[:, r]
        if any(schedule.given is not None for schedule in plan.schedules):
            given = np.stack([schedule.given[t] for schedule in plan.schedules]).astype(plan.dtype)
            current += self._tensor(given)
        if plan.part is not None:
            current += self.fed
        if self.noise is not None:
            current = (current.double() + self.noise * self._normals(plan.start + t)).to(current.dtype)
        return current

    def _normals(self, step: int) -> Tensor:
        n = self.plan.n
        block = torch.arange(-(-n // 4), device=self.device)
        place = (step, step >> 32, STREAMS["current"])
        words = philox((block, *(torch.full_like(block, number) for number in place)), self.seeds)
        return torch.stack(block_normals(words), dim=-1).reshape(self.seeds.shape[0], -1)[:, :n]

    def _advance(self, current: Tensor) -> None:
        """Take one step of v and u, without resets."""
        net, p = self.plan.networks[0], self.p
        scheme = SCHEMES[net.scheme]
        substep, k2, k1, k0, v_min, _, shift, leak, zero = self.numbers
        x, w, before = self.v, self.u, self.v
        for _ in range(scheme.n_substeps):
            if net.form == "2007":
                force = p["k"] * (x - p["v_rest"]) * (x - p["v_threshold"]) - w + current
                x = x + substep * force / p["capacitance"]
            else:
                x = x + substep * (k2 * x * x + k1 * x + k0 - w + current)
            low = x < v_min
            self.clamped += low.sum(dim=1)
            x = torch.where(low, v_min, x)
        seen = before if scheme.u_sees_old_v else x
        if net.form == "2007":
            slope = torch.where(seen <= p["v_bend"], p["b_below"], p["b"])
            goal = slope * (seen - p["v_rest"])
            # Without a cubic term v_bend may be -inf.
            over = torch.where(p["cubic"] != 0, torch.clamp(seen - p["v_bend"], min=0), zero)
            goal = goal + p["cubic"] * over * over * over
            self.u = w + p["a"] * (goal - w)
        else:
            self.u = w + p["a"] * (p["b"] * (seen + shift) - leak * w)
        self.v = x

    def step(self, t: int, sink: Sink) -> None:
        """Do one step of all lanes; what it consists of is at the top of `kernel`."""
        plan, net = self.plan, self.plan.networks[0]
        step, n = plan.start + t, plan.n
        tracing = sink.wants_traces and step % sink.record.every == 0
        if tracing and "i_syn" in sink.traces:
            total = self.s[:, 0].clone()
            for r in range(1, self.s.shape[1]):
                total += self.s[:, r]
            sink.traces["i_syn"][self.row] = total[:, sink.watch].cpu().numpy()
        self._advance(self._drive(t))
        if self.rising:
            self.s = self.s * self.fast + self.h * self.numbers[5][..., None]
            self.h = self.h * self.slow
        else:
            self.s = self.s * self.fast
        top = self.p["v_peak"] + self.p["peak_slope"] * self.u if self.is_bent else self.p["v_peak"]
        if tracing:
            for name, values in (("v", torch.minimum(self.v, top.expand_as(self.v))), ("u", self.u)):
                if name in sink.traces:
                    sink.traces[name][self.row] = values[:, sink.watch].cpu().numpy()
            self.row += 1
        spiked = ~(self.v <= top) if SCHEMES[net.scheme].strict else ~(self.v < top)
        flat = spiked.reshape(-1).nonzero().squeeze(1)
        bad = ~(self.v.reshape(-1)[flat].isfinite() & self.u.reshape(-1)[flat].isfinite())
        if bad.any():
            first = int(flat[bad][0])
            raise not_finite(first % n, first // n, step, net.dt_ms)
        c, d = self.p["c"], self.p["d"]
        if self.is_bent:
            self.v = torch.where(spiked, c + self.p["reset_slope"] * self.u, self.v)
            self.u = torch.where(spiked, torch.minimum(self.u + d, self.p["u_max"]), self.u)
        else:
            self.v = torch.where(spiked, c, self.v)
            self.u = torch.where(spiked, self.u + d, self.u)
        self.history.append(flat)
        if plan.plastic is not None:
            self._change(step)
        self._deliver()
        self.found.append(flat.cpu().numpy())
        if plan.part is not None:
            self._read_out(step, t)
        if len(self.found) == plan.chunk_steps:
            self.flush(sink)

    def _change(self, step: int) -> None:
        """Let plastic synapses change on the host, lane by lane, and take over the weights that act."""
        n, history = self.plan.n, [flat.cpu().numpy() for flat in self.history]
        for lane, net in enumerate(self.plan.networks):
            mine = [flat[(flat >= lane * n) & (flat < (lane + 1) * n)] - lane * n for flat in history]
            nobody = mine[-1][:0]
            due = [mine[-1 - d] if d < len(mine) else nobody for d in net.wiring.delays]
            synapses, weights = self.plan.plastic.step(lane, step, mine[-1], due)
            place = self.offset[int(self.net_of[lane])] + synapses
            self.weight[self._tensor(place)] = self._tensor(weights.astype(self.plan.dtype))

    def _deliver(self) -> None:
        n, n_kinds = self.plan.n, self.s.shape[1]
        target = (self.h if self.rising else self.s).view(-1)
        for row, delay in enumerate(self.delays):
            if delay >= len(self.history):
                continue
            flat = self.history[-1 - delay]
            lane, pre = flat // n, flat % n
            sender = self.net_of[lane] * n + pre
            length = self.length[row, sender]
            total = torch.cumsum(length, 0)
            if total.numel() == 0 or total[-1] == 0:
                continue
            within = torch.arange(int(total[-1]), device=self.device)
            within -= torch.repeat_interleave(total - length, length)
            synapse = torch.repeat_interleave(self.start[row, sender], length) + within
            place = torch.repeat_interleave((lane * n_kinds + self.receptor[sender]) * n, length)
            target.index_add_(0, place + self.post[synapse], self.weight[synapse])

    def _read_out(self, step: int, t: int) -> None:
        """Let the readout work on the host, lane by lane."""
        n, fed = self.plan.n, self.fed.cpu().numpy()
        for lane in range(self.plan.n_lanes):
            if t % self.plan.chunk_steps == 0:
                steps = min(self.plan.chunk_steps, self.plan.n_steps - t)
                self.plan.part.chunk(lane, t, steps)
            flat = self.found[-1]
            mine = flat[(flat >= lane * n) & (flat < (lane + 1) * n)] - lane * n
            self.plan.part.step(lane, step, t, mine.astype(np.int32), fed[lane])
        self.fed = self._tensor(fed)

    def flush(self, sink: Sink) -> None:
        """Hand the spikes found since the last time to the sink."""
        if not self.found:
            return
        n, step = self.plan.n, self.plan.start + self.first
        flat = np.concatenate(self.found)
        when = np.repeat(np.arange(len(self.found)), [len(f) for f in self.found])
        for lane in range(self.plan.n_lanes):
            mine = flat // n == lane
            sink.put(lane, step, np.bincount(when[mine], minlength=len(self.found)), flat[mine] - lane * n)
        self.plan.on_steps(len(self.found) * self.plan.n_lanes)
        self.first += len(self.found)
        self.found.clear()

    def give_back(self, state: State) -> None:
        """Write the state after the last step."""
        for name in ("v", "u", "s", "h", "fed"):
            getattr(state, name)[:] = getattr(self, name).cpu().numpy()
        n, found = self.plan.n, [np.zeros((0, 3), dtype=np.int64)]
        for lane in range(self.plan.n_lanes):
            for age in range(1, self.max_delay + 1):
                if age > len(self.history):
                    break
                flat = self.history[-age].cpu().numpy()
                mine = flat[flat // n == lane] - lane * n
                found.append(np.stack([np.full_like(mine, lane), np.full_like(mine, age), mine], axis=1))
        state.recent = np.concatenate(found)
