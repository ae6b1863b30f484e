"""``overview.html``: where a run's results come from, its settings, and the table of each scan, on one page."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from decaymerge import store
from decaymerge.config import Config
from decaymerge.figures.page import write_page
from decaymerge.provenance import made_by
from decaymerge.scan.table import rows_of


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
            rows = [["layer", *result.role.values.tolist()], *rows_of(result)]
            scans.append({"name": path.stem, "of": result.attrs["architecture"], "rows": rows})
    settings = yaml.safe_dump(
        config.model_dump(mode="json", exclude_unset=True),
        sort_keys=False,
        width=110,
        default_flow_style=None,
    )
    write_page("overview.html", output, origins=origins, settings=settings, scans=scans)
