"""How images are generated."""

from __future__ import annotations

from dataclasses import dataclass

from neuroloaders.checks import check_int, check_number, check_option, invalid

__all__ = ["COMPAT", "GenerationSettings"]

# Habits of the reference code, by name.
COMPAT = {
    "noise-offset": "the first guess gets the noise of the step before the first one that is run",
    "sampled-latents": "the first guess is encoded to a sample of its posterior, not to the mean",
}


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    r"""Settings of the diffusion; by default those of Ozcelik & VanRullen 2023.

    Parameters
    ----------
    steps : int
        Steps of the whole way from noise to image, 1 to 500.
    strength : float
        Share of them that is run, in (0, 1], when there is a first guess: at 1 little of it is left. Without a first
        guess all are.
    guidance : float
        Weight g of the condition, at least 1: :math:`\epsilon = \epsilon_0 + g (\epsilon_c - \epsilon_0)`.
    mix : float
        Share of the text in [0, 1], where text and image guide side by side; the rest is the image's.
    image_scale : float
        Weight of the image in an IP-Adapter, in [0, 1].
    noise_level : int
        Noise on the image's embedding before it guides (unCLIP), a step of its schedule.
    compat : tuple of str
        Keys of `COMPAT`.

    Notes
    -----
    The reference adds the noise of step ``int(strength * steps)`` and then runs that many steps, which begin one below:
    compat "noise-offset". Here the image gets the noise of the first step that is run, as in diffusers.
    """

    steps: int = 50
    strength: float = 0.75
    guidance: float = 7.5
    mix: float = 0.4
    image_scale: float = 0.6
    noise_level: int = 0
    compat: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_int("steps", self.steps, at_least=1, at_most=500)
        check_number("strength", self.strength, above=0, at_most=1)
        check_number("guidance", self.guidance, at_least=1)
        check_number("mix", self.mix, at_least=0, at_most=1)
        check_number("image_scale", self.image_scale, at_least=0, at_most=1)
        check_int("noise_level", self.noise_level, at_least=0)
        if isinstance(self.compat, str):
            raise invalid("compat", "be a tuple of names", repr(self.compat), f"Write ({self.compat!r},).")
        for name in self.compat:
            check_option("compat", name, COMPAT)
        if self.n_steps == 0:
            advice = "Raise one of them."
            raise invalid("strength", f"leave a step of {self.steps} to run", f"{self.strength:g}", advice)
        if "noise-offset" in self.compat and self.n_steps == self.steps:
            raise invalid("strength", "be below 1 for compat 'noise-offset'", f"{self.strength:g}")

    @property
    def n_steps(self) -> int:
        """Steps that are run from a first guess: the whole number below ``strength * steps``."""
        # 0.29 * 100 is 28.999999999999996.
        return int(self.strength * self.steps + 1e-9)
