"""Recipes from TOML and `--set`, with all faults at once."""

from __future__ import annotations

import difflib
import importlib.resources
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import tomli_w

from synapse_diffusion.config.tree import Recipe
from synapse_diffusion.errors import SettingsError


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe, a file or the name of one that comes with the package (`demo`).

    `overrides` are `a.b=value` with the value in TOML (or bare text). Raises `SettingsError` with one line
    a fault: where, key, value, what is wrong, nearest key.
    """
    path = Path(recipe)
    if not path.is_file() and len(path.parts) == 1:
        shipped = Path(str(importlib.resources.files("synapse_diffusion"))) / "recipes" / f"{path.stem}.toml"
        path = shipped if shipped.exists() else path
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise SettingsError(f"{recipe}: no such recipe; give a TOML file, or one of {_shipped()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    return parse_recipe(tree, overrides, where=str(recipe))


def parse_recipe(tree: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Validate a tree of settings; `where` names it in faults. Raises `SettingsError`."""
    merged = _copied(tree)
    origin: dict[tuple[str, ...], str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            raise SettingsError(f"--set {override}: give it as branch.key=value")
        _put(merged, path, _value(text.strip()), override)
        origin[path] = f"--set {override}"
    try:
        return Recipe.model_validate(_tuples(merged))
    except pydantic.ValidationError as error:
        raise SettingsError("\n".join(_fault(fault, where, origin) for fault in error.errors())) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as TOML, every key written out (a key without a value is left out)."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def _shipped() -> str:
    folder = Path(str(importlib.resources.files("synapse_diffusion"))) / "recipes"
    return ", ".join(sorted(path.stem for path in folder.glob("*.toml")))


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in tree.items()}


def _tuples(value: Any) -> Any:
    """TOML arrays as tuples, integers untouched: the tree is validated strictly."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any, override: str) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"--set {override}: {name} is a value, not a branch")
    tree[path[-1]] = value


def _fault(fault: Any, where: str, origin: Mapping[tuple[str, ...], str]) -> str:
    path = tuple(str(part) for part in fault["loc"])
    source = next((origin[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origin), where)
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        names = _keys(path[:-1])
        near = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.0)
        return f"{source}: {key} = {fault['input']!r}: no such key; nearest is {'.'.join((*path[:-1], *near))}"
    message = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "list, e.g. [1, 2]")
    if fault["type"] == "string_pattern_mismatch":
        message = "give one plain folder name: a letter or digit, then letters, digits, . _ + -"
    if not key:  # of the recipe as a whole
        return f"{source}: {message}"
    value = "" if isinstance(fault["input"], dict) else f" = {fault['input']!r}"
    return f"{source}: {key}{value}: {message}"


def _keys(path: tuple[str, ...]) -> list[str]:
    model: Any = Recipe
    for name in path:
        if typing.get_origin(model) is dict:  # its keys are the user's
            model = typing.get_args(model)[1]
            continue
        annotation = model.model_fields[name].annotation
        if typing.get_origin(annotation) is dict:
            model = annotation
            continue
        if not (isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)):
            return list(typing.get_args(annotation))
        model = annotation
    return list(model.model_fields)
