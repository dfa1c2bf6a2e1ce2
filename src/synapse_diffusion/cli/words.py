"""What commands share: arguments, and a recipe of the right modality."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synapse_diffusion.errors import SettingsError

if TYPE_CHECKING:
    from synapse_diffusion.config import Recipe


def shipped(incomplete: str) -> list[str]:
    """Names of shipped recipes that begin so, for a shell that completes a word."""
    recipes = Path(__file__).parents[1] / "recipes"
    return sorted(path.stem for path in recipes.glob("*.toml") if path.stem.startswith(incomplete))


RecipeArgument = Annotated[
    str, typer.Argument(help="TOML file, or the name of a shipped recipe (demo, ...).", autocompletion=shipped)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Override one setting; may be repeated."),
]


def recipe_of(modality: str, recipe: str, set_: list[str] | None) -> Recipe:
    """The recipe, which must be one of this modality."""
    from synapse_diffusion.config import load_recipe

    settings = load_recipe(recipe, set_ or ())
    if settings.data.modality != modality:
        word = {"comb": "convert comb or train fusion"}.get(settings.data.modality, settings.data.modality)
        raise SettingsError(
            f"{recipe}: data.modality = {settings.data.modality!r}, not {modality!r}: say {word}, or take another "
            "recipe"
        )
    return settings


def command_line() -> str:
    """The command that is running, for provenance."""
    program = Path(sys.argv[0])
    ours = program.name in ("synapse-diffusion", "__main__.py", "-c")
    return shlex.join([*(["synapse-diffusion"] if ours else ["python", str(program)]), *sys.argv[1:]])
