"""``overview.html``: a page with the origin of a run's results, its settings, and a table of each scan."""

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
    """Write the page to ``output``, HTML.

    Args:
        config: The configuration of the run.
        results: Files of results; those with the dimension ``role`` are scans.
        output: The page.

    Raises:
        UserError: a result is missing or damaged, or the page cannot be written.
    """
    origins: dict[str, list[str]] = defaultdict(list)
    scans: list[dict[str, Any]] = []
    for path in results:
        result = store.read(path)
        origins[made_by(result.attrs)].append(str(path))
        if "role" in result.dims:
            rows = [["layer", *result.role.values.tolist()], *rows_of(result)]
            scans.append({"name": path.stem, "architecture": result.attrs["architecture"], "rows": rows})
    settings = yaml.safe_dump(
        config.model_dump(mode="json", exclude_unset=True),
        sort_keys=False,
        width=110,
        default_flow_style=None,
    )
    write_page("overview.html", output, origins=origins, settings=settings, scans=scans)
