"""One folder a run: recipe, provenance, splits, scalers, checkpoints, predictions, figures, scores."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file

from synapse_diffusion.config import Recipe, dump_recipe, load_recipe
from synapse_diffusion.config.tree import PICTURES, differences, digest_of
from synapse_diffusion.errors import MissingError, RunError, SynapseError
from synapse_diffusion.metrics import Score
from synapse_diffusion.models.fusion import FUSED
from synapse_diffusion.signal.scaling import Scaler
from synapse_diffusion.splits import TEST, VALIDATION
from synapse_diffusion.store.files import file_digest, read_table, whole, write_json, write_table
from synapse_diffusion.types import Folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROVENANCE: Final = ("stores", "people", "channels", "shape")
"""What every run's provenance.json says by store or modality."""
SCORES_VERSION: Final = 1
MAIN_METRIC: Final = {"classify": "balanced_accuracy", "questions": "auc", "retrieve": "top1"}
SHOWN: Final = {"balanced_accuracy": "balanced accuracy", "auc": "mean AUC", "top1": "top-1"}
CLAIMS: Final = ("none", "shuffled_labels")
"""Controls of rows that say something of the decoder that was trained; the other controls make no claim."""
NUMBERS: Final = ("fold", "k_repeats", "rank", "score", "gallery")
"""Columns of predictions that are no text, beside `p(...)`."""
NEEDED: Final = ("recipe.toml", "splits.tsv", "scaler.safetensors", "curve.tsv", "predictions/validation.tsv")
"""What training leaves."""
FREE: Final = ("paths", "execution", "evaluate", "tune", *PICTURES)
"""Branches that change no decoder."""
PACKAGES: Final = ("synapse-diffusion", "torch", "numpy", "scipy", "scikit-learn", "mne", "pandas")
Scalers = dict[str, Scaler]
"""By `stage/person/session`; a stage is `fold0`, or `fold0_refit` for the final fit on training and validation."""


@dataclass(frozen=True, init=False)
class Run:
    """What is in a run's folder: its recipe, tables and scores, and drawings of them.

    A run stands wherever its folder does: `evaluate(run)` is `evaluate(run.folder)`.
    """

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
        if expected is not None and _trained_with(path.read_text(encoding="utf-8")) != expected:
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

    @property
    def task(self) -> str:
        """classify, questions or retrieve."""
        return str(self.provenance["task"])

    @property
    def decoder(self) -> str:
        """The model that the run is about; the others in its tables stand beside it."""
        recipe = self.recipe
        return FUSED if recipe.data.modality == "comb" else recipe.model.name

    @property
    def scores(self) -> pd.DataFrame:
        """One row a figure, as in scores.json: value, chance, interval, p, and what it is of. Raises `RunError`."""
        return pd.DataFrame(self.read_scores())

    @property
    def predictions(self) -> pd.DataFrame:
        """One row a decision of validation and (after `evaluate`) test, by every model; `split` says of which.

        Raises `RunError` where no table is there.
        """
        paths = [self.folder / "predictions" / f"{split}.tsv" for split in (VALIDATION, TEST)]
        tables = [_decisions(path).assign(split=path.stem) for path in paths if path.exists()]
        if not tables:
            raise RunError(f"{paths[0]}: missing; train again (what is finished is kept)")
        return pd.concat(tables, ignore_index=True)

    def confusion(self, split: str = TEST, *, k_repeats: int = 1, model: str = "") -> pd.DataFrame:
        """Counts of decisions (K, K): rows what was seen, columns what was decoded by `model` (the run's decoder).

        `k_repeats`: of single trials, or of means of so many. Raises `RunError` where there are none.
        """
        if self.task != "classify":
            raise RunError(f"{self.folder}: its task is {self.task}; only classes have a confusion matrix")
        table, model = self.predictions, model or self.decoder
        mine = table[(table["split"] == split) & (table["model"] == model) & (table["k_repeats"] == k_repeats)]
        if mine.empty:
            there = table[["split", "model", "k_repeats"]].drop_duplicates().astype(str).agg(" ".join, axis=1)
            raise RunError(f"{self.folder}: no decisions of {split} {model} {k_repeats}; there are {', '.join(there)}")
        return self._counts(mine)

    def _counts(self, decisions: pd.DataFrame) -> pd.DataFrame:
        classes = list(self.provenance["classes"])
        counts = pd.crosstab(decisions["label"], decisions["predicted"])
        return counts.reindex(index=classes, columns=classes, fill_value=0).rename_axis(index="seen", columns="decoded")

    def draw_curve(self, path: Path | None = None) -> Figure:
        """Losses and the validation score over steps; `path`: also into this file, here and below."""
        from synapse_diffusion.figures import draw_curve

        return draw_curve(self.curve, path)

    def draw_confusion(self, split: str = TEST, path: Path | None = None) -> Figure:
        """Confusion matrices of the run's decoder, for single trials and means, as counts and as shares with chance."""
        from synapse_diffusion.figures import draw_confusions

        if self.task != "classify":
            raise RunError(f"{self.folder}: its task is {self.task}; only classes have a confusion matrix")
        table = self.predictions
        mine = table[(table["split"] == split) & (table["model"] == self.decoder)]
        if mine.empty:
            raise RunError(f"{self.folder}: no decisions of {split}; run `synapse-diffusion evaluate {self.folder}`")
        counts = [
            (caption(k), self._counts(mine[mine["k_repeats"] == k]).to_numpy())
            for k in mine["k_repeats"].unique().tolist()
        ]
        people = ", ".join(f"sub-{person}" for person in sorted(set(mine["person"]))[:6])
        title = f"{split}: {self.decoder} decoder, {self.recipe.data.name} ({people})"
        return draw_confusions(counts, self.provenance["classes"], title, path)

    def draw_models(self, k_repeats: int = 1, path: Path | None = None) -> Figure:
        """Every decoder's main test score with its interval, and every control's, beside chance."""
        from synapse_diffusion.figures import draw_bars

        plain, controls = self.main_rows()
        bars = [bar(row["model"], row) for row in plain if row["k_repeats"] == k_repeats]
        if not bars:
            raise RunError(f"{self.folder}: no test scores of means of {k_repeats}")
        bars += [bar(f"{row['model']}, {row['control']}", row) for row in controls if row["k_repeats"] == k_repeats]
        chance = next(row["chance"] for row in plain if row["k_repeats"] == k_repeats)
        title = f"test: {SHOWN[MAIN_METRIC[self.task]]}{_among(plain)}, {self.recipe.data.name}, {caption(k_repeats)}"
        return draw_bars(bars, chance, title, path)

    def draw_retrieval(self, path: Path | None = None) -> Figure:
        """How often the picture is found, over the number of repeats averaged, by every decoder. Raises `RunError`."""
        from synapse_diffusion.figures import draw_retrieval

        if self.task != "retrieve":
            raise RunError(f"{self.folder}: its task is {self.task}; no picture was to be found")
        plain, _ = self.main_rows()
        curves: dict[str, list[tuple[int, float, float, float]]] = {}
        for row in plain:
            curves.setdefault(row["model"], []).append((row["k_repeats"], *bar("", row)[1:]))
        return draw_retrieval(curves, plain[0]["chance"], f"test: top-1{_among(plain)}, {self.recipe.data.name}", path)

    def main_rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Test rows of the task's main metric over all people: of decoders, among the fewest images; of controls."""
        rows = [
            row for row in self.read_scores()
            if row["split"] == TEST and row["person"] == "all" and row["metric"] == MAIN_METRIC[self.task]
        ]  # fmt: skip
        plain = [row for row in rows if row["control"] in CLAIMS and not row["transductive"]]
        fewest = min((row["gallery"] or 0 for row in plain), default=0)
        controls = [row for row in rows if row not in plain and (row["gallery"] or 0) in (0, fewest)]
        return [row for row in plain if (row["gallery"] or 0) == fewest], controls

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
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["version"] != SCORES_VERSION:
                raise ValueError
            rows: list[dict[str, Any]] = values["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{path}: missing, damaged or of another version; evaluate the run again") from None
        return rows


def caption(k_repeats: int) -> str:
    """What one decision is made of."""
    return "single trials" if k_repeats == 1 else f"means of {k_repeats} repeats"


def bar(name: str, row: Mapping[str, Any]) -> tuple[str, float, float, float]:
    """A score row as `figures` draws it: name, value, ends of its interval (NaN where it has none)."""
    low, high = (np.nan if row[end] is None else float(row[end]) for end in ("low", "high"))
    return name, row["value"], low, high


def _among(rows: Sequence[Mapping[str, Any]]) -> str:
    return f" of {rows[0]['gallery']} images" if rows[0]["gallery"] else ""


def _decisions(path: Path) -> pd.DataFrame:
    """A table of predictions; ids stay text, numbers are numbers."""
    try:
        names = pd.read_csv(path, sep="\t", nrows=0).columns
        text = {name: str for name in names if name not in NUMBERS and not name.startswith("p(")}
        return pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values=dict.fromkeys(NUMBERS, "n/a"))
    except (OSError, ValueError):
        raise RunError(f"{path}: missing or damaged; run `synapse-diffusion evaluate` on the run") from None


def score_row(score: Score, **about: Any) -> dict[str, Any]:
    """One row of scores.json; `about` fills the columns that say which figure it is."""
    columns = {
        "task": "classify", "split": "", "modality": "eeg", "person": "all", "model": "", "k_repeats": 1,
        "gallery": None, "control": "none", "transductive": False, "seed": None, "p_holm": None, "n_people": None,
        "note": None,
    }  # fmt: skip
    values = {**columns, **about, **asdict(score)}
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in values.items()}


def open_run(folder: Path) -> Run:
    """An existing run. Raises `RunError` if it is none."""
    run = Run(folder)
    _ = run.provenance
    return run


@dataclass(frozen=True)
class Given:
    """What a decoder is trained on: digests of the stores, by folder, and of what trials are decoded into."""

    stores: Mapping[str, str]
    targets: str


def run_of(recipe: Recipe, name: str, given: Given) -> Run:
    """The folder of this recipe on these data: equal settings and data lead to the same one.

    `name` begins its own; empty: that of the data set.
    """
    key = digest_of({"recipe": recipe.digest(), "stores": dict(given.stores), "targets": given.targets})
    return Run(Path(recipe.paths.runs) / f"{name or recipe.data.name}-{key[:8]}")


def untrained(run: Run, recipe: Recipe, given: Given) -> str:
    """Why the run is to be trained: what differs from the latest of its name that is trained; empty: it is trained."""
    if run.content:
        return ""
    if (run.folder / "provenance.json").exists():
        return "it was begun, or what it left is gone in part"
    others = sorted(
        run.folder.parent.glob(run.folder.name[:-8] + "[0-9a-f]" * 8), key=lambda path: path.stat().st_mtime
    )
    for other in map(Run, reversed(others)):
        try:
            before = other.provenance
            there, now = (tomllib.loads(dump_recipe(one)) for one in (other.recipe, recipe))
        except SynapseError:
            continue
        settings = [one for one in differences(there, now) if one[0].partition(".")[0] not in FREE]
        if settings:
            return ", ".join(f"{key} = {value} now, {was} in {other.folder.name}" for key, was, value in settings[:3])
        if before["stores"] != given.stores:
            return f"the stores changed since {other.folder.name}"
        return f"what trials are decoded into changed since {other.folder.name}"
    return "not trained yet"


def prepare_run(recipe: Recipe, name: str, given: Given, command: str, about: Mapping[str, Any], *, write: bool) -> Run:
    """The run's folder, with recipe and provenance (unless another process writes them)."""
    run = run_of(recipe, name, given)
    if not write:
        return run
    content = {"recipe_digest": recipe.digest(), "trained_with": _trained_with(dump_recipe(recipe))}
    begin_run(run, recipe, command, {**content, "stores": dict(given.stores), "targets": given.targets, **about})
    return run


def begin_run(run: Run, recipe: Recipe, command: str, about: Mapping[str, Any]) -> None:
    """Make a run's folder, with recipe and provenance."""
    provenance = {
        "command": command,
        **about,
        "versions": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": sys.platform,
    }
    try:
        (run.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        run.keep_recipe(recipe)
        write_json(provenance, run.folder / "provenance.json")
    except OSError as error:
        raise MissingError(f"{run.folder}: cannot be written: {error.strerror}; set paths.runs elsewhere") from None


def save_atomically(arrays: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Arrays or tensors as safetensors, complete or not there."""
    try:
        with whole(path) as part:
            if any(isinstance(value, torch.Tensor) for value in arrays.values()):
                save_torch_file({k: v.detach().cpu().contiguous() for k, v in arrays.items()}, part, metadata)
            else:
                save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, part, metadata)
            part.chmod(0o644)  # safetensors makes files that only their owner can read
    except (OSError, SafetensorError) as error:  # the latter for a full disk, too
        raise MissingError(f"{path}: cannot be written: {error}; free some space") from None


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file. Raises `RunError` where it is missing or damaged."""
    if not path.exists():
        raise RunError(f"{path}: missing; train again (what is finished is kept)")
    try:
        tensors: dict[str, torch.Tensor] = load_torch_file(path)
        return tensors
    except Exception as error:  # safetensors raises a class of its own for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path}: cannot be read ({reason}); delete it and train again") from None


def _trained_with(recipe_toml: str) -> str:
    """Digest of the text's settings but those that change no decoder; defaults that come later are none."""
    tree = tomllib.loads(recipe_toml)
    return digest_of({key: value for key, value in tree.items() if key not in FREE})


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "n/a"
