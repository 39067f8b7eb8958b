"""The reference neuron against closed forms, an independent few lines, spikingjelly, snntorch; and what it refuses."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import close

from snn import Surrogate, functional, kernels
from snn.surrogate import SURROGATES, spike

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import snntorch
    import snntorch.surrogate
    from spikingjelly.activation_based import neuron, surrogate
    from spikingjelly.activation_based.functional import reset_net


def random_input(generator, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=generator, dtype=dtype) + 0.3


# Closed forms


@pytest.mark.parametrize("tau", [1.005, 2.0, 10.05, 1000.0])
def test_membrane_decays_by_one_minus_one_over_tau_per_step(tau):
    _, v = functional.lif(
        torch.zeros(30, 1, 1, dtype=torch.float64), torch.full((1, 1), 0.9, dtype=torch.float64), tau=tau
    )
    close(v, torch.full((1, 1), 0.9 * (1 - 1 / tau) ** 30, dtype=torch.float64))


def test_membrane_decays_to_one_over_e_after_tau_when_steps_are_short():
    tau = 10_000.0
    x = torch.zeros(int(tau), 1, 1, dtype=torch.float64)
    _, v = functional.lif(x, torch.full((1, 1), 0.5), tau=tau)
    assert v.item() / 0.5 == pytest.approx(math.exp(-1), rel=1e-4)


def test_decayed_input_settles_at_the_input():
    _, v = functional.lif(torch.full((200, 1, 1), 0.7, dtype=torch.float64), tau=5.0, decay_input=True)
    assert v.item() == pytest.approx(0.7, rel=1e-9)


@given(current=st.integers(1, 64), steps=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_soft_reset_conserves_charge(current, steps):
    """Without leak, input = spikes x threshold + what is left; on 1/64ths this is exact."""
    x = torch.full((steps, 1, 1), current / 64)
    spikes, v = functional.if_(x, v_reset=None, backend="torch")
    assert spikes.sum().item() + v.item() == steps * current / 64


def test_hard_reset_goes_to_v_reset():
    spikes, v = functional.lif(torch.full((1, 1, 1), 5.0), tau=2.0, v_reset=-0.25)
    assert (spikes.item(), v.item()) == (1.0, -0.25)


@pytest.mark.parametrize(("compare", "spikes"), [("ge", 1.0), ("gt", 0.0)])
@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
def test_membrane_exactly_at_threshold(compare, spikes, backend):
    s, _ = functional.if_(torch.full((2, 1, 1), 0.5), compare=compare, backend=backend)
    assert s.flatten().tolist() == [0.0, spikes]


# An independent few lines in numpy


def numpy_lif(x, v, decay, theta, *, leak, v_reset, decay_input, strict):
    spikes = np.zeros_like(x)
    r = 0.0 if v_reset is None else v_reset
    for t in range(len(x)):
        if leak:
            h = decay * v + x[t]
        elif decay_input:
            h = v + (x[t] - (v - r)) / decay
        else:
            h = v - (v - r) / decay + x[t]
        s = h > theta if strict else h >= theta
        v = np.where(s, h - theta if v_reset is None else v_reset, h)
        spikes[t] = s
    return spikes, v


OPTIONS = list(itertools.product(["tau", "leak"], [None, 0.0, -0.3], ["ge", "gt"], [False, True]))


@pytest.mark.parametrize(
    ("key", "v_reset", "compare", "decay_input"), [o for o in OPTIONS if o[0] == "tau" or not o[3]]
)
def test_reference_equals_a_plain_numpy_loop(generator, key, v_reset, compare, decay_input):
    x = random_input(generator, 40, 3, 5, dtype=torch.float64)
    v = random_input(generator, 3, 5, dtype=torch.float64)
    decay = torch.rand(5, generator=generator, dtype=torch.float64) + (1.2 if key == "tau" else 0)
    theta = torch.rand(5, generator=generator, dtype=torch.float64) + 0.5
    s, v_out = functional.lif(
        x,
        v,
        **{key: decay},
        v_threshold=theta,
        v_reset=v_reset,
        compare=compare,
        decay_input=decay_input,
        backend="torch",
    )
    expect = {"leak": key == "leak", "v_reset": v_reset, "decay_input": decay_input, "strict": compare == "gt"}
    want_s, want_v = numpy_lif(x.numpy(), v.numpy(), decay.numpy(), theta.numpy(), **expect)
    assert np.array_equal(s.numpy(), want_s)
    close(v_out, torch.from_numpy(want_v))


# The neuron of IIR-SNN, with its gradients written out


def iir_by_hand(x, leak, theta, grad):
    """Forward and backward of u = leak u + x; z = u / theta - 1; o = z > 0; u -= theta o. Gamma 0.3, triangle."""
    steps, u, us, os = len(x), np.zeros_like(x[0]), [], []
    for t in range(steps):
        u = leak * u + x[t]
        o = (u / theta - 1 > 0).astype(x.dtype)
        us.append(u)
        os.append(o)
        u = u - theta * o
    gx, g_leak, g_theta, gu = np.zeros_like(x), 0.0, 0.0, np.zeros_like(x[0])
    for t in reversed(range(steps)):
        g_theta -= (gu * os[t]).sum()  # the soft reset subtracts theta where it fired
        dz = grad[t] * 0.3 * np.maximum(0, 1 - np.abs(us[t] / theta - 1))
        g_theta -= (dz * us[t]).sum() / theta**2
        gu = gu + dz / theta
        gx[t] = gu
        before = us[t - 1] - theta * os[t - 1] if t else 0.0
        g_leak += (gu * before).sum()
        gu = leak * gu
    return np.array(os), gx, g_leak, g_theta


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
@pytest.mark.parametrize("steps", [1, 5])
def test_iir_neuron_equals_its_equations_written_out(generator, backend, steps):
    x = random_input(generator, steps, 4, 6, dtype=torch.float64)
    grad = torch.randn(steps, 4, 6, generator=generator, dtype=torch.float64)
    leak = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    leaf = x.clone().requires_grad_()
    s, _ = functional.lif(
        leaf,
        leak=leak,
        v_threshold=theta,
        v_reset=None,
        compare="gt",
        surrogate=Surrogate(name="triangle", scale=0.3, normalised=True),
        backend=backend,
    )
    s.backward(grad)
    want_s, gx, g_leak, g_theta = iir_by_hand(x.numpy(), 0.9, 0.7, grad.numpy())
    assert np.array_equal(s.detach().numpy(), want_s)
    close(leaf.grad, torch.from_numpy(gx))
    close(leak.grad, torch.tensor(g_leak, dtype=torch.float64))
    close(theta.grad, torch.tensor(g_theta, dtype=torch.float64))


# spikingjelly and snntorch


SPIKINGJELLY = {
    "atan": surrogate.ATan,
    "sigmoid": surrogate.Sigmoid,
    "softsign": surrogate.SoftSign,
    "triangle": surrogate.PiecewiseQuadratic,
    "gaussian": surrogate.Erf,
    "double_exponential": surrogate.PiecewiseExp,
    "rectangle": surrogate.Rect,
}


def run_and_differentiate(function, x, grad):
    leaf = x.clone().requires_grad_()
    spikes = function(leaf)
    spikes.backward(grad)
    return spikes.detach(), leaf.grad


@pytest.mark.reference
@pytest.mark.parametrize("name", SPIKINGJELLY)
def test_surrogates_are_those_of_spikingjelly(generator, name):
    x = torch.randn(1000, generator=generator, dtype=torch.float64)
    ones = torch.ones_like(x)
    ours = run_and_differentiate(lambda z: spike(z, name), x, ones)
    theirs = run_and_differentiate(SPIKINGJELLY[name](), x, ones)
    assert torch.equal(ours[0], theirs[0])
    close(ours[1], theirs[1])


@pytest.mark.reference
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.2])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("tau", [1.005, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lif_is_spikingjellys(generator, v_reset, detach_reset, decay_input, tau, dtype):
    x = random_input(generator, 30, 4, 50, dtype=dtype) * (2 if decay_input else 1)
    grad = torch.randn(30, 4, 50, generator=generator, dtype=dtype)
    node = neuron.LIFNode(
        tau=tau, decay_input=decay_input, v_reset=v_reset, detach_reset=detach_reset,
        surrogate_function=surrogate.ATan(5.0), step_mode="m",
    )  # fmt: skip
    theirs = run_and_differentiate(node, x, grad)
    options = {"tau": tau, "decay_input": decay_input, "v_reset": v_reset, "detach_reset": detach_reset}
    ours = run_and_differentiate(
        lambda z: functional.lif(z, **options, surrogate=Surrogate(name="atan", alpha=5.0))[0], x, grad
    )
    assert torch.equal(ours[0], theirs[0])
    assert 0.05 < ours[0].mean() < 0.95
    close(ours[1], theirs[1], "float64" if dtype == torch.float64 else "float32 gradient")


@pytest.mark.reference
@pytest.mark.parametrize("v_reset", [None, 0.0])
@pytest.mark.parametrize("name", SPIKINGJELLY)
def test_if_is_spikingjellys_with_each_surrogate(generator, v_reset, name):
    x = random_input(generator, 20, 4, 50, dtype=torch.float64)
    grad = torch.randn(20, 4, 50, generator=generator, dtype=torch.float64)
    node = neuron.IFNode(v_reset=v_reset, detach_reset=True, surrogate_function=SPIKINGJELLY[name](), step_mode="m")
    theirs = run_and_differentiate(node, x, grad)
    ours = run_and_differentiate(
        lambda z: functional.if_(z, v_reset=v_reset, surrogate=name, backend="torch")[0], x, grad
    )
    assert torch.equal(ours[0], theirs[0])
    close(ours[1], theirs[1])


@pytest.mark.reference
@pytest.mark.parametrize("v_reset", [None, 0.0])
def test_state_handed_on_equals_one_long_run_and_spikingjellys_memory(generator, v_reset):
    x = random_input(generator, 30, 2, 9, dtype=torch.float64)
    node = neuron.LIFNode(tau=3.0, decay_input=False, v_reset=v_reset, step_mode="m")
    reset_net(node)
    whole, v_whole = functional.lif(x, tau=3.0, v_reset=v_reset)
    first, v = functional.lif(x[:11], tau=3.0, v_reset=v_reset)
    second, v = functional.lif(x[11:], v, tau=3.0, v_reset=v_reset)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(v, v_whole)
    assert torch.equal(node(x), whole)
    assert torch.equal(node.v, v_whole)


def run_snntorch(x, **options):
    leaky = snntorch.Leaky(**options, spike_grad=snntorch.surrogate.fast_sigmoid(5))
    mem, spikes = leaky.init_leaky(), []
    for step in x:
        s, mem = leaky(step, mem)
        spikes.append(s)
    return torch.stack(spikes)


# snntorch compares strictly. It subtracts one step later by default, which is the same without leak; a reset to zero
# one step later gives the same spikes at any leak. Without delay its reset is not detached.
SNNTORCH = {
    "zero, delayed": ({"beta": 0.8, "reset_mechanism": "zero"}, {"leak": 0.8, "v_reset": 0.0, "detach_reset": True}),
    "subtract, delayed": ({"beta": 1.0}, {"leak": 1.0, "v_reset": None, "detach_reset": True}),
    "zero, at once": (
        {"beta": 0.8, "reset_mechanism": "zero", "reset_delay": False},
        {"leak": 0.8, "v_reset": 0.0, "detach_reset": False},
    ),
    "subtract, at once": (
        {"beta": 0.8, "reset_delay": False},
        {"leak": 0.8, "v_reset": None, "detach_reset": False},
    ),
}


@pytest.mark.reference
@pytest.mark.parametrize("case", SNNTORCH)
def test_lif_is_snntorchs_where_the_meaning_is_the_same(generator, case):
    theirs, ours = SNNTORCH[case]
    # Below one threshold per step, because snntorch "at once" subtracts twice from a membrane above two.
    x = torch.rand(30, 4, 50, generator=generator, dtype=torch.float64) * 0.9
    grad = torch.randn(30, 4, 50, generator=generator, dtype=torch.float64)
    want = run_and_differentiate(lambda z: run_snntorch(z, **theirs), x, grad)
    got = run_and_differentiate(
        lambda z: functional.lif(
            z, **ours, compare="gt", surrogate=Surrogate(name="fast_sigmoid", alpha=5.0), backend="torch"
        )[0],
        x,
        grad,
    )
    assert torch.equal(got[0], want[0])
    assert got[0].mean() > 0.1
    # snntorch keeps its beta in float32.
    close(got[1], want[1], "float32")


# Cases at the edge


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (5, 1, 2, 3, 3), (0, 2, 3), (4, 0, 3), (17, 2, 0)])
def test_smallest_and_empty_shapes(backend, shape):
    x = torch.ones(shape, requires_grad=True)
    spikes, v = functional.lif(x, tau=2.0, backend=backend)
    assert spikes.shape == shape
    assert v.shape == shape[1:]
    (spikes.sum() + v.sum()).backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
def test_input_that_is_not_contiguous(generator, backend):
    x = random_input(generator, 5, 20, 7).permute(1, 2, 0)
    grad = torch.randn(7, 20, 5, generator=generator).permute(1, 0, 2)
    strided = run_and_differentiate(lambda z: functional.lif(z, tau=2.0, backend=backend)[0], x, grad)
    dense = run_and_differentiate(
        lambda z: functional.lif(z, tau=2.0, backend="torch")[0], x.contiguous(), grad.contiguous()
    )
    assert torch.equal(strided[0], dense[0])
    close(strided[1], dense[1], "float32 gradient")


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_integrated_in_float32(generator, backend, dtype):
    x = random_input(generator, 50, 2, 8).to(dtype)
    spikes, v = functional.lif(x, tau=3.0, backend=backend)
    want, want_v = functional.lif(x.float(), tau=3.0, backend="torch")
    assert spikes.dtype == dtype
    assert v.dtype == torch.float32
    assert torch.equal(spikes.float(), want)
    assert torch.equal(v, want_v)


def test_constant_current_equals_the_same_current_at_each_step(generator, global_rng_untouched):
    x = random_input(generator, 3, 5, dtype=torch.float64)
    for backend in kernels.BACKENDS:
        grad = torch.randn(19, 3, 5, generator=generator, dtype=torch.float64)
        once = run_and_differentiate(lambda z, b=backend: functional.lif(z, tau=2.0, n_steps=19, backend=b)[0], x, grad)
        each = run_and_differentiate(lambda z: functional.lif(z.expand(19, 3, 5), tau=2.0, backend="torch")[0], x, grad)
        assert torch.equal(once[0], each[0])
        close(once[1], each[1])


# What it refuses

REFUSED = [
    ({}, "`tau` must be given, or `leak` instead of it, got neither"),
    ({"tau": 2.0, "leak": 0.5}, "got both"),
    ({"tau": 1.0}, "`tau` must be a finite number > 1, got 1.0"),
    ({"leak": 1.5}, "`leak` must be a finite number >= 0 and <= 1, got 1.5"),
    ({"leak": 0.5, "decay_input": True}, "`decay_input` must be False with `leak`"),
    ({"tau": 2.0, "v_threshold": 0.0}, "`v_threshold` must be a finite number > 0"),
    ({"tau": 2.0, "v_threshold": torch.ones(4)}, r"`v_threshold` must be one number, or one per channel, shape \(3,\)"),
    ({"tau": 2.0, "v_reset": float("nan")}, "`v_reset` must be a finite number"),
    ({"tau": 2.0, "compare": ">="}, "`compare` must be one of 'ge', 'gt', got '>='"),
    ({"tau": 2.0, "surrogate": "arctan"}, "`surrogate` must be one of 'atan', .*, got 'arctan'"),
    ({"tau": 2.0, "backend": "cuda"}, "`backend` must be one of 'auto', 'torch', 'numba', 'triton', got 'cuda'"),
    ({"tau": 2.0, "v": torch.zeros(3)}, r"`v` must be a tensor of shape \(2, 3\), that of one step of `x`"),
    ({"tau": 2.0, "n_steps": 0}, "`n_steps` must be a whole number >= 1, got 0"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        functional.lif(torch.ones(4, 2, 3), **options)


def test_missing_axes_are_named():
    with pytest.raises(ValueError, match=r"`x` must have shape \(T, B, C, ...\), got \(4, 3\). Add the missing axis"):
        functional.lif(torch.ones(4, 3), tau=2.0)
    with pytest.raises(TypeError, match=r"`x` must be a floating-point tensor, got .* Convert it with x.float"):
        functional.lif(torch.ones(4, 2, 3, dtype=torch.int64), tau=2.0)
    with pytest.raises(TypeError, match=r"`surrogate` must be a name or a snn\.Surrogate"):
        functional.lif(torch.ones(4, 2, 3), tau=2.0, surrogate=torch.sigmoid)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("v_reset", [None, 0.0])
def test_nan_anywhere_in_the_input_is_found(backend, v_reset):
    x = torch.ones(9, 2, 3)
    x[0, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="`x` must hold no NaN"):
        functional.lif(x, tau=2.0, v_reset=v_reset, backend=backend)


def test_infinities_are_no_nan():
    x = torch.zeros(2, 1, 2)
    x[1] = torch.tensor([torch.inf, -torch.inf])
    _, v = functional.lif(x, tau=2.0, v_reset=None)
    assert v.tolist() == [[torch.inf, -torch.inf]]


def test_every_surrogate_is_largest_at_threshold_and_even():
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    for name in SURROGATES:
        g = Surrogate(name=name).derivative(x)
        assert g.max() == g[300]
        close(g, g.flip(0))
        assert torch.all(g >= 0)
