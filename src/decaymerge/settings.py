"""What all settings share: how they are declared, and how a wrong one is described to the user."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from decaymerge.errors import UserError


def refuse(message: str) -> PydanticCustomError:
    """Error whose text reaches the user as it is."""
    return PydanticCustomError("setting", "{message}", {"message": message})


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is answered with the nearest allowed one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f", did you mean {near[0]!r}?" if near else ""
                    raise refuse(
                        f"unknown key {key} = {value[key]!r}{hint} (allowed: {', '.join(cls.model_fields)})"
                    )
        return value


LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


class JsonSchema(GenerateJsonSchema):
    """JSON schema in whose words all limits stand: pydantic leaves its own where a validator goes before them."""

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        """The schema of a model."""
        return _in_json_words(super().generate(schema, mode))


def _in_json_words(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_in_json_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {LIMITS.get(key, key): _in_json_words(value) for key, value in schema.items()}


def _number(value: Any) -> Any:
    """YAML reads ``1e-4`` as a string and ``yes`` as a boolean: take the first, refuse the second."""
    if isinstance(value, bool):
        raise refuse("a number is expected, not a boolean")
    return value


def _whole(value: Any) -> Any:
    """A whole number may come as text, from the command line or as ``1e3``."""
    if isinstance(value, bool):
        raise refuse("a whole number is expected, not a boolean")
    try:
        return int(float(value)) if isinstance(value, str) and float(value).is_integer() else value
    except (ValueError, OverflowError):
        return value


def shortest(value: float) -> str:
    """The shortest text that reads back as the same number, without ``.0``."""
    return repr(value + 0.0).removesuffix(".0")


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
PositiveNumber = Annotated[Number, Field(gt=0, le=1e12)]
Whole = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=1, le=10**9)]
Size = Annotated[Whole, Field(ge=1, le=10**6)]
"""A dimension of an array."""
WeightDecay = Annotated[Number, Field(ge=0, le=1e12)]
Loss = Literal["logistic", "exponential"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=64)]

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
        raise UserError("\n".join(lines)) from None


def _describe(raw: Any, details: Any) -> str:
    """``key = value: what is allowed``, with the key as the user wrote it.

    pydantic's location holds names that the file lacks (a union's tag, the tasks a, b, … of alike tasks):
    walking the file along it leaves them out.
    """
    key: list[str] = []
    value = raw
    for part in details["loc"]:
        if isinstance(value, Mapping) and part in value:
            key, value = [*key, str(part)], value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            key, value = [*key, f"[{part}]"], value[part]
    if details["type"] == "missing":
        key.append(str(details["loc"][-1]))
    if details["type"] == "union_tag_not_found":
        key.append("dataset")
    if details["type"] == "union_tag_invalid":
        key, value = [*key, "dataset"], details["ctx"]["tag"]
    where = ".".join(key).replace(".[", "[") or "config"
    shown = "" if isinstance(value, Mapping) else f" = {value!r}"
    text = "Field required" if details["type"] == "union_tag_not_found" else details["msg"]
    if details["type"] == "string_pattern_mismatch" and details["loc"][-1] == "[key]":
        text = text.replace("String should match", "a name must match")
    if details["type"] == "union_tag_invalid":
        text = f"Input should be one of {details['ctx']['expected_tags']}"
    return f"{where}{shown}: {text}"


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse what YAML's own loader silently overwrites."""
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path) -> object:
    """Content of a YAML file, not yet checked.

    Raises:
        UserError: it cannot be read, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(path.read_text(), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def parse_bytes(setting: str, text: str) -> int:
    """Bytes of a size such as ``2GB`` or ``512MiB``.

    Raises:
        UserError: ``text`` is no size.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise UserError(f"{setting} {text} is no size; write it as in 2GB or 512MiB") from None
