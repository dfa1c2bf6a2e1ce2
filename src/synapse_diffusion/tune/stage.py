"""A search over a recipe's settings, judged on validation: the table of its trials, and the best one's recipe."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
from pathlib import Path
from typing import Final

import torch

from synapse_diffusion.config import Recipe, dump_recipe
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.errors import MissingError, RunError, SettingsError
from synapse_diffusion.store.files import write_json
from synapse_diffusion.training.sources import open_sources
from synapse_diffusion.tune.machine import Machine, Plan, choose, reach
from synapse_diffusion.tune.results import Found
from synapse_diffusion.tune.space import check_space
from synapse_diffusion.types import Progress, Say

ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anyone
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the table is ours
    "TUNE_GLOBAL_CHECKPOINT_S": "1",  # at most so much is asked again of trials after a kill
}
"""For Ray, where the user has not said otherwise."""


def tune(recipe: Recipe, name: str, command: str, address: str, say: Say, progress: Progress) -> Found:
    """Try combinations of the settings in `tune.space`; goes on where an earlier call was stopped.

    Trials are fitted on training trials and judged on validation trials; test trials are not read. `address`: of a Ray
    cluster; empty: this machine. Raises `SettingsError` for a space that the settings tree refuses, `MissingError`
    without Ray, and what `train` raises.
    """
    check_space(recipe)
    reach(address)
    if importlib.util.find_spec("ray") is None:
        raise MissingError("tune needs Ray: pip install 'synapse-diffusion[tune]'")
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if not address and "RAY_AUTH_MODE" not in os.environ:  # read when ray is imported
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    from synapse_diffusion.tune.study import cluster, search
    from synapse_diffusion.tune.trial import Job

    paths = {key: str(Path(value).absolute()) if value else "" for key, value in recipe.paths}
    whole = recipe.model_copy(update={"paths": recipe.paths.model_copy(update=paths)})
    folder = _folder(whole, name, progress)
    if recipe.tune.search == "tpe" and importlib.util.find_spec("optuna") is None:
        say("Optuna is not installed (pip extra `tune`): combinations are drawn at random")
        whole = whole.model_copy(update={"tune": recipe.tune.model_copy(update={"search": "random"})})
    with cluster(address) as machine:
        plan = _plan(folder, machine, whole)
        say(plan.why)
        job = Job(whole.model_dump(mode="json"), name, command, str(folder), plan)
        found = Found(folder, search(whole, job, say, progress))
    found.write(recipe)
    return found


def _plan(folder: Path, machine: Machine, recipe: Recipe) -> Plan:
    """How trials run. A search that is continued gives each what it was begun with: Ray knows its trials by that."""
    plan, path = choose(machine, recipe.tune.trials, recipe.execution), folder / "plan.json"
    if not path.exists():
        _keep(recipe, plan, folder)
        return plan
    try:
        begun = {name: json.loads(path.read_text(encoding="utf-8"))[name] for name in ("processes", "cpus", "gpus")}
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{path}: damaged; remove {folder} to begin the search again") from None
    if begun["processes"] == plan.processes and begun["cpus"] != plan.cpus:
        execution = recipe.execution.model_copy(update={"threads": begun["cpus"]})
        plan = choose(machine, recipe.tune.trials, execution)
    if begun != {"processes": plan.processes, "cpus": plan.cpus, "gpus": plan.gpus}:
        said = ", ".join(f"{name} {n}" for name, n in begun.items())
        raise SettingsError(
            f"{folder}: was begun with trials of {said}, which is not what {machine.said} gives; go on where and as it "
            "was begun, or remove the folder"
        )
    return plan


def _folder(recipe: Recipe, name: str, progress: Progress) -> Path:
    """The search's folder: equal recipe, space and data lead to the same one. The stores are verified here, once."""
    sources = open_sources(recipe, torch.device("cpu"), progress)
    contents = sources.digests(Path(recipe.paths.stores))
    key = digest_of({"recipe": recipe.digest(), "tune": recipe.digest("tune"), "stores": contents})
    return Path(recipe.paths.runs) / f"tune-{name}-{key[:8]}"


def _keep(recipe: Recipe, plan: Plan, folder: Path) -> None:
    """Begin the search's folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
        write_json({"processes": plan.processes, "cpus": plan.cpus, "gpus": plan.gpus}, folder / "plan.json")
    except OSError as error:
        raise MissingError(f"{folder}: cannot be written: {error.strerror}; set paths.runs elsewhere") from None
