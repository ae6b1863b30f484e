"""Write the tables of the pages from ``docs/numbers``: ``python docs/hooks/page_tables.py``.

A table stands between ``<!-- name run -->`` and ``<!-- end -->``. The function ``name`` of ``results_tables.py``,
``beyond_tables.py``, ``inputs_tables.py`` or ``minilm_tables.py`` writes it, from the folder ``docs/numbers/run``
(see ``run_numbers.py``).
"""

import re
import sys
from pathlib import Path

import beyond_tables
import inputs_tables
import minilm_tables
import results_tables

DOCS = Path(__file__).parents[1]
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("**/*.md"))]
BLOCK = re.compile(r"(?<=<!-- )(\w+) (\w+) -->\n.*?<!-- end", re.DOTALL)
WRITERS = {
    writer.__name__: writer
    for writer in (
        *results_tables.WRITERS,
        *beyond_tables.WRITERS,
        *inputs_tables.WRITERS,
        *minilm_tables.WRITERS,
    )
}


def written(text: str) -> str:
    """The text of a page with its tables as the folders of numbers have them."""

    def block(match: re.Match[str]) -> str:
        writer, run = WRITERS[match[1]], DOCS / "numbers" / match[2]
        table = writer(run) if run.exists() else "Not run yet."
        return f"{match[1]} {match[2]} -->\n\n{table}\n\n<!-- end"

    return BLOCK.sub(block, text)


def main() -> None:
    """Write the tables of all pages; with ``--check``, only say whether they are as the numbers are."""
    stale = [page for page in PAGES if written(page.read_text()) != page.read_text()]
    if "--check" in sys.argv:
        sys.exit(
            f"stale tables in {', '.join(map(str, stale))}: python docs/hooks/page_tables.py" if stale else 0
        )
    for page in stale:
        page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
