"""Stages that train in processes of their own: started, and heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.parallel import launch
from synapse_diffusion.types import Progress, Say

Tell = Callable[[tuple[Any, ...]], None]


def launch_stage(
    stage: Callable[..., object], n: int, recipe: Recipe, *arguments: str, say: Say, progress: Progress
) -> None:
    """Run `stage(recipe, *arguments, say, progress)` in `n` new processes that form a group; the first one speaks."""

    def hear(message: tuple[Any, ...]) -> None:
        (say if len(message) == 1 else progress)(*message)

    launch(n, _in_process, stage, recipe.model_dump(mode="json"), arguments, hear=hear)


def _in_process(tell: Tell, stage: Callable[..., object], recipe: dict[str, Any], arguments: tuple[str, ...]) -> None:
    stage(parse_recipe(recipe), *arguments, lambda line: tell((line,)), lambda *what: tell(what))
