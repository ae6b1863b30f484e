"""The arguments of ``merge-checkpoints`` as settings of a job."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decaymerge.errors import UserError

if TYPE_CHECKING:
    from decaymerge.workflow.jobs import CheckpointsJob

AUTO = "auto"
COEFFICIENT = "coefficient"
"""The parameter that may be given several times, for single models or roles."""
FOR_TRANSFORMERS: dict[str, Any] = {"activations": "merged", "ridge": 1e-4, "shrinkage": 0.1}
"""Parameters of least squares unless they are given: the best of three settings, on the test texts of one seed of
MiniLM."""


def with_parameters_of_methods(command: Callable[..., None]) -> Callable[..., None]:
    """Replace ``**parameters`` of a command by one option for each parameter of the merge methods."""
    from decaymerge.merge_methods import MERGE_METHODS

    methods = {
        key: [name for name, method in MERGE_METHODS.items() if key in method.parameters]
        for method in MERGE_METHODS.values()
        for key in method.parameters
    }
    options = [
        inspect.Parameter(
            key,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None if key == COEFFICIENT else str | None, typer.Option(help=_help(key, names))
            ],
        )
        for key, names in methods.items()
    ]
    fixed = list(inspect.signature(command).parameters.values())[:-1]
    command.__signature__ = inspect.Signature([*fixed, *options])  # type: ignore[attr-defined]
    command.__annotations__ |= {option.name: option.annotation for option in options}
    return command


def _help(key: str, names: list[str]) -> str:
    default = f"; {FOR_TRANSFORMERS[key]} if left out" if key in FOR_TRANSFORMERS else ""
    auto = (
        ", auto: the best on --inputs, or NAME=NUMBER several times: for a model, a role such as Q, or all"
        if key == COEFFICIENT
        else ""
    )
    return f"Parameter of --method {' and '.join(names)}{auto}{default}."


def checkpoints_job(
    models: list[str],
    base: str | None,
    method: str,
    parameters: Mapping[str, Any],
    has_inputs: bool,
) -> "CheckpointsJob":
    """Settings of the merge.

    Args:
        models: Checkpoints as typed.
        base: Their base, or none.
        method: Name of the merge method.
        parameters: Those of all methods as typed, or none where they are left out.
        has_inputs: Whether inputs are given.

    Raises:
        UserError: an argument is unknown, missing, or does not fit to another.
    """
    from decaymerge.config.base import validate
    from decaymerge.merge_checkpoints.opened import short_names
    from decaymerge.merge_methods import MERGE_METHODS
    from decaymerge.workflow.jobs import CheckpointsJob

    if method not in MERGE_METHODS:
        raise UserError(f"--method {method} is not known; known: {', '.join(MERGE_METHODS)}")
    known_parameters = MERGE_METHODS[method].parameters
    given: dict[str, Any] = {key: value for key, value in parameters.items() if value is not None}
    several = given.get(COEFFICIENT)
    if isinstance(several, list) and len(several) == 1 and "=" not in several[0]:
        given[COEFFICIENT] = several[0]
    for key, parameter in known_parameters.items():
        if parameter.default is parameter.empty and key not in given:
            raise UserError(f"--method {method} needs --{key}, such as --{key} 0.5")
    for key, value in given.items():
        if key not in known_parameters:
            methods = [name for name, other in MERGE_METHODS.items() if key in other.parameters]
            text = " ".join(value) if isinstance(value, list) else value
            raise UserError(
                f"--{key} {text} belongs to --method {' or '.join(methods)}, not to {method}; give that method,"
                f" or leave --{key} out"
            )
    needs = MERGE_METHODS[method].needs
    if "layer" in needs:
        raise UserError(f"--method {method} is for the networks of experiments; give another method")
    if needs and not has_inputs and needs != {"base"}:
        raise UserError(
            f"--method {method} merges from inputs of the tasks; give --inputs NAME=FILE for each model"
        )
    if given.get(COEFFICIENT) == AUTO:
        if not has_inputs:
            raise UserError("--coefficient auto is chosen on --inputs; give them, or a number")
        given[COEFFICIENT] = 1.0
    elif isinstance(given.get(COEFFICIENT), list):
        given[COEFFICIENT] = _coefficients(given[COEFFICIENT], short_names(models), models)
    if method == "least_squares":
        given = FOR_TRANSFORMERS | given
    if len(models) < 2:
        alone = f"{models[0]} alone cannot be merged" if models else "no checkpoint is given"
        raise UserError(f"{alone}; give two or more checkpoints")
    if repeated := [text for text in models if models.count(text) > 1]:
        raise UserError(f"{repeated[0]} is given twice; give different checkpoints")
    method_settings = {"method": method, **given} if given else method
    return validate(CheckpointsJob, {"models": models, "base": base, "method": method_settings})


def _coefficients(given: list[str], names: list[str], typed: list[str]) -> dict[str, str]:
    """Numbers as text by the names of models and roles."""
    from decaymerge.merge_checkpoints.matrices import ORDER, OTHERS
    from decaymerge.merge_methods import EVERYTHING

    known = dict(zip(typed, names, strict=True)) | {
        name: name for name in (*names, *ORDER, *OTHERS, EVERYTHING)
    }
    numbers: dict[str, str] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if name not in known:
            raise UserError(
                f"--coefficient {text} is no NAME=NUMBER with a model, a role ({', '.join((*ORDER, *OTHERS))}), or"
                f" {EVERYTHING}; one number for everything is given once and alone"
            )
        if known[name] in numbers:
            raise UserError(f"--coefficient {text} is the second for {name}; give one")
        numbers[known[name]] = number
    if clashing := set(names) & {*ORDER, *OTHERS, EVERYTHING} & set(numbers):
        raise UserError(
            f"--coefficient {clashing.pop()}: this is a model and a role; give the model's folder another name"
        )
    return numbers
