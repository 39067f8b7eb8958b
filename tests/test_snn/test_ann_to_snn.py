"""From an ANN to spikes: the same answers in the end, exact pooling, steps in pieces, and hand-counted energy."""

import copy
import pickle

import pytest
import torch
from fakes.anns import ANNS, build, seeded, trained_like
from tolerances import close
from torch import nn

from snn.conversion import QCFS, ann_to_snn
from snn.conversion.neurons import RunningMaxPool
from snn.conversion.norms import fold_norms
from snn.conversion.plan import run_ann
from snn.conversion.reading import read_network
from snn.energy import energy_report
from snn.kernels import calls


@pytest.fixture(autouse=True)
def _seeded():
    """Plain layers draw their weights from torch's global generator, which conftest.py puts back after each test."""
    torch.manual_seed(0)


# --- the same network ---------------------------------------------------------------------------------------------


@pytest.fixture(params=ANNS)
def pair(request):
    """An ANN, images, and what it was converted to, with thresholds that clip nothing."""
    model, x = build(request.param)
    return model, x, ann_to_snn(model, x, n_steps=8, percentile=100)


@torch.no_grad()
def test_spikes_approach_the_ann_as_steps_grow(pair):
    model, x, network = pair
    want = model(x)
    if any(isinstance(module, QCFS) for module in model.modules()):
        # In the limit, spikes give what is clipped but not rounded.
        fine = copy.deepcopy(model)
        for module in fine.modules():
            if isinstance(module, QCFS):
                module.levels = 1 << 20
        want = fine(x)
    errors = {}
    for n_steps in (8, 64, 512):
        network.n_steps = n_steps
        errors[n_steps] = (network(x) / n_steps - want).abs().mean().item()
    assert errors[64] < 0.4 * errors[8]
    assert errors[512] < 0.4 * errors[64]
    assert errors[512] < 0.05 * want.abs().mean()
    best = want.topk(2).values
    clear = best[:, 0] - best[:, 1] > 0.1 * want.abs().mean()
    assert clear.sum() >= 3
    assert torch.equal((network(x).argmax(1) == want.argmax(1))[clear], torch.ones_like(clear)[clear])


@torch.no_grad()
def test_logits_of_steps_sum_up_and_the_ann_is_left_as_it_was(pair):
    model, x, network = pair
    close(network.step_logits(x).sum(0), network(x), "float32")
    assert network.step_logits(x).shape == (8, 12, model(x).shape[1])
    before, mode = copy.deepcopy(model.state_dict()), model.training
    model.train()
    ann_to_snn(model, x, n_steps=2)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.train(mode)


@torch.no_grad()
def test_what_was_read_and_folded_is_the_ann(pair):
    model, x, _ = pair
    plan = read_network(model)
    assert torch.equal(run_ann(plan, x), model(x))
    if any(isinstance(module, QCFS) for module in model.modules()):
        return  # rounding may cross a step
    fold_norms(plan)
    torch.testing.assert_close(run_ann(plan, x), model(x), rtol=1e-4, atol=1e-5)
    left = [module for module in plan.modules.values() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(left) == (type(model).__name__ == "PreActivation")


def by_hand(current, threshold, n_steps):
    v, spikes = torch.full_like(current[0], threshold / 2), []
    for x in current:
        v = v + x
        spikes.append((v >= threshold).to(v.dtype))
        v = v - threshold * spikes[-1]
    return torch.stack(spikes)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_network_is_the_equations_written_out(generator, dtype):
    """Step by step, with spikes of the height of the threshold and the weights of the ANN."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 2), QCFS(4, 1.3), nn.Flatten(), nn.Linear(8, 3)
    ).to(dtype)
    x = torch.rand(5, 1, 8, 8, generator=generator, dtype=dtype)
    network = ann_to_snn(model, x, n_steps=6, percentile=100)
    conv1, _, _, conv2, act2, _, fc = model
    height = act2.threshold.item()
    theta = conv1(x).relu().max().item()
    assert network.thresholds == {"1": pytest.approx(theta), "4": pytest.approx(1.3)}
    first = theta * by_hand(conv1(x)[None].expand(6, *conv1(x).shape), theta, 6)
    sums = nn.functional.max_pool2d(first.cumsum(0).flatten(0, 1), 2).unflatten(0, (6, 5))
    pooled = sums.diff(dim=0, prepend=torch.zeros_like(sums[:1]))
    second = height * by_hand(conv2(pooled.flatten(0, 1)).unflatten(0, (6, 5)), height, 6)
    want = fc(second.flatten(2))
    have = network.step_logits(x)
    assert have.dtype == dtype
    close(have, want)


@torch.no_grad()
def test_one_layer_of_qcfs_is_exact_at_as_many_steps_as_levels(generator):
    for levels in (4, 8, 16):
        model = nn.Sequential(nn.Linear(20, 500), QCFS(levels, 2.0), nn.Linear(500, 3))
        x = torch.randn(120, 20, generator=generator) * 3
        network = ann_to_snn(model)
        assert network.n_steps == levels
        seen = []
        network.get_submodule("1").register_forward_hook(lambda m, a, y, seen=seen: seen.append(y[0]))
        logits = network(x) / levels
        counts = seen[0].unflatten(0, (levels, 120)).sum(0)
        assert torch.equal(counts / levels * 2.0, model[1](model[0](x)))
        torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-5)


def test_start_and_height_of_spikes_are_options_and_documented(generator):
    model = nn.Sequential(nn.Linear(1, 1, bias=False), QCFS(4, 1.0), nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    nn.init.ones_(model[2].weight)
    x = torch.tensor([[0.25]])
    with torch.no_grad():
        assert ann_to_snn(model).step_logits(x).flatten().tolist() == [0, 1, 0, 0]
        assert ann_to_snn(model, start=0.0).step_logits(x).flatten().tolist() == [0, 0, 0, 1]
        model[1].threshold.fill_(2.0)
        assert ann_to_snn(model, n_steps=8).step_logits(x).flatten().tolist() == [0, 0, 0, 2, 0, 0, 0, 0]


def test_percentile_of_the_activations_is_the_threshold(generator):
    model = nn.Sequential(nn.Linear(3, 50), nn.ReLU(), nn.Linear(50, 2))
    x = torch.rand(40, 3, generator=generator)
    values = model[:2](x).flatten().sort().values
    for percentile, rank in ((100, -1), (90, round(0.9 * (values.numel() - 1)))):
        network = ann_to_snn(model, x, n_steps=4, percentile=percentile)
        assert network.thresholds["1"] == pytest.approx(values[rank].item())


# --- max pooling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, stride=2, padding=1), nn.AdaptiveMaxPool2d(1)])
def test_max_pool_of_spikes_passes_spikes_whose_total_is_the_maximum_of_totals(generator, pool):
    spikes = (torch.rand(20, 4, 3, 6, 6, generator=generator) < 0.5 * torch.rand(3, 6, 6, generator=generator)).float()
    running = RunningMaxPool(pool)
    grown, _ = running(spikes.flatten(0, 1), None, 20)
    grown = grown.unflatten(0, (20, 4))
    assert torch.equal(grown.sum(0), pool(spikes.sum(0)))
    assert set(grown.unique().tolist()) <= {0.0, 1.0}
    memory, pieces = None, []
    for part in spikes.split([1, 7, 2, 10]):
        piece, memory = running(part.flatten(0, 1), memory, len(part))
        pieces.append(piece.unflatten(0, part.shape[:2]))
    assert torch.equal(torch.cat(pieces), grown)


def test_max_pool_of_currents_has_the_maximum_of_totals_too(generator):
    currents = torch.randn(9, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    grown, _ = RunningMaxPool(nn.MaxPool2d(2))(currents.flatten(0, 1), None, 9)
    close(grown.unflatten(0, (9, 2)).sum(0), nn.functional.max_pool2d(currents.sum(0), 2))


# --- some steps at a time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[8], [1] * 8, [3, 1, 4], [2, 6]])
def test_pieces_are_the_whole(pair, sizes):
    _, x, network = pair
    whole = network.step_logits(x)
    state, parts = network.start(x), []
    for size in sizes:
        logits, state = network.run(state, size)
        assert not logits.requires_grad
        parts.append(logits)
    close(torch.cat(parts), whole.detach(), "float32")


def test_samples_that_are_kept_go_on_as_if_alone(pair):
    _, x, network = pair
    state = network.start(x)
    index = torch.tensor([7, 0, 3])
    state = network.keep(state, index)
    first, state = network.run(state, 3)
    alone = network.run(network.start(x[index]), 3)[0]
    close(first, alone, "float32")
    state = network.keep(state, torch.tensor([2, 0]))
    second, state = network.run(state, 4)
    close(second, network.step_logits(x[[3, 7]]).detach()[3:7], "float32")
    state = network.keep(state, torch.tensor([1]))
    third, state = network.run(state, 1)
    close(third, network.step_logits(x[[7]]).detach()[7:], "float32")
    state = network.keep(state, torch.empty(0, dtype=torch.int64))
    last, state = network.run(state, 2)
    assert last.shape == (2, 0, third.shape[2])


@pytest.mark.parametrize("batch", [0, 1])
def test_batches_of_none_and_one(pair, batch):
    _, x, network = pair
    logits = network.step_logits(x[:batch]).detach()
    close(logits, network.step_logits(x).detach()[:, :batch], "float32")
    assert network(x[:batch]).shape == (batch, logits.shape[2])


def test_two_runs_do_not_disturb_each_other(pair):
    _, x, network = pair
    a, b = network.start(x[:4]), network.start(x[4:])
    first, a = network.run(a, 2)
    other, b = network.run(b, 5)
    second, a = network.run(a, 3)
    close(torch.cat((first, second)), network.step_logits(x[:4]).detach()[:5], "float32")
    close(other, network.step_logits(x[4:]).detach()[:5], "float32")


def test_first_layer_runs_once_and_the_others_once_for_all_steps():
    model, x = build("residual")
    network = ann_to_snn(model, x, n_steps=8)
    rows = {}
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda m, a, y, name=name: rows.setdefault(name, []).append(len(a[0])))
    before = sum(calls.values())
    network(x)
    assert rows.pop("stem.0") == [12]
    assert set(map(tuple, rows.values())) == {(8 * 12,)}
    assert sum(calls.values()) - before == 6, "one call of a kernel for each layer of neurons"
    rows.clear()
    state = network.start(x)
    for _ in range(3):
        _, state = network.run(state, 2)
    assert rows.pop("stem.0") == [12]
    assert set(map(tuple, rows.values())) == {(24, 24, 24)}


def test_channels_last_images_give_the_same_spikes():
    model, x = build("resnet")
    network = ann_to_snn(model, x, n_steps=6)
    with torch.no_grad():
        want = network.step_logits(x)
        last = network.to(memory_format=torch.channels_last)
        state, parts = last.start(x.contiguous(memory_format=torch.channels_last)), []
        for size in (2, 4):
            logits, state = last.run(state, size)
            parts.append(logits)
    torch.testing.assert_close(torch.cat(parts).sum(0), want.sum(0), rtol=1e-3, atol=1e-4)


def test_network_is_copied_pickled_saved_and_trained():
    model, x = build("plain")
    network = ann_to_snn(model, x, n_steps=4)
    want = network(x)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(x), want)
    other = ann_to_snn(build("plain")[0].apply(lambda m: None), x * 0.5, n_steps=4)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), want)
    want.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


# --- energy -------------------------------------------------------------------------------------------------------


def test_energy_is_what_is_counted_by_hand():
    """2 pixels -> 2 neurons of threshold 4 -> mean -> 3 outputs; images chosen to give 2 and 1 spikes in 4 steps."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), QCFS(4, 4.0), nn.Flatten(), nn.Linear(2, 3), QCFS(4, 2.0))
    model.append(nn.Linear(3, 5))
    nn.init.ones_(model[0].weight)
    nn.init.constant_(model[3].weight, 0.5)
    nn.init.zeros_(model[3].bias)
    report = energy_report(ann_to_snn(model), torch.tensor([2.0, 1.0]).view(1, 1, 1, 2))
    conv, fc1, fc2 = report.layers
    assert [layer.name for layer in report.layers] == ["0", "3", "5"]
    assert [(layer.name, layer.n_neurons, layer.rate) for layer in report.neurons] == [("1", 2, 1.5), ("4", 3, 3.0)]
    assert (conv.input, conv.evaluations, conv.mac_operations) == ("analog", 1, 2)
    # 3 spikes to 3 targets. They come one a step and carry 0.5 x 4 to neurons of threshold 2: a spike at each.
    assert (fc1.input, fc1.ac_operations) == ("spikes", pytest.approx(9))
    assert (fc2.input, fc2.ac_operations) == ("spikes", pytest.approx(3 * 3 * 5))


@pytest.mark.parametrize("name", ANNS)
def test_every_layer_after_neurons_is_counted_as_fed_by_spikes(name):
    model, x = build(name)
    network = ann_to_snn(model, x, n_steps=8)
    report = energy_report(network, x)
    weighted = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert {layer.name for layer in report.layers} == set(weighted)
    analog = [layer.name for layer in report.layers if layer.input == "analog"]
    # The second call of the same layer is fed by the first, without neurons in between.
    assert analog == [report.layers[0].name, *(["fc"] if name == "pre-activation" else [])]
    counts = {}

    def count(name):
        def hook(module, args, output):
            counts[name] = output[0].sum().item() / (output[0].numel() / 8)

        return hook

    for layer in network.thresholds:
        network.get_submodule(layer).register_forward_hook(count(layer))
    network(x)
    assert {layer.name: layer.rate for layer in report.neurons} == pytest.approx(counts)


def test_each_call_of_one_activation_is_a_layer_of_its_own():
    ann, x = build("one activation")
    network = ann_to_snn(ann, x, n_steps=4)
    assert list(network.thresholds) == ["relu", "relu_2"]
    assert network.thresholds["relu"] != network.thresholds["relu_2"]


@pytest.mark.reference
def test_torchvisions_resnet_is_converted_as_it_is():
    torchvision = pytest.importorskip("torchvision", reason="its ResNets are what users convert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ann = trained_like(torchvision.models.resnet18(num_classes=5)).eval()
    x = torch.rand(2, 3, 16, 16, generator=seeded(1))
    network = ann_to_snn(ann, x, n_steps=256, percentile=100)
    assert len(network.thresholds) == 17
    with torch.no_grad():
        want, steps = ann(x), network.step_logits(x)
    errors = [(steps[:n].mean(0) - want).abs().max() for n in (32, 256)]
    assert errors[1] < 0.5 * errors[0]


def test_seeded_networks_do_not_move_the_global_generator(global_rng_untouched):
    model, x = build("vgg, QCFS")
    ann_to_snn(model)(x)
    assert seeded().initial_seed() == 0
