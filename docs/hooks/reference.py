"""Make reference pages from the code: settings from their pydantic models, commands from Typer."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from mkdocs.structure.pages import Page

from decaymerge.config import json_schema

Schema = dict[str, Any]
LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minItems": "{} or more entries",
    "maxItems": "at most {} entries",
    "minProperties": "{} or more entries",
    "maxProperties": "at most {} entries",
    "maxLength": "at most {} characters",
    "pattern": "matches `{}`",
}


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Append the generated part of a page. MkDocs calls this before it renders the page's Markdown."""
    generate = GENERATED.get(page.file.src_uri)
    return markdown if generate is None else f"{markdown}\n\n{generate()}"


def configuration() -> str:
    """A section for each model of the configuration: the place of its keys in the file, and a table of them."""
    schema = json_schema()
    return "\n\n".join(
        _section(where, name, schema if name == "Config" else schema["$defs"][name])
        for where, name in _places(schema)
    )


def _places(schema: Schema) -> Iterator[tuple[str, str]]:
    """Place in the file and name of every model, each once, at its first place."""
    queue, seen = [("the whole file", "Config", schema)], {"Config"}
    while queue:
        where, name, model = queue.pop(0)
        yield where, name
        for key, value in model["properties"].items():
            inside = key if name == "Config" else f"{where}.{key}"
            for place, reference in _references(value, inside):
                if reference not in seen:
                    seen.add(reference)
                    queue.append((place, reference, schema["$defs"][reference]))


def _references(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Place and name of the models that a value may be; in a mapping from names the place is one level lower."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield where, value["$ref"].rsplit("/", 1)[1]
        for key, part in value.items():
            if key != "discriminator":
                is_mapping = key in ("additionalProperties", "patternProperties")
                yield from _references(part, f"{where}.NAME" if is_mapping else where)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part, where)


def _section(where: str, name: str, model: Schema) -> str:
    required = model.get("required", [])
    rows = [
        f"| `{key}` | {_kind(value)} | {_default(key, value, required)} | {', '.join(_limits(value))}"
        f" | {_text(value)} |"
        for key, value in model["properties"].items()
    ]
    title = where if name == "Config" else f"`{where}`: {name}"
    head = "| key | type | default | limits | what it is |\n| --- | --- | --- | --- | --- |"
    return f"## {title} {{ #{name.lower()} }}\n\n{_text(model)}\n\n{head}\n" + "\n".join(rows)


def _text(schema: Schema) -> str:
    return schema.get("description", "").replace("``", "`").replace("|", "\\|").replace("\n", " ")


def _kind(value: Schema) -> str:
    """Type of a value in words, as a link to its section if it is a model."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in value or "enum" in value:
        return " or ".join(f"`{constant}`" for constant in value.get("enum", [value.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in value:
            kinds = [_kind(option) for option in value[union] if option.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    if value["type"] == "array":
        return f"list of {_kind(value['items'])}"
    if value["type"] == "object":
        (inner,) = value.get("patternProperties", {"": value.get("additionalProperties")}).values()
        return f"mapping from names to {_kind(inner)}"
    return {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(
        value["type"], "number"
    )


def _default(key: str, value: Schema, required: list[str]) -> str:
    if key in required:
        return "**required**"
    default = value.get("default")
    if default is None:
        return "left out"
    if isinstance(default, dict):
        return "its own defaults"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _limits(value: Schema) -> list[str]:
    """Limits of a value in words, with those of the options of a union and of the elements of a list."""
    limits = [LIMITS[key].format(_short(value[key])) for key in LIMITS if key in value]
    for option in [*value.get("anyOf", []), *value.get("oneOf", [])]:
        limits += _limits(option)
    if "items" in value:
        limits += [f"each {limit}" for limit in _limits(value["items"])]
    return list(dict.fromkeys(limits))


def _short(limit: float | str) -> str:
    return limit.replace("|", "\\|") if isinstance(limit, str) else f"{limit:g}"


def commands() -> str:
    """Every command with its arguments and options, as Typer describes them, without Typer's title."""
    command = [sys.executable, "-m", "typer", "decaymerge.cli", "utils", "docs", "--name", "decaymerge"]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return page.partition("\n")[2]


GENERATED: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration,
    "reference/commands.md": commands,
}
