"""What cannot be converted is refused by name, with what to use instead."""

import pytest
import torch
from fakes.anns import build
from torch import nn
from torch.nn import functional as F

from snn.conversion import QCFS, ann_to_snn
from snn.conversion.refusals import ADVICE
from snn.folded import FoldedLIF
from snn.models import vgg


@pytest.fixture(autouse=True)
def _seeded():
    """Plain layers draw their weights from torch's global generator, which conftest.py puts back after each test."""
    torch.manual_seed(0)


class Net(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between, *modules):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 4), QCFS(4, 1.0), nn.Linear(4, 2)
        self.between, self.extra = between, nn.ModuleList(modules)

    def forward(self, x):
        return self.fc2(self.between(self.act(self.fc1(x))))


def net(function, *modules):
    """Return a network that calls `function` on the activations."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.extra = nn.ModuleList(modules)

        def forward(self, x):
            return function(x, *self.extra)

    return Net(Inner())


def overwritten(x):
    y = F.relu(x * 2, inplace=True)
    return y + x


def overwritten_conv(x, fc):
    h = fc(x)
    y = F.relu(h, inplace=True)
    return y + h


def added_in_place(x, fc):
    h = fc(x)
    y = h
    y += x
    return y + h


FUNCTIONS = {
    "softmax": (lambda x: F.softmax(x, 1), "return the logits"),
    "log_softmax": (lambda x: x.log_softmax(1), "return the logits"),
    "gelu": (lambda x: F.gelu(x), "Use nn.ReLU or snn.conversion.QCFS"),
    "sigmoid": (lambda x: torch.sigmoid(x), "Use nn.ReLU or snn.conversion.QCFS"),
    "tanh": (lambda x: x.tanh(), "Use nn.ReLU or snn.conversion.QCFS"),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), "Use nn.ReLU or snn.conversion.QCFS"),
    "relu6": (lambda x: F.relu6(x), "Use nn.ReLU or snn.conversion.QCFS"),
    "clamp": (lambda x: x.clamp(0, 1), "Use nn.ReLU or snn.conversion.QCFS"),
    "layer_norm": (lambda x: F.layer_norm(x, (4,)), "Use nn.BatchNorm"),
    "mul": (lambda x: x * x, "not multiplied with each other"),
    "matmul": (lambda x: x @ x.T, "."),
    "truediv": (lambda x: 1 / (x + 1), "Divide by a number or a buffer"),
    "dropout": (lambda x: F.dropout(x, 0.5), "off in evaluation"),
    "linear": (lambda x: F.linear(x, torch.eye(4)), "Use the module in its place"),
    "transpose": (lambda x: x.transpose(0, 1), "time is folded into the first"),
    "flatten": (lambda x: torch.flatten(x), r"Use torch.flatten\(x, 1\)"),
    "view": (lambda x: x.view(3, -1), "Only axes after the batch can be reshaped"),
    "reshape": (lambda x: x.reshape(2, x.shape[0], 2), "Only axes after the batch can be reshaped"),
    "mean": (lambda x: x - x.mean(), "Name the axes of the image"),
    "squeeze": (lambda x: x[:, :, None].squeeze(), "."),
    "cat": (lambda x: torch.cat((x, x)), r"Concatenate channels: torch.cat\(parts, 1\)"),
    "getitem": (lambda x: x[:, :2], "Use a convolution or a pooling to select"),
    "max": (lambda x: x.max(1).values, "Use nn.MaxPool1d"),
    "exp": (lambda x: x.exp(), "Use nn.ReLU"),
    "erf": (lambda x: x.erf(), "Build the network from Conv, Linear"),
}
MODULES = {
    "Softmax": (nn.Softmax(1), "return the logits"),
    "GELU": (nn.GELU(), "Use nn.ReLU or snn.conversion.QCFS"),
    "SiLU": (nn.SiLU(), "Use nn.ReLU or snn.conversion.QCFS"),
    "Sigmoid": (nn.Sigmoid(), "Use nn.ReLU or snn.conversion.QCFS"),
    "LeakyReLU": (nn.LeakyReLU(), "Use nn.ReLU or snn.conversion.QCFS"),
    "PReLU": (nn.PReLU(), "Use nn.ReLU or snn.conversion.QCFS"),
    "LayerNorm": (nn.LayerNorm(4), "Use nn.BatchNorm"),
    "GroupNorm": (nn.GroupNorm(2, 4), "Use nn.BatchNorm"),
    "LSTM": (nn.LSTM(4, 4), "Only feed-forward networks"),
    "Embedding": (nn.Embedding(4, 4), "Build the network from Conv, Linear"),
    "FoldedLIF": (FoldedLIF(), "It spikes already"),
    "Flatten": (nn.Flatten(0), r"Use nn.Flatten\(1\)"),
    "MaxPool1d": (nn.MaxPool1d(2, return_indices=True), "Leave the indices out"),
    "Unflatten": (nn.Unflatten(-1, (2, 2)), "Count from the front"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_refused_by_name(name):
    function, advice = FUNCTIONS[name]
    with pytest.raises(ValueError, match=rf"`between` must .*{advice}") as error:
        ann_to_snn(net(function))
    if name not in ("matmul", "squeeze", "max"):
        assert f"a call of `{name}`" in str(error.value)


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_refused_by_name(name):
    module, advice = MODULES[name]
    with pytest.raises(ValueError, match=rf"`between` must be made of what spikes can compute, got a {name}.*{advice}"):
        ann_to_snn(Net(module))


def test_every_activation_of_torch_but_relu_has_advice():
    """Torch's list of activations, as its documentation orders them: a new one is noticed here."""
    own = {"ReLU", "Threshold", "MultiheadAttention", "Softmax", "Softmax2d", "LogSoftmax", "Softmin"}
    names = {name for name in torch.nn.modules.activation.__all__ if name not in own}
    assert {name for name in names if name.lower() not in ADVICE} == set()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            net(lambda x: x + 1 if x.sum() > 0 else x),
            r"`between` must compute the same steps whatever its data, got Tra",
        ),
        (net(lambda x: sum(x)), r"`between` must compute the same steps whatever its data"),
        (net(lambda x: x * len(x)), r"`between` must compute the same steps whatever its data"),
        (net(overwritten), None),
        (net(overwritten_conv, nn.Linear(4, 4)), r"must not work in place on a value that is read again, got `relu`"),
        (net(added_in_place, nn.Linear(4, 4)), r"must not work in place on a value that is read again, got `iadd`"),
        (net(lambda x: (x, x)), r"`fc2` must .* got a Linear that is not called with one"),
        (nn.Sequential(nn.Linear(4, 4), QCFS(), nn.Bilinear(4, 4, 2)), "`2` must|`model` must"),
        (nn.Sequential(nn.Linear(4, 2)), "`model` must have activations, got a Sequential without"),
    ],
)
def test_networks_are_refused_by_name(model, message):
    if message is None:
        nn.init.eye_(model.fc1.weight)  # so that none of its activations is silent
        ann_to_snn(model, torch.rand(5, 4))
        return
    with pytest.raises(ValueError, match=message):
        ann_to_snn(model)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = QCFS()

    def forward(self, x, y):
        return self.act(x + y)


class Pair(TwoInputs):
    def forward(self, x, scale=1.0):
        return self.act(x), x


class Statement(Net):
    """The result of an activation in place is not used: the value itself has changed."""

    def __init__(self):
        super().__init__(nn.ReLU(inplace=True))

    def forward(self, x):
        h = self.fc1(x)
        self.between(h)
        return self.fc2(h)


def test_other_shapes_of_networks_are_refused():
    with pytest.raises(ValueError, match="`model` must take one input, got a further argument `y`"):
        ann_to_snn(TwoInputs())
    with pytest.raises(ValueError, match="`model` must return one tensor, got a tuple"):
        ann_to_snn(Pair())
    with pytest.raises(ValueError, match="`between` must not work in place on a value that is read again"):
        ann_to_snn(Statement(), torch.rand(3, 4), n_steps=4)
    with pytest.raises(TypeError, match=r"`model` must be a torch\.nn\.Module"):
        ann_to_snn(lambda x: x)
    model = nn.Sequential(nn.Linear(2, 2), QCFS())
    model.add_module("thresholds", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="`thresholds` must have a name that the converted network does not need"):
        ann_to_snn(model)


def test_batch_statistics_and_computed_weights_are_refused():
    def wrapped(layer):
        return nn.Sequential(layer, nn.BatchNorm1d(4), QCFS(4, 1.0))

    unseen = wrapped(nn.Linear(4, 4))
    unseen[1] = nn.BatchNorm1d(4, track_running_stats=False)
    with pytest.raises(ValueError, match="`1` must keep running statistics, got none"):
        ann_to_snn(unseen)
    layer = nn.Linear(4, 4)
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(layer)
    with pytest.raises(ValueError, match=r"`0` must .* got a Linear whose weight is computed by a hook\. Remove it"):
        ann_to_snn(wrapped(layer))


def test_parametrised_weights_are_converted_as_they_are(generator):
    model = nn.Sequential(nn.Linear(4, 6), QCFS(8, 2.0), nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)))
    x = torch.rand(7, 4, generator=generator)
    torch.testing.assert_close(ann_to_snn(model)(x) / 8, model(x), rtol=1e-4, atol=1e-5)


def test_what_tracing_cannot_see_is_found_with_an_example(generator):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda module, args, output: output)
    ann_to_snn(model, torch.rand(3, 4, generator=generator), n_steps=4)
    model.register_forward_hook(lambda module, args, output: output + 1)
    with pytest.raises(ValueError, match=r"`model` must compute the same as the operations .* difference of 1\."):
        ann_to_snn(model, torch.rand(3, 4, generator=generator), n_steps=4)


def relu():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def lost_threshold():
    model = Net(nn.Identity())
    model.act.threshold.data.fill_(-0.1)
    return model


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ann_to_snn(relu(), n_steps=4), ValueError, r"`x` must be given: .* got nothing for 1 of them, .*`1`"),
        (lambda: ann_to_snn(relu(), torch.rand(2, 4)), ValueError, "`n_steps` must be given for a network with ReLU"),
        (lambda: ann_to_snn(relu(), torch.rand(0, 4), n_steps=4), ValueError, "`x` must .* at least one sample"),
        (lambda: ann_to_snn(relu(), torch.rand(2, 4) / 0, n_steps=4), ValueError, "`x` must hold finite numbers only"),
        (lambda: ann_to_snn(relu(), torch.rand(2, 4), n_steps=0), ValueError, "`n_steps` must be a whole number >= 1"),
        (lambda: ann_to_snn(relu(), percentile=0), ValueError, "`percentile` must be a finite number > 0"),
        (lambda: ann_to_snn(Net(nn.Identity()), start=1.0), ValueError, "`start` must be a finite number >= 0 and < 1"),
        (lambda: ann_to_snn(Net(nn.Identity()), backend="cuda"), ValueError, "`backend` must be one of 'auto'"),
        (lambda: ann_to_snn(Net(nn.Identity()), surrogate="box"), ValueError, "surrogate"),
        (
            lambda: ann_to_snn(lost_threshold()),
            ValueError,
            r"`act.threshold` must be a finite number > 0.* It was lost",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_silent_layer_is_warned_about(generator):
    model = relu()
    nn.init.constant_(model[0].bias, -100.0)
    with pytest.warns(UserWarning, match=r"The activation `1` is silent: percentile 99\.9 .* threshold is set to 1"):
        network = ann_to_snn(model, torch.rand(8, 4, generator=generator), n_steps=4)
    assert network.thresholds == {"1": 1.0}


def test_wrong_use_of_the_network_is_named():
    model, x = build("vgg, QCFS")
    network = ann_to_snn(model)
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, 2, 8, 8\), got \(12, 8, 8\)"):
        network(x[:, 0])
    with pytest.raises(TypeError, match="`x` must be a floating-point tensor"):
        network.start(x.byte())
    with pytest.raises(ValueError, match="`n_steps` must be a whole number >= 1, got 0"):
        network.n_steps = 0
    state = network.start(x)
    with pytest.raises(ValueError, match="`n_steps` must be a whole number >= 1, got 0"):
        network.run(state, 0)
    with pytest.raises(ValueError, match=r"`index` must be an int64 tensor of shape \(B',\)"):
        network.keep(state, torch.ones(12, dtype=torch.bool))


def test_shapes_that_would_mix_samples_are_refused_when_they_run():
    network = ann_to_snn(net(lambda x: x.view(-1, 2)))
    with pytest.raises(ValueError, match=r"`between.view` must keep the batch axis .* got \(4,\) to \(2,\)"):
        network(torch.rand(3, 4))
    images = nn.Sequential(nn.Conv1d(2, 3, 1), QCFS(), nn.Linear(5, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"`2` must be fed 2 axes, because the batch normalisation after it"):
        ann_to_snn(images)(torch.rand(4, 2, 5))


def test_layer_of_the_models_that_spikes_already_is_named():
    model = vgg(5, 5, in_shape=(2, 8, 8), width=0.1, classifier=(), activation=FoldedLIF)
    with pytest.raises(ValueError, match=r"`features.act1` must .* got a FoldedLIF\. It spikes already"):
        ann_to_snn(model)
