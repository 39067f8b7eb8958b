"""The very deep VAE: its architecture, encoding and decoding."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tolerances import close
from torch import Tensor
from torch.nn import functional as F

from neurodecode.fmri.vdvae import RELEASED, VDVAE, VDVAEConfig, gaussian_kl
from neurodecode.fmri.vdvae_blocks import DecoderBlock, parse_decoder, parse_encoder, parse_widths
from neurodecode.fmri.vdvae_mixture import PixelMixture

DOWN = (1, 2, 1, 4, 1)
BLOCKS = ((1, None), (4, 1), (4, None), (8, 4), (8, None))
ODD = VDVAEConfig(
    enc_blocks="8x1,8d2,4x1,4d4,1x1",
    dec_blocks="1x1,4m1,4x1,8m4,8x1",
    image_size=8,
    width=12,
    zdim=3,
    num_mixtures=2,
    no_bias_above=4,
)
WIDER = VDVAEConfig(
    enc_blocks=ODD.enc_blocks,
    dec_blocks=ODD.dec_blocks,
    image_size=8,
    width=8,
    zdim=3,
    num_mixtures=2,
    no_bias_above=4,
    custom_widths="4:12,1:20",
)


def random_net(config: VDVAEConfig) -> VDVAE:
    """Random weights, also those that training begins with at 0, so that everything plays a part."""
    generator = torch.Generator().manual_seed(0)
    net = VDVAE(config, generator=generator)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


@pytest.fixture(scope="module", params=[ODD, WIDER], ids=["one width", "three widths"])
def vdvae(request: pytest.FixtureRequest) -> VDVAE:
    return random_net(request.param)


@pytest.fixture(scope="module")
def odd() -> VDVAE:
    return random_net(ODD)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=generator)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# --- the released architectures -----------------------------------------------------------------------------------


def on_meta(config: VDVAEConfig) -> VDVAE:
    with torch.device("meta"):
        return VDVAE(config)


# Millions of parameters as github.com/openai/vdvae states them, stochastic layers as the paper does.
STATED = {"cifar10": (39, 43), "imagenet32": (119, 78), "imagenet64": (125, 75)}


@pytest.mark.parametrize("name", RELEASED)
def test_released_networks_have_as_many_parameters_and_blocks_as_is_stated(name: str) -> None:
    net = on_meta(VDVAEConfig.released(name))
    millions = round(sum(p.numel() for p in net.parameters()) / 1e6)
    assert (millions, len(net.decoder.dec_blocks)) == STATED[name]
    size = net.config.image_size
    assert net.latent_shapes[-1] == (16, size, size)


def test_the_network_of_brain_diffuser_has_its_size_names_and_offsets() -> None:
    net = on_meta(VDVAEConfig.imagenet64())
    assert sum(p.numel() for p in net.parameters()) == 125_005_860  # "125M"
    assert (len(net.encoder.enc_blocks), len(net.decoder.dec_blocks)) == (65, 75)
    assert [net.latent_offsets[k] for k in (0, 2, 6, 14, 30, 31)] == [0, 32, 1056, 9248, 74784, 91168]
    resolutions = [shape[1] for shape in net.latent_shapes]
    assert [len(list(group)) for _, group in itertools.groupby(resolutions)] == [2, 4, 8, 16, 32, 13]

    layer = r"\.c[1-4]\.(weight|bias)"
    patterns = [
        r"encoder\.in_conv\.(weight|bias)",
        r"encoder\.enc_blocks\.\d+" + layer,
        r"decoder\.dec_blocks\.\d+\.(enc|prior|resnet)" + layer,
        r"decoder\.dec_blocks\.\d+\.z_proj\.(weight|bias)",
        r"decoder\.bias_xs\.[0-5]",
        r"decoder\.(gain|bias)",
        r"decoder\.out_net\.out_conv\.(weight|bias)",
    ]
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert len(shapes) == 2 + 65 * 8 + 75 * 26 + 6 + 2 + 2
    assert [name for name in shapes if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
    assert shapes["decoder.out_net.out_conv.weight"] == (100, 512, 1, 1)
    assert [shapes[f"decoder.bias_xs.{k}"] for k in range(6)] == [(1, 512, r, r) for r in (1, 4, 8, 16, 32, 64)]
    assert shapes["decoder.dec_blocks.0.enc.c1.weight"] == (128, 1024, 1, 1)
    assert shapes["decoder.dec_blocks.0.enc.c2.weight"] == (128, 128, 1, 1)
    assert shapes["decoder.dec_blocks.2.enc.c2.weight"] == (128, 128, 3, 3)
    assert shapes["decoder.dec_blocks.0.enc.c4.weight"] == (32, 128, 1, 1)
    assert shapes["decoder.dec_blocks.0.prior.c4.weight"] == (544, 128, 1, 1)


def test_first_weights_are_those_of_the_seed_with_standard_normal_priors() -> None:
    first, again = (VDVAE(ODD, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    x = torch.rand(2, 12, 4, 4)
    mean, log_std, gain = first.decoder.dec_blocks[1].split_prior(x)
    assert torch.cat([mean, log_std, gain], dim=1).eq(0).all()
    # Even within 1 / sqrt(inputs): a standard deviation of that over sqrt(3).
    weight = torch.cat([layer.c1.weight.flatten() for layer in first.encoder.enc_blocks])
    assert weight.std().item() == pytest.approx((12 * 3) ** -0.5, rel=0.15)


@pytest.mark.usefixtures("global_rng_untouched")
def test_nothing_moves_the_global_generator(images: Tensor) -> None:
    net = VDVAE(ODD)
    net.decode(net.encode(images, latents="sample", n_layers=2), rest="sample", output="sample")
    net.elbo(images)


# --- encoding and decoding against a plain reference --------------------------------------------------------------


def conv(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[2] // 2)


def block(state: dict[str, Tensor], name: str, x: Tensor, *, residual: bool = False, down: int = 1) -> Tensor:
    y = x
    for k in range(1, 5):
        y = conv(state, f"{name}.c{k}", F.gelu(y))
    y = x + y if residual else y
    return F.avg_pool2d(y, down) if down > 1 else y


def widen(x: Tensor, width: int) -> Tensor:
    return torch.cat([x, x.new_zeros(len(x), width - x.shape[1], *x.shape[2:])], dim=1)


def by_hand(net: VDVAE, images: Tensor, draw: Callable[..., Tensor]) -> tuple[list[Tensor], Tensor, list[tuple]]:
    """Both passes of the description, block by block; `draw` turns mean and log deviation into latents."""
    state = {name: value.double() for name, value in net.state_dict().items()}
    widths = {r: state[f"decoder.dec_blocks.{k}.resnet.c1.weight"].shape[1] for k, (r, _) in enumerate(BLOCKS)}
    x = ((images.double() * 255).round() - 115.92961967) / 69.37404
    acts = {8: conv(state, "encoder.in_conv", x)}
    x = acts[8]
    for k, down in enumerate(DOWN):
        x = block(state, f"encoder.enc_blocks.{k}", x, residual=True, down=down)
        x = widen(x, widths[x.shape[2]])
        acts[x.shape[2]] = x
    n, zs, moments = len(images), [], []
    xs = {r: state[f"decoder.bias_xs.{k}"].repeat(n, 1, 1, 1) for k, r in enumerate((1, 4))}
    xs[8] = torch.zeros(n, widths[8], 8, 8, dtype=torch.float64)
    for k, (r, low) in enumerate(BLOCKS):
        name, x = f"decoder.dec_blocks.{k}", xs[r]
        if low:
            x = x + xs[low].repeat_interleave(r // low, 2).repeat_interleave(r // low, 3)[:, : widths[r]]
        q = block(state, f"{name}.enc", torch.cat([x, acts[r]], 1))
        p = block(state, f"{name}.prior", x)
        z = draw(q[:, :3], q[:, 3:])
        xs[r] = block(state, f"{name}.resnet", x + p[:, 6:] + conv(state, f"{name}.z_proj", z), residual=True)
        zs.append(z)
        moments.append((q[:, :3], q[:, 3:], p[:, :3], p[:, 3:6]))
    out = conv(state, "decoder.out_net.out_conv", xs[8] * state["decoder.gain"] + state["decoder.bias"])
    return zs, out, moments


def test_encoding_and_decoding_equal_the_plain_reference(vdvae: VDVAE, images: Tensor) -> None:
    zs, out, _ = by_hand(vdvae, images, lambda mean, log_std: mean)
    latents = vdvae.encode(images, n_layers=None)
    close(latents, torch.cat([z.flatten(1) for z in zs], 1))
    close(vdvae.decode(latents), (PixelMixture.from_channels(out).mean() + 1) / 2)


def test_the_evidence_bound_equals_the_plain_reference(vdvae: VDVAE, images: Tensor) -> None:
    streams = generators(3, 4, 5)

    def draw(mean: Tensor, log_std: Tensor) -> Tensor:
        noise = torch.stack([torch.randn(mean.shape[1:], generator=one) for one in streams])
        return mean + log_std.exp() * noise

    _, out, moments = by_hand(vdvae, images, draw)
    bound = vdvae.elbo(images, generator=generators(3, 4, 5))
    normal = torch.distributions.Normal
    rates = [
        torch.distributions.kl_divergence(normal(qm, qv.exp()), normal(pm, pv.exp())).flatten(1).sum(1)
        for qm, qv, pm, pv in moments
    ]
    bits = 3 * 64 * math.log(2)
    close(bound.rates, torch.stack(rates, 1) / bits)
    log_prob = PixelMixture.from_channels(out).log_prob((images * 255).round())
    close(bound.distortion, -log_prob.flatten(1).sum(1) / bits)
    close(bound.bits, bound.distortion + bound.rates.sum(1))
    close(vdvae(images, generator=generators(3, 4, 5)).bits, bound.bits)


def test_divergence_equals_torchs_also_in_half_precision(generator: torch.Generator) -> None:
    qm, qv, pm, pv = torch.randn(4, 50, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal
    close(gaussian_kl(qm, qv, pm, pv), torch.distributions.kl_divergence(normal(qm, qv.exp()), normal(pm, pv.exp())))
    far = torch.tensor([500.0], dtype=torch.float16)  # its square is beyond the range of half precision
    assert gaussian_kl(far, far * 0, far * 0, far * 0).item() == 125_000


# --- which blocks, which draws ------------------------------------------------------------------------------------


def test_fewer_layers_are_the_first_of_all(odd: VDVAE, images: Tensor) -> None:
    latents = odd.encode(images, n_layers=None)
    for n in range(1, 6):
        assert torch.equal(odd.encode(images, n_layers=n), latents[:, : odd.latent_offsets[n]])
    assert torch.equal(odd.encode(images), latents)  # 31 are more than there are


def test_blocks_after_those_that_are_wanted_are_not_computed(
    odd: VDVAE, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    posterior = DecoderBlock.posterior
    monkeypatch.setattr(DecoderBlock, "posterior", lambda *args: calls.append(args[0]) or posterior(*args))
    odd.encode(images, n_layers=2)
    assert calls == list(odd.decoder.dec_blocks[:2])


def test_what_follows_comes_from_the_prior(odd: VDVAE, images: Tensor) -> None:
    latents = odd.encode(images, n_layers=2)
    plain = odd.decode(latents)
    assert torch.equal(plain, odd.decode(latents))
    drawn = [odd.decode(latents, rest="sample", generator=generators(*seeds)) for seeds in ((0, 1, 2), (0, 1, 3))]
    close(drawn[0][:2], drawn[1][:2])
    assert (drawn[0][2] - drawn[1][2]).abs().max() > 1e-3
    cold = odd.decode(latents, rest="sample", temperature=1e-6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cold, plain, rtol=0, atol=1e-4)
    # All latents are given: there is nothing left to draw.
    full = odd.encode(images, n_layers=None)
    assert torch.equal(odd.decode(full, rest="sample"), odd.decode(full))
    assert odd.decode(full[:, :0]).shape == (3, 3, 8, 8)


def test_samples_have_the_posteriors_mean_and_spread(odd: VDVAE, images: Tensor) -> None:
    one, n = images[:1], 4000
    _, _, moments = by_hand(odd, one, lambda mean, log_std: mean)
    mean, std = moments[0][0].flatten().float(), moments[0][1].exp().flatten().float()
    drawn = odd.encode(
        one.expand(n, -1, -1, -1), latents="sample", n_layers=1, generator=torch.Generator().manual_seed(0)
    )
    assert ((drawn.mean(0) - mean).abs() < 5 * std / n**0.5).all()
    assert ((drawn.std(0) / std - 1).abs() < 5 / (2 * n) ** 0.5).all()


def test_draws_do_not_depend_on_the_other_images(odd: VDVAE, images: Tensor) -> None:
    together = odd.encode(images, latents="sample", generator=generators(5, 6, 7))
    alone = odd.encode(images[1:2], latents="sample", generator=generators(6))
    close(together[1:2], alone)
    pixels = odd.decode(together, output="sample", generator=generators(5, 6, 7))
    one = odd.decode(together[1:2], output="sample", generator=generators(6))
    assert (pixels[1] != one[0]).float().mean() < 0.02  # rounding may move a pixel over half a grey level


def test_one_generator_gives_the_same_for_each_size_of_batch(
    odd: VDVAE, images: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    def drawn(n: int, batch_size: int | None) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        latents = odd.encode(images[:n], latents="sample", n_layers=3, generator=generator, batch_size=batch_size)
        return latents, odd.decode(latents, rest="sample", generator=generator, batch_size=batch_size)

    all_latents, all_images = drawn(3, None)
    for got, want in zip(drawn(3, 2), (all_latents, all_images), strict=True):
        close(got, want)
    close(drawn(2, 1)[0], all_latents[:2])
    assert not torch.allclose(all_latents[0], all_latents[1])
    assert capsys.readouterr().err == ""
    odd.decode(odd.encode(images, batch_size=2, progress=True), batch_size=2, progress=True)
    bars = capsys.readouterr().err
    assert "VDVAE encode: 100%" in bars
    assert "VDVAE decode: 100%" in bars


def test_grey_levels_are_rounded_and_in_the_reference_cut_off(odd: VDVAE, images: Tensor) -> None:
    latents = odd.encode(images)
    levels = {
        output: odd.decode(latents, output=output, generator=generators(1, 2, 3)) * 255
        for output in ("sample", "truncated")
    }
    for made in levels.values():
        close(made, made.round())
    difference = (levels["sample"] - levels["truncated"]).round()
    assert set(difference.unique().tolist()) == {0.0, 1.0}
    inside = (levels["truncated"] > 0) & (levels["sample"] < 255)
    assert inside.sum() > 50
    assert difference[inside].mean() == pytest.approx(0.5, abs=0.25)


def test_autocast_and_bfloat16_come_near_float32(odd: VDVAE, images: Tensor) -> None:
    latents = odd.encode(images)
    pixels = odd.decode(latents)
    half = random_net(ODD).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = odd.encode(images), odd.decode(latents)
    for got in (cast, (half.encode(images), half.decode(latents))):
        for made, want in zip(got, (latents, pixels), strict=True):
            assert made.dtype == torch.float32
            # Roundings of 20 convolutions add up.
            assert (made - want).norm() < 0.03 * want.norm()
    close(half.elbo(images, generator=generators(1, 2, 3)).bits.float(), odd.elbo(images, generator=generators(1, 2, 3))
          .bits, "bfloat16")  # fmt: skip


# --- inputs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 40), (37, 52), (5, 6)])
def test_resizing_is_pillows_but_for_a_grey_level(odd: VDVAE, generator: torch.Generator, size: tuple) -> None:
    pixels = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    want = torch.from_numpy(np.array(image.resize((8, 8), Image.Resampling.BILINEAR))).permute(2, 0, 1).float()
    difference = (odd._bytes(pixels[None])[0] - want).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.1


def test_bytes_fractions_and_arrays_have_the_same_latents(odd: VDVAE, generator: torch.Generator) -> None:
    levels = torch.randint(0, 256, (2, 3, 8, 8), generator=generator, dtype=torch.uint8)
    latents = odd.encode(levels)
    assert torch.equal(latents, odd.encode(levels / 255))
    assert torch.equal(latents, odd.encode(levels.numpy()))
    assert torch.equal(odd.decode(latents), odd.decode(latents.numpy().astype(np.float64)))
    assert odd.encode(levels[:0]).shape == (0, odd.latent_offsets[-1])
    assert odd.decode(latents[:0]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.encode(torch.rand(1, 1, 8, 8)), "`images` must have shape (B, 3, H, W)"),
        (lambda net: net.encode(torch.rand(1, 8, 8, 3)), "permute"),
        (lambda net: net.encode(torch.rand(1, 3, 8, 8) * 255), "must lie in [0, 1]"),
        (lambda net: net.encode(torch.full((1, 3, 8, 8), torch.nan)), "finite"),
        (lambda net: net.encode(torch.rand(1, 3, 8, 8), latents="mode"), "'mean', 'sample'"),
        (lambda net: net.encode(torch.rand(1, 3, 8, 8), n_layers=0), "n_layers"),
        (lambda net: net.encode(torch.rand(1, 3, 8, 8), batch_size=0), "batch_size"),
        (lambda net: net.encode(torch.rand(2, 3, 8, 8), latents="sample", generator=generators(1)), "each of 2 images"),
        (lambda net: net.decode(torch.zeros(1, 4)), "latent_offsets (0, 3, 51, 99, ... 483)"),
        (lambda net: net.decode(torch.zeros(3)), "(B, n_latents)"),
        (lambda net: net.decode(torch.full((1, 3), torch.nan)), "finite"),
        (lambda net: net.decode(torch.zeros(1, 3), output="mode"), "'truncated'"),
        (lambda net: net.decode(torch.zeros(1, 3), temperature=0.5), "Pass rest='sample'"),
        (lambda net: net.decode(torch.zeros(1, 3), rest="sample", temperature=0), "> 0"),
    ],
)
def test_what_cannot_be_encoded_or_decoded_is_named(odd: VDVAE, call: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(odd)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.encode([[1.0]]), "images"),
        (lambda net: net.encode(torch.zeros(1, 3, 8, 8, dtype=torch.int64)), "bytes"),
        (lambda net: net.encode(torch.rand(1, 3, 8, 8), latents="sample", generator=7), "torch.Generator"),
    ],
)
def test_values_of_another_kind_are_type_errors(odd: VDVAE, call: Callable[..., Any], message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        call(odd)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_encoder("8x1,4x1"), "4 where 8 arrives"),
        (lambda: parse_encoder("8y1"), "'8y1'"),
        (lambda: parse_encoder(""), "enc_blocks"),
        (lambda: parse_encoder("8d16"), "8d16"),
        (lambda: parse_decoder("1x1,8m4"), "8m4"),
        (lambda: parse_decoder("4x1,4m4"), "4m4"),
        (lambda: parse_widths("4x12"), "'4x12'"),
        (lambda: VDVAEConfig(enc_blocks="8x1", dec_blocks="4x1,8m4", image_size=8, width=8), "does not leave"),
        (lambda: VDVAEConfig(enc_blocks="8x1", dec_blocks="8x1", image_size=16, width=8), "begin at image_size"),
        (lambda: VDVAEConfig(enc_blocks="8d2,4x1", dec_blocks="4x1", image_size=8, width=8), "end at image_size"),
        (lambda: VDVAEConfig(enc_blocks="8x1", dec_blocks="8x1", image_size=8, width=2), "leave a channel"),
        (lambda: VDVAEConfig.tiny(12), "multiple of 8"),
        (lambda: VDVAEConfig.released("celeba"), "'imagenet64'"),
    ],
)
def test_what_cannot_be_built_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("widths", "message"), [("8:8", "width at image_size"), ("2:12", "got 2"), ("4:20,1:12", "narrower")]
)
def test_widths_that_do_not_fit_are_named(widths: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VDVAEConfig(enc_blocks=ODD.enc_blocks, dec_blocks=ODD.dec_blocks, image_size=8, width=12, custom_widths=widths)
