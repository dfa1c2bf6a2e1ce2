"""What commands share: arguments, a recipe of the right modality, a bar, a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from synapse_diffusion.errors import SettingsError

if TYPE_CHECKING:
    from synapse_diffusion.config import Recipe

RecipeArgument = Annotated[str, typer.Argument(help="TOML file, or the name of a shipped recipe (demo, ...).")]
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


def say(line: str) -> None:
    """A line on standard output."""
    typer.echo(line)


def command_line() -> str:
    """The command that is running, for provenance."""
    return " ".join(["synapse-diffusion", *sys.argv[1:]])


@contextmanager
def progress_bar(after: str = "the same command goes on from here") -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        try:
            yield report
        except KeyboardInterrupt:
            bar.stop()
            typer.secho(f"interrupted; {after}", err=True)
            raise
