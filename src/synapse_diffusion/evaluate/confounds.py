"""What the pictures alone would tell: the same decision from their low-level features, without a brain."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.config import EmbedSettings, Recipe, TargetSettings
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.errors import StoreError
from synapse_diffusion.evaluate.asking import Question
from synapse_diffusion.evaluate.scoring import Answered, answered
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.training.baselines import LINEAR, Choice, Sample, fit_baseline, plain_objective
from synapse_diffusion.training.decisions import first_rows
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.tasks import described_tables, find_table
from synapse_diffusion.training.trained import Trained
from synapse_diffusion.types import NOT_AVAILABLE, Say

IMAGE_FEATURES: Final = "image_features"
GIST: Final = "gist"
LAYER: Final = "both"  # oriented energy and colour
GIST_TABLE: Final = {"embed": EmbedSettings(), "target": TargetSettings(task="retrieve", layers=(LAYER,))}


def feature_inputs(recipe: Recipe) -> str:
    """Digest of the tables that `feature_table` may take, by what their manifests say; empty where it takes none."""
    if IMAGE_FEATURES not in recipe.evaluate.controls or recipe.target.task == "retrieve":
        return ""
    return digest_of(described_tables(recipe.model_copy(update=GIST_TABLE)))


def feature_table(trained: Trained, say: Say) -> EmbeddingTable | None:
    """Oriented energy and colour of the images shown; None where they are not asked for, or (said) not there.

    Not for retrieval: a picture is found by its own features, whatever they are.
    """
    recipe, sources = trained.setting.recipe, trained.setting.sources
    if IMAGE_FEATURES not in recipe.evaluate.controls or trained.setting.task.kind == "retrieve":
        return None
    if any((source.trials["image_id"] == NOT_AVAILABLE).all() for source in sources.of.values()):
        say(f"control {IMAGE_FEATURES} is left out: the data set names no images")
        return None
    try:
        return find_table(recipe.model_copy(update=GIST_TABLE), sources)
    except StoreError:
        say(
            f"control {IMAGE_FEATURES} is left out: no table of gist vectors of all images that were shown is in "
            f"{recipe.paths.embeddings}; run `synapse-diffusion embed` with this recipe and embed.encoder=gist"
        )
        return None


def image_feature_answers(trained: Trained, number: int, question: Question, table: EmbeddingTable) -> list[Answered]:
    """The linear baseline (shrinkage LDA, or ridge regression), trained on the features of the training images.

    Each image counts once; the test decisions are those of the others, each by its image.
    """
    setting = trained.setting
    rows = trained.trained_rows(number, final=True)
    targets = setting.targets(rows, number)
    name = next(iter(setting.sources.of))
    x_NDT, target_N = _of_images(trained, name, rows[name], table), targets[name]
    image_N = setting.sources.of[name].trials["image_id"].to_numpy(dtype=str)[rows[name]]
    once = np.unique(image_N, return_index=True)[1]
    mean_D, sd_D = x_NDT[once].mean(0), x_NDT[once].std(0) + 1e-6
    sample = Sample((x_NDT[once] - mean_D) / sd_D, np.zeros(len(once), np.int64), target_N[once])
    objective = plain_objective(setting.task, setting.recipe, target_N[once])
    shape = replace(setting.shapes[name], n_people=1)
    fitted = fit_baseline(LINEAR, sample, Choice(1, pooled=True), shape, objective)
    if fitted is None:
        return []
    asked_NDT = _of_images(trained, name, first_rows(question.asked, name), table)
    score_NK = fitted.scores((asked_NDT - mean_D) / sd_D, np.zeros(len(asked_NDT), np.int64))
    return answered(setting, question.asked, None, {GIST: score_NK}, question.k_repeats, number, IMAGE_FEATURES)


def _of_images(trained: Trained, modality: str, rows: Index, table: EmbeddingTable) -> NDArray[np.float32]:
    """Vectors (N, D, 1) of the images that trials showed, as if a recording of one sample."""
    image_N = trained.setting.sources.of[modality].trials["image_id"].to_numpy(dtype=str)[rows]
    names, at_N = np.unique(image_N, return_inverse=True)
    return np.asarray(table.select(list(names)).vectors[LAYER][at_N][:, :, None])
