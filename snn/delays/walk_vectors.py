"""A walk along the lags of Gaussian bumps, several synapses in one vector, written for LLVM directly.

Neighbouring values of a Gaussian differ by a factor that itself changes by a constant factor: a lag is two
multiplications, and all that goes from lag to lag stays in registers.
"""

# V lanes, one synapse each

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from snn.delays.vectors import INDEX, literals

__all__ = ["FIELDS", "LANES", "SUM", "WEIGH", "WRITE", "walk"]

LANES = 8  # of float64, in one vector of 64 bytes
# What a walk carries, a row of lanes each: lag - delay, the bump there, the factor to the next lag, the factor on that
# factor, what to multiply written bumps by; and sums of the bump, times the distance, times its square.
FIELDS = ("distance", "bump", "ratio", "shrink", "scale", "total", "moments", "squares")
# Only sum; write scaled bumps, and do not sum; sum bumps times numbers that are read.
SUM, WRITE, WEIGH = 0, 1, 2
# Smaller bumps are zero: next come denormal numbers, which are slow.
_LEAST = 1e-30
_FUSE = ("contract",)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)


@intrinsic(prefer_literal=True)
def walk(typingctx: Any, state: Any, rows: Any, row_bytes: Any, n_lags: Any, mode: Any, bits: Any) -> Any:
    """Walk from one lag to the next, `n_lags` >= 1 times, and leave `state` at the lag after the last.

    `state` is the address of float64 (fields, V), `rows` that of V numbers of so many `bits`, one row every
    `row_bytes`. `mode` is `SUM`, `WRITE` or `WEIGH`; the first does not look at `rows`.
    """
    if not literals(mode, bits):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        state_at = builder.inttoptr(args[0], ir.PointerType())
        number = ir.FloatType() if bits.literal_value == 32 else ir.DoubleType()
        row, align = ir.VectorType(number, LANES), bits.literal_value // 8

        def place(k: int) -> ir.Value:
            return builder.gep(state_at, [INDEX(k)], source_etype=_DOUBLES)

        start = [builder.load(place(k), typ=_DOUBLES, align=8) for k in range(len(FIELDS))]
        entry = builder.block
        loop, done = builder.append_basic_block("lags"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        lag, here = builder.phi(INDEX), builder.phi(INDEX)
        lag.add_incoming(INDEX(0), entry)
        here.add_incoming(args[1], entry)
        phis = [builder.phi(_DOUBLES) for _ in FIELDS]
        for phi, value in zip(phis, start, strict=True):
            phi.add_incoming(value, entry)
        distance, value, ratio, shrink, scale, *sums = phis
        least, zeros, ones = (ir.Constant(_DOUBLES, [x] * LANES) for x in (_LEAST, 0.0, 1.0))
        bump = builder.select(builder.fcmp_ordered(">=", value, least), value, zeros)
        at = builder.inttoptr(here, ir.PointerType())
        if mode.literal_value == WRITE:
            scaled = builder.fmul(bump, scale)
            builder.store(scaled if number == ir.DoubleType() else builder.fptrunc(scaled, row), at, align=align)
        else:
            if mode.literal_value == WEIGH:
                weights = builder.load(at, typ=row, align=align)
                weights = weights if number == ir.DoubleType() else builder.fpext(weights, _DOUBLES)
                bump = builder.fmul(bump, weights)
            for k in range(3):
                sums[k] = builder.fadd(sums[k], bump, flags=_FUSE)
                bump = builder.fmul(bump, distance, flags=_FUSE)
        after = [builder.fadd(distance, ones), builder.fmul(value, ratio), builder.fmul(ratio, shrink), shrink, scale]
        following = builder.add(lag, INDEX(1))
        lag.add_incoming(following, loop)
        here.add_incoming(builder.add(here, args[2]), loop)
        for phi, new in zip(phis, [*after, *sums], strict=True):
            phi.add_incoming(new, loop)
        builder.cbranch(builder.icmp_signed("<", following, args[3]), loop, done)
        builder.position_at_end(done)
        for k, new in enumerate([*after, *sums]):
            builder.store(new, place(k), align=8)
        return context.get_dummy_value()

    address = types.int64
    return types.void(address, address, address, address, mode, bits), codegen
