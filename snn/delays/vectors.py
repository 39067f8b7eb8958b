"""Inner loops on vectors of lanes, written for LLVM directly: neighbouring taps share what they load.

A row holds V lanes for each time step; V numbers are one cache line and one vector. Tap w of a synapse needs step
t - w where tap 0 needs step t, so a window of W vectors that moves along the row needs one new vector a step. Compilers
do not see this by themselves: they load every vector W times, and loads, not multiplications, are what limits them.
"""

# T steps, V lanes, W taps

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["INDEX", "LANE_BYTES", "Rows", "add_window", "literals", "sum_window"]

LANE_BYTES = 64
INDEX = ir.IntType(64)
# Taps whose window and two sums each fit into 32 registers, beside what else is needed.
_MOST_DOUBLE = 9
# A product and the sum it goes into may be rounded once.
_FUSE = ("contract",)


class Rows:
    """Vectors at the addresses that an intrinsic got."""

    def __init__(self, builder: ir.IRBuilder, bits: int) -> None:
        self.builder = builder
        self.number = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.lanes = LANE_BYTES * 8 // bits
        self.vector = ir.VectorType(self.number, self.lanes)
        self.align = bits // 8

    def pointer(self, address: ir.Value) -> ir.Value:
        """Return the address, a whole number, as a pointer."""
        return self.builder.inttoptr(address, ir.PointerType())

    def at(self, pointer: ir.Value, index: ir.Value) -> ir.Value:
        """Return where the vector of this index begins."""
        return self.builder.gep(pointer, [index], source_etype=self.vector)

    def load(self, pointer: ir.Value, index: ir.Value) -> ir.Value:
        """Return the vector of this index."""
        return self.builder.load(self.at(pointer, index), typ=self.vector, align=self.align)

    def store(self, value: ir.Value, pointer: ir.Value, index: ir.Value) -> None:
        """Write the vector of this index."""
        self.builder.store(value, self.at(pointer, index), align=self.align)

    def number_at(self, pointer: ir.Value, index: int) -> ir.Value:
        """Return where the number of this index is."""
        return self.builder.gep(pointer, [INDEX(index)], source_etype=self.number)

    def spread(self, number: ir.Value) -> ir.Value:
        """Return a vector with `number` in all lanes."""
        empty = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, empty, mask)

    def fused(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return ``a * b + c``, which may be rounded once."""
        return self.builder.fadd(self.builder.fmul(a, b, flags=_FUSE), c, flags=_FUSE)

    def total(self, value: ir.Value) -> ir.Value:
        """Add the lanes up: halves onto each other, until one number is left."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            kind = ir.VectorType(ir.IntType(32), lanes)
            low, high = ir.Constant(kind, list(range(lanes))), ir.Constant(kind, list(range(lanes, 2 * lanes)))
            empty = ir.Constant(value.type, ir.Undefined)
            halves = (self.builder.shuffle_vector(value, empty, half) for half in (low, high))
            value = self.builder.fadd(*halves)
        return self.builder.extract_element(value, ir.IntType(32)(0))


def _window_loop(rows: Rows, source: ir.Value, n_steps: ir.Value, n_taps: int, carried: list, body: Any) -> list:
    """Build ``for t in range(n_steps)`` with the window of `source` in registers; return what is carried, at the end.

    ``body(t, window, carried)`` gets the vectors of steps t, t - 1, ..., t - W + 1, and returns the new carried values.
    """
    builder = rows.builder
    before = [rows.load(source, INDEX(-w)) for w in range(1, n_taps)]
    entry = builder.block
    loop, done = builder.append_basic_block("steps"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    t = builder.phi(INDEX)
    t.add_incoming(INDEX(0), entry)
    window, state = [], []
    for kept, start in [(window, v) for v in before] + [(state, v) for v in carried]:
        phi = builder.phi(start.type)
        phi.add_incoming(start, entry)
        kept.append(phi)
    newest = rows.load(source, t)
    after = body(t, [newest, *window], state)
    following = builder.add(t, INDEX(1))
    last = builder.block
    t.add_incoming(following, last)
    for phi, value in zip(window, [newest, *window], strict=False):
        phi.add_incoming(value, last)
    for phi, value in zip(state, after, strict=True):
        phi.add_incoming(value, last)
    builder.cbranch(builder.icmp_signed("<", following, n_steps), loop, done)
    builder.position_at_end(done)
    return after


def literals(*values: Any) -> bool:
    """Return whether numba knows these numbers while it compiles."""
    return all(isinstance(value, types.IntegerLiteral) for value in values)


@intrinsic(prefer_literal=True)
def add_window(typingctx: Any, out: Any, source: Any, taps: Any, n_steps: Any, n_taps: Any, bits: Any) -> Any:
    """``out[t] += sum over w of taps[w] * source[t - w]`` for T >= 1 steps of vectors; addresses as integers."""
    if not literals(n_taps, bits):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        rows, width = Rows(builder, bits.literal_value), n_taps.literal_value
        out_at, source_at, taps_at = (rows.pointer(address) for address in args[:3])
        factors = [
            rows.spread(builder.load(rows.number_at(taps_at, w), typ=rows.number, align=rows.align))
            for w in range(width)
        ]

        def body(t: ir.Value, window: list, carried: list) -> list:
            total = rows.load(out_at, t)
            for factor, value in zip(factors, window, strict=True):
                total = rows.fused(factor, value, total)
            rows.store(total, out_at, t)
            return []

        _window_loop(rows, source_at, args[3], width, [], body)
        return context.get_dummy_value()

    number = types.int64
    return types.void(number, number, number, number, n_taps, bits), codegen


@intrinsic(prefer_literal=True)
def sum_window(typingctx: Any, out: Any, source: Any, grads: Any, n_steps: Any, n_taps: Any, bits: Any) -> Any:
    """``out[w] += sum over t and lanes of grads[t] * source[t - w]`` for T >= 1 steps of vectors."""
    if not literals(n_taps, bits):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        rows, width = Rows(builder, bits.literal_value), n_taps.literal_value
        out_at, source_at, grads_at = (rows.pointer(address) for address in args[:3])

        def body(t: ir.Value, window: list, carried: list) -> list:
            grad, sums, others = rows.load(grads_at, t), carried[:width], carried[width:]
            return [*others, *(rows.fused(grad, value, total) for value, total in zip(window, sums, strict=True))]

        # Two sums a tap where the registers hold them, in turn: what is added to at every other step does not wait.
        n_sums = 2 if width <= _MOST_DOUBLE else 1
        zeros = [ir.Constant(rows.vector, None)] * (n_sums * width)
        found = _window_loop(rows, source_at, args[3], width, zeros, body)
        for w in range(width):
            total = found[w] if n_sums == 1 else builder.fadd(found[w], found[width + w])
            place = rows.number_at(out_at, w)
            before = builder.load(place, typ=rows.number, align=rows.align)
            builder.store(builder.fadd(before, rows.total(total)), place, align=rows.align)
        return context.get_dummy_value()

    number = types.int64
    return types.void(number, number, number, number, n_taps, bits), codegen
