"""The pictures of a study: drawn or loaded, written, and what the brain takes from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from synapse_diffusion.config import SimulateSettings
from synapse_diffusion.errors import DataError
from synapse_diffusion.simulate.generator import Generator
from synapse_diffusion.simulate.pictures import CATEGORIES, draw_picture
from synapse_diffusion.types import Progress


@dataclass(frozen=True)
class Stimuli:
    """The pictures of a study: one row each, and where their files lie."""

    table: pd.DataFrame
    """image_id, file, concept, category, is_test."""
    early_NF: NDArray[np.float64]
    middle_NF: NDArray[np.float64]


def make_stimuli(
    root: Path, settings: SimulateSettings, folder: str, generator: Generator, progress: Progress
) -> Stimuli:
    """Draw or load the pictures and write them under `root`."""
    features_of = generator.features(settings.seed)
    rows, early, middle = [], [], []
    for file, concept, category, is_test, load in _pictures(settings, folder):
        picture = load()
        path = root / "stimuli" / concept / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=95)
        rows.append((Path(file).stem, f"{concept}/{file}", concept, category, is_test))
        features = features_of(picture)
        early.append(features[0])
        middle.append(features[1])
        if len(rows) % 100 == 0:
            progress("drawing pictures", len(rows), 0)
    table = pd.DataFrame(rows, columns=["image_id", "file", "concept", "category", "is_test"])
    return Stimuli(table, standard(np.stack(early)), standard(np.stack(middle)))


def _pictures(
    settings: SimulateSettings, folder: str
) -> list[tuple[str, str, str, int, Callable[[], NDArray[np.uint8]]]]:
    """(file, concept, category, is_test, how to get it) of each picture.

    The last concepts of each category have test pictures beside those of the main part. Of pictures from a folder
    its table says which ones are (`is_test`); where it does not, each concept's last ones are, but for the first.
    """
    if not folder:
        unknown = [name for name in settings.categories if name not in CATEGORIES]
        if unknown:
            raise DataError(
                f"simulate.categories: no drawings of {', '.join(unknown)}; there are {', '.join(CATEGORIES)}"
            )
        chosen = settings.categories or tuple(CATEGORIES)
        return [
            (
                f"{concept}_{k + 1:02d}s.jpg",
                concept,
                category,
                int(k >= settings.exemplars),
                partial(draw_picture, concept, k, settings.seed, settings.picture_size),
            )
            for category in chosen
            for at, concept in enumerate(CATEGORIES[category])
            for k in range(
                settings.exemplars + settings.test_images * (at >= len(CATEGORIES[category]) - settings.test_concepts)
            )
        ]
    path = Path(folder) / "concepts.tsv"
    if not path.exists():
        raise DataError(f"{path}: not there; a stimulus folder needs concepts.tsv with file, concept, category")
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    if missing := [name for name in ("file", "concept", "category") if name not in table]:
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    if wrong := sorted(set(table.get("is_test", ())) - {"0", "1"}):
        raise DataError(f"{path}: is_test is {wrong[0]!r} in a row; it can be 1 or 0")
    found: list[tuple[str, str, str, int, Callable[[], NDArray[np.uint8]]]] = []
    for concept, group in table.groupby("concept", sort=True):
        files = list(group["file"])
        n_main = max(1, len(files) - settings.test_images)
        tested = list(group["is_test"]) if "is_test" in group else ["0"] * n_main + ["1"] * (len(files) - n_main)
        for file, is_test in zip(files, tested, strict=True):
            category = str(group["category"].iloc[0])
            picture = Path(folder) / file
            load = partial(_load_picture, picture, settings.picture_size)
            found.append((Path(file).name, str(concept), category, int(is_test), load))
    return found


def _load_picture(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        return np.asarray(Image.open(path).convert("RGB").resize((size, size)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}") from None


def standard(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features (N, ...) with mean 0 and standard deviation 1 over pictures."""
    return np.asarray((features - features.mean(0)) / (features.std(0) + 1e-9))
