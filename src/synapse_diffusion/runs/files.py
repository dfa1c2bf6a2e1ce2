"""What stages keep in a run's folder: recipe, provenance, splits, scalers, checkpoints, predictions, scores."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from synapse_diffusion.config import Recipe, dump_recipe, load_recipe
from synapse_diffusion.config.tree import PICTURES, digest_of
from synapse_diffusion.errors import RunError
from synapse_diffusion.runs.tensors import load_tensors, save_atomically
from synapse_diffusion.signal.scaling import Scaler
from synapse_diffusion.store.files import file_digest, read_table, whole, write_json, write_table
from synapse_diffusion.types import Folder

PROVENANCE: Final = ("stores", "people", "channels", "shape")
"""What every run's provenance.json says by store or modality."""
SCORES_VERSION: Final = 1
NEEDED: Final = ("recipe.toml", "splits.tsv", "scaler.safetensors", "curve.tsv", "predictions/validation.tsv")
"""What training leaves."""
FREE: Final = ("paths", "execution", "evaluate", "tune", *PICTURES)
"""Branches that change no decoder."""
Scalers = dict[str, Scaler]
"""By `stage/person/session`; a stage is `fold0`, or `fold0_refit` for the final fit on training and validation."""


@dataclass(frozen=True, init=False)
class RunFiles:
    """What stages keep in a run's folder."""

    folder: Path

    def __init__(self, folder: Folder) -> None:
        object.__setattr__(self, "folder", Path(folder))

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(self.folder / "recipe.toml")

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, digests, classes. Raises `RunError` where it is missing or damaged."""
        values = self.read_provenance()
        if not all(isinstance(values.get(name), dict) for name in PROVENANCE):
            raise RunError(
                f"{self.folder / 'provenance.json'}: edited or damaged (it lacks {', '.join(PROVENANCE)}); train again"
            )
        return values

    def read_provenance(self) -> dict[str, Any]:
        """The same of a run of any kind, a generator's too."""
        try:
            values: dict[str, Any] = json.loads((self.folder / "provenance.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RunError(
                f"{self.folder}: not a run (no readable provenance.json); give a folder made by train"
            ) from None
        if not isinstance(values, dict):
            raise RunError(f"{self.folder / 'provenance.json'}: edited or damaged; train again")
        return values

    def check_recipe(self) -> None:
        """Raise `RunError` where recipe.toml says another training than the run's; what `evaluate` does may differ."""
        expected = self.provenance.get("trained_with")
        path = self.folder / "recipe.toml"
        if expected is not None and trained_with(path.read_text(encoding="utf-8")) != expected:
            raise RunError(f"{path}: edited or cut short since the training; train again with the recipe that is meant")

    def finish(self) -> None:
        """Note in provenance.json what training has left, by digest: it is trained as long as that is there."""
        paths = [self.folder / "splits.tsv", self.folder / "curve.tsv", *(self.folder / "checkpoints").glob("*")]
        files = {str(path.relative_to(self.folder)): file_digest(path) for path in sorted(paths)}
        write_json({**self.read_provenance(), "files": files}, self.folder / "provenance.json")

    @property
    def content(self) -> str:
        """Digest of what training has left; empty where it is unfinished, or a file is gone or another one."""
        if not all((self.folder / name).exists() for name in ("provenance.json", *NEEDED)):
            return ""
        files: Mapping[str, str] = self.read_provenance().get("files", {})
        there = {name: file_digest(self.folder / name) for name in files if (self.folder / name).is_file()}
        return digest_of(there) if files and there == files else ""

    def keep_recipe(self, recipe: Recipe) -> None:
        """`recipe.toml`: what is done with the run after training may differ from call to call."""
        text, path = dump_recipe(recipe), self.folder / "recipe.toml"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with whole(path) as part:
                part.write_text(text, encoding="utf-8")

    @property
    def splits(self) -> pd.DataFrame:
        """One row a trial and fold that is used. Raises `RunError` where it is missing or damaged."""
        table = self._table("splits.tsv")
        try:
            return table.astype({"fold": int, "class": int})
        except (KeyError, ValueError):
            raise RunError(f"{self.folder / 'splits.tsv'}: edited or cut short; train again") from None

    @property
    def curve(self) -> pd.DataFrame:
        """Losses and scores at every check. Raises `RunError` where it is missing or damaged."""
        try:
            return (
                self._table("curve.tsv")
                .astype({"step": int, "fold": int, "member": int})
                .astype(dict.fromkeys(("train_loss", "validation_loss", "validation_score"), float))
            )
        except (KeyError, ValueError):
            raise RunError(f"{self.folder / 'curve.tsv'}: edited or cut short; train again") from None

    def _table(self, name: str) -> pd.DataFrame:
        try:
            table = read_table(self.folder / name)
        except (OSError, ValueError):
            raise RunError(f"{self.folder / name}: missing or damaged; train again") from None
        if table.empty:
            raise RunError(f"{self.folder / name}: has no rows; train again")
        if table.isna().to_numpy().any() or (table.iloc[-1] == "").any():
            raise RunError(f"{self.folder / name}: edited or cut short; train again")
        return table

    def checkpoint(self, name: str) -> Path:
        """Where a checkpoint of that name lies."""
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def add_scalers(self, scalers: Scalers) -> None:
        """Keep these beside those of other stages, all in one file."""
        scalers = {
            **(self.read_scalers() if (self.folder / "scaler.safetensors").exists() else {}),
            **scalers,
        }
        arrays = {f"{key}/offset": scaler.offset_C for key, scaler in scalers.items()}
        arrays |= {f"{key}/matrix": scaler.matrix_CC for key, scaler in scalers.items()}
        save_atomically(arrays, self.folder / "scaler.safetensors")

    def read_scalers(self) -> Scalers:
        """All scalers, by key."""
        arrays = {key: value.numpy() for key, value in load_tensors(self.folder / "scaler.safetensors").items()}
        keys = {name.rsplit("/", 1)[0] for name in arrays}
        return {key: Scaler(arrays[f"{key}/offset"], arrays[f"{key}/matrix"]) for key in sorted(keys)}

    def add_limits(self, stage: str, limits: Mapping[str, float]) -> None:
        """Keep a stage's rejection limits (V or T, by person)."""
        path = self.folder / "limits.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        write_json({**kept, stage: dict(limits)}, path)

    def read_limits(self, stage: str) -> dict[str, float]:
        """A stage's rejection limits; empty where nothing is rejected."""
        path = self.folder / "limits.json"
        try:
            limits: dict[str, float] = json.loads(path.read_text()).get(stage, {}) if path.exists() else {}
        except (OSError, ValueError, AttributeError):
            raise RunError(f"{path}: damaged; train again") from None
        return limits

    def add_temperatures(self, stage: str, temperatures: Mapping[str, float]) -> None:
        """Keep a stage's temperatures, by model, at which scores of validation trials are best calibrated."""
        path = self.folder / "temperatures.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        write_json({**kept, stage: dict(temperatures)}, path)

    def read_temperatures(self, stage: str) -> dict[str, float]:
        """A stage's temperatures by model. Raises `RunError` where they are missing."""
        try:
            values: dict[str, float] = json.loads((self.folder / "temperatures.json").read_text())[stage]
        except (OSError, ValueError, KeyError):
            raise RunError(f"{self.folder / 'temperatures.json'}: missing or damaged; train again") from None
        return values

    def write_predictions(self, split: str, table: pd.DataFrame) -> None:
        """A tidy table of one split, one row a decision."""
        path = self.folder / "predictions" / f"{split}.tsv"
        path.parent.mkdir(exist_ok=True)
        write_table(table, path)

    def write_scores(self, rows: Sequence[Mapping[str, Any]], inputs: Mapping[str, str]) -> None:
        """`scores.json`: one row a figure, and by task the digests of what they are of. Those of other tasks stay."""
        tasks = {row["task"] for row in rows}
        there = self.read_scores() if (self.folder / "scores.json").exists() else []
        kept = [row for row in there if row["task"] not in tasks]
        every = {**self._inputs, **{task: dict(inputs) for task in tasks}}
        write_json({"version": SCORES_VERSION, "inputs": every, "rows": [*kept, *rows]}, self.folder / "scores.json")

    def unscored(self, task: str, inputs: Mapping[str, str]) -> str:
        """Why the task's rows of scores.json are not those of these inputs; empty where they are."""
        if (before := self._inputs.get(task)) is None:
            return "not scored yet"
        names = [name for name in inputs if inputs[name] != before.get(name)]
        return f"{' and '.join(names)} changed" if names else ""

    @property
    def _inputs(self) -> dict[str, dict[str, str]]:
        """By task, of the rows of scores.json."""
        try:
            found: dict[str, dict[str, str]] = json.loads((self.folder / "scores.json").read_text())["inputs"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found

    def read_scores(self) -> list[dict[str, Any]]:
        """The rows of scores.json. Raises `RunError` where it is missing or damaged."""
        path = self.folder / "scores.json"
        if not self.folder.is_dir():
            raise RunError(f"{self.folder}: no such folder; name a run's, below paths.runs")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["version"] != SCORES_VERSION:
                raise ValueError
            rows: list[dict[str, Any]] = values["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{path}: missing, damaged or of another version; evaluate the run again") from None
        return rows


def trained_with(recipe_toml: str) -> str:
    """Digest of the text's settings but those that change no decoder; defaults that come later are none."""
    tree = tomllib.loads(recipe_toml)
    return digest_of({key: value for key, value in tree.items() if key not in FREE})
