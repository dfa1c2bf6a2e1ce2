"""Training: seeds reproduce, a kill changes nothing, test data stay shut, shuffled labels are at chance."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from conftest import predictions, quiet, small, small_meg
from synapse_diffusion.config import LabelSettings, parse_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.errors import DataError, RunError, SplitError, StoppedError, StoreError
from synapse_diffusion.evaluate import evaluate, evaluate_seeds, seeds
from synapse_diffusion.evaluate.scoring import Answered, design, difference_rows
from synapse_diffusion.metrics import classification_scores
from synapse_diffusion.parallel import Group
from synapse_diffusion.predict import predict
from synapse_diffusion.runs import Run, load_tensors, save_atomically
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.train import train
from synapse_diffusion.training import checkpoint
from synapse_diffusion.training.feeding import n_steps
from synapse_diffusion.training.parts import make_folds
from synapse_diffusion.training.requests import SAVE, SAVE_AND_END, Requests
from synapse_diffusion.training.setting import Setting
from synapse_diffusion.training.sources import Sources, open_sources
from synapse_diffusion.training.tasks import Task, deal_labels, label_trials, make_task


@pytest.fixture(scope="session")
def scores(trained: Run) -> list[dict[str, Any]]:
    return evaluate(trained.folder, quiet, quiet)


def test_one_seed_one_result(study: Path, trained: Run, tmp_path: Path, scores: list[dict[str, Any]]) -> None:
    again = train(small(study, f"paths.runs={tmp_path}"), "small", "test", quiet, quiet)
    assert again.folder.name == trained.folder.name
    assert predictions(again) == predictions(trained)
    assert evaluate(again.folder, quiet, quiet) == scores
    other = train(small(study, f"paths.runs={tmp_path}", "train.seed=1"), "small", "test", quiet, quiet)
    assert other.folder.name != trained.folder.name
    assert predictions(other) != predictions(trained)


def test_more_trials_more_steps() -> None:
    """However many trials there are, a fit passes over them twenty times; over few it goes 800 steps."""
    few, many, said = (parse_recipe({}, changes).train for changes in ([], ["train.batch=256"], ["train.steps=7"]))
    assert [n_steps(few, n, Group()) for n in (0, 1, 5000)] == [800, 800, 800]
    assert n_steps(many, 1_000_000, Group()) == n_steps(few, 1_000_000, Group()) == 78_125
    assert n_steps(said, 1_000_000, Group()) == 7


@pytest.mark.parametrize("stop_after", [2, 9])
def test_a_stopped_run_goes_on_bit_for_bit(
    study: Path, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Stopped after the second check (first fit) and the ninth (the final fit)."""
    saves = 0

    def stop(*args: Any, **kwargs: Any) -> None:
        nonlocal saves
        save_atomically(*args, **kwargs)
        saves += 1
        if saves == stop_after:
            raise KeyboardInterrupt

    recipe = small(study, f"paths.runs={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_atomically", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, "small", "test", quiet, quiet)
    assert list(tmp_path.rglob("*_unfinished.safetensors"))
    again = train(recipe, "small", "test", quiet, quiet)
    assert predictions(again) == predictions(trained)
    for path in sorted((trained.folder / "checkpoints").glob("*.safetensors")):
        assert path.read_bytes() == (again.folder / "checkpoints" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("step", [10, 60])
def test_asked_to_end_just_before_a_check_it_makes_up_for_it(
    study: Path, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The checkpoint is of the last step before the first check, and of the last step of all."""
    answers = iter([0] * (step - 1) + [SAVE_AND_END])
    recipe = small(study, f"paths.runs={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(Requests, "heard", lambda self, group: next(answers))
        with pytest.raises(StoppedError, match=f"saved at step {step};"):
            train(recipe, "small", "test", quiet, quiet)
    again = train(recipe, "small", "test", quiet, quiet)
    assert predictions(again) == predictions(trained)
    assert (again.folder / "curve.tsv").read_bytes() == (trained.folder / "curve.tsv").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("model", ["compact", "eegnet"])
def test_a_compiled_decoder_is_the_same(study: Path, tmp_path: Path, model: str) -> None:
    """Losses and weights within 1e-5 with dropout; and `train` itself opens what it kept without compiling."""
    few = [f"model.name={model}", "train.steps=8", "train.checks=4", "train.refit=false", "train.learning_rate=0.001"]
    plain = train(small(study, *few, f"paths.runs={tmp_path / 'plain'}"), "x", "test", quiet, quiet)
    compiled = small(study, *few, f"paths.runs={tmp_path / 'compiled'}", "execution.compile=true")
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    run = train(compiled, "x", "test", quiet, quiet)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > graphs
    curves = [pd.read_csv(r.folder / "curve.tsv", sep="\t") for r in (plain, run)]
    for column in ("train_loss", "validation_loss"):
        assert np.abs(curves[0][column] - curves[1][column]).max() < 1e-5, column
    weights = [load_tensors(r.checkpoint("fold0_member0")) for r in (plain, run)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name


def test_train_never_reads_a_test_trial(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()
    original = Epochs.read

    def spy(self: Epochs, rows: NDArray[np.int64], shift: NDArray[np.int64] | None = None) -> torch.Tensor:
        read.update(rows.tolist())
        return original(self, rows, shift)

    monkeypatch.setattr(Epochs, "read", spy)
    run = train(small(study, f"paths.runs={tmp_path}", "train.seed=5"), "small", "test", quiet, quiet)
    splits = run.splits
    everything = pd.concat(
        [pd.read_csv(p, sep="\t") for p in sorted((study / "stores").rglob("trials.tsv"))], ignore_index=True
    )
    opened = set(everything["trial_id"].iloc[sorted(read)])
    assert set(splits.loc[splits["split"] == "train", "trial_id"]) <= opened
    assert not opened & set(splits.loc[splits["split"] == "test", "trial_id"])
    held = set(splits.loc[splits["split"] == "test", "concept"])
    assert not held & set(everything["concept"].iloc[sorted(read)])


def test_evaluate_writes_what_it_says(trained: Run, scores: list[dict[str, Any]]) -> None:
    written = json.loads((trained.folder / "scores.json").read_text())
    assert written["version"] == 1
    assert len(written["rows"]) == len(scores)
    keys = (
        "task split modality person metric k_repeats gallery control transductive seed value chance low high p n model "
        "p_holm low_people high_people n_people note"
    )
    assert set(written["rows"][0]) == set(keys.split(" "))
    test = pd.read_csv(trained.folder / "predictions/test.tsv", sep="\t")
    assert set(test["model"]) == {"compact", "linear", "observer"}
    assert set(test["k_repeats"]) == {1, 4}
    wanted = {"split": "test", "model": "compact", "k_repeats": 4, "person": "all", "metric": "accuracy"}
    row = next(row for row in scores if row.items() >= wanted.items())
    mine = test[(test["model"] == "compact") & (test["k_repeats"] == 4)]
    assert row["value"] == pytest.approx((mine["label"] == mine["predicted"]).mean())
    for name in ("confusion_val.png", "confusion_test.png", "curve.png"):
        assert (trained.folder / "figures" / name).stat().st_size > 10_000


@pytest.mark.slow
def test_seeds_are_summed_up(
    study: Path, trained: Run, scores: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["train.steps=6", "train.checks=2", "evaluate.controls=[]"]
    recipes = [small(study, *few, f"paths.runs={tmp_path}", f"train.seed={seed}") for seed in (0, 1, 2)]
    runs = [train(recipe, "small", "test", quiet, quiet).folder for recipe in recipes]
    single = [evaluate(runs[0], quiet, quiet)]
    opened: list[Path] = []

    def spy(folder: Path, *args: Any) -> list[dict[str, Any]]:
        opened.append(folder)
        single.append(evaluate(folder, *args))
        return single[-1]

    monkeypatch.setattr(seeds, "evaluate", spy)
    folder, table = evaluate_seeds(runs, None, quiet, quiet)
    assert opened == runs[1:]  # the first is scored already
    assert folder == tmp_path / "small-seeds"
    assert len(table) == len(single[0])
    wanted = {"split": "test", "person": "all", "model": "compact", "metric": "auc", "k_repeats": 1}
    values = [row["value"] for rows in single for row in rows if row.items() >= wanted.items()]
    [row] = [row for row in table if row.items() >= wanted.items()]
    assert row["n_seeds"] == len(set(values)) == 3
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (row["smallest"], row["largest"]) == (min(values), max(values))
    linear = next(r for r in table if r.items() >= {**wanted, "model": "linear"}.items())
    assert linear["sd"] == pytest.approx(0, abs=0.02)
    assert json.loads((folder / "seeds.json").read_text())["rows"] == table
    assert len(pd.read_csv(folder / "seeds.tsv", sep="\t")) == len(table)
    assert evaluate_seeds(runs, tmp_path / "elsewhere", quiet, quiet)[1] == table
    assert len(opened) == 2
    (runs[1] / "scores.json").write_text("{")
    with pytest.raises(RunError, match=r"scores\.json: missing, damaged or of another version; evaluate the run again"):
        evaluate_seeds(runs, None, quiet, quiet)
    other = train(small(study, *few, f"paths.runs={tmp_path}", "view.clamp=1.0"), "x", "test", quiet, quiet).folder
    with pytest.raises(RunError, match=r"differs from \S+ in view\.clamp, not in train\.seed alone"):
        evaluate_seeds([runs[0], other], None, quiet, quiet)
    with pytest.raises(RunError, match=r"has train\.seed = 0 like"):
        evaluate_seeds([runs[0], runs[0].parent / "." / runs[0].name], None, quiet, quiet)


def test_rows_over_people_and_p_of_the_whole_run(scores: list[dict[str, Any]]) -> None:
    for row in scores:
        both = row["person"] == "all"
        assert row["n_people"] == (2 if both else 1)
        assert (row["low_people"] is not None) == both
        assert row["note"] == ("the interval over 2 people is rough" if both else None)
        claims = row["split"] == "test" and row["control"] == "none" and row["p"] is not None
        assert (row["p_holm"] is not None) == claims
        assert not claims or row["p"] <= row["p_holm"] <= 1
    family = [r for r in scores if r["p_holm"] is not None and r["person"] == "all"]
    assert len(family) == 2 * 2 * 4  # models, numbers of repeats, metrics
    best = min(family, key=lambda row: row["p"])
    assert best["p_holm"] == pytest.approx(min(1, len(family) * best["p"]))


def test_the_decoder_finds_the_signal(scores: list[dict[str, Any]]) -> None:
    value = {
        (r["split"], r["model"], r["k_repeats"]): r
        for r in scores
        if r["person"] == "all" and r["metric"] == "balanced_accuracy" and r["control"] == "none"
    }
    assert value["test", "compact", 4]["value"] > 1 / 3 + 0.1
    assert value["test", "compact", 4]["p"] < 0.1
    assert value["test", "observer", 1]["value"] > value["test", "compact", 1]["value"] - 0.03


def test_pictures_in_class_folders_are_no_concepts() -> None:
    """A concept that is the class itself leaves nothing to exchange: in a block design blocks are exchanged."""
    label = np.random.default_rng(0).integers(0, 2, 200)
    names = np.array(["face", "house"])[label]
    table = pd.DataFrame({"concept": names, "person": "01", "fold": np.repeat(np.arange(5), 40), "run": "x-01"})
    table["trial_id"] = [f"t{k:04d}" for k in range(200)]
    unit, permute = design(table, label, blocks=True)
    p = np.eye(2)[label] * 0.8 + 0.1
    rows = classification_scores(p, label, unit, permute, permutations=200, bootstrap=50, rng=np.random.default_rng(0))
    assert rows[0].p < 0.01
    assert len(np.unique(unit)) == 10


def test_train_wants_the_stores_that_the_recipe_describes(study: Path, tmp_path: Path) -> None:
    for override, message in (
        ("data.people=01,99", "no store for data.people 99; there are 01, 02"),
        ("convert.highpass_hz=5.0", "was converted with other settings"),
    ):
        with pytest.raises(StoreError, match=message):
            train(small(study, f"paths.runs={tmp_path}", override), "x", "test", quiet, quiet)


def test_the_clock_asks_for_a_checkpoint_between_two_steps() -> None:
    requests = Requests(minutes=1e-6)
    with requests.answered_by_steps():
        time.sleep(0.001)
        assert requests.heard(Group()) == SAVE
    assert Requests(minutes=60).heard(Group()) == Requests(minutes=0).heard(Group()) == 0  # 0: at checks


def test_the_baseline_keeps_its_distance_too(study: Path, tmp_path: Path) -> None:
    """Whatever is read for a training trial, baseline and random shift included, is read for no test trial."""
    overrides = [
        "view.baseline=[-1.5, 0.0]",
        "train.time_shift_s=0.5",
        "train.steps=2",
        "train.checks=1",
        f"paths.runs={tmp_path}",
    ]
    recipe = small(study, *overrides, "split.method=blocks", "data.events.image=", "data.events.label=istarget")
    stores = tmp_path / "stores"
    recipe = recipe.model_copy(
        update={
            "paths": recipe.paths.model_copy(update={"stores": str(stores)}),
            "labels": recipe.labels.model_copy(update={"source": "column", "classes": ()}),
        }
    )
    convert(recipe, quiet, quiet)
    sources = open_sources(recipe, torch.device("cpu"), quiet)
    epochs = sources.of["eeg"].epochs
    for fold in make_folds(sources, make_task(recipe, sources), recipe, quiet):
        split = fold["eeg"]
        for person in (0, 1):
            mine = (epochs.trials["store"] == person).to_numpy()
            first = epochs.trials["onset_sample"].to_numpy() - 150 - 50
            last = epochs.trials["onset_sample"].to_numpy() + 50 + 50
            read = {part: np.zeros(10**6, bool) for part in ("train", "test")}
            for part, used in read.items():
                for k in np.flatnonzero(mine & (split == part)):
                    used[max(first[k], 0) : last[k]] = True
            assert not np.any(read["train"] & read["test"])


def test_wrong_input_is_one_sentence(study: Path, trained: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.classes: no category 'fruits'; there are animal, fruit, vehicle"):
        train(small(study, "labels.classes=fruits,animal"), "x", "test", quiet, quiet)
    with pytest.raises(RunError, match=r"not a run"):
        evaluate(tmp_path, quiet, quiet)
    broken = tmp_path / "run"
    shutil.copytree(trained.folder, broken)
    (broken / "checkpoints/fold0_refit_member0.safetensors").write_bytes(b"pickle")
    with pytest.raises(RunError, match=r"fold0_refit_member0\.safetensors: cannot be read"):
        evaluate(broken, quiet, quiet)
    provenance = json.loads((broken / "provenance.json").read_text())
    provenance["stores"]["small/sub-01/ses-01/run-rsvp-01"] = "0"
    (broken / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(RunError, match="trained on another content of the store small/sub-01"):
        evaluate(broken, quiet, quiet)


def test_a_decoder_of_each_person(study: Path, tmp_path: Path) -> None:
    """Decodes their recordings, and nobody else's; curves over time are of everyone."""
    own = ["split.per_person=true", "evaluate.dynamics=true", "train.steps=6", "train.checks=2", "train.refit=false",
           "evaluate.controls=[]", f"paths.runs={tmp_path}"]  # fmt: skip
    run = train(small(study, *own), "x", "test", quiet, quiet)
    rows = evaluate(run.folder, quiet, quiet)
    assert {row["n"] for row in rows if row["metric"] == "peak_auc"} == {2}
    decided = pd.read_csv(predict(run.folder, None, tmp_path, quiet, quiet)[0], sep="\t").set_index("trial_id")
    for person in ("01", "02"):
        (path,) = predict(run.folder, study / f"stores/small/sub-{person}", tmp_path, quiet, quiet)
        again = pd.read_csv(path, sep="\t").set_index("trial_id")
        mine = decided[decided.index.str.startswith(f"sub-{person}")]
        assert len(mine) > 20
        assert np.allclose(mine["p(fruit)"], again.loc[mine.index, "p(fruit)"], atol=2e-6)
    alone = train(small(study, *own, "data.people=01"), "x", "test", quiet, quiet)
    with pytest.raises(RunError, match=r"one decoder a person \(split\.per_person\), and none of sub-02"):
        predict(alone.folder, study / "stores/small/sub-02", tmp_path, quiet, quiet)


def test_of_contiguous_blocks_stretches_are_compared(study: Path) -> None:
    """Trials without concepts: 200 decisions are ten stretches of 20, in which one model is right more often."""
    recipe = small(study, "split.method=blocks")
    label = np.random.default_rng(0).integers(0, 3, 200)
    trials = pd.DataFrame({"concept": "n/a", "image_id": "n/a", "person": "01", "fold": np.repeat(np.arange(5), 40)})
    trials["trial_id"] = [f"t{k:04d}" for k in range(200)]
    setting = Setting(recipe, Sources({}, (), ""), Task("classify", ("a", "b", "c"), {}), {})
    wrong = np.random.default_rng(1).random(200) < 0.3
    models = {"compact": np.eye(3)[label], "linear": np.eye(3)[np.where(wrong, (label + 1) % 3, label)]}
    answers = [Answered(name, 1, trials, score, label) for name, score in models.items()]
    (row,) = difference_rows(setting, answers, "test", "compact")
    assert row["n"] == 10
    assert row["value"] == pytest.approx(wrong.mean())
    assert 0.1 < row["low"] < row["value"] < row["high"] < 0.5
    both = trials.assign(person=np.where(np.arange(200) < 120, "01", "02"))  # in six of the stretches and in four
    rows = difference_rows(setting, [replace(one, trials=both) for one in answers], "test", "compact")
    assert [(row["person"], row["n"]) for row in rows] == [("all", 10), ("01", 6), ("02", 4)]
    for row, mine in zip(rows, (slice(None), slice(120), slice(120, None)), strict=True):
        assert row["value"] == pytest.approx(wrong[mine].mean())


def test_what_leaves_nothing_to_train_on_is_said(study: Path, tmp_path: Path) -> None:
    few = [f"paths.runs={tmp_path}", "train.steps=2", "train.checks=1"]
    with pytest.raises(SplitError, match="train trials share signal with held-out ones, and of what is to be decoded"):
        train(small(study, *few, "split.validation_sequences=0", "view.stop_s=3"), "x", "test", quiet, quiet)
    with pytest.raises(SplitError, match=r"none of 960 trials has a window of 100 to 101 s \(view\.\*\)"):
        train(small(study, *few, "view.start_s=100", "view.stop_s=101"), "x", "test", quiet, quiet)


DAMAGE: dict[str, tuple[list[str | None], str]] = {
    "provenance.json": (["", "[]", "{}", '{"stores": {}, "people": 3}'], "not a run|edited or damaged"),
    "splits.tsv": (
        ["", "trial_id\tfold\n", None],
        r"splits\.tsv: (missing or damaged|has no rows|edited or cut short)",
    ),
    "curve.tsv": (["", None], r"curve\.tsv: (missing or damaged|edited or cut short)"),
    "recipe.toml": ([None], r"recipe\.toml: edited or cut short since the training"),
    "limits.json": (["", "{", "[]"], r"limits\.json: damaged"),
    "temperatures.json": (["{"], r"temperatures\.json: missing or damaged"),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_a_damaged_run_is_one_sentence(trained: Run, tmp_path: Path, name: str) -> None:
    """None: the first half of the file, to the end of a value (where a recipe would still be one)."""
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    whole = (run / name).read_text() if (run / name).exists() else ""
    for content in DAMAGE[name][0]:
        half = whole[: whole.rfind("\t" if name.endswith("tsv") else "\n[labels]", 0, len(whole) * 3 // 4)]
        (run / name).write_text(half if content is None else content)
        with pytest.raises(RunError, match=DAMAGE[name][1]) as caught:
            evaluate(run, quiet, quiet)
        assert "\n" not in str(caught.value)
        (run / name).write_text(whole)


def test_a_trial_of_several_classes(real: Path) -> None:
    """All fruit but none of the animals are food; what is of both classes counts for neither, or for the first."""
    trials = pd.DataFrame({"concept": ["apple", "bread", "aardvark", "abacus"]})

    def labels(*classes: str, **more: Any) -> list[int]:
        return list(label_trials(trials, LabelSettings(classes=classes, **more), real / "things")[1])

    assert labels("fruit", "food") == [-1, 1, -1, -1]
    assert labels("fruit", "food", several="first") == [0, 1, -1, -1]
    assert labels("animal", "food", "fruit", several="first") == [1, 1, 0, -1]


@pytest.mark.parametrize(("by", "parts"), [("person", {"M01"}), ("session", {"M01/01", "M01/02"})])
def test_what_has_a_scaler_of_its_own(meg_study: Path, tmp_path: Path, by: str, parts: set[str]) -> None:
    few = ["train.steps=2", "train.checks=1", "train.refit=false", f"paths.runs={tmp_path}"]
    run = train(small_meg(meg_study, *few, f"view.scaling_by={by}"), "x", "test", quiet, quiet)
    assert {key.removeprefix("fold0/") for key in run.read_scalers()} - {"*"} == parts


@pytest.mark.parametrize("reject", ["amplitude", "peak_to_peak"])
def test_epochs_over_a_limit_are_left_out(study: Path, tmp_path: Path, reject: str) -> None:
    def n_validated(*more: str) -> int:
        few = ["train.steps=2", "train.checks=1", "train.refit=false", f"paths.runs={tmp_path}"]
        return predictions(train(small(study, *few, *more), "x", "test", quiet, quiet)).count(b"\n")

    epochs = open_sources(small(study), torch.device("cpu"), quiet).of["eeg"].epochs
    x_NCT = epochs.read(np.flatnonzero(epochs.trials["usable"].to_numpy())[:200])
    size_N = x_NCT.abs().amax((1, 2)) if reject == "amplitude" else (x_NCT.amax(2) - x_NCT.amin(2)).amax(1)
    every, half, all_again = (
        n_validated(*([] if limit is None else [f"view.reject={reject}", f"view.reject_limit={limit:.9f}"]))
        for limit in (None, float(size_N.median()), 1.0)
    )
    assert 0.2 * every < half < 0.8 * every
    assert all_again == every


def test_one_channel_is_whitened(study: Path, tmp_path: Path) -> None:
    few = ["view.channels=O1", "view.scaling=mvnn", "train.steps=2", "train.checks=1", f"paths.runs={tmp_path}"]
    run = train(small(study, *few), "x", "test", quiet, quiet)
    [scaler] = [s for key, s in run.read_scalers().items() if key.startswith("fold0/01/")]
    assert scaler.matrix_CC.shape == (1, 1)
    assert scaler.matrix_CC[0, 0] > 0


def test_dealt_labels_know_nothing_of_the_true_ones() -> None:
    label = np.repeat([0, 1, 2], [60, 90, 30])
    dealt = deal_labels(label, np.random.default_rng(0))
    table = np.bincount(label * 3 + dealt, minlength=9).reshape(3, 3)
    assert np.abs(table - np.outer([60, 90, 30], [60, 90, 30]) / 180).max() <= 1.5
    assert np.array_equal(np.bincount(dealt), [60, 90, 30])
    assert not np.array_equal(dealt, deal_labels(label, np.random.default_rng(1)))
