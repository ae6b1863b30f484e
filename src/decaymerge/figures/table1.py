"""Table 1 of the paper: layers and dimensions of the transformers."""

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
"""Layers, model dimension and feed-forward dimension, from the paper."""

CONFIG_KEYS = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "model dim": ("hidden_size", "n_embd", "dim", "d_model"),
    "FF dim": ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim", "d_ff"),
}


def draw(job: FigureJob, scans: Sequence[xr.Dataset]) -> str:
    """Markdown: layers and dimensions of each scanned checkpoint from its own config, and of its weights."""
    head = "| model | layers | model dim | FF dim | found in the weights | the paper's |"
    rows = [head, "| --- " * 6 + "|"]
    for name, scan in zip(job.names, scans, strict=True):
        config = json.loads(scan.attrs["model_config"])
        own = tuple(
            next((config[key] for key in keys if config.get(key)), None) for keys in CONFIG_KEYS.values()
        )
        if own[1] and not own[2]:
            own = (*own[:2], 4 * own[1])  # GPT-2 and GPT-J leave their default out
        shown = " | ".join("not stated" if value is None else str(value) for value in own)
        dimensions = _dimensions(scan)
        paper = [title for title, numbers in PAPER_TABLE1.items() if numbers == own]
        alike = f"as {' and '.join(paper)}" if paper else "none has these numbers"
        rows.append(f"| {name} | {shown} | {dimensions} | {alike} |")
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
    if "QKV" not in scan.role.values:
        return f"{scan.sizes['layer']} matrices by name"
    columns = scan["columns"].isel(layer=0)
    return f"{scan.sizes['layer']}, {columns.sel(role='QKV'):.0f}, {columns.sel(role='M2'):.0f}"
