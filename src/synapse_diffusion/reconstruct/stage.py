"""Reconstruct every test picture of a run, beside controls of the same seeds, and score all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.bids import rarest, read_concepts
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.encoders.features import Column, Missing
from synapse_diffusion.errors import DataError
from synapse_diffusion.figures.pictures import draw_pictures
from synapse_diffusion.figures.scores import draw_bars
from synapse_diffusion.parallel import choose_device
from synapse_diffusion.reconstruct.drawing import as_bytes, draw, save_picture
from synapse_diffusion.reconstruct.opening import Opened, open_pictured
from synapse_diffusion.reconstruct.pretrained import (
    Pretrained,
    Source,
)
from synapse_diffusion.reconstruct.prior import fit_priors, through_priors
from synapse_diffusion.reconstruct.scoring import Drawn, columns_of, score
from synapse_diffusion.reconstruct.tables import condition_table, in_samples
from synapse_diffusion.store.embeddings import EmbeddingTable, write_embeddings
from synapse_diffusion.store.files import write_json
from synapse_diffusion.training.pictured import (
    Files,
)
from synapse_diffusion.training.tasks import concept_folder
from synapse_diffusion.training.trained import Trained
from synapse_diffusion.types import NOT_AVAILABLE, Folder, Progress, Say, silent

PAGE: Final = 12  # images a grid
TASK: Final = "reconstruct"
FREE: Final = ("batch", "darknet", "clip", "networks", "dreamsim")
"""Settings that change no picture."""


def reconstruct(
    folder: Folder, overrides: Sequence[str] = (), say: Say = silent, progress: Progress = silent
) -> tuple[Path, list[dict[str, Any]]]:
    """Draw, score, and return the folder of the pictures and the rows that are added to the run's scores.json.

    `overrides`: other settings of pictures than the run's. Raises `RunError` where the run or its generator is missing
    or unfit, `MissingError` for a pretrained pipeline's files, `SettingsError`, `StoreError`, `DataError`.
    """
    return redraw(open_pictured(Path(folder), overrides, progress), say, progress)


def undrawn(opened: Opened) -> tuple[Path, str]:
    """The folder of the pictures, and why they are to be drawn or scored; empty: the run's scores are of these."""
    out, inputs = _inputs(opened)
    there = len(list((out / "pictures").rglob("*.png")))
    return out, opened.trained.run.unscored(TASK, inputs) or ("" if there else "no picture is there")


def _inputs(opened: Opened) -> tuple[Path, dict[str, str]]:
    """The folder of the pictures, by all that they depend on; and by digest what their scores are made of."""
    recipe, run = opened.recipe, opened.trained.run
    choices = recipe.reconstruct.model_dump(mode="json", exclude=set(FREE))
    if recipe.reconstruct.prior == "flow":
        choices |= {"settings of the prior": recipe.prior.model_dump(mode="json")}
    key = digest_of({"reconstruct": choices, "generator": opened.digest, "run": recipe.digest()})
    inputs = {
        "the run": run.content, "the generator": opened.digest, "settings of reconstruct": key,
        "networks of metrics": digest_of(recipe.reconstruct.model_dump(mode="json", include=set(FREE) - {"batch"})),
        "settings of evaluate": recipe.digest("evaluate"),
    }  # fmt: skip
    return run.folder / f"reconstruction-{key[:8]}", inputs


def redraw(opened: Opened, say: Say, progress: Progress) -> tuple[Path, list[dict[str, Any]]]:
    """Draw what is not drawn yet, and score all; returns as `reconstruct`."""
    recipe, generator, files = opened.recipe, opened.generator, opened.files
    settings, parts = recipe.reconstruct, opened.parts
    out, inputs = _inputs(opened)
    drafts = _conditions(opened, out, progress)
    if isinstance(generator, Pretrained):
        write_json({"weights": recipe.pretrained.weights, **generator.about}, out / "pipeline.json")
    pictures = draw(generator, drafts, settings, out / "pictures", recipe.generator.size, progress)
    say(f"{len(pictures)} pictures of {len(parts.test)} images in {out / 'pictures'}")
    small = dict(zip(parts.test, files.small(parts.test, recipe.generator.size), strict=True))
    drawn = _groups(drafts, pictures)
    seen = {name: small[name] for name in sorted({str(name) for one in drawn for name in one.images})}
    bounds = _bounds(generator, seen) + _nearest(drafts, opened.truth, parts.train, files, recipe.generator.size)
    _keep(bounds, out / "pictures")
    drawn += bounds
    progress("scoring pictures", 0, 1)
    columns = columns_of(settings, choose_device(recipe.execution.device))
    category = _categories(opened.trained, list(seen))
    rows = score(drawn, seen, category, columns, recipe.evaluate, "+".join(opened.trained.setting.sources.of))
    opened.trained.run.write_scores(rows, inputs)
    _write_columns(columns, out, say)
    _draw_grids(drawn, seen, out)
    _draw_headline(rows, out)
    progress("scoring pictures", 1, 1)
    return out, rows


def _conditions(opened: Opened, out: Path, progress: Progress) -> EmbeddingTable:
    """What is drawn from; kept beside the pictures."""
    predictors, recipe = opened.predictors(progress), opened.recipe
    conditions = opened.generator.conditions
    table = condition_table(opened.trained, predictors, opened.truth, conditions, recipe.reconstruct)
    table = in_samples(table, recipe)
    out.mkdir(parents=True, exist_ok=True)
    if recipe.reconstruct.prior == "flow":
        write_embeddings(table, out / "said")
        table = through_priors(table, fit_priors(opened, predictors, progress), recipe)
    write_embeddings(table, out / "conditions")
    return table


def _groups(table: EmbeddingTable, pictures: NDArray[np.uint8]) -> list[Drawn]:
    """Pictures by source, person and k, images in order."""
    found = []
    samples = table.rows["draw"].max() + 1
    firsts = table.rows.iloc[::samples]
    pictures = pictures.reshape(-1, samples, *pictures.shape[1:])
    for (source, person, k), rows in firsts.groupby(["source", "person", "k_repeats"], sort=False):
        rows = rows.sort_values("image_id")
        who = "all" if source in ("none", "true") else str(person)
        images = rows["image_id"].to_numpy(dtype=str)
        found.append(Drawn(str(source), who, int(str(k)), images, pictures[rows.index.to_numpy() // samples]))
    return found


def _bounds(generator: Source, seen: Mapping[str, NDArray[np.uint8]]) -> list[Drawn]:
    """The seen pictures through the autoencoder alone: no generator can do better."""
    images = np.array(sorted(seen))
    stack = torch.from_numpy(np.stack([seen[name] for name in images])).float() / 255
    found = [as_bytes(generator.autoencoder.decode(generator.autoencoder.encode(p))) for p in torch.split(stack, 64)]
    return [Drawn("autoencoder", "all", 0, images, np.concatenate(found)[:, None])]


def _keep(drawn: Sequence[Drawn], folder: Path) -> None:
    """As files, where those that the generator draws are."""
    for one in drawn:
        place = folder / one.source / one.person.replace("/", "-") / f"k{one.k_repeats}"
        for image, picture in zip(one.images, one.pictures[:, 0], strict=True):
            save_picture(picture, place / f"{image}-0.png")


def _nearest(
    table: EmbeddingTable, truth: EmbeddingTable, train: Sequence[str], files: Files, size: int
) -> list[Drawn]:
    """The training image whose conditions are nearest to the predicted ones (largest cosine): what retrieval gives."""
    pool = truth.select(train)
    pool_KD = np.concatenate(list(pool.vectors.values()), 1)
    pool_KD = pool_KD / np.linalg.norm(pool_KD, axis=1, keepdims=True)
    pictures = files.small(train, size)
    found = []
    brain = table.rows[(table.rows["source"] == "brain") & (table.rows["draw"] == 0)]
    for (person, k), rows in brain.groupby(["person", "k_repeats"], sort=False):
        rows = rows.sort_values("image_id")
        own = np.concatenate([table.vectors[name][rows.index.to_numpy()] for name in pool.vectors], 1)
        best = (own @ pool_KD.T).argmax(1)
        images = rows["image_id"].to_numpy(dtype=str)
        found.append(Drawn("nearest", str(person), int(str(k)), images, pictures[best][:, None]))
    return found


def _categories(trained: Trained, images: Sequence[str] | NDArray[np.str_]) -> dict[str, str]:
    """Of the images that have one: the trial table's label, or the rarest of their concept's categories."""
    source = next(iter(trained.setting.sources.of.values()))
    first = source.trials.drop_duplicates("image_id").set_index("image_id").loc[list(images)]
    labels = first["label"][first["label"] != NOT_AVAILABLE]
    if len(labels):
        return {str(image): str(label) for image, label in labels.items()}
    try:
        table = read_concepts(concept_folder(trained.setting.recipe))
    except DataError:  # no such tables
        return {}
    names = np.array([*table.categories, ""])
    of_concept = dict(zip(table.concepts, names[rarest(table.member)].tolist(), strict=True))
    found = {str(image): of_concept.get(str(concept), "") for image, concept in first["concept"].items()}
    return {image: category for image, category in found.items() if category}


def _write_columns(columns: Sequence[Column | Missing], out: Path, say: Say) -> None:
    """`columns.json`: which networks figures are of, and which are missing and why."""
    there = [column.about for column in columns if isinstance(column, Column)]
    missing = {column.name: column.why for column in columns if isinstance(column, Missing)}
    write_json({"columns": there, "missing": missing}, out / "columns.json")
    if missing:
        say(f"columns without weights here: {', '.join(missing)} (why: {out / 'columns.json'})")


def _draw_grids(drawn: Sequence[Drawn], seen: Mapping[str, NDArray[np.uint8]], out: Path) -> None:
    """Pages of all test images: seen, reconstructed by each person at the largest k, controls, bounds."""
    images = sorted(seen)
    largest = max(one.k_repeats for one in drawn)
    first = drawn[0].person
    columns: dict[str, NDArray[np.uint8]] = {"seen": np.stack([seen[name] for name in images])}
    names = {"true": "true vector", "none": "no brain", "other_person": "other's\nweights"}
    for one in drawn:
        every = one.source == "brain"
        if one.k_repeats not in (0, largest) or not (every or one.person in (first, "all")):
            continue
        title = f"brain\nsub-{one.person}" if every else names.get(one.source, one.source)
        columns[title] = np.full_like(columns["seen"], 255)  # white: a picture that this person was not shown
        columns[title][np.searchsorted(images, one.images)] = one.pictures[:, 0]
    for page, start in enumerate(range(0, len(images), PAGE)):
        part = {name: pictures[start : start + PAGE] for name, pictures in columns.items()}
        draw_pictures(part, out / f"grid_{page + 1:02d}.png")


def _draw_headline(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Brain minus no brain, and two-way identification of every source."""
    largest = max((row["k_repeats"] for row in rows), default=0)
    mine = [row for row in rows if row["person"] == "all" and row["k_repeats"] in (0, largest)]

    def bar(name: str, row: Mapping[str, Any]) -> tuple[str, float, float, float]:
        numbers = [float("nan") if row[key] is None else float(row[key]) for key in ("value", "low", "high")]
        return (name, numbers[0], numbers[1], numbers[2])

    beyond = [bar(row["metric"], row) for row in mine if row["model"] == "brain - none"]
    if beyond:
        draw_bars(beyond, 0.0, f"brain minus no brain, means of {largest}", out / "beyond_no_brain.png")
    two_way = [
        bar(row["model"], row) for row in mine if row["metric"] == "two_way pixels" and " - " not in row["model"]
    ]
    draw_bars(two_way, 0.5, "two-way identification by pixels", out / "two_way.png")
