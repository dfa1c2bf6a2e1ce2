"""The search space: checked against the settings tree before anything runs, and what a point of it stands for.

A point holds a code for each key: a number of its range; the number of a choice, or of a step above `low`.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

from synapse_diffusion.config import Recipe, Values, parse_recipe
from synapse_diffusion.errors import SettingsError

TUNABLE: Final = ("view", "target", "loss", "model", "train")
FIXED: Final = {
    "view.reject": "which trials are judged",
    "view.reject_limit": "which trials are judged",
    "view.targets": "which trials are judged",
    "target.task": "what is measured",
    "train.checks": "how often a trial is looked at",
    "train.members": "nothing that one network's validation loss shows",
    "train.refit": "nothing that is judged on validation",
    "train.baselines": "nothing of the decoder",
    "train.seed": "chance alone",
}
"""What a key would change instead of how good a decoder is."""
MOST_CORNERS: Final = 1000  # half a second
TOLERANCE: Final = 1e-9  # of a step


def check_space(recipe: Recipe) -> None:
    """Raise `SettingsError`, in one sentence, for a space that is empty or that the settings tree refuses somewhere."""
    if not recipe.tune.space:
        raise SettingsError(
            "tune.space is empty: name what is to be tried in the recipe, e.g. "
            "train.learning_rate = {low = 1e-4, high = 1e-2, log = true} under [tune.space]"
        )
    for corner in corners(recipe.tune.space):
        try:
            with_values(recipe, corner)
        except SettingsError as error:
            raise SettingsError(str(error).splitlines()[0]) from None
    for key in recipe.tune.space:
        if key.split(".")[0] not in TUNABLE:
            raise SettingsError(
                f"tune.space: {key}: trials would not be judged on the same data; tune {', '.join(TUNABLE)}"
            )
        if key in FIXED:
            raise SettingsError(f"tune.space: {key} changes {FIXED[key]}; set it in the recipe, and leave it out here")


def corners(space: Mapping[str, Values]) -> Iterator[dict[str, Any]]:
    """Every combination of ends and choices; where they are many, some at random."""
    ends = {key: values.choices or _ends(values) for key, values in space.items()}
    if math.prod(len(end) for end in ends.values()) <= MOST_CORNERS:
        yield from (dict(zip(ends, corner, strict=True)) for corner in itertools.product(*ends.values()))
        return
    rng = random.Random(0)
    for _ in range(MOST_CORNERS):
        yield {key: rng.choice(end) for key, end in ends.items()}


def _ends(values: Values) -> tuple[Any, ...]:
    """Smallest and largest value that a trial may have: of steps not `high`, and 64.0 where a step is a float."""
    if values.step is None:
        return values.low, values.high
    return _value(values, 0), _value(values, n_steps(values))


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values under these dotted keys, and without a search. Raises `SettingsError`."""
    tree = recipe.model_dump(mode="json", exclude={"tune"})
    for key, value in values.items():
        *branches, name = key.split(".")
        inner = tree
        for branch in branches:
            inner = inner.setdefault(branch, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"tune.space: {key}: no such key; {branch} is a value, not a branch")
        inner[name] = value
    return parse_recipe(tree, where="tune.space")


def is_whole(recipe: Recipe, key: str) -> bool:
    """Does this key's range hold integers only?"""
    values = recipe.tune.space[key]
    ends = (values.low, values.high, values.step)
    return not any(isinstance(end, float) for end in ends) and not isinstance(_own(recipe, key), float)


def n_steps(values: Values) -> int:
    """How many steps lie between a stepped range's ends."""
    assert values.low is not None
    assert values.high is not None
    assert values.step is not None
    return math.floor((values.high - values.low) / values.step + TOLERANCE)


def decode(space: Mapping[str, Values], point: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a point's codes."""
    return {key: _value(space[key], code) for key, code in point.items()}


def _value(values: Values, code: Any) -> Any:
    if values.choices:
        return values.choices[int(code)]
    if values.step is None:
        return int(code) if isinstance(code, int) else float(code)
    assert values.low is not None
    return values.low + values.step * int(code)


def own_point(recipe: Recipe) -> dict[str, Any] | None:
    """The point at which the recipe itself stands; None where the space does not hold it."""
    point = {key: _code(recipe, key) for key in recipe.tune.space}
    return None if None in point.values() else point


def _own(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _code(recipe: Recipe, key: str) -> Any:
    values, own = recipe.tune.space[key], _own(recipe, key)
    if values.choices:
        return next((k for k, choice in enumerate(values.choices) if _is_own(recipe, key, choice)), None)
    if isinstance(own, bool) or not isinstance(own, int | float) or values.low is None or values.high is None:
        return None
    if not values.low <= own <= values.high:
        return None
    if values.step is None:
        return own
    code = (own - values.low) / values.step
    return round(code) if abs(code - round(code)) < TOLERANCE else None


def _is_own(recipe: Recipe, key: str, choice: Any) -> bool:
    """Does this choice leave the recipe as it is? (By itself it may be refused, where other keys go with it.)"""
    try:
        return bool(_own(with_values(recipe, {key: choice}), key) == _own(recipe, key))
    except SettingsError:
        return False
