"""One HTML file for a decoder: pictures first, then numbers beside the paper's, then how they came about."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.fmri.evaluation import DecoderEvaluation
from neurodecode.fmri.image_metrics import METRICS
from neurodecode.fmri.published import PAPER_TABLE
from neuroloaders.checks import check_option, invalid, soft_import

__all__ = ["REPORTS", "SpeechReport", "report", "save_report"]

_SHOWN = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class SpeechReport:
    """What a report on decoded speech shows.

    Parameters
    ----------
    evaluations : mapping of str to SpeechEvaluation
        Name of a decoder -> what `neurodecode.meeg.evaluate_speech` found; the first is the one that counts.
    scan : LagScan, optional
        When the brain follows the sound.
    ceiling : float, optional
        Of simulated data: what the best of all decoders reaches, at the k of the evaluations' permutation test.
    planted_lag_s : float, optional
        Of simulated data.
    """

    evaluations: Mapping[str, Any]
    scan: Any = None
    ceiling: float | None = None
    planted_lag_s: float | None = None


def report(
    result: Any,
    *,
    title: str = "Brain decoding",
    regions: tuple[Any, Mapping[str, float] | None] | None = None,
    settings: Mapping[str, Any] | None = None,
    paper: str = "Brain-Diffuser",
    notes: str = "",
) -> Any:
    """Return a report of what a decoder reached.

    Parameters
    ----------
    result : DecoderEvaluation or SpeechReport
        From `neurodecode.fmri.evaluate_decoder`; or evaluations of speech.
    title : str
        Heading.
    regions : (mapping of str to image, mapping of str to float or None), optional
        Region -> the scene it drives, shape (3, H, W); and what its voxels weigh more for, from
        `neurodecode.fmri.region_preference`.
    settings : mapping, optional
        What was run: shown as a table.
    paper : str
        Whose numbers stand beside these: a key of `neurodecode.fmri.PAPER_TABLE`.
    notes : str
        Shown above everything: what a reader must know of the data.

    Returns
    -------
    mne.Report
        ``save("report.html", open_browser=False)`` writes it, or `save_report`, whole or not at all.

    Raises
    ------
    TypeError
        If there is no report of such a result.
    """
    for kind, write in REPORTS.items():
        if isinstance(result, kind):
            mne = soft_import("mne", purpose="A report")
            out = mne.Report(title=title, verbose="error")
            if notes:
                out.add_html(f"<p>{html.escape(notes)}</p>", title="Read this first")
            write(out, result, regions, check_option("paper", paper, PAPER_TABLE))
            if settings:
                out.add_html(_table(("setting", "value"), settings.items()), title="Settings")
            return out
    raise invalid("result", f"be a {' or a '.join(kind.__name__ for kind in REPORTS)}", result, kind=TypeError)


def save_report(made: Any, path: str | os.PathLike[str]) -> None:
    """Write a report as one HTML file, which is whole or not there.

    Parameters
    ----------
    made : mne.Report
        From `report`.
    path : path-like
        The file, ending in ``.html``; an older one is replaced.
    """
    import tempfile
    from pathlib import Path

    path = Path(path)
    if path.suffix != ".html":
        raise invalid("path", "end in '.html'", os.fspath(path))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as folder:
        draft = Path(folder) / path.name
        made.save(draft, open_browser=False, overwrite=True, verbose="error")
        draft.replace(path)


def _images(out: Any, result: DecoderEvaluation, regions: Any, paper: str) -> None:
    from neurodecode import plots

    made = result.reconstruction
    n = min(_SHOWN, len(result.seen))
    # From the best to the worst, evenly: not the best alone.
    order = np.argsort(-result.metrics.values["pixcorr"], kind="stable")
    shown = order[np.linspace(0, len(order) - 1, n).round().astype(int)]
    rows = {"seen": np.stack([np.asarray(result.seen[int(k)]) for k in shown])}
    if result.first_guess is not None:
        rows["first guess"] = made.first_guess[shown]
    rows["decoded"] = made.images[shown]
    if result.nearest_images is not None:
        rows["nearest\ntraining image"] = result.nearest_images[shown]
    titles = [f"{result.metrics.values['pixcorr'][k]:.2f}" for k in shown]
    _figure(
        out,
        plots.image_rows(rows, titles=titles),
        "Images",
        "Evenly chosen from the best to the worst by the correlation of pixels, which stands above each.",
    )
    _figure(out, _scores(result, paper), "Metrics", _comparable(result, paper))
    out.add_html(_metric_table(result, paper), title="Metrics beside the paper's")
    stages = result.stages
    values = {kind: stage.r2[np.isfinite(stage.r2)] for kind, stage in stages.items()}
    text = "Before predictions are given the spread of the training targets. " + " ".join(
        f"Others report {stage.reference.r2:g} for {kind}: {stage.reference.what} ({stage.reference.source})."
        for kind, stage in stages.items()
        if stage.reference is not None
    )
    _figure(out, plots.stage_histograms(values), "R² of each stage", text)
    alphas = {kind: np.log10(stage.alpha) for kind, stage in stages.items()}
    _figure(
        out,
        plots.stage_histograms(alphas, label="log₁₀ alpha"),
        "Penalties",
        "Where many targets have the smallest or largest alpha of the grid, widen it.",
    )
    out.add_html(_stage_table(result), title="Stages")
    if regions is not None:
        scenes, preference = regions
        names = list(scenes)
        picture = plots.image_rows({"scene": np.stack([np.asarray(scenes[name]) for name in names])}, titles=names)
        _figure(out, picture, "Scenes of regions", "What the decoder makes of one region at 1 and all others at 0.")
        if preference:
            _figure(
                out,
                plots.region_bars(preference),
                "What regions weigh for",
                "Weights are not activations: a voxel of pure noise has weight if its noise is shared.",
            )


def _speech(out: Any, result: SpeechReport, regions: Any, paper: str) -> None:
    from neurodecode import plots

    first = next(iter(result.evaluations.values()))
    k = first.permutation_k
    text = f"{len(first.scores.row)} trials, {first.scores.segment.n_candidates} candidates."
    if first.permutation is not None:
        text += f" p = {first.permutation.p:.2g}: sentences change places."
    drawn = plots.decoder_and_controls(result.evaluations, k=k, ceiling=result.ceiling)
    _figure(out, drawn, "Which segment was heard", text)
    if result.scan is not None:
        caption = "Ridge regression from single samples of all sensors, on blocks that were left out; grey: subjects."
        _figure(out, plots.lag_curve(result.scan, planted_s=result.planted_lag_s), "When the brain follows", caption)
    columns = ("segment top-1", "segment top-10", "word top-1", "word top-10", "segment rank")
    for name, found in result.evaluations.items():
        rows = [(r["of"], r["subject"], r["n"], *(f"{r[c]:.3f}" for c in columns)) for r in found.table()]
        out.add_html(_table(("of", "subject", "trials", *columns), rows), title=f"{name}, by subject")
        bounds = [(key, f"{i.estimate:.3f}", f"{i.low:.3f} to {i.high:.3f}") for key, i in found.intervals.items()]
        if bounds:
            out.add_html(_table(("score", "mean", "95 % interval"), bounds), title=f"{name}, intervals")


# What was evaluated -> what writes its report.
REPORTS: dict[type, Callable[..., None]] = {DecoderEvaluation: _images, SpeechReport: _speech}


def _scores(result: DecoderEvaluation, paper: str) -> Any:
    from neurodecode import plots

    told = PAPER_TABLE[paper]
    own = {name: result.metrics.intervals[_key(result, name)] for name in result.metrics.scores}
    others = {}
    if result.metrics.comparable:
        others[paper] = {METRICS[name].title: getattr(told, name) for name in own if getattr(told, name) is not None}
    if result.nearest is not None:
        others["nearest training image"] = {
            METRICS[name].title: value for name, value in result.nearest.metrics.scores.items()
        }
    if result.first_guess is not None:
        others["first guess"] = {METRICS[name].title: value for name, value in result.first_guess.scores.items()}
    scores = {METRICS[name].title: (found.estimate, found.low, found.high) for name, found in own.items()}
    return plots.score_intervals(scores, others=others)


def _key(result: DecoderEvaluation, name: str) -> str:
    return f"ssim_{result.metrics.ssim}" if name == "ssim" else name


def _comparable(result: DecoderEvaluation, paper: str) -> str:
    text = (
        f"{result.metrics.n_images} images; bars are bootstrap intervals over them. EffNet-B and SwAV: less is better."
    )
    if not result.metrics.comparable:
        text += f" Networks: {result.metrics.networks}. Metrics of features may not be compared with {paper}."
    return text


def _metric_table(result: DecoderEvaluation, paper: str) -> str:
    told = PAPER_TABLE[paper]
    rows = []
    for name, metric in METRICS.items():
        for mode in ("columns", "2d") if name == "ssim" else (None,):
            key = name if mode is None else f"ssim_{mode}"
            if key not in result.metrics.intervals:
                continue
            found = result.metrics.intervals[key]
            known = getattr(told, name) if mode is None or told.ssim_mode in (mode, "unknown") else None
            test = result.metrics.tests.get(key)
            nearest = "" if result.nearest is None else f"{result.nearest.metrics.intervals[key].estimate:.3f}"
            rows.append(
                (
                    metric.title + ("" if mode is None else f" ({mode})"),
                    f"{found.estimate:.3f}",
                    f"{found.low:.3f} to {found.high:.3f}",
                    "" if test is None else f"{test.p:.2g}",
                    nearest,
                    "" if known is None else f"{known:.3f}",
                )
            )
    head = ("metric", "this run", "95 % interval", "p (permutation)", "nearest training image", paper)
    note = f"<p>{html.escape(paper)}: {html.escape(told.data)}. {html.escape(told.source)}.</p>"
    return _table(head, rows) + note


def _stage_table(result: DecoderEvaluation) -> str:
    rows = []
    for kind, stage in result.stages.items():
        summary = stage.as_dict()
        cv, edge = summary["mean_cv_r2"], summary["edge_share"]
        rows.append(
            (
                kind,
                summary["n_targets"],
                f"{summary['mean_r2']:.3f}",
                f"{summary['mean_r2_train_mean']:.3f}",
                "" if cv is None else f"{cv:.3f}",
                f"{summary['quartiles_alpha'][1]:.3g}",
                "" if edge is None else f"{edge:.0%}",
                "" if stage.reference is None else f"{stage.reference.r2:g}: {stage.reference.what}",
            )
        )
    head = (
        "latents", "targets", "R²", "R² around the training mean", "cross-validated R²", "median alpha",
        "alphas at the edge", "others",
    )  # fmt: skip
    return _table(head, rows)


def _figure(out: Any, ax: Any, title: str, caption: str) -> None:
    from matplotlib import pyplot as plt

    out.add_figure(ax.figure, title=title, caption=caption)
    plt.close(ax.figure)


def _table(head: Any, rows: Any) -> str:
    def line(cells: Any, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<table class="table table-sm"><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table>'
