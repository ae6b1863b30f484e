"""Numbers and names as settings: what YAML or a command line may write for them, and their limits."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from decaymerge.config.base import refuse


def number(value: Any) -> Any:
    """Accept ``1e-4``, which YAML reads as a string; refuse ``yes``, which YAML reads as a boolean."""
    if isinstance(value, bool):
        raise refuse("a number is expected, not a boolean")
    if isinstance(value, Mapping) and (wrong := [key for key, one in value.items() if isinstance(one, bool)]):
        raise refuse(f"{wrong[0]}: a number is expected, not a boolean")
    return value


def _whole(value: Any) -> Any:
    """Accept whole numbers as text, from the command line or as ``1e3``."""
    if isinstance(value, bool):
        raise refuse("a whole number is expected, not a boolean")
    try:
        return int(float(value)) if isinstance(value, str) and float(value).is_integer() else value
    except (ValueError, OverflowError):
        return value


def shortest(value: float) -> str:
    """The shortest text that reads back as the same number, without ``.0``."""
    return repr(value + 0.0).removesuffix(".0")


Number = Annotated[float, BeforeValidator(number), Field(allow_inf_nan=False)]
PositiveNumber = Annotated[Number, Field(gt=0, le=1e12)]
Whole = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=1, le=10**9)]
Size = Annotated[Whole, Field(ge=1, le=10**6)]
"""A dimension of an array."""
WeightDecay = Annotated[Number, Field(ge=0, le=1e12)]
Loss = Literal["logistic", "exponential"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=64)]
