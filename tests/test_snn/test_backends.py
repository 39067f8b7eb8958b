"""Every backend against the torch reference: spikes exactly, gradients to the table; and proof of which one ran."""

import itertools
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from tolerances import close

from snn import Surrogate, functional, kernels
from snn.kernels import threads
from snn.kernels.buffers import BufferPool
from snn.surrogate import SURROGATES

CHARGES = {"leak": {}, "tau": {}, "tau, decayed input": {"decay_input": True}}
FACTORIAL = list(itertools.product(CHARGES, [None, -0.3], ["ge", "gt"], [True, False]))


def run(backend, generator_seed, *, charge, dtype, shape, n_steps=None, **options):
    """Return spikes, membrane, and the gradients of input, first membrane, decay and threshold."""
    g = torch.Generator().manual_seed(generator_seed)
    state = shape[1:]
    leaves = {
        "x": torch.randn(state if n_steps else shape, generator=g, dtype=dtype) + 0.3,
        "v": torch.randn(state, generator=g, dtype=dtype),
        "decay": torch.rand(state[1], generator=g, dtype=dtype) * 0.8 + (1.2 if charge != "leak" else 0.1),
        "threshold": torch.rand(state[1], generator=g, dtype=dtype) + 0.5,
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    spikes, v = functional.lif(
        leaves["x"],
        leaves["v"],
        **{charge.split(",")[0]: leaves["decay"]},
        **CHARGES[charge],
        v_threshold=leaves["threshold"],
        n_steps=n_steps,
        backend=backend,
        **options,
    )
    loss = (spikes * torch.randn(spikes.shape, generator=g, dtype=dtype)).sum()
    loss = loss + (v * torch.randn(v.shape, generator=g, dtype=dtype)).sum()
    return spikes.detach(), v.detach(), *torch.autograd.grad(loss, leaves.values())


def check_equal(backend, kind=None, **case):
    before = kernels.calls[backend]
    got = run(backend, 7, **case)
    assert kernels.calls[backend] == before + 1, "another backend ran"
    want = run("torch", 7, **case)
    assert torch.equal(got[0], want[0])
    assert 0.02 < got[0].mean() < 0.98
    assert torch.equal(got[1], want[1])
    for ours, reference in zip(got[2:], want[2:], strict=True):
        close(ours, reference, kind)


# 37 steps: two whole chunks of 16 and a rest; 3 x 5 x 2 neurons: not a multiple of 16.
SHAPE = (37, 3, 5, 2)


@pytest.mark.parametrize(("charge", "v_reset", "compare", "detach_reset"), FACTORIAL)
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_every_option_equals_the_reference(backend, charge, v_reset, compare, detach_reset):
    options = {"charge": charge, "v_reset": v_reset, "compare": compare, "detach_reset": detach_reset}
    check_equal(backend, dtype=torch.float64, shape=SHAPE, **options)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_every_surrogate_equals_the_reference(backend, name, normalised):
    surrogate = Surrogate(name=name, scale=0.7, normalised=normalised)
    check_equal(backend, charge="leak", v_reset=None, surrogate=surrogate, dtype=torch.float64, shape=SHAPE)


@pytest.mark.parametrize("name", ["atan", "sigmoid", "gaussian", "double_exponential"])
@pytest.mark.parametrize("charge", ["leak", "tau"])
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_float32_equals_the_reference(backend, charge, name):
    """Gradients of parameters are sums over many terms in another order; their table entry is the gradient's."""
    options = {"charge": charge, "v_reset": 0.0, "surrogate": name}
    check_equal(backend, "float32 gradient", dtype=torch.float32, shape=(20, 3, 5, 2), **options)


@pytest.mark.parametrize("charge", ["leak", "tau, decayed input"])
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_repeated_input_equals_the_reference(backend, charge):
    check_equal(backend, charge=charge, v_reset=None, dtype=torch.float64, shape=SHAPE, n_steps=37)


def test_auto_takes_the_compiled_kernel_on_the_cpu():
    before = kernels.calls.copy()
    functional.lif(torch.ones(2, 1, 1), tau=2.0)
    assert kernels.calls - before == {"numba": 1}


def test_available_backends_say_why_one_is_missing():
    found = kernels.available_backends()
    assert found["torch"] == found["numba"] == "available"
    assert found["triton"] == ("available" if torch.cuda.is_available() else "no CUDA device")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def big(backend="numba"):
    case = {"charge": "tau", "v_reset": 0.0, "dtype": torch.float32, "shape": (20, 50, 40, 7)}
    return run(backend, 3, **case)


def test_numbers_do_not_depend_on_the_threads(two_threads, monkeypatch):
    both = big()
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    pool = big()
    torch.set_num_threads(1)
    alone = big()
    for a, b, c in zip(both, pool, alone, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch brings libgomp on Linux only")
def test_kernels_join_pytorchs_threads(two_threads, monkeypatch):
    library, seen = threads._openmp(), []
    assert library is not None

    class Spy:
        def GOMP_parallel(self, *args):
            seen.append(args[2].value)
            return library.GOMP_parallel(*args)

    monkeypatch.setattr(threads, "_openmp", lambda: Spy())
    big()
    assert seen == [2, 2]


FORKED = """
import os, torch
from snn import functional
torch.set_num_threads(2)
x = torch.linspace(-1, 2, 20 * 4000).view(20, 1, 4000)
want = functional.lif(x, tau=2.0)[0].numpy()
child = os.fork()
if child == 0:
    os._exit(0 if (functional.lif(x, tau=2.0)[0].numpy() == want).all() else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_the_same():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_buffer_in_use_is_never_handed_out_again():
    pool = BufferPool()
    first = pool.empty((300, 1000), torch.float32)
    row = first[7]
    row.fill_(5)
    del first
    second = pool.empty((300, 1000), torch.float32).fill_(1)
    assert pool.reused == 0
    assert torch.all(row == 5)
    address = row.data_ptr() - 7 * 4000
    del row
    third = pool.empty((290, 1000), torch.float32)
    assert pool.reused == 1
    assert third.data_ptr() == address
    assert second.data_ptr() % 64 == third.data_ptr() % 64 == 0


def test_the_pool_lets_go_beyond_its_limit():
    pool = BufferPool(max_bytes=4 << 20)
    kept = [pool.empty((1 << 18,), torch.float32).fill_(k) for k in range(10)]
    assert sum(array.nbytes for array in pool._arrays) <= 4 << 20
    assert [t[0].item() for t in kept] == list(range(10))


def test_results_stay_as_they_were_while_kernels_run_on(generator):
    x = torch.randn(20, 50, 400, generator=generator)
    kept = [functional.lif(x * k, tau=2.0)[0] for k in range(1, 5)]
    copies = [k.clone() for k in kept]
    for k in range(8):
        functional.lif(x * -k, tau=2.0)
    assert all(map(torch.equal, kept, copies))


def test_second_derivatives_are_refused_and_not_wrong():
    x = torch.ones(2, 1, 1, requires_grad=True)
    (grad,) = torch.autograd.grad(functional.lif(x, tau=2.0)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch's own compiler
def test_torch_compile_sees_through_the_neuron(generator):
    x = torch.randn(4, 2, 3, generator=generator)
    compiled = torch.compile(lambda z: functional.lif(z, tau=2.0)[0], fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), functional.lif(x, tau=2.0)[0])


# The CUDA kernels, as far as they can be looked at without a GPU

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from snn.kernels import triton as k

def ptx(function, dtype, **constants):
    signature = {}
    for name in function.arg_names:
        own = "*fp64" if dtype == "fp64" else "*fp32"
        io = ("x_ptr", "spikes_ptr", "gs_ptr", "gx_ptr")
        signature[name] = (
            "constexpr" if name in constants else "i32" if name in ("n", "n_steps", "x_stride")
            else "*" + dtype if name in io else own
        )
    indices = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=function, signature=signature, constexprs=indices)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    assert len(made.asm["cubin"]) > 1000
    return made.asm["ptx"]

for dtype in ("fp32", "fp64", "bf16"):
    for charge in (0, 1, 2):
        common = {"CHARGE": charge, "STRICT": False, "CHUNK": 16, "BLOCK": 128}
        text = ptx(k._forward, dtype, HARD=True, KEEP=True, **common)
        print("forward", dtype, charge, text.count("fma."), text.count("div.full"), text.count("div.rn"))
        flags = {"NORMALISED": True, "PARAMETERS": True, "REPEAT": False}
        ptx(k._backward, dtype, HARD=False, DETACH=False, SHAPE=1, **flags, **common)
"""


def test_cuda_kernels_compile_and_round_like_the_reference(tmp_path):
    """For compute capability 9.0: no fused multiply-add and no approximate division in the forward pass."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    script = tmp_path / "compile_kernels.py"
    script.write_text(COMPILE)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"forward (\w+) (\d) (\d+) (\d+) (\d+)", done.stdout)
    assert len(lines) == 9
    for _, charge, fused, approximate, exact in lines:
        assert (fused, approximate) == ("0", "0")
        assert exact == ("0" if charge == "0" else "1")


@pytest.mark.gpu
@pytest.mark.parametrize(("charge", "v_reset", "compare", "detach_reset"), FACTORIAL)
def test_cuda_equals_the_cpu(charge, v_reset, compare, detach_reset, generator):
    options = {"v_reset": v_reset, "compare": compare, "detach_reset": detach_reset, **CHARGES[charge]}
    decay = {charge.split(",")[0]: 0.9 if charge == "leak" else 2.5}
    x = torch.randn(50, 64, 100, generator=generator)
    grad = torch.randn(50, 64, 100, generator=generator)
    results = []
    for device in ("cpu", "cuda"):
        leaf = x.to(device).requires_grad_()
        spikes, v = functional.lif(leaf, **decay, **options)
        spikes.backward(grad.to(device))
        results.append((spikes.cpu(), v.cpu(), leaf.grad.cpu()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    close(results[1][2], results[0][2], "float32 gradient")


def test_exponential_series_of_the_kernels_is_as_good_as_it_says():
    from snn.kernels.numba import _exp_minus

    y = np.linspace(0, 60, 20_001, dtype=np.float32)
    got = np.array([_exp_minus(value, np.float32(1)) for value in y], dtype=np.float64)
    assert np.max(np.abs(got / np.exp(-y.astype(np.float64)) - 1)) < 2e-5
