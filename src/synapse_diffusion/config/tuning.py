"""Settings of a search over settings."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from synapse_diffusion.config.base import Count, Fraction, Settings

RANGE: Final = ("low", "high", "log", "step")


def _number(value: object) -> object:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError("give a number")


Number = Annotated[int | float | None, PlainValidator(_number)]  # an integer stays one


class Values(Settings):
    """What one setting is tried with: a range (`low`, `high`, `log`, `step`), or `choices`.

    A range whose ends are both integers holds integers, unless the recipe's own value is a fraction.
    """

    low: Number = None
    """Smallest value."""
    high: Number = None
    """Largest value."""
    log: bool = False
    """Equal ratios are equally likely, rather than equal differences."""
    step: Number = None
    """Only `low` and so many steps above it."""
    choices: tuple[Any, ...] = ()
    """One of these."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.choices:
            if any(getattr(self, name) != type(self).model_fields[name].default for name in RANGE):
                raise ValueError("has choices and a range; give one of them")
            if len(self.choices) != len({repr(choice) for choice in self.choices}) or len(self.choices) < 2:
                raise ValueError(f"choices = {list(self.choices)} needs two or more different values")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"is empty: low = {self.low} must be below high = {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log = true needs low above 0 and no step, not low = {self.low}, step = {self.step}")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step = {self.step} must be above 0 and at most high - low = {self.high - self.low}")
        return self


def dotted(value: object) -> object:
    """A space in tables (`[tune.space.train]`), or under dotted keys, as dotted keys."""
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        deeper = isinstance(inner, dict) and inner and all(isinstance(part, dict) for part in inner.values())
        found |= {f"{key}.{k}": v for k, v in _items(dotted(inner))} if deeper else {str(key): inner}
    return found


def _items(value: object) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


class TuneSettings(Settings):
    """A search over settings (`tune`): what is tried, and how often. It changes no decoder."""

    space: Annotated[dict[str, Values], BeforeValidator(dotted)] = Field(default={})
    """What is tried: keys of `view`, `target`, `loss`, `model`, `train`, each with a range (`low`, `high`, and `log` or
    `step`) or `choices`; e.g. `train.learning_rate = {low = 1e-4, high = 1e-2, log = true}`."""
    trials: Count = 20
    """Combinations of values that are tried."""
    search: Literal["tpe", "random"] = "tpe"
    """How they are chosen: from what the others were worth (a tree of Parzen estimators, Bergstra et al. 2011, by
    Optuna; where that is not installed at random), or at random. The recipe's own values come first, where the space
    has them."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed, other combinations."""
    stopping: bool = True
    """End trials that are worse than most others at the same share of their steps (ASHA, Li et al. 2020)."""
    grace: Fraction = 0.2
    """`stopping`: share of its steps that every trial is given."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """`stopping`: one of so many trials goes on at each rung; each rung is so many times the one before."""
