"""From fMRI to the seen image: three regressions with one factorisation, a first guess, and diffusion."""

# n training images, t new ones, p voxels, H height, W width

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from neurodecode.fmri.voxels import VoxelScaler
from neurodecode.ridge import MultiTargetRidge, StandardizedRidge, predict_to_folder
from neurodecode.ridge.side_by_side import Layout, SideBySide
from neuroloaders.checks import (
    check_finite,
    check_int,
    check_same_length,
    check_shape,
    invalid,
)

__all__ = ["PAPER_ALPHA", "BrainDiffuser", "Reconstruction"]

# Penalties of the paper, for 8859 training images and z-scored voxels of the mask nsdgeneral.
PAPER_ALPHA = {"low_level": 50_000.0, "text": 100_000.0, "image": 60_000.0}

# Values of options of a first guess for which nothing is drawn.
_NOT_DRAWN = ("mean", "mode")


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstruction:
    """Reconstructed images, and what they were made from.

    Parameters
    ----------
    images : ndarray of float32, shape (t, 3, H, W)
        The images, in [0, 1].
    first_guess : ndarray of float32, shape (t, 3, h, w), or None
        What the low-level latents alone decode to; the diffusion started from it.
    latents : dict of str to ndarray
        Predicted latents of each kind, first axis t.
    """

    images: np.ndarray
    first_guess: np.ndarray | None
    latents: dict[str, np.ndarray]


class BrainDiffuser:
    """Decode what was seen from fMRI: latents by ridge regression, a first guess from the low-level ones, diffusion.

    Parameters
    ----------
    low_level : extractor, optional
        Low-level latents with a ``decode`` that turns them into images: `neurodecode.features.VdvaeLatents`, or
        ``AutoKL`` (Benchetrit et al. 2023). None: diffusion starts from noise.
    text, image : extractor, optional
        What guides diffusion: `neurodecode.features.ClipText`, ``ClipVision``. At least one of the three kinds.
    backend : generator, optional
        From `neurodecode.generate.load_backend`. None: the first guess is the reconstruction.
    ridge : MultiTargetRidge, optional
        Settings of the regression; a copy is fitted. By default an alpha for each target, chosen by generalised
        cross-validation. ``MultiTargetRidge(alpha=PAPER_ALPHA)`` takes the paper's, which suppose its number of images
        and voxels.
    standardize : {"loo", "test", None}
        Mean and spread of predictions, see `neurodecode.PredictionScaler`. "test" is the paper's; a single volume
        then cannot be decoded.
    n_loo : int, optional
        Training images whose leave-one-out predictions give the statistics of "loo"; None: all.
    random_state : int
        Draws them.
    decoding : mapping of str to str, optional
        Options of ``low_level.decode``: ``{"rest": "sample", "output": "truncated"}`` is what the reference code does
        with VDVAE; by default nothing is drawn.
    cache : path-like, optional
        Folder where features are kept, once for each image; also an interrupted extraction goes on from there.
    batch_size : int
        Images at a time while features are extracted and first guesses are decoded.
    progress : bool
        Show progress bars.

    Attributes
    ----------
    ridge_ : StandardizedRidge
        The fitted regression, from voxels in units of their training spread to all latents side by side.
    layout_ : Layout
        Which targets are which kind.
    scaler_ : VoxelScaler
        Training statistics of the voxels.

    Notes
    -----
    Ozcelik & VanRullen 2023 [1]_. Deviations: the 335 regressions share one factorisation; standardisation is
    inductive by default; low-level latents are posterior means by default, not unseeded samples; each image has a seed
    of its own, so that it does not depend on the others.

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.
    """

    def __init__(
        self,
        *,
        low_level: Any = None,
        text: Any = None,
        image: Any = None,
        backend: Any = None,
        ridge: MultiTargetRidge | None = None,
        standardize: str | None = "loo",
        n_loo: int | None = 1000,
        random_state: int = 0,
        decoding: Mapping[str, str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        batch_size: int = 16,
        progress: bool = False,
    ) -> None:
        given = {"low_level": low_level, "text": text, "image": image}
        self.extractors = {kind: extractor for kind, extractor in given.items() if extractor is not None}
        if not self.extractors:
            raise invalid("low_level, text, image", "name at least one extractor", "none")
        self.backend, self.ridge, self.standardize, self.n_loo = backend, ridge, standardize, n_loo
        self.random_state, self.cache, self.progress = random_state, cache, progress
        self.decoding = None if decoding is None else dict(decoding)
        self.batch_size = check_int("batch_size", batch_size, at_least=1)

    def fit(self, betas: Any, images: Any, captions: Sequence[Sequence[str]] | None = None) -> BrainDiffuser:
        """Extract the features of what was seen, and fit the regression.

        Parameters
        ----------
        betas : array of shape (n, n_voxels), or BetaSet averaged over repeats
            Responses to training images.
        images : array of shape (n, 3, H, W), or sequence of images
            What was seen, in the same order: floating point in [0, 1], or bytes.
        captions : sequence of n sequences of str, optional
            What is on them, for `text`.

        Returns
        -------
        BrainDiffuser
            Itself, which can decode single volumes: it holds a dual for each image and target, at the size of NSD
            12 GB. See `predict_known` for less.

        Raises
        ------
        ValueError
            If numbers of rows differ, captions are missing, or voxels hold NaN or are constant.
        """
        targets = self.targets(images, captions)
        self.scaler_ = VoxelScaler.fit(betas)
        x = self.scaler_.transform(betas)
        check_same_length(betas=x, images=targets)
        model = StandardizedRidge(
            self._ridge(targets.layout),
            standardize=self.standardize,
            n_loo=self.n_loo,
            random_state=self.random_state,
        )
        self.ridge_ = model.fit(x, targets)
        self.layout_ = targets.layout
        return self

    def targets(self, images: Any, captions: Sequence[Sequence[str]] | None = None) -> SideBySide:
        """Return the features of images and captions, each kind a block; from the cache where they are there.

        Parameters
        ----------
        images, captions
            As for `fit`.
        """
        from neurodecode.features import extract

        blocks = {}
        for kind, extractor in self.extractors.items():
            stimuli = images
            if kind == "text":
                if captions is None:
                    raise invalid("captions", "be given: `text` guides the diffusion", "None")
                stimuli = captions
            blocks[kind] = extract(
                stimuli, extractor, cache=self.cache, batch_size=self.batch_size, progress=self.progress
            )
        return SideBySide(blocks)

    def predict(self, betas: Any) -> dict[str, np.ndarray]:
        """Return predicted latents of each kind.

        Parameters
        ----------
        betas : array of shape (t, n_voxels), or BetaSet
            New responses; with ``standardize="loo"`` a single one will do, and none depends on the others.

        Returns
        -------
        dict of str to ndarray of float32, first axis t
        """
        self._check_fitted()
        return self.layout_.split(np.asarray(self.ridge_.predict(self.scaler_.transform(betas))))

    def predict_known(
        self,
        betas: Any,
        images: Any,
        captions: Sequence[Sequence[str]] | None,
        betas_test: Any,
        folder: str | os.PathLike[str],
    ) -> dict[str, np.ndarray]:
        """Fit, and predict responses that are known already, in chunks on disk: neither weights nor duals are formed.

        Parameters
        ----------
        betas, images, captions
            As for `fit`.
        betas_test : array of shape (t, n_voxels), or BetaSet
            The responses to predict.
        folder : path-like
            Where predictions go; an interrupted run goes on there, see `neurodecode.predict_to_folder`.

        Returns
        -------
        dict of str to ndarray
            What ``fit(...).predict(betas_test)`` gives, up to rounding, as memory maps.
        """
        targets = self.targets(images, captions)
        scaler = VoxelScaler.fit(betas)
        x = scaler.transform(betas)
        check_same_length(betas=x, images=targets)
        found = predict_to_folder(
            self._ridge(targets.layout),
            x,
            targets,
            scaler.transform(betas_test),
            folder,
            standardize=self.standardize,
            n_loo=self.n_loo,
            random_state=self.random_state,
            progress=self.progress,
        )
        if found is None:
            advice = "Call it again once they have ended."
            raise invalid("folder", "be complete: other processes still write their share", os.fspath(folder), advice)
        return targets.layout.split(found)

    def generate(self, latents: Mapping[str, Any], *, seed: int = 0, settings: Any = None) -> Reconstruction:
        """Turn latents into images.

        Parameters
        ----------
        latents : mapping of str to array, first axis t
            From `predict`, or true ones, to see what the generator alone loses.
        seed : int
            Image k has the seed (`seed`, k): it does not depend on the others.
        settings : GenerationSettings, optional
            Steps, strength, guidance, mix, see `neurodecode.generate`.

        Returns
        -------
        Reconstruction

        Raises
        ------
        ValueError
            If kinds are missing, or shapes are not those of the extractors.
        """
        latents = {kind: self._checked_latents(kind, latents) for kind in self.extractors}
        n = check_same_length(**latents)
        guess = None
        if "low_level" in latents:
            guess = np.concatenate(
                [self._first_guess(latents["low_level"], rows, seed) for rows in _batches(n, self.batch_size)]
            )
        if self.backend is None:
            if guess is None:
                advice = "Load one by neurodecode.generate.load_backend."
                raise invalid("backend", "be given where there is no `low_level` extractor", "None", advice)
            return Reconstruction(images=guess, first_guess=guess, latents=latents)
        images = self.backend.generate(
            {kind: values for kind, values in latents.items() if kind != "low_level"},
            guess,
            seed=seed,
            settings=settings,
            batch_size=self.batch_size,
            progress=self.progress,
        )
        return Reconstruction(images=images, first_guess=guess, latents=latents)

    def reconstruct(self, betas: Any, *, seed: int = 0, settings: Any = None) -> Reconstruction:
        """Predict latents, and turn them into images: `predict`, then `generate`.

        Parameters
        ----------
        betas : array of shape (t, n_voxels), or BetaSet
            New responses.
        seed, settings
            As for `generate`.

        Returns
        -------
        Reconstruction
        """
        return self.generate(self.predict(betas), seed=seed, settings=settings)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what was fitted; the networks stay where they are, and `load` wants the same ones.

        Parameters
        ----------
        folder : path-like
            Made if it is not there. An older decoder in it is replaced.
        """
        from neurodecode.fmri.saved_decoder import save_decoder

        self._check_fitted()
        save_decoder(self, folder)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, device: Any = None, backend: Any = None, **extractors: Any
    ) -> BrainDiffuser:
        """Read a decoder that `save` wrote.

        Parameters
        ----------
        folder : path-like
            Where it is.
        device : str or torch.device, optional
            For a regression that was fitted with torch.
        backend : generator, optional
            As for the constructor.
        low_level, text, image : extractor
            Those it was fitted with: their fingerprints are compared.

        Returns
        -------
        BrainDiffuser
            Its predictions are those of the saved one, to the last bit.

        Raises
        ------
        FileNotFoundError
            If there is no decoder.
        ValueError
            If files are damaged or belong to different fits, or extractors are others.
        """
        from neurodecode.fmri.saved_decoder import load_decoder

        return load_decoder(cls, folder, extractors, backend, device)

    def _ridge(self, layout: Layout) -> MultiTargetRidge:
        ridge = MultiTargetRidge() if self.ridge is None else clone(self.ridge)
        by_kind = isinstance(ridge.alpha, Mapping) or (ridge.alpha is None and ridge.alpha_per == "group")
        if by_kind and ridge.target_groups is None:
            ridge.set_params(target_groups=layout.target_groups)
        return ridge.set_params(progress=True) if self.progress else ridge

    def _check_fitted(self) -> None:
        if not hasattr(self, "ridge_"):
            raise NotFittedError("This BrainDiffuser is not fitted yet: call fit() first, or BrainDiffuser.load().")

    def _checked_latents(self, kind: str, latents: Mapping[str, Any]) -> np.ndarray:
        if kind not in latents:
            raise invalid("latents", f"hold {', '.join(self.extractors)}", ", ".join(latents) or "nothing")
        values = np.asarray(latents[kind])
        check_shape(f"latents[{kind!r}]", values, ("t", *self.extractors[kind].shape))
        return check_finite(f"latents[{kind!r}]", values)

    def _first_guess(self, latents: np.ndarray, rows: slice, seed: int) -> np.ndarray:
        options = dict(self.decoding or {})
        if any(value not in _NOT_DRAWN for value in options.values()):
            options["generator"] = [_generator(seed, row) for row in range(rows.start, rows.stop)]
        images = self.extractors["low_level"].decode(latents[rows], **options)
        return images.cpu().numpy()


def _batches(n: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def _generator(seed: int, row: int) -> Any:
    import torch

    state = np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)
