"""The energy of a network from its multiply-accumulates and its spike rates: constants and one equation."""

# T time steps; energies in pJ per sample (one inference)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from neuroloaders.checks import check_int, check_number, check_same_length

__all__ = ["ENERGY_45NM", "EnergyConstants", "EnergyEstimate", "energy_from_rates"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EnergyConstants:
    """Energy of one operation in pJ: multiply-accumulate, accumulate, and where the numbers come from."""

    mac_pj: float
    ac_pj: float
    source: str

    def __post_init__(self) -> None:
        check_number("mac_pj", self.mac_pj, above=0)
        check_number("ac_pj", self.ac_pj, above=0)


ENERGY_45NM = EnergyConstants(
    mac_pj=4.6,
    ac_pj=0.9,
    source="45 nm, 32-bit float: multiply 3.7 pJ + add 0.9 pJ (Horowitz, ISSCC 2014, doi:10.1109/ISSCC.2014.6757323)",
)


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """Energies of all layers in pJ per sample; the totals are sums."""

    ann_layers_pj: tuple[float, ...]
    snn_layers_pj: tuple[float, ...]

    @property
    def ann_pj(self) -> float:
        """Energy of the non-spiking network."""
        return math.fsum(self.ann_layers_pj)

    @property
    def snn_pj(self) -> float:
        """Energy of the spiking network."""
        return math.fsum(self.snn_layers_pj)

    @property
    def ratio(self) -> float:
        """``ann_pj / snn_pj``, the papers' beta; infinite if the spiking network costs nothing."""
        return self.ann_pj / self.snn_pj if self.snn_pj else math.inf


def energy_from_rates(
    macs: Sequence[float],
    rates: Sequence[float | None],
    *,
    evaluations: int | Sequence[int] = 1,
    constants: EnergyConstants = ENERGY_45NM,
) -> EnergyEstimate:
    r"""Compute the energy of a network from MAC counts and input spike rates.

    Parameters
    ----------
    macs : sequence of float
        Dense multiply-accumulates of each layer per sample and step.
    rates : sequence of float or None
        Spikes per presynaptic neuron of each layer's input, summed over T; None for an analog input.
    evaluations : int or sequence of int
        How often layers with analog input run: 1 if their current is kept, T if not. Ignored for the others, whose
        rate is summed over T already.
    constants : EnergyConstants
        Energy of one MAC and one AC.

    Returns
    -------
    EnergyEstimate

    Raises
    ------
    ValueError
        If the lengths differ, or a number is negative or NaN.

    Notes
    -----
    .. math:: E_{ANN} = E_{MAC} \sum_l N_l, \quad
              E_{SNN} = E_{MAC} \sum_{analog} e_l N_l + E_{AC} \sum_{spikes} R_l N_l

    with N the MACs, R the rates, e the evaluations (arXiv:2110.05929, DIET-SNN arXiv:2008.03658).

    Examples
    --------
    >>> round(energy_from_rates([1e6, 9e6], [None, 0.1]).ratio, 2)
    8.5
    """
    check_same_length(macs=macs, rates=rates)
    repeats = [evaluations] * len(macs) if isinstance(evaluations, int) else list(evaluations)
    check_same_length(macs=macs, evaluations=repeats)
    ann, snn = [], []
    for n_macs, rate, count in zip(macs, rates, repeats, strict=True):
        check_number("macs", n_macs, at_least=0)
        ann.append(constants.mac_pj * n_macs)
        if rate is None:
            snn.append(constants.mac_pj * n_macs * check_int("evaluations", count, at_least=1))
        else:
            snn.append(constants.ac_pj * n_macs * check_number("rates", rate, at_least=0))
    return EnergyEstimate(tuple(ann), tuple(snn))
