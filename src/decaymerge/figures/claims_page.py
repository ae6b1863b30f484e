"""``claims.html``: a self-contained page with every claim, its outcomes, its numbers and its picture."""

import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import xarray as xr
from latex2mathml.converter import convert
from markupsafe import Markup, escape
from PIL import Image

from decaymerge.claims import CLAIMS, SCAN_CLAIMS, count
from decaymerge.claims.verdict import Verdict
from decaymerge.figures.claims import draw_against_width, draw_claim, draw_scan_claim, panel_of, places
from decaymerge.figures.page import write_page
from decaymerge.figures.style import save
from decaymerge.workflow.jobs import FigureJob

KINDS = {"equality": "equality", "upper": "upper bound", "lower": "lower bound"}
MEANINGS = {
    "holds": "An equality holds to the stated tolerance, or the measured side stays within the bound.",
    "not supported": "The assumptions hold as far as they can be measured, and yet the measured side is outside the"
    " bound. This contradicts the claim at these settings; it does not prove the claim false.",
    "assumption unmet": "The run does not satisfy what the claim assumes. The note says which assumption is unmet,"
    " and by how much. The numbers are shown all the same, but decide nothing.",
}


def write_claims_page(
    job: FigureJob,
    verdicts: Sequence[Verdict],
    traces: Mapping[str, xr.Dataset],
    output: Path,
    threads: int = 1,
) -> None:
    """Write the page to ``output``, and each claim's picture as PDF and PNG into ``figures/claims`` next to it.

    Args:
        job: How pictures are drawn.
        verdicts: All verdicts.
        traces: ``measured`` and ``bound`` of each experiment, the dataset of ``claims.check_experiment``.
        output: The page, HTML.
        threads: Number of processes that draw.

    Raises:
        UserError: a file cannot be written.
    """
    names = [name for name in (*CLAIMS, *SCAN_CLAIMS) if any(verdict.claim == name for verdict in verdicts)]
    per_claim = {name: [verdict for verdict in verdicts if verdict.claim == name] for name in names}
    pictures = {name: output.parent / "figures/claims" / f"{name}.pdf" for name in names}
    with ProcessPoolExecutor(threads, mp_context=get_context("fork")) as pool:
        drawings = {
            name: pool.submit(_draw, name, per_claim[name], _claim_traces(name, traces), pictures[name], job)
            for name in names
        }
        drawn = {name: drawing.result() for name, drawing in drawings.items()}
    claims = [
        {
            "name": name,
            "source": per_claim[name][0].source,
            "kind": KINDS[per_claim[name][0].kind],
            "statement": with_formulas(per_claim[name][0].statement),
            "assumptions": with_formulas(per_claim[name][0].assumptions),
            "tried": with_formulas(CLAIMS[name].tried) if name in CLAIMS else "",
            "counts": count(per_claim[name]),
            "verdicts": per_claim[name],
            **drawn[name],
        }
        for name in names
    ]
    made_by = sorted({verdict.made_by for verdict in verdicts})
    counts = count(verdicts)
    contradicted = [
        name for name in names if any(verdict.outcome == "not supported" for verdict in per_claim[name])
    ]
    write_page(
        "claims.html",
        output,
        claims=claims,
        counts=counts,
        contradicted=contradicted,
        meanings=MEANINGS,
        made_by=made_by,
        panel_of=panel_of,
    )


def _claim_traces(name: str, traces: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Traces of one claim, of the experiments to which it applies."""
    return {
        experiment: trace[["measured", "bound"]].sel(claim=[name])
        for experiment, trace in traces.items()
        if name in trace.claim.values
    }


def _draw(
    name: str, verdicts: Sequence[Verdict], traces: Mapping[str, xr.Dataset], output: Path, job: FigureJob
) -> dict[str, Any]:
    """Draw one claim's picture. Return it as the page holds it, and the places of its panels."""
    if name in SCAN_CLAIMS:
        figure = draw_scan_claim(name, verdicts)
    elif CLAIMS[name].against == "width":
        figure = draw_against_width(name, verdicts, traces)
    else:
        figure = draw_claim(name, traces)
    save(figure, output, job)
    return {"picture": encoded(output.with_suffix(".png")), "panels": places(figure)}


def encoded(picture: Path) -> str:
    """The PNG file ``picture`` for a page: WebP of 128 colours, which is a quarter of its size, in base64.

    A browser shows no page of more than 2 MB inside of another, as Snakemake's report has it; the pictures of the
    default run would be three times that.
    """
    image = Image.open(picture).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE).convert("RGB")
    stream = BytesIO()
    image.save(stream, "WEBP", lossless=True)
    return base64.b64encode(stream.getvalue()).decode()


def with_formulas(text: str) -> Markup:
    """``text`` as HTML, with its parts between dollar signs, which are LaTeX, as MathML."""
    parts = text.split("$")
    return Markup("").join(Markup(convert(part)) if i % 2 else escape(part) for i, part in enumerate(parts))
