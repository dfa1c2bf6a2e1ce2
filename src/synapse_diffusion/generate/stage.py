"""Train the image generator on pictures of the training concepts."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from synapse_diffusion.config import Recipe
from synapse_diffusion.encoders.autoencoders import Autoencoder
from synapse_diffusion.parallel import (
    Group,
    choose_device,
    is_launched,
    most,
    n_processes,
    session,
    use_threads,
    wait_for_all,
    whole,
)
from synapse_diffusion.runs import Run, begin_run
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.conditions import Conditions
from synapse_diffusion.training.loop import Plan, take_steps
from synapse_diffusion.training.painter import Easel, Painter, judge
from synapse_diffusion.training.parts import make_folds
from synapse_diffusion.training.pictured import (
    WEIGHTS,
    Files,
    Parts,
    autoencoder_of,
    check_recipe,
    generator_run,
    picture_parts,
    save_generator,
)
from synapse_diffusion.training.processes import launch_stage
from synapse_diffusion.training.requests import Requests
from synapse_diffusion.training.sources import open_sources
from synapse_diffusion.training.tasks import make_task
from synapse_diffusion.types import PYTHON, Progress, Say, silent


def train_generator(recipe: Recipe, command: str = PYTHON, say: Say = silent, progress: Progress = silent) -> Run:
    """Train the generator that the recipe describes, unless it is there; goes on where an earlier call was stopped.

    In as many processes as `execution.processes` says, or as torchrun has started. Raises `SettingsError`,
    `StoreError`, `SplitError`, `DataError`, `RunError`; `StoppedError` after SIGTERM. Returns the generator's run.
    """
    check_recipe(recipe)
    device = choose_device(recipe.execution.device)
    n = n_processes(recipe.execution.processes, recipe.execution.device)
    with Requests(recipe.execution.checkpoint_minutes).heard_from_signals() as requests:
        if n > 1 and not is_launched():
            launch_stage(train_generator, n, recipe, command, say=say, progress=progress)
            return prepare(recipe, silent, progress).run
        with session(device) as group:
            return _train(recipe, command, say, progress, group, requests)


def untrained(recipe: Recipe, progress: Progress) -> tuple[Run, str]:
    """The generator's run, and why it is to be trained; empty: it is there. Raises as `train_generator`."""
    check_recipe(recipe)
    run = prepare(recipe, silent, progress).run
    if run.checkpoint(WEIGHTS).exists():
        return run, ""
    return run, "it was begun" if run.folder.exists() else "none of these pictures, vectors and settings is there"


@dataclass(frozen=True)
class Prepared:
    """What a generator is trained on."""

    run: Run
    digest: str
    parts: Parts
    table: EmbeddingTable
    files: Files


def prepare(recipe: Recipe, say: Say, progress: Progress) -> Prepared:
    """The images by part, checked, and where the generator's run is."""
    sources = open_sources(recipe, torch.device("cpu"), progress)
    task = make_task(recipe, sources)
    assert task.table is not None
    parts = picture_parts(task.table, sources, make_folds(sources, task, recipe, silent))
    files = Files.below(recipe)
    run, digest = generator_run(recipe, task.table, [*parts.train, *parts.validation], files)
    say(f"{len(parts.train)} pictures of training concepts, {len(parts.validation)} to choose on")
    return Prepared(run, digest, parts, task.table, files)


def _train(recipe: Recipe, command: str, say: Say, progress: Progress, group: Group, requests: Requests) -> Run:
    use_threads(recipe.execution.threads)
    if group.rank:
        say = progress = silent
    prepared = prepare(recipe, say, progress)
    run = prepared.run
    if most(int(run.checkpoint(WEIGHTS).exists()), group):
        say(f"{run.folder}: trained before")
        return run
    device = choose_device(recipe.execution.device)
    autoencoder = autoencoder_of(recipe, device)
    progress("encoding pictures", 0, 1)
    conditions, easels = _easels(recipe, prepared, autoencoder, group)
    if group.rank == 0:
        about = {
            "generator_digest": prepared.digest, "table": prepared.table.digest, "autoencoder": autoencoder.about,
            "images": {"train": len(prepared.parts.train), "validation": len(prepared.parts.validation)},
        }  # fmt: skip
        begin_run(run, recipe, command, about)
    wait_for_all(group)
    settings = recipe.generator
    torch.manual_seed(settings.seed)
    painter = Painter(settings, autoencoder.shape(settings.size, settings.size), conditions.sizes, group)
    unfinished = run.checkpoint(f"{WEIGHTS}_unfinished")
    plan = Plan(
        settings, recipe.execution, easels[0].key, unfinished, group, requests, device, branch="generator"
    )  # fmt: skip

    def on_check(step: int, row: dict[str, float]) -> None:
        progress(f"generator, validation loss {row['validation_loss']:.3f}", step, settings.steps)

    curve = take_steps(
        painter, plan, easels[0], lambda trained: judge(trained, easels[1]), on_check,
        lambda: painter.begin(easels[0]),
    )  # fmt: skip
    weights = {name: whole(value) for name, value in painter.state_dict().items()}
    if group.rank == 0:
        write_table(pd.DataFrame(curve), run.folder / "curve.tsv")
        save_generator(run, painter, conditions, weights)
        unfinished.unlink(missing_ok=True)
        loss = min(row["validation_loss"] for row in curve)
        say(f"trained: a generator, on {len(prepared.parts.train)} pictures of training concepts")
        say(f"validation loss {loss:.4f} at its best check")
        say(str(run.folder))
    wait_for_all(group)
    return run


def _easels(
    recipe: Recipe, prepared: Prepared, autoencoder: Autoencoder, group: Group
) -> tuple[Conditions, tuple[Easel, Easel]]:
    """Conditions, fitted on training images; training and validation pictures as latents."""
    settings, parts = recipe.generator, prepared.parts
    found = []
    conditions: Conditions | None = None
    for number, ids in enumerate((parts.train, parts.validation)):
        table, pictures = prepared.table.select(ids), prepared.files.small(ids, settings.size)
        if conditions is None:
            conditions = Conditions.fit(
                table.vectors, pictures, settings.components, settings.low_side, settings.low_components
            )
        components = {n: torch.from_numpy(z) for n, z in conditions.of_images(table, pictures).vectors.items()}
        images = torch.split(torch.from_numpy(pictures), 256)
        latents = torch.cat([autoencoder.encode(part / 255.0) for part in images])
        found.append(Easel(latents, conditions, components, settings, (settings.seed, number), group))
    assert conditions is not None
    return conditions, (found[0], found[1])
