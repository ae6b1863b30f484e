"""Table 1 of the paper: numbers of layers and dimensions of the transformers."""

import json
from collections.abc import Sequence

import xarray as xr

from decaymerge.workflow.jobs import FigureJob

PAPER_TABLE1 = {
    "BERT": (12, 768, 3072),
    "RoBERTa": (12, 768, 3072),
    "GPT2-Large": (36, 1280, 5120),
    "GPT2-XL": (48, 1600, 6400),
    "Phi-2": (32, 2560, 10240),
    "GPT-J": (28, 4096, 16384),
}
"""Number of layers, model dimension and feed-forward dimension, from the paper."""

CONFIG_KEYS = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "model dim": ("hidden_size", "n_embd", "dim", "d_model"),
    "FF dim": ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim", "d_ff"),
}
"""Names that the numbers have in the ``config.json`` of one architecture or another."""


def draw(job: FigureJob, scans: Sequence[xr.Dataset]) -> str:
    """Layers and dimensions of each scanned checkpoint by its config and by its weights, as a table in Markdown.

    Args:
        job: The models.
        scans: Their scans, in the order of the job.
    """
    head = "| model | layers | model dim | FF dim | in the weights | in the paper's table |"
    rows = [head, "| --- " * 6 + "|"]
    for name, scan in zip(job.names, scans, strict=True):
        config = json.loads(scan.attrs["model_config"])
        numbers = tuple(
            next((config[key] for key in keys if config.get(key)), None) for keys in CONFIG_KEYS.values()
        )
        if numbers[1] and not numbers[2]:
            numbers = (*numbers[:2], 4 * numbers[1])  # the configs of GPT-2 and GPT-J leave out this default
        cells = " | ".join("not stated" if number is None else str(number) for number in numbers)
        alike = [title for title, paper_numbers in PAPER_TABLE1.items() if paper_numbers == numbers]
        in_paper = f"as {' and '.join(alike)}" if alike else "no model with these numbers"
        rows.append(f"| {name} | {cells} | {_dimensions(scan)} | {in_paper} |")
    paper_rows = [f"| {title} | {n} | {dim} | {ff} |" for title, (n, dim, ff) in PAPER_TABLE1.items()]
    return "\n".join(
        [
            *rows,
            "",
            "The paper's Table 1:",
            "",
            "| model | layers | model dim | FF dim |",
            "| --- " * 4 + "|",
            *paper_rows,
        ]
    )


def _dimensions(scan: xr.Dataset) -> str:
    """Layers, model dimension and feed-forward dimension of the weights, or the number of matrices."""
    if "QKV" not in scan.role.values:
        return f"{scan.sizes['layer']} matrices, known by name only"
    columns = scan["columns"].isel(layer=0)
    return f"{scan.sizes['layer']}, {columns.sel(role='QKV'):.0f}, {columns.sel(role='M2'):.0f}"
