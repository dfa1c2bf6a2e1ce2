"""A trained run and the first recordings of a new person -> weights and scalers of their own, kept in the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from synapse_diffusion.errors import RunError, SplitError
from synapse_diffusion.training.adaptation import Newcomer, Person, adapt, calibrate
from synapse_diffusion.training.setting import Index, Setting
from synapse_diffusion.training.sources import Source, Sources
from synapse_diffusion.training.tasks import make_task
from synapse_diffusion.training.trained import Trained, open_trained, other_source
from synapse_diffusion.types import Folder, Progress, Say, silent


def adapt_run(
    folder: Folder,
    recording: Folder,
    n_trials: int | None = None,
    say: Say = silent,
    progress: Progress = silent,
) -> list[Path]:
    """Meet the people of `recording`: scalers from all their trials, weights from `n_trials` labelled ones (None: all).

    Nothing of what the run was trained on changes. `predict` decodes a person by the file `people/<person>.safetensors`
    from then on: with other recordings than these, or it tells them what they have told it. Returns the paths written.
    Raises `RunError` for people who were trained, and for decoders without weights of people; `SplitError` where
    trials are too few; `StoreError`, `DataError` where they do not fit the run.
    """
    folder = Path(folder)
    trained = open_trained(folder, progress)
    if trained.setting.sources.is_fusion:
        raise RunError(f"{folder}: a fusion; new people are met by runs of one modality")
    _, source = other_source(trained, Path(recording), say)
    _can_meet(trained, source)
    setting = _labelled(trained, source)
    people = sorted(set(source.trials["person"]))
    paths = []
    for k, person in enumerate(people):
        progress(f"meeting sub-{person}", k, len(people))
        usable = source.trials["usable"].to_numpy() & (source.trials["is_catch"].to_numpy() == 0)
        rows = np.flatnonzero(usable & (source.trials["person"] == person).to_numpy())
        met = _meet(trained, setting, person, rows, n_trials)
        paths.append(folder / "people" / f"{person}.safetensors")
        met.save(paths[-1])
        of_all = f" of {len(rows)}" if met.n_trials < len(rows) else ""
        steps = ", ".join(str(n) for n in met.steps)
        say(f"sub-{person}: scalers from {len(rows)} trials, weights from {met.n_trials}{of_all} in {steps} steps")
    return paths


def _meet(trained: Trained, setting: Setting, person: str, rows: Index, n_trials: int | None) -> Person:
    [name] = setting.sources.of
    labelled = rows[setting.task.of[name].stratum_N[rows] >= 0]
    n = len(labelled) if n_trials is None else n_trials
    if len(rows) < 2 or n > len(labelled):
        raise SplitError(
            f"sub-{person} has {len(rows)} trials, {len(labelled)} of them labelled; --trials {n} asks for more"
        )
    of = Newcomer(trained, 0, setting, person, rows, labelled)
    calibrated, chosen = calibrate(of), of.first(n)
    return adapt(of, calibrated, chosen, of.targets(chosen)) if n else calibrated


def _can_meet(trained: Trained, source: Source) -> None:
    run = trained.run.folder
    if known := sorted(set(source.trials["person"]) & source.people):
        raise RunError(f"{run}: sub-{known[0]} was trained, and has weights already; adapt to others, or train again")
    if source.n_people < 2:
        raise RunError(
            f"{run}: its decoder was trained on one person (or one a person), and has no weights of people's own; "
            "train one on two or more"
        )
    if len(trained.folds) > 1:
        raise RunError(f"{run}: {len(trained.folds)} folds have as many decoders; adapt a run of one fold")


def _labelled(trained: Trained, source: Source) -> Setting:
    """The run's task on these trials. Raises `RunError` where it would have other classes or vectors."""
    recipe, old = trained.setting.recipe, trained.setting.task
    if old.kind == "classify":  # a recording that lacks a class must not number them anew
        recipe = recipe.model_copy(update={"labels": recipe.labels.model_copy(update={"classes": old.names})})
    [name] = trained.setting.sources.of
    sources = Sources({name: source}, source.epochs.stores, "")
    task = make_task(recipe, sources, old.digest)
    if task.names != old.names or (task.table and old.table and task.table.digest != old.table.digest):
        raise RunError(f"{trained.run.folder}: was trained on other classes or vectors than there are now; train again")
    return replace(trained.setting, sources=sources, task=task)
