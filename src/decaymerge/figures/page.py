"""HTML pages, written from the templates next to this file."""

from pathlib import Path

from jinja2 import Environment, PackageLoader

from decaymerge.atomic import atomic_file


def write_page(template: str, output: Path, **content: object) -> None:
    """Fill a template with ``content`` and write it to ``output``, HTML.

    Raises:
        UserError: the page cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("decaymerge.figures"),
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "slug": lambda outcome: outcome.replace(" ", "-")}
    with atomic_file(output) as temporary:
        temporary.write_text(environment.get_template(template).render(content))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
