"""Settings of the merge methods, made from their signatures (``merge`` in the YAML)."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_origin

from pydantic import BeforeValidator, Discriminator, Tag, create_model

from decaymerge.config.base import Settings, refuse
from decaymerge.config.numbers import number, shortest
from decaymerge.merge_methods import INPUTS, MERGE_METHODS, MergeMethod


def _model(name: str, method: MergeMethod) -> type[Settings]:
    """Settings ``{method: name, …}`` with a field for each parameter of the method's function."""
    fields: dict[str, Any] = {"method": (Literal[name], ...)}
    for key, parameter in method.parameters.items():
        default = ... if parameter.default is parameter.empty else parameter.default
        annotation = parameter.annotation
        if annotation is not bool and get_origin(annotation) is not Literal:
            annotation = Annotated[annotation, BeforeValidator(number)]
        fields[key] = (annotation, default)
    title = f"{name.title().replace('_', '')}Merge"
    return create_model(title, __base__=Settings, __doc__=method.description, **fields)


PLAIN = tuple(name for name, method in MERGE_METHODS.items() if method.plain)
"""Methods that can be given by name alone."""
MODELS = {name: _model(name, method) for name, method in MERGE_METHODS.items() if method.parameters}


def _known_method(value: Any) -> Any:
    """Refuse a bad method here, in one line; pydantic would say no more than that it knows no such tag."""
    if isinstance(value, Settings):
        return value
    name = value.get("method") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or name not in MERGE_METHODS:
        raise refuse(f"a merge method is expected: {', '.join(MERGE_METHODS)}")
    if isinstance(value, Mapping) and name not in MODELS:
        raise refuse(f"{name} has no parameters; write its name alone")
    if not isinstance(value, Mapping) and name not in PLAIN:
        keys = ", ".join(f"{key}: …" for key in MERGE_METHODS[name].parameters)
        raise refuse(f"{name} has parameters; write {{method: {name}, {keys}}}")
    return value


def _form(value: Any) -> str:
    """Which member of the union decides: ``by name`` for a method without settings, else the method."""
    if isinstance(value, str):
        return "by name"
    return str(value["method"] if isinstance(value, Mapping) else value.method)


if TYPE_CHECKING:
    MergeSettings = str | Settings
else:
    MergeSettings = Annotated[
        Union[
            (
                Annotated[Literal[PLAIN], Tag("by name")],
                *(Annotated[model, Tag(name)] for name, model in MODELS.items()),
            )
        ],
        Discriminator(_form),
        BeforeValidator(_known_method),
    ]
    """A method by its name, or a mapping of its name and its parameters."""


def method_of(merging: MergeSettings) -> tuple[str, dict[str, Any]]:
    """Name and parameters of a merge."""
    if isinstance(merging, str):
        return merging, {}
    parameters = merging.model_dump()
    return parameters.pop("method"), parameters


def merge_name(merging: MergeSettings) -> str:
    """Name of a merged network on the ``model`` dimension, such as ``sum`` or ``scaled=0.8``."""
    name, parameters = method_of(merging)
    values = [_shown(value) for value in parameters.values()]
    return f"{name}={','.join(values)}" if values else name


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ";".join(f"{key}:{_shown(one)}" for key, one in value.items())
    return shortest(value) if isinstance(value, float) else str(value)


def named_coefficients(merging: MergeSettings) -> list[str]:
    """What the coefficients of a merge name: networks, roles, or everything."""
    coefficient = method_of(merging)[1].get("coefficient")
    return list(coefficient) if isinstance(coefficient, Mapping) else []


def asks_for_inputs(merges: Iterable[MergeSettings]) -> bool:
    """Whether one of the merges needs the tasks' data."""
    needs = [MERGE_METHODS[method_of(merging)[0]].needs for merging in merges]
    return any(need & INPUTS for need in needs)
