"""Commands about this machine, and about jobs on a Slurm cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from synapse_diffusion.cli.output import progress_bar, say
from synapse_diffusion.cli.words import RecipeArgument, SetOption, shipped
from synapse_diffusion.errors import MissingError


def submit(
    stage: Annotated[
        Literal["all", "convert", "embed", "train", "generator", "reconstruct", "evaluate", "report"],
        typer.Argument(help="One stage, or all of them as a chain."),
    ],
    recipe: RecipeArgument,
    set_: SetOption = None,
    cluster: Annotated[
        Path | None, typer.Option(help="TOML file of sbatch's options; cluster.toml where there is one.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="[STAGE.]OPTION=VALUE", help="One more option of sbatch, e.g. train.nodes=2."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, submit nothing.")] = False,
) -> None:
    """Hand the stages to Slurm, each after those that it needs: the scripts of `slurm/`, docs/howto/slurm.md."""
    from synapse_diffusion.launch.cluster import load_cluster
    from synapse_diffusion.launch.submit import submit

    submit(stage, recipe, set_ or [], load_cluster(cluster, slurm or ()), say, dry_run=dry_run)


def status(recipe: RecipeArgument, set_: SetOption = None) -> None:
    """Say how far the jobs that `submit` made are, and the recipe's runs."""
    from synapse_diffusion.launch.status import status

    status(recipe, set_ or [], say)


def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(help="TOML file, or a shipped recipe: what it needs is looked for.", autocompletion=shipped),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Say what this machine has, what that means for a recipe, and what the recipe lacks (exit code 3)."""
    from synapse_diffusion.cli.tables import print_facts
    from synapse_diffusion.config import load_recipe
    from synapse_diffusion.doctor import diagnose, is_simulated_first

    with progress_bar("nothing was written"):
        settings = None if recipe is None else load_recipe(recipe, set_ or ())
        found = diagnose(settings)
    print_facts("this machine", found.machine, (found.extras,))
    if recipe is None:
        return
    print_facts(f"for {recipe}", found.recipe)
    for line in found.lacks:
        say(f"lacks: {line}")
    if found.lacks:
        raise typer.Exit(MissingError.exit_code)
    first = " --from simulate" if settings is not None and is_simulated_first(settings) else ""
    say(f"nothing is lacking: synapse-diffusion run {recipe}{first}")
