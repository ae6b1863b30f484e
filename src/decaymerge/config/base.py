"""The base of all settings: how they are declared, read from YAML, and how a wrong one is described to the user."""

import ast
import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import ModelSchema

from decaymerge.errors import UserError, reason
from decaymerge.reading import text_of


def refuse(message: str) -> PydanticCustomError:
    """Error whose text reaches the user as it is."""
    return PydanticCustomError("setting", "{message}", {"message": message})


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is answered with its new name or the nearest allowed one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    renamed_keys: ClassVar[Mapping[str, str]] = {}
    """Former names of keys, and the key that each of them is now."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    raise refuse(f"unknown key {key} = {value[key]!r}{cls._hint(str(key))}")
        return value

    @classmethod
    def _hint(cls, key: str) -> str:
        if key in cls.renamed_keys:
            return f": it is now called {cls.renamed_keys[key]}"
        near = difflib.get_close_matches(key, cls.model_fields, n=1)
        meant = f", did you mean {near[0]!r}?" if near else ""
        return f"{meant} (allowed: {', '.join(cls.model_fields)})"


LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


class JsonSchema(GenerateJsonSchema):
    """JSON schema with ``minimum`` and ``maximum``, and with the docstring of each setting as its description.

    Behind a validator pydantic emits its own ``ge`` and ``le``, which no editor understands. Its own way to the
    docstrings, ``use_attribute_docstrings``, reads the source at each import, for every command of a run.
    """

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        """The schema of a model."""
        return _with_standard_limits(super().generate(schema, mode))

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        """The schema of one model, with descriptions."""
        described = super().model_schema(schema)
        settings: dict[str, Any] = described["properties"]
        for owner in reversed(schema["cls"].__mro__):
            with suppress(OSError, TypeError):  # `object`, and the model of a merge method, have no source
                for name, text in _docstrings(inspect.getsource(owner)):
                    if name in settings:
                        settings[name]["description"] = text
        return described


def _docstrings(source: str) -> Iterator[tuple[str, str]]:
    """The names and docstrings of a class's attributes."""
    (declared,) = ast.parse(source).body
    assert isinstance(declared, ast.ClassDef)
    for attribute, after in pairwise(declared.body):
        match attribute, after:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                yield name, inspect.cleandoc(text)


def _with_standard_limits(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_standard_limits(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {LIMITS.get(key, key): _with_standard_limits(value) for key, value in schema.items()}


Model = TypeVar("Model", bound=Settings)


def validate(model: type[Model], raw: object) -> Model:
    """Parse ``raw`` as ``model``.

    Raises:
        UserError: one line for each wrong setting: its key, its value and what is allowed.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(raw, details) for details in error.errors())
        raise UserError(*lines) from None


def _describe(raw: Any, details: Any) -> str:
    """``key = value: what is allowed``, with the key as the user wrote it."""
    key, value = _locate(raw, details["loc"])
    text = details["msg"]
    match details["type"]:
        case "missing":
            key.append(str(details["loc"][-1]))
        case "union_tag_not_found":
            key.append("dataset")
            text = "Field required"
        case "union_tag_invalid":
            key.append("dataset")
            value = details["ctx"]["tag"]
            text = f"Input should be one of {details['ctx']['expected_tags']}"
        case "string_pattern_mismatch" if details["loc"][-1] == "[key]":
            text = text.replace("String should match", "a name must match")
    where = ".".join(key).replace(".[", "[") or "config"
    quoted = "" if isinstance(value, Mapping) else f" = {value!r}"
    return f"{where}{quoted}: {text}"


def _locate(raw: Any, location: Any) -> tuple[list[str], Any]:
    """The user's key and value at pydantic's location.

    That location also holds names that the file lacks, such as the tag of a union or the tasks a, b, … of alike
    tasks. Walking the file along it drops them.
    """
    key: list[str] = []
    value = raw
    for part in location:
        if isinstance(value, Mapping) and part in value:
            key, value = [*key, str(part)], value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            key, value = [*key, f"[{part}]"], value[part]
    return key, value


MOST_BYTES = 10_000_000
"""Of a configuration."""
MOST_NODES = 1_000_000
"""Of a configuration, where each alias counts as what it stands for."""
OLD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""Numbers that YAML 1.1 reads in base 8 or 60."""


class _Loader(yaml.SafeLoader):
    """YAML in which a mapping has each key once, and a number means what it says."""

    def get_single_node(self) -> yaml.Node | None:
        """Refuse aliases of aliases that stand for more than memory holds."""
        node = super().get_single_node()
        if node is not None and _size(node, {}) > MOST_NODES:
            raise yaml.YAMLError("its aliases stand for more than a million values; write them out")
        return node

    def construct_scalar(self, node: Any) -> Any:
        """Refuse a number such as 0777, which is 511 in YAML 1.1, or 1:30, which is 90."""
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and OLD_NUMBER.fullmatch(
            node.value
        ):
            raise yaml.MarkedYAMLError(
                None,
                None,
                f"{node.value} is in base 8 or 60; write it in base 10, or in quotes",
                node.start_mark,
            )
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a second value for a key, which YAML's own loader takes silently."""
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node; one that several aliases name counts each time."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES  # of one that holds itself
        parts = (
            [part for pair in node.value for part in pair]
            if isinstance(node, yaml.MappingNode)
            else node.value
        )
        known[id(node)] = 1 + (0 if isinstance(parts, str) else sum(_size(part, known) for part in parts))
    return known[id(node)]


def load(path: Path) -> object:
    """Content of a YAML file, before any check.

    Raises:
        UserError: the file cannot be read, is too large for a configuration, or a mapping gives a key twice.
    """
    try:
        return yaml.load(text_of(path, MOST_BYTES), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None


def parse_bytes(setting: str, text: str) -> int:
    """Bytes of a size such as ``2GB`` or ``512MiB``.

    Raises:
        UserError: ``text`` is not a size.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise UserError(f"{setting} {text!r} is not a size; write it as in 2GB or 512MiB") from None
