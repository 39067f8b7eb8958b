"""Inner loops on spikes as bits, written for LLVM directly: one instruction adds a weight where there was a spike.

A word holds one bit for each of V samples, and is the mask of an addition to a vector of V sums. A block of steps of
one output stays in the registers while all its synapses are added to it; a spike takes a bit of memory, so that what a
block needs of all inputs is in the first-level cache.
"""

# V lanes

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from snn.delays.vectors import INDEX, Rows, literals

__all__ = ["MOST_STEPS", "add_spikes", "transpose"]

# Sums that are kept in registers, of 32 in all.
MOST_STEPS = 24
_OFFSET = ir.IntType(32)


@intrinsic(prefer_literal=True)
def add_spikes(
    typingctx: Any, out: Any, words: Any, weights: Any, offsets: Any, n_entries: Any, n_steps: Any, bits: Any
) -> Any:
    """``out[t] = sum over e of weights[e] where words[offsets[e] + t] has a bit`` for a block of steps; E >= 1.

    Addresses are integers; `offsets` are int32; `n_steps` and the `bits` of a number are literals.
    """
    if not literals(n_steps, bits):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        rows = Rows(builder, bits.literal_value)
        word, mask = ir.IntType(rows.lanes), ir.VectorType(ir.IntType(1), rows.lanes)
        out_at, words_at, weights_at, offsets_at = (rows.pointer(address) for address in args[:4])
        entry = builder.block
        loop, done = builder.append_basic_block("entries"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        e = builder.phi(INDEX)
        e.add_incoming(INDEX(0), entry)
        sums = [builder.phi(rows.vector) for _ in range(n_steps.literal_value)]
        for total in sums:
            total.add_incoming(ir.Constant(rows.vector, None), entry)
        place = builder.gep(weights_at, [e], source_etype=rows.number)
        weight = rows.spread(builder.load(place, typ=rows.number, align=rows.align))
        offset = builder.load(builder.gep(offsets_at, [e], source_etype=_OFFSET), typ=_OFFSET, align=4)
        first = builder.gep(words_at, [builder.sext(offset, INDEX)], source_etype=word)
        after = []
        for t, total in enumerate(sums):
            step = builder.gep(first, [INDEX(t)], source_etype=word)
            spiked = builder.bitcast(builder.load(step, typ=word, align=rows.lanes // 8), mask)
            after.append(builder.select(spiked, builder.fadd(total, weight), total))
        following = builder.add(e, INDEX(1))
        e.add_incoming(following, builder.block)
        for total, value in zip(sums, after, strict=True):
            total.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, args[4]), loop, done)
        builder.position_at_end(done)
        for t, value in enumerate(after):
            rows.store(value, out_at, INDEX(t))
        return context.get_dummy_value()

    number = types.int64
    return types.void(number, number, number, number, number, n_steps, bits), codegen


@intrinsic(prefer_literal=True)
def transpose(typingctx: Any, out: Any, out_stride: Any, source: Any, source_stride: Any, bits: Any) -> Any:
    """``out[v, j] = source[j, v]`` for V x V numbers in rows so many numbers apart; addresses are integers."""
    if not literals(bits):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        rows = Rows(builder, bits.literal_value)
        out_at, source_at = rows.pointer(args[0]), rows.pointer(args[2])

        def row(pointer: ir.Value, stride: ir.Value, j: int) -> ir.Value:
            return builder.gep(pointer, [builder.mul(stride, INDEX(j))], source_etype=rows.number)

        values = [rows.load(row(source_at, args[3], j), INDEX(0)) for j in range(rows.lanes)]
        # Blocks of 1, 2, 4, ... numbers change places across the diagonal, until all have.
        size = 1
        while size < rows.lanes:
            kind = ir.VectorType(ir.IntType(32), rows.lanes)
            lanes = range(rows.lanes)
            low = ir.Constant(kind, [v if not v & size else rows.lanes + v - size for v in lanes])
            high = ir.Constant(kind, [v + size if not v & size else rows.lanes + v for v in lanes])
            for j in lanes:
                if not j & size:
                    pair = values[j], values[j + size]
                    values[j], values[j + size] = (builder.shuffle_vector(*pair, block) for block in (low, high))
            size *= 2
        for v, value in enumerate(values):
            rows.store(value, row(out_at, args[1], v), INDEX(0))
        return context.get_dummy_value()

    number = types.int64
    return types.void(number, number, number, number, bits), codegen
