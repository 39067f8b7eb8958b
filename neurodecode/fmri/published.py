"""Published numbers of image reconstruction from fMRI, to set beside one's own."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAPER_TABLE", "PublishedScores"]


@dataclass(frozen=True, kw_only=True)
class PublishedScores:
    """One row of a table of results; identification as shares of 1, None where a number was not reported.

    Parameters
    ----------
    pixcorr, ssim, alexnet2, alexnet5, inception, clip, efficientnet, swav : float or None
        The eight metrics. The last two are distances: smaller is better.
    data : str
        Subjects and test images.
    ssim_mode : {"columns", "2d", "unknown"}
        Which SSIM it is, as far as the software named by the authors tells.
    source : str
        Where the row was read.
    checked : bool
        Whether it was read there, or is from memory and has yet to be checked.
    """

    pixcorr: float | None = None
    ssim: float | None = None
    alexnet2: float | None = None
    alexnet5: float | None = None
    inception: float | None = None
    clip: float | None = None
    efficientnet: float | None = None
    swav: float | None = None
    data: str
    ssim_mode: str = "unknown"
    source: str
    checked: bool = True


_BD = "Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8"
_BD_DATA = "NSD, mean of subjects 1, 2, 5, 7; 982 test images, averaged over up to 3 trials"
_ME2 = "Scotti et al., MindEye2, arXiv:2403.11207, Table 1"
_ME2_DATA = "NSD, mean of subjects 1, 2, 5, 7; 1000 test images"
_BD_TABLE_1 = f"Table 1 of {_BD}, from memory"
_ABLATION = f"Table 2 of {_BD}, as quoted by others"
_ABLATION_DATA = "NSD, subject 1; 982 test images"
_BRAIN_IT = "Brain-IT (2025), as quoted by others"


def _row(
    numbers: tuple[float | None, ...], data: str, source: str, mode: str = "unknown", checked: bool = True
) -> PublishedScores:
    pixcorr, ssim, alexnet2, alexnet5, inception, clip, efficientnet, swav = numbers
    return PublishedScores(
        pixcorr=pixcorr,
        ssim=ssim,
        alexnet2=alexnet2,
        alexnet5=alexnet5,
        inception=inception,
        clip=clip,
        efficientnet=efficientnet,
        swav=swav,
        data=data,
        source=source,
        ssim_mode=mode,
        checked=checked,
    )


# Method -> its row. MindEye2's table was made with scikit-image 0.22, where SSIM is two-dimensional.
PAPER_TABLE: dict[str, PublishedScores] = {
    "Brain-Diffuser": _row(
        (0.254, 0.356, 0.942, 0.962, 0.872, 0.915, 0.775, 0.423),
        _BD_DATA,
        f"Table 1 of {_BD}, as quoted alike by MindEye, ATM and Benchetrit et al.",
        "columns",
    ),
    "Brain-Diffuser, run again for MindEye2": _row(
        (0.273, 0.365, 0.944, 0.966, 0.913, 0.909, 0.728, 0.421), _ME2_DATA, _ME2, "2d"
    ),
    "Brain-Diffuser with AutoKL": _row(
        (0.305, 0.366, 0.962, 0.977, 0.910, 0.917, None, 0.410),
        "NSD, subject 1",
        "Benchetrit, Banville & King, arXiv:2310.19812",
    ),
    "Takagi & Nishimoto, run again for MindEye2": _row(
        (0.246, 0.410, 0.789, 0.856, 0.838, 0.821, 0.811, 0.504), _ME2_DATA, _ME2, "2d"
    ),
    "Takagi & Nishimoto 2023": _row(
        (None, None, 0.830, 0.830, 0.760, 0.770, None, None), "NSD", _BD_TABLE_1, checked=False
    ),
    "Gu et al. 2022": _row((0.150, 0.325, None, None, None, None, 0.862, 0.465), "NSD", _BD_TABLE_1, checked=False),
    "Lin et al. 2022": _row((None, None, None, None, 0.782, None, None, None), "NSD", _BD_TABLE_1, checked=False),
    "MindEye1": _row((0.319, 0.360, 0.928, 0.969, 0.946, 0.933, 0.648, 0.377), _ME2_DATA, _ME2),
    "MindEye2, 40 h": _row((0.322, 0.431, 0.961, 0.986, 0.954, 0.930, 0.619, 0.344), _ME2_DATA, _ME2, "2d"),
    "MindEye2, 1 h": _row((0.195, 0.419, 0.842, 0.906, 0.812, 0.792, 0.810, 0.468), _ME2_DATA, _ME2, "2d"),
    "Brain-IT, 40 h": _row((0.386, 0.486, 0.984, 0.995, 0.973, 0.964, 0.564, 0.320), "NSD", _BRAIN_IT),
    "Brain-IT, 1 h": _row((0.331, 0.473, 0.971, None, None, None, None, None), "NSD", _BRAIN_IT),
    "Brain-Diffuser, subject 1": _row(
        (0.305, 0.367, None, None, 0.878, 0.925, 0.768, 0.415), _ABLATION_DATA, _ABLATION, "columns"
    ),
    "Brain-Diffuser, subject 1, VDVAE only": _row(
        (0.358, 0.437, None, None, 0.770, 0.711, 0.906, 0.581), _ABLATION_DATA, _ABLATION, "columns"
    ),
    "Brain-Diffuser, subject 1, without VDVAE": _row(
        (0.143, 0.302, None, None, 0.873, 0.926, None, None), _ABLATION_DATA, _ABLATION, "columns"
    ),
}
