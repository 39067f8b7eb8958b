"""Image networks: published counts, the folded-time contract over every registered network, shared dropout."""

import copy

import pytest
import torch
from torch import nn

from snn.energy.activity import count_macs
from snn.models import MODELS, ResNet, TimeSharedDropout, resnet, vgg
from snn.models.base import FoldedNetwork
from snn.models.resnets import BLOCKS
from snn.models.vggs import PLANS, POOLS

# Every registered network, with its number of activations and the smallest image it takes.
CASES = {
    "vgg5": (5, 4),
    "vgg6": (5, 4),
    "vgg9": (9, 16),
    "vgg11": (10, 16),
    "vgg13": (12, 16),
    "vgg16": (15, 16),
    "vgg19": (18, 16),
    "resnet12": (11, 2),
    "resnet20": (19, 2),
}
NAMES = sorted(CASES)


class IF(nn.Module):
    """Stand-in neuron: integrate and fire, soft reset, time folded into the batch; differentiable by identity."""

    def __init__(self, threshold=0.5, n_steps=1, repeat_input=False):
        super().__init__()
        self.threshold, self.n_steps, self.repeat_input = threshold, n_steps, repeat_input

    def forward(self, x):
        currents = x.unsqueeze(0).expand(self.n_steps, *x.shape)
        if not self.repeat_input:
            currents = x.reshape(self.n_steps, x.shape[0] // self.n_steps, *x.shape[1:])
        v, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            v = v + current
            spike = (v > self.threshold).to(v.dtype)
            v = v - self.threshold * spike
            spikes.append(spike + (current - current.detach()))
        return torch.cat(spikes)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(name, **options):
    return MODELS[name](4, **{"in_shape": (2, 16, 16), "width": 1 / 16, "generator": seeded(), **options})


def images(batch=3, shape=(2, 16, 16)):
    return torch.rand(batch, *shape, generator=seeded(1))


def threshold(name):
    return 0.001 if name.startswith("classifier") else 0.1  # linear weights start small


def spiking(model, n_steps):
    for name in model.activation_names:
        model.set_submodule(name, IF(threshold(name), repeat_input=name == model.first_activation))
    model.n_steps = n_steps
    return model


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


# Published: VGG16 39.92 M (10 classes), 40.29 M (100), 138.35 M on ImageNet; ResNet20 11.26 M. The published forms
# have their normalisation folded into a bias; it adds 4224 (VGG16) and 4928 (ResNet20) to the weights.
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("vgg16", {"n_classes": 10}, 39_921_472),
        ("vgg16", {"n_classes": 100}, 40_290_112),
        ("vgg16", {"n_classes": 1000, "in_shape": (3, 224, 224)}, 138_348_352),
        ("resnet20", {"n_classes": 10}, 11_258_368),
    ],
)
def test_parameters_of_published_networks_are_exact(name, options, count):
    model = MODELS[name](**options, batch_norm=False, device="meta")
    assert n_parameters(model) == count


def test_parameters_with_batch_norm_add_one_per_channel():
    assert n_parameters(vgg(16, 10, device="meta")) == 39_921_472 + 4224
    assert n_parameters(resnet(20, 10, device="meta")) == 11_258_368 + 4928


# Published: 338.4 MMAC with 1.77 in the first layer; 15.47 GMAC with 86.7 MMAC; 215.7 MMAC.
@pytest.mark.parametrize(
    ("name", "options", "total", "first"),
    [
        ("vgg16", {"n_classes": 10}, 338_403_328, 1_769_472),
        ("vgg16", {"n_classes": 1000, "in_shape": (3, 224, 224)}, 15_470_264_320, 86_704_128),
        ("resnet20", {"n_classes": 10}, 215_699_456, 1_769_472),
    ],
)
def test_macs_of_published_networks_are_exact(name, options, total, first):
    model = MODELS[name](**options, device="meta")
    macs = count_macs(model, torch.empty(1, *model.in_shape, device="meta"))
    assert sum(macs.values()) == total
    assert next(iter(macs.values())) == first


def test_registry_is_complete_and_every_network_is_a_case():
    assert set(MODELS) == {f"vgg{depth}" for depth in PLANS["cifar"]} | {f"resnet{depth}" for depth in BLOCKS}
    assert set(CASES) == set(MODELS)


@pytest.mark.parametrize("name", NAMES)
def test_network_forward_gives_logits_and_gradients_everywhere(name):
    model = small(name)
    logits = model(images())
    assert logits.shape == (3, 4)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(TypeError):
        MODELS[name](4, unknown=1)


@pytest.mark.parametrize("name", NAMES)
def test_activation_names_are_separate_modules_in_the_order_they_run(name):
    model, ran = small(name), []
    assert len(model.activation_names) == CASES[name][0]
    assert model.first_activation == model.activation_names[0]
    for activation in model.activation_names:
        module = model.get_submodule(activation)
        assert type(module) is nn.ReLU
        module.register_forward_hook(lambda *_, activation=activation: ran.append(activation))
    model(images())
    assert tuple(ran) == model.activation_names


@pytest.mark.parametrize("name", NAMES)
def test_network_with_swapped_neurons_sums_the_readout_over_time(name):
    model = spiking(small(name, dropout=0.5, dtype=torch.float64), 3).eval()
    steps = model.step_logits(images().double())
    assert steps.shape == (3, 3, 4)
    assert steps.abs().sum() > 0
    torch.testing.assert_close(model(images().double()), steps.sum(0), rtol=0, atol=0)
    assert all(module.n_steps == 3 for module in model.modules() if hasattr(module, "n_steps"))
    # The first steps do not depend on how many follow.
    model.n_steps = 2
    torch.testing.assert_close(model.step_logits(images().double()), steps[:2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_network_survives_copy_and_state_dict(name):
    model, other = small(name).eval(), small(name, generator=seeded(5)).eval()
    before = model(images())
    assert not torch.equal(other(images()), before)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images()), before)
    assert torch.equal(copy.deepcopy(model)(images()), before)


@pytest.mark.parametrize("name", NAMES)
def test_smallest_image_works_and_smaller_is_refused(name):
    side = CASES[name][1]
    assert small(name, in_shape=(1, side, side)).eval()(torch.rand(2, 1, side, side)).shape == (2, 4)
    with pytest.raises(ValueError, match=rf"`in_shape` must be at least {side} x {side}"):
        small(name, in_shape=(1, side, side - 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (3, 2, 16, 17), (2, 16, 16)])
def test_wrong_input_is_refused_with_both_shapes(name, shape):
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, 2, 16, 16\), got"):
        small(name)(torch.zeros(shape))


@pytest.mark.parametrize("name", ["vgg5", "resnet12"])
def test_folded_time_equals_a_loop_over_steps_with_state(name):
    n_steps, x = 4, images().double()
    folded = spiking(small(name, dtype=torch.float64), n_steps).eval()
    logits = folded.step_logits(x)

    class Stateful(nn.Module):
        def __init__(self, threshold):
            super().__init__()
            self.threshold, self.v = threshold, 0.0

        def forward(self, current):
            self.v = self.v + current
            spike = (self.v > self.threshold).to(current.dtype)
            self.v = self.v - self.threshold * spike
            return spike

    looped = small(name, dtype=torch.float64).eval()
    for activation in looped.activation_names:
        looped.set_submodule(activation, Stateful(threshold(activation)))
    steps = torch.stack([looped(x) for _ in range(n_steps)])
    assert logits.abs().sum() > 0
    torch.testing.assert_close(logits, steps, rtol=1e-9, atol=1e-12)


def test_first_convolution_runs_once_on_a_static_image():
    model, rows = spiking(small("vgg5"), 5), {}
    for name in ("features.conv1", "features.conv2", "classifier.fc1"):
        model.get_submodule(name).register_forward_hook(
            lambda _, x, __, name=name: rows.__setitem__(name, x[0].shape[0])
        )
    model(images())
    assert rows == {"features.conv1": 3, "features.conv2": 15, "classifier.fc1": 15}


def test_factory_of_neurons_sets_repeat_input_on_the_first_only():
    model = small("resnet12", activation=lambda: IF(n_steps=3))
    assert model.n_steps == 3
    assert all(module.n_steps == 3 for module in model.modules() if isinstance(module, TimeSharedDropout))
    repeats = [model.get_submodule(name).repeat_input for name in model.activation_names]
    assert repeats == [True] + [False] * 10


def test_time_that_does_not_add_up_is_refused():
    model = small("vgg5")
    model.n_steps = 2
    with pytest.raises(ValueError, match=r"`features\.act1` must turn 3 rows into n_steps \* B = 6"):
        model(images())
    model = spiking(small("vgg5"), 2)
    model.set_submodule("features.act2", IF())
    with pytest.raises(ValueError, match=r"`features\.act2\.n_steps` must be 2"):
        model(images())
    model = spiking(small("vgg5"), 3)
    model.get_submodule(model.first_activation).repeat_input = False
    with pytest.raises(ValueError, match="repeat_input=True"):
        model(images())
    with pytest.raises(ValueError, match="`n_steps` must be a whole number >= 1"):
        model.n_steps = 0


def test_activation_must_be_a_factory():
    with pytest.raises(TypeError, match="`activation` must make a module"):
        small("vgg5", activation=nn.ReLU())
    with pytest.raises(TypeError, match="`activation` must make an"):
        small("vgg5", activation=int)
    shared = nn.ReLU()
    with pytest.raises(ValueError, match="new module at every call"):
        small("vgg5", activation=lambda: shared)


@pytest.mark.parametrize("name", ["vgg5", "resnet12"])
def test_weights_come_from_the_generator_alone(name):
    state = torch.get_rng_state()
    one, same, other, free = (small(name, generator=g) for g in (seeded(0), seeded(0), seeded(1), None))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [next(model.parameters()) for model in (one, same, other, free)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert torch.equal(weights[0].double(), next(small(name, dtype=torch.float64).parameters()))


def test_weights_have_the_published_spread():
    model = vgg(9, 10, in_shape=(3, 16, 16), classifier=(512,), generator=seeded())
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            expected = (2 / (9 * module.out_channels)) ** 0.5
        elif isinstance(module, nn.Linear):
            expected = 0.01
        else:
            continue
        assert module.weight.std().item() == pytest.approx(expected, rel=0.08)
        assert module.weight.mean().item() == pytest.approx(0, abs=0.1 * expected)


def test_bias_is_on_convolutions_of_the_folded_form_only():
    for batch_norm in (True, False):
        for model in (small("vgg9", batch_norm=batch_norm), small("resnet20", batch_norm=batch_norm)):
            convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
            assert all((conv.bias is None) == batch_norm for conv in convs)
            assert all(module.bias is None for module in model.modules() if isinstance(module, nn.Linear))
            if not batch_norm:
                assert all(conv.bias.abs().sum() == 0 for conv in convs)
    folded = {key for key, _ in small("resnet20", batch_norm=False).named_parameters()}
    normed = {key for key, _ in small("resnet20").named_parameters() if ".bn" not in key}
    assert normed == {key for key in folded if not key.endswith("bias")}


def test_pooling_takes_the_place_of_dropout():
    layers = list(dict(vgg(16, 10, device="meta").features.named_children()))
    assert layers[:8] == ["conv1", "bn1", "act1", "drop1", "conv2", "bn2", "act2", "pool2"]
    assert layers[-4:] == ["conv13", "bn13", "act13", "drop13"]
    large = vgg(16, 1000, in_shape=(3, 224, 224), device="meta")
    assert list(dict(large.features.named_children()))[-1] == "pool13"
    assert large.classifier.fc1.in_features == 25088


def test_layout_follows_the_image_or_the_name():
    def pools(model):
        return sum(isinstance(module, nn.AvgPool2d) for module in model.modules())

    assert pools(vgg(11, 10, in_shape=(3, 128, 128), device="meta")) == 5
    assert pools(vgg(11, 10, in_shape=(3, 128, 128), layout="cifar", device="meta")) == 4
    assert pools(vgg(9, 10, in_shape=(3, 128, 128), classifier=(8,), device="meta")) == 4
    assert pools(vgg("VGG16", 10, layout="imagenet", device="meta")) == 5
    with pytest.raises(ValueError, match="`depth` must be one of 11, 13, 16, 19, got 9"):
        vgg(9, 10, layout="imagenet")
    with pytest.raises(ValueError, match="`layout` must be one of 'auto', 'cifar', 'imagenet'"):
        vgg(9, 10, layout="large")


def test_max_pooling_width_and_classifier_are_taken():
    model = vgg(5, 10, in_shape=(1, 28, 28), width=0.25, pool="max", classifier=(64,), device="meta")
    assert [type(model.features.get_submodule(f"pool{i}")) for i in (1, 3)] == [POOLS["max"]] * 2
    assert [conv.out_channels for conv in model.features if isinstance(conv, nn.Conv2d)] == [16, 32, 32]
    assert (model.classifier.fc1.in_features, model.classifier.fc1.out_features) == (32 * 7 * 7, 16)
    assert list(dict(vgg(5, 10, classifier=(), device="meta").classifier.named_children())) == ["fc1"]


def test_odd_images_and_fewer_pools_work():
    assert vgg(9, 10, in_shape=(1, 28, 28), device="meta").classifier.fc1.in_features == 512
    digits = vgg(16, 10, in_shape=(1, 8, 8), n_pools=3, width=1 / 16, dropout=0.1, generator=seeded())
    assert digits(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert isinstance(digits.features.drop10, TimeSharedDropout)
    with pytest.raises(ValueError, match=r"at least 16 x 16 for 4 poolings, got \(1, 8, 8\)\. Pass n_pools=3"):
        vgg(16, 10, in_shape=(1, 8, 8))
    assert resnet(12, 10, in_shape=(1, 29, 31), width=1 / 16)(torch.rand(2, 1, 29, 31)).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 0}, "`n_classes` must be a whole number >= 1"),
        ({"width": 0}, "`width` must be a finite number > 0"),
        ({"dropout": 1.0}, "`p` must be a finite number >= 0 and < 1"),
        ({"in_shape": (32, 32)}, "`in_shape` must be three whole numbers"),
    ],
)
def test_bad_options_are_refused(options, message):
    for build in (vgg, resnet):
        depth = 5 if build is vgg else 12
        with pytest.raises(ValueError, match=message):
            build(depth, **{"n_classes": 10, **options})
    with pytest.raises(ValueError, match="`depth` must be one of 12, 20, got 18"):
        resnet(18, 10)
    with pytest.raises(ValueError, match="`pool` must be one of 'avg', 'max'"):
        vgg(5, 10, pool="sum")


def test_dropout_mask_is_shared_over_time_not_over_samples():
    dropout = TimeSharedDropout(0.4)
    dropout.n_steps = 5
    x = torch.rand(5, 6, 8, 7, 7, generator=seeded()) + 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = dropout(x.flatten(0, 1)).reshape(x.shape)
    kept = y != 0
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert not torch.equal(kept[0, 0], kept[0, 1])
    torch.testing.assert_close(y[kept], x[kept] / 0.6)
    assert kept.float().mean().item() == pytest.approx(0.6, abs=0.05)
    assert dropout.eval()(x) is x


def test_dropout_with_one_step_is_plain_dropout():
    x = torch.rand(4, 10, generator=seeded())
    with torch.random.fork_rng():
        torch.manual_seed(3)
        ours = TimeSharedDropout(0.5)(x)
        torch.manual_seed(3)
        torch.testing.assert_close(ours, nn.functional.dropout(x, 0.5))


def test_dropout_refuses_rows_that_are_no_multiple():
    dropout = TimeSharedDropout(0.5)
    dropout.n_steps = 3
    with pytest.raises(ValueError, match=r"`x` must have a multiple of n_steps = 3 rows, got 4\."):
        dropout(torch.ones(4, 2))


def test_residual_shortcut_changes_shape_only_where_it_must():
    model = resnet(20, 10, device="meta")
    assert isinstance(model, ResNet)
    assert isinstance(model, FoldedNetwork)
    kinds = [isinstance(block.shortcut, nn.Identity) for block in model.blocks]
    assert kinds == [True, True, False, True, False, True, False, True]
