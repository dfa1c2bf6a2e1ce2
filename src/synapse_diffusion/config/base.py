"""What all branches of the settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def none_word(value: object) -> object:
    """`none`, in words."""
    return None if value == "none" else value


def one_or_many(value: object) -> object:
    """One name, or several between commas."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (str(value),)
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",")) if value else ()
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]
"""Several names; `--set data.people=01,03` is read like `["01", "03"]`, and 49 like `["49"]`."""
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
"""One plain folder name: nothing outside `paths.stores` can be meant by it."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
NoneOrFraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Interval = Annotated[tuple[float, float] | None, BeforeValidator(none_word)]


class Settings(BaseModel):
    """Base of all branches: frozen, unknown keys refused, numbers not read from text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
