"""Stores -> a trained decoder: splits, scalers, checkpoints, validation predictions. Test data stay shut."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch

from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import StoppedError
from synapse_diffusion.parallel import (
    Group,
    choose_device,
    is_launched,
    most,
    n_processes,
    session,
    use_threads,
    wait_for_all,
)
from synapse_diffusion.runs import Given, Run, prepare_run, run_of, untrained
from synapse_diffusion.splits import TRAIN, VALIDATION
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.baselines import (
    kinds_for,
)
from synapse_diffusion.training.decoders import shape_of
from synapse_diffusion.training.decoding import (
    network_names,
)
from synapse_diffusion.training.feeding import n_steps
from synapse_diffusion.training.folds import FoldFits
from synapse_diffusion.training.loop import OnCheck
from synapse_diffusion.training.parts import Fold, make_folds
from synapse_diffusion.training.processes import launch_stage
from synapse_diffusion.training.requests import Requests
from synapse_diffusion.training.setting import Setting, split_tables
from synapse_diffusion.training.sources import open_sources
from synapse_diffusion.training.tasks import make_task
from synapse_diffusion.types import PYTHON, Progress, Say, silent

SCORES: Final = {"classify": "balanced accuracy", "questions": "mean AUC", "retrieve": "top-1"}
"""What `validation_score` is."""
Report = Callable[[float, float], bool]
"""Hears which share of a search's steps is done, and the mean of the fits' best validation losses so far; tells whether
to go on."""


def train(recipe: Recipe, name: str = "", command: str = PYTHON, say: Say = silent, progress: Progress = silent) -> Run:
    """Train decoders and linear baselines on every fold; goes on where an earlier call was stopped.

    In as many processes as `execution.processes` says, or as torchrun (or another launcher) has started. `name` begins
    the name of the run's folder (`data.name` by default), `command` is kept with it. Returns the run.
    Raises `StoreError`, `SplitError`, `DataError`, `SettingsError`; `StoppedError` after SIGTERM.
    """
    device = choose_device(recipe.execution.device)
    n = n_processes(recipe.execution.processes, recipe.execution.device)
    with Requests(recipe.execution.checkpoint_minutes).heard_from_signals() as requests:
        if n == 1 or is_launched():
            with session(device) as group:
                return _train(recipe, name, command, say, progress, group, requests)
        launch_stage(train, n, recipe, name, command, say=say, progress=progress)
    return find_run(recipe, name)


def find_run(recipe: Recipe, name: str) -> Run:
    """The run that `train` makes of this recipe and the data that are there. Raises as `train`."""
    return run_of(recipe, name, _given(recipe))


def find_state(recipe: Recipe, name: str) -> tuple[Run, str]:
    """The same run, and why it is to be trained; empty: it is trained to the end."""
    given = _given(recipe)
    run = run_of(recipe, name, given)
    return run, untrained(run, recipe, given)


def _given(recipe: Recipe) -> Given:
    """What the recipe's decoder is trained on, by what the stores' manifests say of them."""
    quick = recipe.execution.model_copy(update={"verify_stores": False})
    sources = open_sources(recipe.model_copy(update={"execution": quick}), torch.device("cpu"), silent)
    return Given(sources.digests(Path(recipe.paths.stores)), make_task(recipe, sources).digest)


def _train(
    recipe: Recipe, name: str, command: str, say: Say, progress: Progress, group: Group, requests: Requests
) -> Run:
    if group.rank:  # one speaks for all
        say = progress = silent
    setting, run, folds = _begin(recipe, name, command, say, progress, group)
    if group.rank == 0:
        write_table(split_tables(setting, folds), run.folder / "splits.tsv")
    bar = _Bar(progress, len(folds), setting.recipe, len(network_names(setting)))
    predictions, curves = [], []
    for number, fold in enumerate(folds):
        progress("fitting scalers, folds", number, len(folds))
        fits = FoldFits(setting, run, fold, number, group, requests)
        curves.append(fits.networks(bar.next_fit))
        if group.rank == 0:
            progress("fitting closed-form decoders, folds", number, len(folds))
            fits.baselines()
            progress("asking validation trials, folds", number, len(folds))
            predictions.append(fits.predict())
        wait_for_all(group)
    if group.rank == 0:
        run.write_predictions(VALIDATION, pd.concat(predictions, ignore_index=True))
        curve = pd.concat(curves, ignore_index=True)
        write_table(curve, run.folder / "curve.tsv")
        run.finish()
        _say_trained(setting, run, curve, say)
    wait_for_all(group)
    return run


def _say_trained(setting: Setting, run: Run, curve: pd.DataFrame, say: Say) -> None:
    networks, kinds = network_names(setting), kinds_for(setting.task, setting.recipe)
    main = curve[curve["model"] == networks[0]]
    best = main.loc[main.groupby(["fold", "member"])["validation_loss"].idxmin()]
    decoded = {"classify": "classes", "questions": "questions", "retrieve": "layers of images' vectors"}
    say(f"trained: {', '.join([*networks, *kinds])} on {len(setting.task.names)} {decoded[setting.task.kind]}")
    score = best["validation_score"].mean()
    say(f"validation {SCORES[setting.task.kind]} {score:.3f}, fits: {len(best)}, each at its best check")
    say(str(run.folder))


def judge(recipe: Recipe, name: str, command: str, report: Report) -> pd.DataFrame:
    """The curves of the recipe's first network on every fold: fitted on training, judged on validation, no more.

    For a search over settings: there is no final fit, no baseline and no prediction. Goes on where an earlier call was
    stopped, and joins the group of processes that a launcher has made, where every process reports. Raises what `train`
    raises; `StoppedError` where any report says not to go on.
    """
    device = choose_device(recipe.execution.device)
    requests = Requests(recipe.execution.checkpoint_minutes)
    with requests.heard_from_signals(), session(device) as group:
        setting, run, folds = _begin(recipe, name, command, silent, silent, group)
        tally, curves = _Tally(report, len(folds), setting.recipe, group), []
        for number, fold in enumerate(folds):
            fits = FoldFits(setting, run, fold, number, group, requests)
            curves += fits.choices(network_names(setting)[0], tally.next_fit)
        return pd.concat(curves, ignore_index=True)


def _begin(
    recipe: Recipe, name: str, command: str, say: Say, progress: Progress, group: Group
) -> tuple[Setting, Run, list[Fold]]:
    """Open the data, divide them, and make the run's folder."""
    use_threads(recipe.execution.threads)
    sources = open_sources(recipe, choose_device(recipe.execution.device), progress)
    task = make_task(recipe, sources)
    folds = make_folds(sources, task, recipe, say)
    people = {name: _trained_people(source.person_of, recipe) for name, source in sources.of.items()}
    sources = sources.with_people(people)
    n_outputs = len(task.names) if task.table is None else 0
    shapes = {n: shape_of(s.epochs, n_outputs, s.n_people) for n, s in sources.of.items()}
    setting = Setting(recipe, sources, task, shapes)
    n_trials = max(len(rows) for rows in setting.rows(folds[0], TRAIN).values())
    steps = n_steps(recipe.train, n_trials, group)
    about = {
        "task": task.kind,
        "classes": task.names,
        "people": {n: dict(s.person_of) for n, s in sources.of.items()},
        "channels": {n: s.epochs.channels for n, s in sources.of.items()},
        "shape": {n: shape.__dict__ for n, shape in shapes.items()},
        "steps": steps,
    }
    given = Given(sources.digests(Path(recipe.paths.stores)), task.digest)
    run = prepare_run(recipe, name, given, command, about, write=group.rank == 0)
    wait_for_all(group)
    planned = recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": steps})})
    return replace(setting, recipe=planned), run, folds


class _Tally:
    """How far a search's fits are and how good: the mean over fits, begun or done, of their best validation loss."""

    def __init__(self, report: Report, n_folds: int, recipe: Recipe, group: Group) -> None:
        self._report, self._settings, self._group = report, recipe.train, group
        self._n_fits = n_folds * recipe.train.members
        self._best: list[float] = []

    def next_fit(self) -> OnCheck:
        """What the loop calls at each check of the next fit."""
        self._best.append(math.inf)
        fit = len(self._best) - 1

        def on_check(step: int, row: dict[str, float]) -> None:
            self._best[fit] = row["best_loss"]
            go_on = self._report((fit + step / self._settings.steps) / self._n_fits, float(np.mean(self._best)))
            if most(int(not go_on), self._group):
                raise StoppedError(f"asked to end at step {step} of fit {fit + 1}")

        return on_check


class _Bar:
    """Progress over all folds, fits and checks."""

    def __init__(self, progress: Progress, n_folds: int, recipe: Recipe, n_models: int) -> None:
        self._progress, self._settings = progress, recipe.train
        self._fits_a_fold = recipe.train.members * (2 if recipe.train.refit else 1) * n_models
        self._total = n_folds * self._fits_a_fold * recipe.train.checks
        self._done = 0

    def next_fit(self) -> OnCheck:
        """What the loop calls at each check of the next fit."""
        done = self._done * self._settings.checks
        self._done += 1

        def on_check(step: int, row: dict[str, float]) -> None:
            score = row["validation_score"]
            what = "final fit" if np.isnan(score) else f"training, validation score {score:.3f}"
            self._progress(what, done + round(step / self._settings.steps * self._settings.checks), self._total)

        return on_check


def _trained_people(person_of: Mapping[str, int], recipe: Recipe) -> dict[str, int]:
    """Indices of the people who are trained, without those whom training never meets."""
    trained = [person for person in person_of if person not in recipe.split.new_people]
    return {person: 0 if recipe.split.per_person else k for k, person in enumerate(trained)}
