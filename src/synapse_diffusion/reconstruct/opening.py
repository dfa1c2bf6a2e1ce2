"""A decoder's run and what draws from it, opened together."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synapse_diffusion.config import Recipe, dump_recipe, parse_recipe
from synapse_diffusion.config.tree import PICTURES, digest_of
from synapse_diffusion.errors import RunError, SettingsError
from synapse_diffusion.parallel import choose_device
from synapse_diffusion.reconstruct.pretrained import Source, find_pretrained, image_vectors, open_pretrained
from synapse_diffusion.runs import open_run
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.store.files import file_digest
from synapse_diffusion.training.brain import Predictor, fit_predictor
from synapse_diffusion.training.pictured import (
    WEIGHTS,
    Files,
    Parts,
    check_recipe,
    generator_run,
    open_generator,
    picture_parts,
)
from synapse_diffusion.training.trained import Trained, open_trained
from synapse_diffusion.types import Progress


@dataclass(frozen=True)
class Opened:
    """A run, its generator, and the true conditions of all images of its table."""

    recipe: Recipe
    trained: Trained
    parts: Parts
    files: Files
    generator: Source
    digest: str
    """Of all that the generator's pictures depend on."""
    truth: EmbeddingTable

    def predictors(self, progress: Progress) -> list[Predictor]:
        """What the brain says of conditions, by fold."""
        found = []
        for number in range(len(self.trained.folds)):
            progress("regressing conditions", number, len(self.trained.folds))
            conditions = self.generator.conditions
            found.append(fit_predictor(self.trained, number, self.truth, conditions, self.recipe.reconstruct))
        return found


def open_pictured(folder: Path, overrides: Sequence[str], progress: Progress) -> Opened:
    """The run of a folder with other settings of pictures, where `overrides` give some.

    Raises `RunError` where the run or its generator is missing or unfit, `MissingError` for a pretrained pipeline's
    files, `SettingsError`, `StoreError`, `DataError`.
    """
    recipe = _recipe(folder, overrides)
    check_recipe(recipe)
    pipeline = find_pretrained(recipe)
    trained = open_trained(folder, progress)
    table, files = trained.setting.task.table, Files.below(recipe)
    assert table is not None
    parts = picture_parts(table, trained.setting.sources, trained.folds)
    device = choose_device(recipe.execution.device)
    generator: Source
    if pipeline is not None:
        table = image_vectors(recipe, table, pipeline.width)
        progress("opening the pipeline", 0, 1)
        generator, digest = open_pretrained(recipe, pipeline, table, parts.train, files, device)
        progress("opening the pipeline", 1, 1)
    else:
        made, digest = generator_run(recipe, table, [*parts.train, *parts.validation], files)
        if not made.folder.exists():
            raise RunError(
                f"{made.folder}: missing; run `synapse-diffusion train generator` with the recipe of {folder} (and its "
                "settings of the branch generator), or name a pretrained pipeline by pretrained.pipeline"
            )
        generator = open_generator(made.folder, digest, device)
        digest = digest_of({"settings and data": digest, "weights": file_digest(made.checkpoint(WEIGHTS))})
    truth = generator.conditions.of_images(table, files.small(list(table.rows["image_id"]), recipe.generator.size))
    return Opened(recipe, trained, parts, files, generator, digest, truth)


def _recipe(folder: Path, overrides: Sequence[str]) -> Recipe:
    """The run's recipe with other settings of pictures. Raises `SettingsError` for settings of the decoder."""
    for override in overrides:
        if override.partition(".")[0].strip() not in (*PICTURES, "paths", "execution"):
            raise SettingsError(
                f"--set {override}: the run is trained; only {', '.join(PICTURES)}, paths and execution can change"
            )
    return parse_recipe(tomllib.loads(dump_recipe(open_run(folder).recipe)), overrides, where=str(folder))
