"""``overview.html``: where a run's results come from, its settings, and the table of each scan, on one page."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from jinja2 import Environment, PackageLoader

from decaymerge import store
from decaymerge.config import Config
from decaymerge.provenance import made_by
from decaymerge.whole import whole


def write_overview(config: Config, results: Sequence[Path], output: Path) -> None:
    """Write the page of these results, of which those with a ``role`` are scans, to ``output``, HTML.

    Raises:
        UserError: a result is missing or damaged.
    """
    origins: dict[str, list[str]] = defaultdict(list)
    scans: list[dict[str, Any]] = []
    for path in results:
        result = store.read(path)
        origins[made_by(result.attrs)].append(str(path))
        if "role" in result.dims:
            scans.append({"name": path.stem, "of": result.attrs["architecture"], "rows": _rows(result)})
    settings = yaml.safe_dump(
        config.model_dump(mode="json", exclude_unset=True),
        sort_keys=False,
        width=110,
        default_flow_style=None,
    )
    environment = Environment(
        loader=PackageLoader("decaymerge.figures"), autoescape=True, keep_trailing_newline=True
    )
    page = environment.get_template("overview.html").render(origins=origins, settings=settings, scans=scans)
    with whole(output) as temporary:
        temporary.write_text(page)


def _rows(scan: xr.Dataset) -> list[list[str]]:
    """A head and a row for each layer: its name, and norm and stable rank of each role."""
    rows = [["layer", *(str(role) for role in scan.role.values)]]
    for layer in scan.layer.values:
        found = scan.sel(layer=layer)
        cells = [
            f"{norm:.4g} / {rank:.3g}" if np.isfinite(norm) else ""
            for norm, rank in zip(found.frobenius_norm.values, found.stable_rank.values, strict=True)
        ]
        rows.append([str(found.layer_name.values), *cells])
    return rows
