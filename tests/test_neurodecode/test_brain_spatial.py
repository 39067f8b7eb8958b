"""Sensor positions, spatial attention, subject layers, and the one matrix that they are at inference."""

import copy
import math
import warnings

import pytest
import torch
from tolerances import close

from neurodecode.meeg import (
    UNPLACED,
    SpatialAttention,
    SpatialPath,
    SubjectLayer,
    attention_weights,
    fourier_embedding,
    pad_channels,
    position_table,
    sensor_positions,
    spatial_path,
    without_disc,
)

POSITIONS = torch.rand(3, 12, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def path():
    return SpatialPath(
        n_subjects=3, n_heads=10, n_features=72, initial_linear=8, generator=rng(), dtype=torch.float64
    ).eval()


@pytest.fixture
def batch():
    """Recordings, subjects, and the recording of each item."""
    x = torch.randn(5, 12, 20, generator=rng(1), dtype=torch.float64)
    return x, torch.tensor([0, 2, 1, 2, 0]), torch.tensor([1, 0, 2, 0, 1])


# --- the embedding ------------------------------------------------------------------------------------------------


def test_fourier_embedding_of_a_known_place_is_that_of_the_equation():
    expected = [1, -0.6234898, -0.6234898, 1, 0, -0.7818315, 0.7818315, 0]
    got = fourier_embedding(torch.tensor([0.3, 0.7], dtype=torch.float64), 8)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-8)


def test_fourier_embedding_at_the_published_size_follows_the_equation_entry_by_entry():
    x, y = 0.25, 0.5
    got = fourier_embedding(torch.tensor([x, y], dtype=torch.float64))
    angles = [2 * math.pi * (i * (x + 0.2) + j * (y + 0.2)) / 1.4 for i in range(32) for j in range(32)]
    expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    close(got, torch.tensor(expected, dtype=torch.float64))
    close(got[:4], torch.tensor([1.0, -1, 1, -1], dtype=torch.float64))


@pytest.mark.parametrize("n_features", [7, 10, 0])
def test_fourier_embedding_refuses_a_size_that_is_not_twice_a_square(n_features):
    with pytest.raises(ValueError, match="n_features"):
        fourier_embedding(torch.zeros(2), n_features)


# --- positions from MNE -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "n_channels", "n_sensors"),
    [
        ("test-ave.fif.gz", 376, 306),  # Vectorview: "MEG 0113" in the layout
        ("test_ctf_comp_raw.fif", 340, 274),  # CTF: "MLC11-2908" in the recording
        ("test.sqd", 193, 157),  # KIT
        ("exported4D_linux_raw.fif", 250, 248),  # BTi
    ],
)
def test_sensor_positions_of_real_systems_place_every_sensor_once(file, n_channels, n_sensors, shared_data):
    import mne

    path = shared_data / "mne_io" / file
    if not path.exists():
        pytest.skip(f"{file} is not there")
    read = {"test-ave.fif.gz": lambda p, **_: mne.read_evokeds(p, verbose="error")[0]}.get(file)
    read = read or (mne.io.read_raw_kit if path.suffix == ".sqd" else mne.io.read_raw_fif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MNE's remarks on the age of its own test files
        recording = read(path, verbose="error")
    positions = sensor_positions(recording)
    assert positions.shape == (n_channels, 2)
    placed = (positions >= 0).all(1)
    meg = torch.tensor([kind in ("mag", "grad") for kind in recording.get_channel_types()])
    assert int(placed.sum()) == n_sensors
    # All that are called MEG sensors, but those that are not connected.
    assert torch.equal(placed & meg, placed)
    assert positions[placed].unique(dim=0).shape[0] == n_sensors
    assert positions[placed].amin(0).tolist() == [0, 0]
    assert positions[placed].amax(0).tolist() == [1, 1]
    assert (positions[~placed] == torch.tensor(UNPLACED)).all()


def test_sensor_positions_keep_the_anatomy_and_leave_bad_channels_out():
    import mne

    names = ["Fz", "T7", "Cz", "T8", "Oz", "trigger"]
    info = mne.create_info(names, 120.0, ["eeg"] * 5 + ["stim"])
    info.set_montage("biosemi64")
    before = sensor_positions(info)
    front, left, middle, right, back, trigger = before
    assert left[0] < middle[0] < right[0]
    assert back[1] < middle[1] < front[1]
    assert trigger.tolist() == pytest.approx([UNPLACED] * 2)
    info["bads"] = ["T7"]
    after = sensor_positions(info)
    assert after[1].tolist() == pytest.approx([UNPLACED] * 2)
    others = torch.tensor([0, 2, 3, 4])
    assert torch.equal(after[others], before[others])
    assert torch.equal(sensor_positions(info, exclude_bads=False), before)


def test_sensor_positions_without_a_montage_say_what_to_do():
    import mne

    with pytest.raises(ValueError, match="set_montage"):
        sensor_positions(mne.create_info(["Fz", "Cz"], 120.0, "eeg"))


def test_position_table_pads_shorter_recordings():
    table = position_table([torch.zeros(2, 2), torch.ones(3, 2)], n_channels=4)
    assert table.shape == (2, 4, 2)
    assert (table[0, 2:] == UNPLACED).all()
    assert (table[1, :3] == 1).all()
    with pytest.raises(ValueError, match="n_channels"):
        position_table([torch.zeros(3, 2)], n_channels=2)


# --- attention ----------------------------------------------------------------------------------------------------


def test_attention_is_the_softmax_of_the_equation_by_loops():
    attention = SpatialAttention(3, 32, generator=rng(), dtype=torch.float64).eval()
    positions = POSITIONS[:1]
    x = torch.randn(1, 12, 4, generator=rng(2), dtype=torch.float64)
    expected = torch.zeros(1, 3, 4, dtype=torch.float64)
    for h in range(3):
        scores = []
        for c in range(12):
            px, py = positions[0, c].tolist()
            total = 0.0
            for i in range(4):
                for j in range(4):
                    angle = 2 * math.pi * (i * (px + 0.2) + j * (py + 0.2)) / 1.4
                    total += attention.heads[h, 4 * i + j].item() * math.cos(angle)
                    total += attention.heads[h, 16 + 4 * i + j].item() * math.sin(angle)
            scores.append(math.exp(total))
        for c in range(12):
            expected[0, h] += scores[c] / sum(scores) * x[0, c]
    close(attention(x, positions), expected)


def test_padding_channels_do_not_change_the_output(path, batch):
    x, subjects, recordings = batch
    padded = pad_channels(x, 15)
    padded[:, 12:] = 1e3
    table = torch.cat([POSITIONS, torch.full((3, 3, 2), UNPLACED, dtype=torch.float64)], 1)
    close(path(padded, subjects, table, recordings), path(x, subjects, POSITIONS, recordings))
    # Also where the padding has no number for a place.
    table[:, 12:] = math.nan
    close(path(padded, subjects, table, recordings), path(x, subjects, POSITIONS, recordings))


def test_sensors_in_another_order_give_the_same(path, batch):
    x, subjects, recordings = batch
    order = torch.randperm(12, generator=rng(5))
    close(path(x[:, order], subjects, POSITIONS[:, order], recordings), path(x, subjects, POSITIONS, recordings))


def test_disc_silences_exactly_the_sensors_inside():
    positions = torch.tensor([[0.5, 0.5], [0.5, 0.69], [0.5, 0.71], [UNPLACED, UNPLACED]])
    kept = without_disc(positions, torch.tensor([0.5, 0.5]), 0.2)
    assert kept.tolist() == [False, False, True, False]
    weights = attention_weights(positions, torch.randn(5, 8, generator=rng()), kept)
    assert torch.equal(weights[:, ~kept], torch.zeros(5, 3))
    assert torch.equal(weights[:, kept], torch.ones(5, 1))


def test_recording_that_lies_in_the_disc_keeps_all_its_sensors():
    inside = torch.full((4, 2), 0.5)
    outside = torch.full((4, 2), 0.9)
    kept = without_disc(torch.stack([inside, outside]), torch.tensor([0.5, 0.5]), 0.2)
    assert kept.all()


def test_no_sensor_with_a_place_gives_zeros_and_finite_gradients():
    attention = SpatialAttention(4, 8, generator=rng())
    x = torch.randn(2, 3, 5, generator=rng(1), requires_grad=True)
    y = attention(x, torch.full((2, 3, 2), UNPLACED))
    y.square().sum().backward()
    assert torch.equal(y, torch.zeros(2, 4, 5))
    assert torch.equal(x.grad, torch.zeros(2, 3, 5))
    assert attention.heads.grad.isfinite().all()


def test_sensor_dropout_is_one_disc_a_batch_drawn_from_the_generator():
    attention = SpatialAttention(4, 8, generator=rng())
    table = POSITIONS.float()
    silent = []
    for seed in range(200):
        weights = attention.weights(table, rng(seed))
        centre = torch.rand(2, generator=rng(seed))
        banned = ~without_disc(table, centre, 0.2)
        assert torch.equal((weights == 0).all(1), banned)
        close(weights.sum(-1), torch.ones(3, 4))
        silent.append(banned.float().mean().item())
    # The expected share of a disc of radius .2 around a uniform centre, by a fine grid of centres.
    grid = torch.cartesian_prod(*[(torch.arange(80) + 0.5) / 80] * 2)
    share = (torch.cdist(grid, table.flatten(0, 1)) <= 0.2).float().mean().item()
    standard_error = torch.tensor(silent).std().item() / 200**0.5
    assert abs(sum(silent) / 200 - share) < 4 * standard_error


def test_no_sensor_is_silenced_in_evaluation_or_without_radius():
    for attention in (SpatialAttention(4, 8).eval(), SpatialAttention(4, 8, dropout_radius=0.0)):
        assert (attention.weights(POSITIONS.float()) > 0).all()


# --- subjects -----------------------------------------------------------------------------------------------------


def test_subject_layer_is_the_map_of_each_subject():
    layer = SubjectLayer(4, 3, generator=rng(), dtype=torch.float64)
    x = torch.randn(5, 4, 6, generator=rng(1), dtype=torch.float64)
    subjects = torch.tensor([2, 0, 0, 1, 2])
    expected = torch.stack([torch.einsum("ct,cd->dt", x[b], layer.weight[s]) for b, s in enumerate(subjects)])
    close(layer(x, subjects), expected)


def test_unseen_subject_has_the_mean_of_the_learned_layers_in_evaluation():
    layer = SubjectLayer(4, 3, generator=rng(), dtype=torch.float64).eval()
    x = torch.randn(2, 4, 6, generator=rng(1), dtype=torch.float64)
    layer.add(like=0)
    got = layer(x, torch.tensor([-1, 3]))
    close(got[0], layer.weight.mean(0).T @ x[0])
    close(got[1], layer.weight[0].T @ x[1])


@pytest.mark.parametrize(("new_subject", "training", "number"), [
    ("raise", False, -1), ("mean", True, -1), ("mean", False, -2), ("mean", False, 3),
])  # fmt: skip
def test_number_of_no_subject_is_refused(new_subject, training, number):
    path = SpatialPath(n_subjects=3, n_heads=4, n_features=8, new_subject=new_subject).train(training)
    with pytest.raises(ValueError, match=rf"`subjects` must hold numbers .* got {number}\."):
        path(torch.zeros(2, 5, 6), torch.tensor([0, number]), torch.zeros(5, 2))


# --- one matrix ---------------------------------------------------------------------------------------------------


def layers_of(path, *args):
    """What the layers give one after the other, and that they ran."""
    before = spatial_path.calls["layers"]
    y = path(*args)
    assert spatial_path.calls["layers"] == before + 1
    return y.detach()


def fused(path, *args):
    before = spatial_path.calls["fused"]
    with torch.no_grad():
        y = path(*args)
    assert spatial_path.calls["fused"] == before + 1
    return y


@pytest.mark.parametrize("options", [
    {}, {"subject": "embedding"}, {"subject": "none"}, {"initial_linear": None}, {"n_heads": None, "n_channels": 12},
    {"initial_linear": None, "subject": "embedding"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_one_matrix_gives_what_the_layers_give(options, kind, batch):
    dtype = getattr(torch, kind)
    settings = {"n_heads": 10, "n_features": 72, "initial_linear": 8} | options
    path = SpatialPath(n_subjects=3, generator=rng(), dtype=dtype, **settings).eval()
    x, subjects, recordings = batch
    x, table = x.to(dtype), POSITIONS.to(dtype)
    subjects = torch.tensor([0, 2, -1, 2, 0])
    close(fused(path, x, subjects, table, recordings), layers_of(path, x, subjects, table, recordings))
    close(fused(path, x, subjects, table[0]), layers_of(path, x, subjects, table[0]))
    # One pair of recording and subject, as live.
    one = x[:1], subjects[:1], table[:1]
    close(fused(path, *one), layers_of(path, *one))


def test_matrices_are_made_once_for_each_pair(path, batch):
    x, subjects, recordings = batch
    fused(path, x, subjects, POSITIONS, recordings)
    before = spatial_path.calls["matrices"]
    fused(path, x, subjects, POSITIONS.clone(), recordings)
    assert spatial_path.calls["matrices"] == before
    assert len(path._kept) == len(set(zip(recordings.tolist(), subjects.tolist(), strict=True)))


def change_by_step(path):
    path.linear.weight.grad = torch.ones_like(path.linear.weight)
    torch.optim.SGD(path.parameters(), lr=0.1).step()


CHANGES = {
    "optimiser": change_by_step,
    "data": lambda path: path.attention.heads.data.mul_(1.5),
    "bias": lambda path: path.linear.bias.data.add_(1.0),
    "subject": lambda path: path.subject.weight.data[2].mul_(2.0),
    "state": lambda path: path.load_state_dict({k: v + 0.1 for k, v in path.state_dict().items()}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_matrices_follow_the_weights(name, path, batch):
    x, subjects, recordings = batch
    before = fused(path, x, subjects, POSITIONS, recordings)
    with torch.no_grad():
        CHANGES[name](path)
    after = fused(path, x, subjects, POSITIONS, recordings)
    assert not torch.equal(before, after)
    close(after, layers_of(path, x, subjects, POSITIONS, recordings))


def test_matrices_follow_the_positions_also_when_changed_in_place(path, batch):
    x, subjects, recordings = batch
    table = POSITIONS.clone()
    before = fused(path, x, subjects, table, recordings)
    table[0, 3] = 0.9
    after = fused(path, x, subjects, table, recordings)
    assert torch.equal((before != after).flatten(1).any(1), recordings == 0)
    close(after, layers_of(path, x, subjects, table, recordings))


def test_training_drops_the_matrices_and_runs_the_layers(path, batch):
    x, subjects, recordings = batch
    fused(path, x, subjects, POSITIONS, recordings)
    assert path._kept
    path.train()
    assert not path._kept
    with torch.no_grad():
        before = spatial_path.calls["fused"]
        path(x, subjects, POSITIONS, recordings)
        assert spatial_path.calls["fused"] == before


def test_moving_the_module_drops_the_matrices(path, batch):
    x, subjects, recordings = batch
    fused(path, x, subjects, POSITIONS, recordings)
    path.float()
    assert not path._kept
    assert fused(path, x.float(), subjects, POSITIONS, recordings).dtype == torch.float32


def test_copies_do_not_share_what_is_kept(path, batch):
    x, subjects, recordings = batch
    fused(path, x, subjects, POSITIONS, recordings)
    assert not copy.deepcopy(path)._kept
    assert path._kept


def test_kept_matrices_are_bounded(path, monkeypatch):
    monkeypatch.setattr(spatial_path, "MAX_KEPT", 4)
    x = torch.randn(1, 12, 3, generator=rng(), dtype=torch.float64)
    table = torch.rand(9, 12, 2, generator=rng(1), dtype=torch.float64)
    for r in [0, 1, 2, 0, 3, 4, 5]:
        fused(path, x, torch.tensor([0]), table, torch.tensor([r]))
    assert [pair[0] for pair in path._kept] == [0, 3, 4, 5]


def test_positions_of_each_item_and_table_agree_in_all_forms(path, batch):
    x, subjects, recordings = batch
    expected = path(x, subjects, POSITIONS[recordings]).detach()
    close(path(x, subjects, POSITIONS, recordings).detach(), expected)
    # More recordings than items.
    many = torch.cat([torch.zeros(7, 12, 2, dtype=torch.float64), POSITIONS])
    close(path(x, subjects, many, recordings + 7).detach(), expected)


@pytest.mark.parametrize(("change", "match"), [
    ({"positions": None}, "`positions` must be a floating-point tensor"),
    ({"positions": POSITIONS}, "`positions` must have shape"),
    ({"positions": POSITIONS[:, :5], "recordings": torch.zeros(5, dtype=torch.int64)}, "`positions` must have shape"),
    ({"positions": POSITIONS, "recordings": torch.full((5,), 3)}, "`recordings` must hold rows"),
    ({"subjects": torch.zeros(5)}, "`subjects` must be a tensor of whole numbers"),
    ({"subjects": torch.zeros(4, dtype=torch.int64)}, "`subjects` must have shape"),
    ({"x": torch.zeros(5, 12)}, "`x` must have shape"),
    ({"x": torch.zeros(5, 12, 20)}, "`x` must be of the dtype"),
])  # fmt: skip
def test_misfits_are_refused_by_name(change, match, path, batch):
    given = {"x": batch[0], "subjects": batch[1], "positions": POSITIONS[0]} | change
    with pytest.raises((ValueError, TypeError), match=match):
        path(**given)
