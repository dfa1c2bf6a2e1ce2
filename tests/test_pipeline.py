"""`run`: each stage only where its inputs or settings changed, by their content; and says which and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import quiet, small, small_pairs
from synapse_diffusion.config import Recipe, load_recipe
from synapse_diffusion.convert import convert_pairs, unpaired
from synapse_diffusion.errors import RunError, SettingsError, StoreError
from synapse_diffusion.pipeline import Stage, run_recipe, stages_of
from synapse_diffusion.runs import Run
from synapse_diffusion.store.files import file_digest, write_json

FEW = (
    "train.steps=2", "train.checks=1", "train.refit=false", "train.baselines=false", "evaluate.permutations=0",
    "evaluate.bootstrap=0", "evaluate.controls=[]",
)  # fmt: skip
Lines = dict[str, str]


@pytest.fixture(scope="module")
def place(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the study, run once."""
    folder = tmp_path_factory.mktemp("place") / "study"
    for name in ("bids", "stores"):
        shutil.copytree(study / name, folder / name)
    go(small(folder, *FEW), last="report")
    return folder


@pytest.fixture
def own(place: Path, tmp_path: Path) -> Path:
    """A copy of that to change."""
    shutil.copytree(place, tmp_path / "study")
    return tmp_path / "study"


def go(recipe: Recipe, first: Stage | None = None, last: Stage | None = "evaluate", **given: Any) -> Lines:
    """What each stage said of itself."""
    said: list[str] = []
    run_recipe(recipe, "x", "test", said.append, quiet, given.get("show", quiet), stages_of(recipe, first, last))
    parts = [line.partition(": ") for line in said]
    return {stage: why for stage, _, why in parts if why.startswith(("runs, since", "done ("))}


def files(folder: Path) -> dict[Path, tuple[int, str]]:
    return {path: (path.stat().st_mtime_ns, file_digest(path)) for path in folder.rglob("*") if path.is_file()}


def runs_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "runs").glob("x-*")}


def test_a_second_run_does_nothing(place: Path) -> None:
    before = files(place)
    shown: list[list[dict[str, Any]]] = []
    lines = go(small(place, *FEW), last="report", show=lambda stage, folder, rows: shown.append(rows))
    assert list(lines) == ["convert", "train", "evaluate", "report"]
    assert all(why.startswith("done (") for why in lines.values()), lines
    assert files(place) == before
    [run] = runs_of(place)
    assert shown == [Run(place / "runs" / run).read_scores()]  # what is there is shown again


def test_other_settings_of_evaluate_are_evaluated_alone(own: Path) -> None:
    checkpoints = files(own / "runs/").items()
    lines = go(small(own, *FEW, "evaluate.bootstrap=10"))
    assert lines["convert"].startswith("done")
    assert lines["train"].startswith("done")
    assert lines["evaluate"] == "runs, since settings of evaluate changed"
    [run] = runs_of(own)
    assert Run(own / "runs" / run).recipe.evaluate.bootstrap == 10
    now = files(own / "runs")
    assert all(now[path] == there for path, there in checkpoints if path.parent.name == "checkpoints")
    assert go(small(own, *FEW, "evaluate.bootstrap=10"), "evaluate")["evaluate"].startswith("done")
    assert go(small(own, *FEW), "report", "report")["report"].startswith("runs, since scores")


def test_other_settings_of_training_are_trained(own: Path) -> None:
    [first] = runs_of(own)
    lines = go(small(own, *FEW, "view.stop_s=0.4"), last="train")
    assert lines["convert"].startswith("done")
    assert lines["train"] == f"runs, since view.stop_s = 0.4 now, 0.5 in {first}"
    assert len(runs_of(own)) == 2
    assert go(small(own, *FEW))["train"].startswith("done")  # the first one is still what it was


def edit_store(folder: Path) -> None:
    store = folder / "stores/small/sub-01/ses-01/run-rsvp-01"
    lines = (store / "trials.tsv").read_text().splitlines(keepends=True)
    (store / "trials.tsv").write_text("".join(lines[:-1]))
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["checksums"]["trials.tsv"] = file_digest(store / "trials.tsv")
    write_json(manifest, store / "manifest.json")


def edit_events(folder: Path) -> None:
    table = next(folder.glob("bids/sub-01/**/*_events.tsv"))
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))


def edit_categories(folder: Path) -> None:
    """Every concept takes the next one's categories: the same names, other labels."""
    table = folder / "bids/category_mat_manual.tsv"
    head, *rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join([head, *rows[1:], rows[0]]))


def lose_weights(folder: Path) -> None:
    next(folder.glob("runs/x-*/checkpoints/fold0_member0.safetensors")).unlink()


@pytest.mark.parametrize(
    ("edit", "converts", "why"),
    [
        (edit_store, False, "the stores changed since x-"),
        (edit_events, True, "the stores changed since x-"),
        (edit_categories, False, "what trials are decoded into changed since x-"),
        (lose_weights, False, "it was begun, or what it left is gone in part"),
    ],
)
def test_other_content_is_trained(own: Path, edit: Callable[[Path], None], converts: bool, why: str) -> None:
    edit(own)
    lines = go(small(own, *FEW), last="train")
    assert lines["convert"].startswith("runs, since 1 of 2 recordings" if converts else "done")
    assert lines["train"].startswith(f"runs, since {why}")
    again = go(small(own, *FEW), last="train")
    assert all(line.startswith("done") for line in again.values()), again


def test_what_comes_before_must_be_there(own: Path) -> None:
    with pytest.raises(RunError, match=r"is not trained \(train\.seed = 1 now, 0 in x-.*begin with --from train"):
        go(small(own, *FEW, "train.seed=1"), "evaluate")
    with pytest.raises(StoreError, match="no signal store; run `synapse-diffusion convert`"):
        go(small(own, *FEW, "data.name=elsewhere"), "train")


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("evaluate", "train", "--from evaluate --until train: that one comes before this one; the order is simulate"),
        ("embed", None, "--from embed: no stage of this recipe, which has simulate, convert, train, evaluate, report"),
        ("simulate", "train", ""),
    ],
)
def test_stages_in_order(first: Stage, last: Stage | None, message: str) -> None:
    if message:
        with pytest.raises(SettingsError, match=message):
            stages_of(load_recipe("demo"), first, last)
    else:
        assert stages_of(load_recipe("demo"), first, last) == ["simulate", "convert", "train"]


def test_pictures_are_drawn_where_asked() -> None:
    recipe = load_recipe("demo_pictures")
    decoding: list[Stage] = ["convert", "embed", "train", "evaluate"]
    assert stages_of(recipe) == [*decoding, "report"]
    assert stages_of(recipe, pictures=True) == [*decoding, "generator", "reconstruct", "report"]
    assert stages_of(recipe, last="reconstruct") == [*decoding, "generator", "reconstruct"]
    pretrained = load_recipe("demo_pictures", ["pretrained.pipeline=unclip", "pretrained.weights=x"])
    assert stages_of(pretrained, "reconstruct") == ["reconstruct", "report"]
    with pytest.raises(SettingsError, match="pictures are drawn from vectors of images"):
        stages_of(load_recipe("demo"), pictures=True)


def test_an_index_is_made_anew_for_other_stores(meg_study: Path, tmp_path: Path) -> None:
    shutil.copytree(meg_study, tmp_path / "study", ignore=shutil.ignore_patterns("pairs"))  # other tests' index
    recipe = small_pairs(tmp_path / "study")
    assert unpaired(recipe) == "there is no index yet"
    convert_pairs(recipe, quiet)
    assert unpaired(recipe) == ""
    edit_store(tmp_path / "study")
    assert unpaired(recipe) == "their stores changed"
