"""The contrastive loss: the published form by numbers and loops, duplicates, precision, and several processes."""

import math
import os
import subprocess
import sys

import pytest
import torch
from children import clip_loss_in_processes as child
from tolerances import close

from neurodecode.meeg import FORMS, ClipLoss, candidate_norms, clip_scores

ESTIMATES = torch.arange(24, dtype=torch.float64).sin().reshape(3, 2, 4)
CANDIDATES = (0.7 * torch.arange(24, dtype=torch.float64)).cos().reshape(3, 2, 4)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def by_loops(estimates, candidates, stimuli=None, *, scale=None, mask=True):
    """Mean over estimates of -log of the share of the true candidate; with `scale`, of cosines."""
    total = 0.0
    for b, estimate in enumerate(estimates):
        terms = []
        for n, candidate in enumerate(candidates):
            dot = sum(e * c for e, c in zip(estimate.flatten().tolist(), candidate.flatten().tolist(), strict=True))
            score = dot / (1e-8 + math.sqrt(sum(c * c for c in candidate.flatten().tolist())))
            if scale is not None:
                score *= scale / (1e-8 + math.sqrt(sum(e * e for e in estimate.flatten().tolist())))
            if n == b:
                own = score
            elif mask and stimuli is not None and stimuli[n] == stimuli[b]:
                continue
            terms.append(math.exp(score))
        total -= own - math.log(sum(terms))
    return total / len(estimates)


def test_paper_form_gives_the_numbers_of_its_formula():
    expected = [[1.313839, 1.325901, 0.842676], [0.740848, -0.348138, -1.259480], [-1.529426, -1.224593, -0.476167]]
    torch.testing.assert_close(
        clip_scores(ESTIMATES, CANDIDATES), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-7
    )
    assert ClipLoss()(ESTIMATES, CANDIDATES).item() == pytest.approx(1.01493623, abs=5e-9)
    assert by_loops(ESTIMATES, CANDIDATES) == pytest.approx(1.01493623, abs=5e-9)


@pytest.mark.parametrize("mask", [True, False])
def test_paper_form_is_the_loops_with_more_candidates_and_duplicates(mask):
    estimates, candidates = (torch.randn(n, 3, 2, generator=rng(n), dtype=torch.float64) for n in (5, 8))
    # The stimulus of items 0 and 3; of item 1 and a further candidate; of two further candidates.
    stimuli = torch.tensor([4, 2, 9, 4, 7, 2, 1, 1])
    candidates[3], candidates[5], candidates[7] = candidates[0], candidates[1], candidates[6]
    got = ClipLoss(mask_duplicates=mask)(estimates, candidates, stimuli)
    assert got.item() == pytest.approx(by_loops(estimates, candidates, stimuli.tolist(), mask=mask), rel=1e-12)
    # Without numbers, every candidate is a stimulus of its own.
    assert ClipLoss()(estimates, candidates).item() == pytest.approx(by_loops(estimates, candidates), rel=1e-12)


def test_symmetric_form_is_the_mean_of_both_directions_by_loops():
    estimates, candidates = (torch.randn(4, 6, generator=rng(n), dtype=torch.float64) for n in (1, 2))
    stimuli = torch.tensor([0, 1, 0, 2])
    loss = ClipLoss("symmetric", temperature=0.2).double()
    there = by_loops(estimates, candidates, stimuli.tolist(), scale=5.0)
    back = by_loops(candidates, estimates, stimuli.tolist(), scale=5.0)
    assert loss(estimates, candidates, stimuli).item() == pytest.approx((there + back) / 2, rel=1e-7)


@pytest.mark.reference
def test_symmetric_form_without_duplicates_is_that_of_clip():
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text, vision = sizes | {"vocab_size": 20, "eos_token_id": 1}, sizes | {"image_size": 4, "patch_size": 2}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).eval()
    words, images = torch.randint(2, 20, (7, 5), generator=rng()), torch.randn(7, 3, 4, 4, generator=rng(1))
    with torch.no_grad():
        want = clip(input_ids=words, pixel_values=images, return_loss=True)
        loss = ClipLoss("symmetric", temperature=math.exp(-clip.logit_scale.item()))
        # It returns embeddings of length one, which the loss would make of any.
        close(loss(3 * want.image_embeds, 5 * want.text_embeds), want.loss)


def test_masked_duplicate_pulls_neither_way():
    estimates = torch.randn(3, 4, generator=rng(1), dtype=torch.float64, requires_grad=True)
    candidates = torch.randn(3, 4, generator=rng(2), dtype=torch.float64)
    candidates[2] = candidates[0]
    ClipLoss()(estimates, candidates, torch.tensor([5, 6, 5])).backward()
    # Item 0 has one wrong answer: its gradient is along the difference of the two candidates.
    unit = candidates / (1e-8 + candidates.norm(dim=1, keepdim=True))
    share = (estimates[0] @ unit[1]).exp() / ((estimates[0] @ unit[0]).exp() + (estimates[0] @ unit[1]).exp())
    close(estimates.grad[0], (share * (unit[1] - unit[0]) / 3).detach())


def test_all_items_of_one_stimulus_leave_nothing_to_tell_apart():
    loss = ClipLoss()(ESTIMATES, CANDIDATES[:1].expand(3, 2, 4), torch.tensor([1, 1, 1]))
    assert loss.item() == 0


def test_estimates_longer_answer_more_surely_candidates_do_not():
    base = ClipLoss()(ESTIMATES, CANDIDATES)
    # Up to the 1e-8 that is added to norms.
    close(ClipLoss()(ESTIMATES, 7 * CANDIDATES), base, "float32")
    assert not torch.isclose(ClipLoss()(7 * ESTIMATES, CANDIDATES), base)
    symmetric = ClipLoss("symmetric").double()
    want = symmetric(ESTIMATES, CANDIDATES).detach()
    close(symmetric(7 * ESTIMATES, 3 * CANDIDATES).detach(), want, "float32")


@pytest.mark.parametrize("form", FORMS)
def test_known_norms_and_looked_up_candidates_change_nothing(form):
    table = torch.randn(6, 2, 4, generator=rng(), dtype=torch.float64)
    stimuli = torch.tensor([3, 0, 3, 5])
    loss = ClipLoss(form).double()
    norms = candidate_norms(table)
    expected = loss(ESTIMATES, table[stimuli], stimuli)
    assert torch.equal(loss(ESTIMATES, table[stimuli], stimuli, norms=norms[stimuli]), expected)
    assert torch.equal(loss(ESTIMATES, lambda i: table[i], stimuli), expected)
    assert torch.equal(loss(ESTIMATES, lambda i: table[i], stimuli, norms=lambda i: norms[i]), expected)


def test_candidate_of_zeros_scores_zero_with_finite_gradients():
    candidates = CANDIDATES.clone()
    candidates[1] = 0
    estimates = ESTIMATES.clone().requires_grad_()
    ClipLoss()(estimates, candidates).backward()
    assert estimates.grad.isfinite().all()
    assert torch.equal(clip_scores(ESTIMATES, candidates)[:, 1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_and_autocast_sum_in_float32(kind):
    dtype = getattr(torch, kind)
    estimates, candidates = (torch.randn(4, 4000, generator=rng(n)).to(dtype) for n in (1, 2))
    expected = clip_scores(estimates.double(), candidates.double())
    got = clip_scores(estimates, candidates)
    assert got.dtype == torch.float32
    close(got, expected)
    # A score that is rounded to half precision would not pass.
    assert not torch.allclose(got.to(dtype).double(), expected, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", dtype):
        close(clip_scores(estimates.float(), candidates.float()), expected)


def test_learned_temperature_learns_and_stays_in_bounds():
    loss = ClipLoss("symmetric", temperature=0.07)
    assert loss.log_scale.exp().item() == pytest.approx(1 / 0.07)
    estimates = torch.randn(4, 6, generator=rng())
    loss(estimates, estimates).backward()
    assert loss.log_scale.grad.item() < 0  # surer would be better
    with torch.no_grad():
        loss.log_scale.fill_(9.0)
    loss(estimates, estimates)
    assert loss.log_scale.exp().item() == pytest.approx(100.0)
    assert list(ClipLoss().parameters()) == []


@pytest.mark.parametrize(("change", "match"), [
    ({"candidates": CANDIDATES[:2]}, "`candidates` must be at least as many as estimates"),
    ({"candidates": CANDIDATES.flatten(1)}, "`candidates` must have the axes"),
    ({"stimuli": torch.zeros(2, dtype=torch.int64)}, "`stimuli` must have shape"),
    ({"stimuli": torch.zeros(3)}, "`stimuli` must hold whole numbers"),
    ({"candidates": lambda i: CANDIDATES[i]}, "`stimuli` must be given"),
    ({"norms": lambda i: i}, "`norms` must be a function if"),
    ({"norms": torch.ones(2)}, "`norms` must have shape"),
    ({"estimates": ESTIMATES.long()}, "`estimates` must be a floating-point"),
    ({"estimates": ESTIMATES[:0], "candidates": CANDIDATES[:0]}, "`estimates` must hold at least one"),
])  # fmt: skip
def test_misfits_are_refused_by_name(change, match):
    with pytest.raises((ValueError, TypeError), match=match):
        ClipLoss()(**({"estimates": ESTIMATES, "candidates": CANDIDATES} | change))


def test_unknown_form_names_the_known_ones():
    with pytest.raises(ValueError, match="'paper', 'symmetric'"):
        ClipLoss("clip")


# --- several processes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, rank by rank; launched as torchrun does."""
    out = tmp_path_factory.mktemp("two") / "found.pt"
    store = torch.distributed.TCPStore("127.0.0.1", 0, 3, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", child.__file__, str(out)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize("share", child.SHARES)
@pytest.mark.parametrize("name", [name for name in child.CASES if name != "alone"])
def test_two_processes_have_the_loss_and_gradients_of_one(name, share, two):
    expected = child.run_case(name, 0, len(child.X))
    found = [rank[share][name] for rank in two]
    # DistributedDataParallel takes the mean over processes of gradients; of the loss, likewise.
    close(sum(rank["loss"] for rank in found) / 2, expected["loss"])
    assert found[0]["gradients"].keys() == found[1]["gradients"].keys() == expected["gradients"].keys()
    for key, gradient in expected["gradients"].items():
        close(sum(rank["gradients"][key] for rank in found) / 2, gradient)


@pytest.mark.parametrize("share", child.SHARES)
def test_without_gathering_each_process_has_its_own_candidates(share, two):
    first = 0
    for rank, size in enumerate(child.SHARES[share]):
        expected = child.run_case("alone", first, first + size)
        assert torch.equal(two[rank][share]["alone"]["loss"], expected["loss"])
        first += size
