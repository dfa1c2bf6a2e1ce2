"""What a scored run's folder holds, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pandas as pd

from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import RunError, StoreError
from synapse_diffusion.runs import CLAIMS, MAIN_METRIC, Run
from synapse_diffusion.splits import TEST
from synapse_diffusion.store.files import read_manifest
from synapse_diffusion.store.pictures import find_images, images_root

Row = Mapping[str, Any]
DECISION_COLUMNS: Final = ("person", "image_id", "model", "k_repeats", "predicted", "rank", "gallery", "top5")


@dataclass(frozen=True)
class Contents:
    """One run: settings, provenance, score rows, and tables."""

    run: Run
    recipe: Recipe
    provenance: Mapping[str, Any]
    rows: tuple[Row, ...]
    splits: pd.DataFrame

    @property
    def name(self) -> str:
        """The folder's."""
        return self.run.folder.resolve().name

    @property
    def task(self) -> str:
        """classify, questions or retrieve."""
        return str(self.provenance["task"])

    @property
    def metric(self) -> str:
        """The task's main one."""
        return MAIN_METRIC[self.task]

    @property
    def decoder(self) -> str:
        """The model that the run is about."""
        return self.run.decoder

    @property
    def people(self) -> list[str]:
        """Of test trials."""
        return sorted(set(self.splits.loc[self.splits["split"] == TEST, "person"]))

    @cached_property
    def scores(self) -> list[Row]:
        """Test rows of the main metric among the fewest images, differences and transductive ones left out."""
        mine = [
            row for row in self.rows
            if row["split"] == TEST and row["metric"] == self.metric and not row["transductive"]
            if row["task"] == self.task and " - " not in row["model"]
        ]  # fmt: skip
        fewest = min((row["gallery"] for row in mine if row["gallery"]), default=None)
        return [row for row in mine if row["gallery"] in (None, fewest)]

    @cached_property
    def headline(self) -> list[Row]:
        """The decoder's own, of all people, by number of repeats; trained with shuffled labels, if that is the run."""
        mine = [r for r in self.scores if r["model"] == self.decoder and r["control"] in CLAIMS]
        return sorted((r for r in mine if r["person"] == "all"), key=lambda row: int(row["k_repeats"]))

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """Test decisions of the decoder of pictures to be found; `top5` is missing in runs scored before it was there.

        Raises `RunError` where the table is missing.
        """
        path = self.run.folder / "predictions/test.tsv"
        try:
            table = pd.read_csv(
                path, sep="\t", dtype=str, keep_default_na=False, usecols=lambda name: name in DECISION_COLUMNS
            ).astype({"k_repeats": int, "rank": float})
        except (OSError, ValueError, KeyError):
            raise RunError(f"{path}: missing or damaged; run `synapse-diffusion evaluate {self.run.folder}`") from None
        return table[table["model"] == self.decoder]

    @cached_property
    def manifests(self) -> dict[str, dict[str, Any]]:
        """By `<data set>/<store>`, of the stores that are still where the recipe says."""
        found = {}
        for name in self.provenance["stores"]:
            try:
                found[name] = read_manifest(self.at(self.recipe.paths.stores) / name)
            except StoreError:
                continue
        return found

    @cached_property
    def seen(self) -> dict[str, Path]:
        """Files of the stimulus images by id. Raises `DataError` where there are none."""
        return {path.stem: path for path in find_images(self.at(str(images_root(self.recipe.paths))))}

    def at(self, path: str) -> Path:
        """A path of the recipe: from here, or from where the run was made (its folder's place tells)."""
        runs = Path(self.recipe.paths.runs)
        parent = self.run.folder.resolve().parent
        if Path(path).exists() or runs.is_absolute() or parent.parts[-len(runs.parts) :] != runs.parts:
            return Path(path)
        return parent.parents[len(runs.parts) - 1] / path


def read_contents(folder: Path) -> Contents:
    """A scored run. Raises `RunError` where it is none, a generator's, unfinished, or not scored."""
    run = Run(folder)
    if "generator_digest" in run.read_provenance():
        raise RunError(f"{folder}: a generator's run, which decodes nothing; give a decoder's")
    provenance = run.provenance
    if not (folder / "splits.tsv").exists() or not (folder / "predictions/validation.tsv").exists():
        raise RunError(f"{folder}: its training is unfinished; run `synapse-diffusion train` again, then evaluate")
    if not (folder / "scores.json").exists():
        raise RunError(f"{folder}: not scored yet; run `synapse-diffusion evaluate {folder}` first")
    contents = Contents(run, run.recipe, provenance, tuple(run.read_scores()), run.splits)
    if not contents.headline:
        raise RunError(f"{folder / 'scores.json'}: lacks test scores of {contents.decoder}; evaluate the run first")
    return contents
