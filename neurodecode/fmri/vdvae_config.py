"""How very deep VAEs are built, and those that OpenAI released."""

# R resolution

from __future__ import annotations

from dataclasses import dataclass

from neurodecode.fmri.vdvae_blocks import parse_decoder, parse_encoder, parse_widths
from neuroloaders.checks import check_int, check_number, check_option, invalid

__all__ = ["RELEASED", "VDVAEConfig"]


@dataclass(frozen=True, kw_only=True)
class VDVAEConfig:
    """How a VDVAE is built.

    Parameters
    ----------
    enc_blocks, dec_blocks : str
        The stacks of blocks, such as ``"8x1,8d2,4x1"`` and ``"4x1,8m4"``: see `parse_encoder` and `parse_decoder` of
        `neurodecode.fmri.vdvae_blocks`.
    image_size : int
        R of the images.
    width, zdim : int
        Channels of the contexts and of the latents.
    bottleneck : float
        Channels inside of a block, relative to its width.
    num_mixtures : int
        Components of the distribution of the pixels.
    no_bias_above : int
        Resolutions up to this start from a learned context; those above, from 0.
    custom_widths : str
        Resolutions whose width is another, such as ``"4:64,1:64"``. Finer resolutions are not wider than coarser ones.
    pixel_mean, pixel_scale : float
        Bytes x are brought to (x - mean) / scale.

    Raises
    ------
    ValueError
        If the parts do not fit together; the message says which.
    """

    enc_blocks: str
    dec_blocks: str
    image_size: int
    width: int
    zdim: int = 16
    bottleneck: float = 0.25
    num_mixtures: int = 10
    no_bias_above: int = 64
    custom_widths: str = ""
    pixel_mean: float = 115.92961967
    pixel_scale: float = 69.37404

    def __post_init__(self) -> None:
        for name in ("image_size", "width", "zdim", "num_mixtures", "no_bias_above"):
            check_int(name, getattr(self, name), at_least=1)
        check_number("bottleneck", self.bottleneck, above=0)
        check_number("pixel_mean", self.pixel_mean)
        check_number("pixel_scale", self.pixel_scale, above=0)
        encoder, decoder = parse_encoder(self.enc_blocks), parse_decoder(self.dec_blocks)
        if encoder[0].resolution != self.image_size:
            raise invalid("enc_blocks", f"begin at image_size, {self.image_size}", f"{encoder[0].resolution}")
        if decoder[-1].resolution != self.image_size:
            raise invalid("dec_blocks", f"end at image_size, {self.image_size}", f"{decoder[-1].resolution}")
        left = {layer.resolution for layer in encoder} | {encoder[-1].resolution // encoder[-1].down}
        for layer in decoder:
            if layer.resolution not in left:
                came = f"{layer.resolution}, which the encoder does not leave"
                raise invalid("dec_blocks", "name resolutions of the encoder", came)
        self._check_widths(left)

    def _check_widths(self, resolutions: set[int]) -> None:
        unknown = parse_widths(self.custom_widths).keys() - resolutions
        if unknown:
            raise invalid("custom_widths", "name resolutions of the encoder", f"{min(unknown)}")
        if self.width_at(self.image_size) != self.width:
            raise invalid("custom_widths", f"leave the width at image_size, {self.width}", repr(self.custom_widths))
        widths = [self.width_at(r) for r in sorted(resolutions, reverse=True)]
        if widths != sorted(widths):
            came = ", ".join(map(str, widths))
            raise invalid("custom_widths", "not become narrower towards coarser resolutions", came)
        if self.middle_at(self.image_size) < 1:
            raise invalid("bottleneck", f"leave a channel at width {self.width}", f"{self.bottleneck:g}")

    def width_at(self, resolution: int) -> int:
        """Return the channels of the contexts at a resolution."""
        return parse_widths(self.custom_widths).get(resolution, self.width)

    def middle_at(self, resolution: int) -> int:
        """Return the channels inside of a block at a resolution."""
        return int(self.width_at(resolution) * self.bottleneck)

    @classmethod
    def imagenet64(cls) -> VDVAEConfig:
        """Return the released network that Brain-Diffuser uses: 64 x 64, 75 decoder blocks, 125,005,860 parameters."""
        return RELEASED["imagenet64"]

    @classmethod
    def released(cls, name: str) -> VDVAEConfig:
        """Return a network of the release; `name` is a key of `RELEASED`."""
        return RELEASED[check_option("name", name, RELEASED)]

    @classmethod
    def tiny(cls, image_size: int = 16, width: int = 32) -> VDVAEConfig:
        """Return a small network for tests and demonstrations; `image_size` is a multiple of 8."""
        if check_int("image_size", image_size, at_least=8) % 8:
            raise invalid("image_size", "be a multiple of 8", f"{image_size}")
        r, s, t = image_size, image_size // 2, image_size // 4
        return cls(
            enc_blocks=f"{r}x1,{r}d2,{s}x1,{s}d2,{t}x1,{t}d{t},1x1",
            dec_blocks=f"1x1,{t}m1,{t}x1,{s}m{t},{s}x1,{r}m{s},{r}x1",
            image_size=image_size,
            width=width,
            zdim=8,
            num_mixtures=5,
        )


# Settings of the release, github.com/openai/vdvae; it states 39, 119 and 125 million parameters. Those for FFHQ are
# left out: one counts 32 grey levels, the other has fewer parameters than is stated.
RELEASED = {
    "cifar10": VDVAEConfig(
        enc_blocks="32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        dec_blocks="1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
        image_size=32,
        width=384,
        pixel_mean=120.63838,
        pixel_scale=64.16736,
    ),
    "imagenet32": VDVAEConfig(
        enc_blocks="32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        dec_blocks="1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
        image_size=32,
        width=512,
        pixel_mean=116.2373,
    ),
    "imagenet64": VDVAEConfig(
        enc_blocks="64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
        dec_blocks="1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
        image_size=64,
        width=512,
    ),
}
