"""What all generators share: from embeddings and first guesses to images, in three stages."""

# t images, B batch, h w sides of latents, L tokens, D width

from __future__ import annotations

import abc
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neurodecode.features.pixels import as_floats, check_images, square
from neurodecode.generate.sampling import add_noise, ddim, ddim_schedule, noise_of_rows
from neurodecode.generate.settings import GenerationSettings
from neuroloaders.checks import check_int, check_same_length, check_shape, invalid

__all__ = ["DiffusionBackend", "counts"]

# How many images went through the network of each backend in this process, by its name; an image counts once a step.
counts: Counter[str] = Counter()


class DiffusionBackend(abc.ABC):
    """A latent diffusion model that is guided by embeddings.

    Parameters
    ----------
    unet, vae : nn.Module
        Of diffusers.
    scheduler : DDIMScheduler
        Its noise levels are read.
    device : torch.device
        Where to compute.
    offload : bool
        Keep each network on the CPU unless it computes: encoder and decoder of images and the denoising network then
        never share the GPU, and the extractors stay on the CPU.
    slicing : bool
        One image at a time in encoder and decoder, and the two halves of guidance one after the other. Attention needs
        no slicing: torch never holds its weights as a whole.

    Notes
    -----
    All first guesses are encoded, then all images denoised, then all decoded, so that a network moves once. Latents are
    float32 throughout, whatever the networks compute in. Image k has the seed (seed, k): it does not depend on the
    others, up to the rounding of matrix products of other sizes.
    """

    name: ClassVar[str]

    def __init__(
        self,
        *,
        unet: nn.Module,
        vae: nn.Module,
        scheduler: Any,
        device: torch.device | str = "cpu",
        offload: bool = False,
        slicing: bool = False,
    ) -> None:
        self.unet, self.vae, self.scheduler = unet, vae, scheduler
        self.device, self.offload, self.slicing = torch.device(device), bool(offload), bool(slicing)
        for module in (unet, vae):
            module.eval().requires_grad_(False)
            if not offload:
                module.to(self.device)
        if slicing:
            vae.enable_slicing()

    @property
    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Kind of embedding -> its shape for one image."""

    @property
    @abc.abstractmethod
    def extractors(self) -> dict[str, Any]:
        """Kind of embedding -> the extractor whose features it is guided by, where its encoder was loaded."""

    @abc.abstractmethod
    def guide(self, latents: Mapping[str, Tensor], rows: Sequence[int], seed: int, settings: Any) -> dict[str, Tensor]:
        """Return what the network is given besides image and time: name -> tensor, first axis B."""

    @abc.abstractmethod
    def unguided(self, n: int, settings: GenerationSettings) -> dict[str, Tensor]:
        """Return the same for no condition, n rows."""

    @abc.abstractmethod
    def denoise(self, x: Tensor, t: int, given: dict[str, Tensor]) -> Tensor:
        """Run the network once."""

    def prepare(self, kinds: Sequence[str], settings: GenerationSettings) -> None:
        """Check settings against the kinds of embedding that are there, and set the network up."""
        missing = [kind for kind in self.shapes if kind not in kinds]
        if missing:
            raise invalid("latents", f"hold {' and '.join(self.shapes)} for {self.name!r}", ", ".join(kinds) or "none")

    @property
    def dtype(self) -> torch.dtype:
        """What the denoising network computes in."""
        return next(self.unet.parameters()).dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of what is denoised."""
        side = self.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return (self.unet.config.in_channels, height, width)

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return self.latent_shape[1] * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def generate(
        self,
        latents: Mapping[str, Any],
        first_guess: Any = None,
        *,
        seed: int = 0,
        settings: GenerationSettings | None = None,
        batch_size: int = 4,
        first_row: int = 0,
        progress: bool = False,
    ) -> np.ndarray:
        """Generate an image for each row.

        Parameters
        ----------
        latents : mapping of str to array or tensor, first axis t
            The embeddings, in the shapes of `shapes`.
        first_guess : array or tensor, shape (t, 3, H, W), optional
            Images to begin with, bytes or floating point in [0, 1], of any size. None: all begins with noise.
        seed : int
            Image k has the seed (`seed`, k); below 2 ** 32.
        settings : GenerationSettings, optional
            Steps, strength, guidance, mix.
        batch_size : int
            Images at a time.
        first_row : int
            Number k of the first image: rows 100 and on of a study, with 100, become what they become among all.
        progress : bool
            Show a progress bar (tqdm) over steps.

        Returns
        -------
        ndarray of float32, shape (t, 3, size, size)
            In [0, 1].

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit, embeddings hold NaN, or images come out without a finite value: the rows are named.
        """
        settings = GenerationSettings() if settings is None else settings
        if not isinstance(settings, GenerationSettings):
            raise invalid("settings", "be GenerationSettings", settings, kind=TypeError)
        check_int("batch_size", batch_size, at_least=1)
        check_int("seed", seed, at_least=0, at_most=2**32 - 1)
        check_int("first_row", first_row, at_least=0)
        given = self.checked(latents)
        n = check_same_length(**given)
        if n == 0:
            raise invalid("latents", "have at least one row", "none")
        self.prepare(tuple(given), settings)
        schedule = ddim_schedule(self.scheduler, settings, from_image=first_guess is not None)
        batches = [range(first, min(first + batch_size, n)) for first in range(0, n, batch_size)]
        with torch.inference_mode():
            options = (batches, seed, first_row, settings)
            start = None if first_guess is None else self._encoded(first_guess, n, *options)
            found = []
            with self._at_work(self.unet), _bar(len(batches) * len(schedule.timesteps), self.name, progress) as bar:
                for rows in batches:
                    numbers = _from(rows, first_row)
                    x = noise_of_rows(seed, numbers, self.latent_shape).to(self.device)
                    if start is not None:
                        x = add_noise(start[rows.start : rows.stop].to(self.device), x, schedule.start)
                    predict = self._guided(
                        {kind: v[rows.start : rows.stop] for kind, v in given.items()}, numbers, seed, settings
                    )
                    found.append(ddim(predict, x, schedule, tick=bar).cpu())
                    _check_made(found[-1], "the denoising network", rows.start)
            return self._decoded(torch.cat(found), batches)

    def checked(self, latents: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return embeddings as float32 tensors if kinds and shapes are those of `shapes` and numbers are finite."""
        if not isinstance(latents, Mapping):
            raise invalid("latents", "be a mapping from kind to embeddings", latents, kind=TypeError)
        unknown = [kind for kind in latents if kind not in self.shapes]
        if unknown:
            raise invalid("latents", f"hold {' and '.join(self.shapes)}, which guide {self.name!r}", repr(unknown[0]))
        if not latents:
            raise invalid("latents", f"hold {' or '.join(self.shapes)}", "none")
        out = {}
        for kind, shape in self.shapes.items():
            if kind in latents:
                name, value = f"latents[{kind!r}]", latents[kind]
                if not isinstance(value, Tensor):
                    try:
                        value = torch.from_numpy(np.array(value, dtype=np.float32))
                    except (TypeError, ValueError) as error:
                        raise invalid(name, "be an array of numbers", value, kind=TypeError) from error
                check_shape(name, value, ("t", *shape))
                out[kind] = value.detach().float()
                bad = _rows_not_finite(out[kind])
                if bad:
                    raise invalid(name, "hold finite numbers only", f"NaN or infinity in {bad}")
        return out

    def _guided(self, latents: Mapping[str, Tensor], rows: range, seed: int, settings: GenerationSettings) -> Any:
        """Return the function from x and t to what the network predicts, with guidance."""
        on = {kind: values.to(self.device) for kind, values in latents.items()}
        yes = self._cast(self.guide(on, rows, seed, settings))
        no = self._cast(self.unguided(len(rows), settings)) if settings.guidance != 1 else None

        def predict(x: Tensor, t: int) -> Tensor:
            counts[self.name] += len(x)
            x = x.to(self.dtype)
            if no is None:
                return self.denoise(x, t, yes).float()
            if self.slicing:
                without, with_it = self.denoise(x, t, no).float(), self.denoise(x, t, yes).float()
            else:
                both = {name: torch.cat([no[name], yes[name]]) for name in yes}
                without, with_it = self.denoise(torch.cat([x, x]), t, both).float().chunk(2)
            return without + settings.guidance * (with_it - without)

        return predict

    def _cast(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device, self.dtype) for name, value in given.items()}

    def _encoded(
        self, images: Any, n: int, batches: list[range], seed: int, first_row: int, settings: GenerationSettings
    ) -> Tensor:
        """Return the latents of first guesses, on the CPU."""
        images = check_images("first_guess", images)
        check_same_length(latents=range(n), first_guess=images)
        shift, scale = self._scaling()
        out = []
        with self._at_work(self.vae):
            for rows in batches:
                pixels = square(as_floats(images[rows.start : rows.stop]), self.image_size, fit="squash") * 2 - 1
                latent, std = self._in_range(self._posterior, pixels).chunk(2, dim=1)
                if "sampled-latents" in settings.compat:
                    drawn = noise_of_rows(seed, _from(rows, first_row), tuple(latent.shape[1:]), "posterior")
                    latent = latent + std * drawn.to(latent.device)
                out.append(((latent - shift) * scale).cpu())
                _check_made(out[-1], "the encoder of images", rows.start)
        return torch.cat(out)

    def _decoded(self, latents: Tensor, batches: list[range]) -> np.ndarray:
        shift, scale = self._scaling()
        out = []
        with self._at_work(self.vae):
            for rows in batches:
                z = latents[rows.start : rows.stop] / scale + shift
                out.append(self._in_range(lambda z: self.vae.decode(z).sample, z).cpu())
                _check_made(out[-1], "the decoder of images", rows.start)
        return (torch.cat(out) / 2 + 0.5).clamp(0, 1).numpy()

    def _posterior(self, pixels: Tensor) -> Tensor:
        """Return means and standard deviations of latents, one behind the other along the channels."""
        found = self.vae.encode(pixels).latent_dist
        return torch.cat([found.mean, found.std], dim=1)

    def _in_range(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Run encoder or decoder, from now on in float32 if float16 is too small for it."""
        out = run(x.to(self.device, self._vae_dtype())).float()
        if self._vae_dtype() == torch.float16 and not torch.isfinite(out).all():
            # Activations of some autoencoders leave the range of float16: black images.
            with torch.inference_mode(False):
                self.vae.float()
            out = run(x.to(self.device))
        return out

    def _scaling(self) -> tuple[float, float]:
        config = self.vae.config
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor

    def _vae_dtype(self) -> torch.dtype:
        return next(self.vae.parameters()).dtype

    @contextlib.contextmanager
    def _at_work(self, module: nn.Module) -> Iterator[None]:
        """Have a network on the device while it computes."""
        if not self.offload:
            yield
            return
        # Weights that move in inference mode could not be trained afterwards.
        with torch.inference_mode(False):
            module.to(self.device)
        try:
            yield
        finally:
            with torch.inference_mode(False):
                module.to("cpu")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def __repr__(self) -> str:
        size = f"{self.image_size} x {self.image_size} from " + " and ".join(f"{k} {s}" for k, s in self.shapes.items())
        return f"{type(self).__name__}({size}, {self.dtype} on {self.device}{', offloaded' if self.offload else ''})"


def _from(rows: range, first: int) -> range:
    return range(first + rows.start, first + rows.stop)


def _rows_not_finite(values: Tensor, first: int = 0) -> str:
    """Return the first few of the rows that hold NaN or infinity, in words; "" if there is none."""
    bad = (~torch.isfinite(values.flatten(1))).any(dim=1).nonzero()[:, 0].tolist()
    shown = ", ".join(str(first + row) for row in bad[:5])
    return f"rows {shown}{', ...' if len(bad) > 5 else ''}" if bad else ""


def _check_made(values: Tensor, where: str, first: int) -> None:
    """Raise if images of a batch, whose first row is number `first`, hold NaN or infinity."""
    bad = _rows_not_finite(values, first)
    if bad:
        advice = "Load it with dtype=torch.bfloat16 or torch.float32."
        raise invalid("images", f"come out of {where} with finite values", f"NaN or infinity in {bad}", advice)


@contextlib.contextmanager
def _bar(total: int, name: str, progress: bool) -> Iterator[Any]:
    if not progress:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=f"diffusion, {name}") as bar:
        yield bar.update
