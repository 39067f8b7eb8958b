"""The contrastive loss: each window of brain activity is to find its own stimulus among the candidates."""

# B estimates, N candidates (N >= B; the first B belong to the estimates), D numbers of each, flattened

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.gathering import Rows, gather_rows, n_processes
from neuroloaders.checks import check_number, check_option, check_shape, invalid

__all__ = ["FORMS", "ClipLoss", "candidate_norms", "clip_scores"]

# Added to the norm of a candidate (Defossez et al. 2023).
EPS = 1e-8
# The bound of CLIP (Radford et al. 2021) on the learned factor 1 / temperature.
MAX_SCALE = 100.0


class Form(NamedTuple):
    """What tells the forms of the loss apart."""

    cosine: bool
    learned_temperature: bool
    both_directions: bool


FORMS: dict[str, Form] = {
    # Defossez et al. 2023; also what Benchetrit et al. 2023 select. Candidates are normalised, estimates are not.
    "paper": Form(cosine=False, learned_temperature=False, both_directions=False),
    # CLIP, Radford et al. 2021: cosines, a learned temperature, both directions.
    "symmetric": Form(cosine=True, learned_temperature=True, both_directions=True),
}


def candidate_norms(candidates: Tensor) -> Tensor:
    """Return the Euclidean norm of each candidate over all its axes, in float32 at least, shape (N,).

    Parameters
    ----------
    candidates : Tensor, shape (N, ...)
        Features of stimuli. Keep the norms of features that do not change, and pass them to `ClipLoss`.

    Examples
    --------
    >>> candidate_norms(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [5.0, 1.0]
    """
    exact = _wide(candidates)
    return torch.linalg.vector_norm(exact.flatten(1), dim=1)


def clip_scores(estimates: Tensor, candidates: Tensor, *, norms: Tensor | None = None, cosine: bool = False) -> Tensor:
    r"""Return how well each estimate fits each candidate.

    Parameters
    ----------
    estimates : Tensor, shape (B, ...)
        What the network says.
    candidates : Tensor, shape (N, ...)
        Features of stimuli, of the same further axes.
    norms : Tensor, shape (N,), optional
        Norms of the candidates, if they are known.
    cosine : bool
        Divide by the norm of estimates as well.

    Returns
    -------
    Tensor, shape (B, N), float32 (float64 if one of both is)

    Notes
    -----
    .. math:: s_{bn} = \frac{\langle e_b, c_n \rangle}{10^{-8} + \lVert c_n \rVert}

    over all axes of an item at once, as one matrix product, in float32 also of half-precision inputs and under
    autocast.
    """
    _check_pair(estimates, candidates)
    with torch.autocast(estimates.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(estimates.dtype, candidates.dtype), torch.float32)
        e, c = estimates.flatten(1).to(dtype), candidates.flatten(1).to(dtype)
        if norms is None:
            norms = torch.linalg.vector_norm(c, dim=1)
        else:
            check_shape("norms", norms, (len(c),), advice="The norm of each candidate: candidate_norms(candidates).")
        # The columns are divided, not the candidates: these are by far the larger.
        scores = (e @ c.T) / (EPS + norms.to(dtype))
        return scores / (EPS + torch.linalg.vector_norm(e, dim=1, keepdim=True)) if cosine else scores


class ClipLoss(nn.Module):
    r"""Cross entropy of finding one's own stimulus among the candidates of the batch.

    Parameters
    ----------
    form : {"paper", "symmetric"}
        A key of `FORMS`. ``"paper"`` [1]_: no temperature, estimates not normalised, from brain to stimulus only.
        ``"symmetric"`` [2]_: cosines over a learned temperature, mean of both directions.
    mask_duplicates : bool
        Where the numbers of stimuli are given: do not take another item of the same stimulus, such as the same sentence
        heard by another subject, for a wrong answer. The reference code of [1]_ does take it for one: False.
    gather : bool
        With several processes: candidates are those of all of them. False: each process has its own, as in [1]_, where
        a batch of 256 on two GPUs has 128 candidates.
    temperature : float
        Where the learned temperature starts.

    Attributes
    ----------
    log_scale : Parameter, shape (), or None
        Logarithm of 1 / temperature, kept at log 100 at most.

    Notes
    -----
    .. math:: L = -\frac1B \sum_b \log \frac{e^{s_{bb}}}{\sum_n e^{s_{bn}}}

    with the scores of `clip_scores`. The two directions of the symmetric form have the same candidates and, the other
    way, all estimates; candidates without an estimate are wrong answers in the first direction only.

    With several processes and ``gather=True``, the loss of each is scaled such that the average of gradients over
    processes, which ``DistributedDataParallel`` takes, is the gradient of the mean over all items, also where processes
    have different numbers of them. A learned temperature must be part of a module that is so wrapped.

    References
    ----------
    .. [1] Defossez et al., Nature Machine Intelligence 5 (2023), 10.1038/s42256-023-00714-5.
    .. [2] Radford et al., ICML 2021, arXiv:2103.00020.

    Examples
    --------
    >>> loss = ClipLoss()
    >>> round(loss(torch.eye(3), torch.eye(3)).item(), 4)
    0.5514
    >>> round(loss(torch.eye(3), torch.eye(3), torch.tensor([7, 8, 7])).item(), 4)
    0.3927
    """

    def __init__(
        self,
        form: str = "paper",
        *,
        mask_duplicates: bool = True,
        gather: bool = True,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.form = check_option("form", form, FORMS)
        self.mask_duplicates = bool(mask_duplicates)
        self.gather = bool(gather)
        check_number("temperature", temperature, at_least=1 / MAX_SCALE)
        self.log_scale = None
        if FORMS[form].learned_temperature:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(
        self,
        estimates: Tensor,
        candidates: Tensor | Callable[[Tensor], Tensor],
        stimuli: Tensor | None = None,
        *,
        norms: Tensor | Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        estimates : Tensor, shape (B, ...)
            Outputs of the network, (B, F, T) or (B, F).
        candidates : Tensor, shape (N, ...), or callable
            Features of stimuli; the first B are those of the estimates, and all others are more wrong answers. Or a
            function from numbers of stimuli, int (n,), to their features, (n, ...), such as
            ``lambda i: table.index_select(0, i)``: processes then exchange numbers only, and look features up
            themselves. Where features come from a network that is trained, pass the tensor.
        stimuli : Tensor of int, shape (N,), optional
            Number of the stimulus of each candidate. Without, each candidate is a stimulus of its own. On several
            processes, give them in all or in none.
        norms : Tensor, shape (N,), or callable, optional
            `candidate_norms` of the candidates, if they are known; a function of numbers, if `candidates` is one.

        Returns
        -------
        Tensor, shape ()

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit, or candidates are looked up without numbers.
        """
        lookup = callable(candidates) and not isinstance(candidates, Tensor)
        if not isinstance(estimates, Tensor) or not estimates.is_floating_point() or estimates.ndim < 2:
            raise invalid("estimates", "be a floating-point tensor of shape (B, ...)", estimates, kind=TypeError)
        if lookup and stimuli is None:
            raise invalid("stimuli", "be given where `candidates` is a function of them", "None")
        if norms is not None and lookup != (callable(norms) and not isinstance(norms, Tensor)):
            raise invalid("norms", "be a function if `candidates` is one, else a tensor", norms, kind=TypeError)
        n_own = len(stimuli) if lookup else len(candidates)
        if n_own < len(estimates):
            came = f"{n_own} for {len(estimates)} estimates"
            raise invalid("candidates", "be at least as many as estimates, the true ones first", came)
        if len(estimates) == 0 and n_processes() == 1:
            raise invalid("estimates", "hold at least one item", "none")
        if stimuli is not None:
            if stimuli.is_floating_point() or stimuli.dtype == torch.bool:
                raise invalid("stimuli", "hold whole numbers", stimuli, kind=TypeError)
            check_shape("stimuli", stimuli, (n_own,), advice="The number of the stimulus of each candidate.")
        return self._loss(estimates, candidates, stimuli, norms, lookup, n_own)

    def _loss(self, estimates, candidates, stimuli, norms, lookup, n_own) -> Tensor:
        together = self.gather and n_processes() > 1
        form, n_batch, device = FORMS[self.form], len(estimates), estimates.device
        all_stimuli, first, total = stimuli, 0, n_batch
        everyone = candidates
        if together:
            rows, estimate_rows = Rows(n_own, device), Rows(n_batch, device)
            first, total = rows.first, estimate_rows.total
            all_stimuli = None if stimuli is None else gather_rows(stimuli, rows)
            if not lookup:
                everyone = gather_rows(candidates, rows)
                norms = None if norms is None else gather_rows(norms, rows)
        if lookup:
            everyone = candidates(all_stimuli)
            norms = None if norms is None else norms(all_stimuli)
        scores = clip_scores(estimates, everyone, norms=norms, cosine=form.cosine)
        target = torch.arange(first, first + n_batch, device=device)
        loss = self._entropy(scores, target, stimuli, all_stimuli)
        if form.both_directions:
            own = everyone[first : first + n_batch]
            own_norms = None if norms is None else norms[first : first + n_batch]
            asked, asked_stimuli, start = estimates, None if stimuli is None else stimuli[:n_batch], 0
            if together:
                asked, start = gather_rows(estimates, estimate_rows), estimate_rows.first
                asked_stimuli = None if stimuli is None else gather_rows(asked_stimuli, estimate_rows)
            back = clip_scores(asked, own, norms=own_norms, cosine=form.cosine).T
            target = torch.arange(start, start + n_batch, device=device)
            loss = (loss + self._entropy(back, target, stimuli, asked_stimuli)) / 2
        return loss * (n_processes() / total if together else 1 / n_batch)

    def _entropy(self, scores: Tensor, target: Tensor, own: Tensor | None, others: Tensor | None) -> Tensor:
        """Return the sum of the cross entropies of the rows; `own` and `others` are the stimuli of rows and columns."""
        if self.log_scale is not None:
            if self.training:
                with torch.no_grad():
                    self.log_scale.clamp_(max=math.log(MAX_SCALE))
            scores = scores * self.log_scale.exp()
        if self.mask_duplicates and own is not None:
            same = own[: len(scores), None] == others[None]
            true = torch.zeros_like(same).scatter_(1, target[:, None], True)
            scores = scores.masked_fill(same & ~true, -math.inf)
        return F.cross_entropy(scores, target, reduction="sum")

    def extra_repr(self) -> str:
        """Show the options."""
        return f"{self.form!r}, mask_duplicates={self.mask_duplicates}, gather={self.gather}"


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_pair(estimates: Tensor, candidates: Tensor) -> None:
    for name, value in (("estimates", estimates), ("candidates", candidates)):
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
            raise invalid(name, "be a floating-point tensor of shape (n, ...)", value, kind=TypeError)
    if estimates.shape[1:] != candidates.shape[1:]:
        came = f"{tuple(candidates.shape[1:])}"
        raise invalid("candidates", f"have the axes of the estimates, (N, {str(tuple(estimates.shape[1:]))[1:]}", came)
