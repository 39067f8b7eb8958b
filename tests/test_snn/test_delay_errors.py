"""What a user gets wrong, and the sentence that says so."""

import numpy as np
import pytest
import torch
from torch import nn

from snn import DelayConv1d, DelayConv2d, DelayLinear, clamp_delays, delays_in_steps, fix_delays
from snn.delays import delay_linear, ms_to_steps

X = torch.ones(6, 2, 5)


def line(**options):
    return DelayConv1d(5, 4, 3, 6, **options)


BUILD = [
    ({"in_features": 0}, "`in_features` must be a whole number >= 1, got 0"),
    ({"out_features": -1}, "`out_features` must be a whole number >= 1, got -1"),
    ({"max_delay": 0}, "`max_delay` must be a whole number >= 1, got 0"),
    ({"kernel_count": 0}, "`kernel_count` must be a whole number >= 1, got 0"),
    ({"kernel": "gaussian"}, "`kernel` must be one of 'gauss', 'triangle', 'linear', got 'gaussian'"),
    ({"share": "neuron"}, "`share` must be one of 'synapse', 'axon', 'dendrite', got 'neuron'"),
    ({"backend": "cuda"}, "`backend` must be one of 'auto', 'dense', 'banded', 'fft', .*, got 'cuda'"),
    ({"rounding": "test"}, "`rounding` must be one of 'eval', 'always', 'never', got 'test'"),
    ({"rounding": "always"}, "`rounding` must be 'eval' or 'never' where delays are learned, got 'always'"),
    ({"sigma": 0.2}, "`sigma` must be a finite number >= 0.27, got 0.2"),
    ({"sigma": 0.5, "kernel": "triangle"}, "`sigma` must be a finite number >= 1, got 0.5"),
    ({"sigma": float("nan")}, "`sigma` must be a finite number"),
    ({"dt_ms": 0}, "`dt_ms` must be a finite number > 0, got 0"),
    ({"kernel": "linear", "learn_sigma": True}, "`learn_sigma` must be False for the kernel 'linear'"),
]


@pytest.mark.parametrize(("options", "message"), BUILD)
def test_what_is_wrong_in_a_layer_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        DelayLinear(**{"in_features": 5, "out_features": 4, "max_delay": 6, **options})


@pytest.mark.parametrize("value", [2.5, True, "25", None])
def test_the_range_of_delays_is_a_whole_number(value):
    with pytest.raises(TypeError, match="`max_delay` must be a whole number >= 1"):
        DelayLinear(5, 4, value)


BUILD_CONV = [
    ({"groups": 3}, "`in_channels` must be a multiple of groups = 3, got 4"),
    ({"groups": 4}, "`out_channels` must be a multiple of groups = 4, got 6"),
    ({"groups": 0}, "`groups` must be a whole number >= 1"),
    ({"kernel_size": 0}, "`kernel_size` must be a whole number >= 1, got 0"),
    ({"kernel_size": (3, 3, 3)}, r"`kernel_size` must be one number, or 2, got \(3, 3, 3\)"),
    ({"stride": (1, 0)}, "`stride` must be a whole number >= 1, got 0"),
    ({"padding": -1}, "`padding` must be a whole number >= 0, got -1"),
    ({"dilation": 0}, "`dilation` must be a whole number >= 1"),
    ({"kernel": "box"}, "`kernel` must be one of"),
    ({"share": "space"}, "`share` must be one of"),
]


@pytest.mark.parametrize(("options", "message"), BUILD_CONV)
def test_what_is_wrong_in_a_convolution_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        DelayConv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, "max_delay": 6, **options})


@pytest.mark.parametrize("value", [np.int64(3), 3.0])
def test_sizes_of_other_kinds_are_taken_or_named(value):
    if isinstance(value, float):
        with pytest.raises(TypeError, match="`kernel_size` must be a whole number"):
            DelayConv1d(5, 4, value, 6)
    else:
        assert DelayConv1d(5, 4, value, 6).kernel_size == (3,)


# Input


@pytest.mark.parametrize("shape", [(6, 5), (6, 2, 4), (6, 2, 5, 1), (5,)])
def test_missing_or_swapped_axes_are_named(shape):
    with pytest.raises(ValueError, match=r"`x` must have shape \(T, B, 5\), got .* Time comes first, channels last"):
        DelayLinear(5, 4, 6)(torch.ones(shape))


@pytest.mark.parametrize("backend", ["auto", "dense"])
def test_axes_of_space_are_named(backend):
    with pytest.raises(ValueError, match=r"`x` must have shape \(T, B, 5, L\), got \(6, 2, 5\)"):
        line(backend=backend)(X)
    with pytest.raises(ValueError, match=r"`x` must have shape \(T, B, 2, H, W\), got \(6, 3, 5, 9, 9\)"):
        DelayConv2d(2, 4, 3, 6, backend=backend)(torch.ones(6, 3, 5, 9, 9))
    with pytest.raises(ValueError, match=r"`x` must be at least as large as the kernel \(3,\), got \(2,\). Pad it"):
        line(backend=backend)(torch.ones(6, 2, 5, 2))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("training", [True, False])
def test_whole_numbers_as_spikes_are_refused(dtype, training):
    with pytest.raises(TypeError, match=r"`x` must be a floating-point tensor, got .* Convert it with x.float\(\)"):
        DelayLinear(5, 4, 6).train(training)(X.to(dtype))


@pytest.mark.parametrize("x", [X.numpy(), [1.0], None])
def test_what_is_no_tensor_is_named(x):
    with pytest.raises(TypeError, match="`x` must be a floating-point tensor"):
        DelayLinear(5, 4, 6)(x)


@pytest.mark.parametrize("backend", ["auto", "dense"])
def test_convolutions_refuse_the_same_inputs(backend):
    layer = line(backend=backend)
    for x in (torch.ones(6, 2, 5, 7, dtype=torch.int64), None):
        with pytest.raises(TypeError, match="`x` must be a floating-point tensor"):
            layer(x)


@pytest.mark.parametrize("shape", [(6, 2, 5, 7), (2, 5), (2, 4, 7)])
def test_a_step_of_a_convolution_names_the_shape(shape):
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, 5, L\)"):
        line().step(torch.ones(shape))


# Delays and widths


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["auto", "dense", "fft"])
@pytest.mark.parametrize("grad", [True, False])
def test_delays_that_are_nan_are_found(training, backend, grad):
    layer = DelayLinear(5, 4, 6, backend=backend).train(training)
    with torch.no_grad():
        layer.delay[2, 1] = torch.nan
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(ValueError, match=r"`delay` must hold no NaN, got one\. Look at the learning rate of the delays"),
    ):
        layer(X)


def test_delays_of_a_convolution_that_are_nan_are_found():
    layer = line()
    with torch.no_grad():
        layer.delay[2, 1] = torch.nan
    with pytest.raises(ValueError, match="`delay` must hold no NaN"):
        layer(torch.ones(6, 2, 5, 7))


@pytest.mark.parametrize("which", ["step", "step, whole", "conv dense"])
def test_delays_that_are_nan_are_found_everywhere(which):
    layer = line(backend="dense") if which == "conv dense" else DelayLinear(5, 4, 6).train(which == "step")
    with torch.no_grad():
        layer.delay[2, 1] = torch.nan
    with pytest.raises(ValueError, match="`delay` must hold no NaN"):
        layer(torch.ones(6, 2, 5, 7)) if which == "conv dense" else layer.step(X[0])


def send(weight=(4, 5, 2), delay=(4, 5, 2), sigma=1.0, **options):
    sigma = sigma if isinstance(sigma, torch.Tensor) or sigma is None else torch.tensor(sigma)
    return delay_linear(X, torch.ones(weight), torch.ones(delay), sigma, **{"max_delay": 6, **options})[0]


FUNCTIONAL = [
    ({"max_delay": 0}, "`max_delay` must be a whole number >= 1"),
    ({"kernel": "box"}, "`kernel` must be one of 'gauss', 'triangle', 'linear', got 'box'"),
    ({"backend": "sparse"}, "`backend` must be one of 'auto', 'dense'"),
    ({"delay": (4, 5, 1)}, r"`delay` must have the shape of `weight`, \(4, 5, 2\), or 1 where it is shared"),
    ({"delay": (5, 4, 2)}, r"`delay` must have the shape of `weight`, \(4, 5, 2\), .* got \(5, 4, 2\)"),
    ({"weight": (4, 3, 2), "delay": (4, 3, 2)}, r"`x` must have shape \(T, B, 3\), got \(6, 2, 5\)"),
    ({"sigma": None}, "`sigma` must be given for the kernel 'gauss', got None. It is the width of the bump in steps"),
]


@pytest.mark.parametrize(("options", "message"), FUNCTIONAL)
def test_what_is_wrong_in_the_function_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        send(**options)


def test_no_width_is_needed_where_none_is_used():
    for options in ({"kernel": "linear"}, {"round_delays": True}):
        assert torch.equal(send(sigma=None, **options), send(sigma=3.0, **options))


@pytest.mark.parametrize(
    "sigma",
    [
        pytest.param(sigma, id=name)
        for name, sigma in {
            "zero": 0.0,
            "negative": -1.0,
            "nan": float("nan"),
            "too narrow for a delay between steps": 0.05,
            "more axes": torch.ones(3, 1, 1, 1),
        }.items()
    ],
)
@pytest.mark.parametrize("backend", ["dense", "banded"])
def test_widths_that_give_no_kernel_are_refused(sigma, backend):
    with pytest.raises(ValueError, match="`sigma` must"):
        send(sigma=sigma, backend=backend)


def test_widths_of_kernels_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="`sigma` must"):
        send((4, 5, 1), (4, 5, 1), torch.ones(3), backend="dense")


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1)])
def test_one_width_for_several_shared_kernels(shape):
    options = {"delay": (1, 5, 2), "sigma": torch.ones(shape)}
    torch.testing.assert_close(send(**options, backend="separable"), send(**options, backend="dense"))


def test_weights_of_two_axes_are_named():
    with pytest.raises(ValueError, match=r"`weight` must have shape \(O, I, K\)"):
        send((4, 5), (4, 5))


# Paths that cannot do what is asked


def test_backends_say_what_they_cannot_do():
    def layer(backend, training, **options):
        return DelayLinear(5, 4, 6, backend=backend, **options).train(training)

    for backend in ("discrete", "packed", "event"):
        with pytest.raises(ValueError, match=f"`backend` must compute delays between whole steps, got '{backend}'"):
            layer(backend, True)(X)
    with pytest.raises(ValueError, match=r"`backend` must compute rounded delays, got 'banded'\. Use 'discrete'"):
        layer("banded", False)(X)
    with pytest.raises(ValueError, match=r"`backend` must go with shared delays, got 'separable'\. Build with"):
        layer("separable", True)(X)
    for backend in ("packed", "event"):
        message = f"`backend` must give gradients, got '{backend}'. Use 'discrete', or torch.no_gr"
        with pytest.raises(ValueError, match=message):
            layer(backend, False)(X)
        frozen = layer(backend, False).requires_grad_(False)
        frozen(X)
        with pytest.raises(ValueError, match=message):
            frozen(X.clone().requires_grad_())
    for wrong in (0.5 * X, -X, torch.nan * X):
        with pytest.raises(ValueError, match="`x` must hold nothing but 0 and 1 for the backend 'packed', got other n"):
            layer("packed", False).requires_grad_(False)(wrong)
    with pytest.raises(ValueError, match=r"`backend` must run on the device of `x`, meta, got 'banded'\."):
        layer("banded", True).to("meta")(X.to("meta"))
    with pytest.raises(ValueError, match=r"`backend` must run on the device of `x`, meta, got 'packed'\."):
        layer("packed", False).to("meta")(X.to("meta"))


@pytest.mark.parametrize(("share", "n"), [("axon", (5, 1)), ("dendrite", (1, 4))])
def test_shared_delays_of_one_neuron_may_be_computed_as_shared(share, n):
    DelayLinear(*n, 6, share=share, backend="separable")(X[..., : n[0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_layers_in_half_precision_compute(dtype, training):
    y = DelayLinear(5, 4, 6).to(dtype).train(training)(X.to(dtype))
    assert y.dtype == dtype


# Reading delays


def test_reading_delays_says_what_is_missing():
    with pytest.raises(ValueError, match=r"`dt_ms` must be known to give delays in ms, got None. Build the layer with"):
        DelayLinear(5, 4, 6).delays_in_ms()
    with pytest.raises(ValueError, match="`module` must be or hold a delay layer, got a Linear without"):
        delays_in_steps(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="`model` must hold a delay layer, got a Linear without"):
        fix_delays(nn.Linear(2, 2))
    clamp_delays(nn.Linear(2, 2))  # after every step of any network


@pytest.mark.parametrize(
    ("duration_ms", "dt_ms", "message"),
    [
        (25, 10, r"`duration_ms` must be a whole number of steps of 10 ms, got 25. Take 20 or 30 ms"),
        (-1, 10, "`duration_ms` must be a finite number >= 0"),
        (10, 0, "`dt_ms` must be a finite number > 0"),
        (float("inf"), 1, "`duration_ms` must be a finite number"),
    ],
)
def test_durations_that_are_no_steps_are_named(duration_ms, dt_ms, message):
    with pytest.raises(ValueError, match=message):
        ms_to_steps(duration_ms, dt_ms)


@pytest.mark.parametrize("name", ["weight", "delay", "sigma"])
def test_a_checkpoint_of_another_size_is_named(name):
    state = DelayLinear(5, 4, 6).state_dict()
    with pytest.raises(RuntimeError, match=f"size mismatch for {name}"):
        DelayLinear(5, 3, 6).load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch for delay"):
        DelayLinear(5, 4, 6, share="axon").load_state_dict(state)
