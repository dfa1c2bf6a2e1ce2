"""Questions, new people, recordings that a run never saw, controls; no test trial is read in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from conftest import FEW, RETRIEVE, quiet, scored, small, small_meg, small_pairs
from synapse_diffusion.config import dump_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.embed import embed
from synapse_diffusion.errors import DataError, SettingsError, SplitError, StoreError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.predict import predict
from synapse_diffusion.splits import TEST, TRAIN, UNUSED
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import open_store
from synapse_diffusion.train import train
from synapse_diffusion.training.sources import Source
from synapse_diffusion.training.trained import open_trained


def test_yes_or_no_to_every_category(both: Path, tmp_path: Path) -> None:
    recipe = small(both, "target.task=questions", *FEW, f"paths.runs={tmp_path}")
    run = train(recipe, "x", "test", quiet, quiet)
    rows = evaluate(run.folder, quiet, quiet)
    area = {row["model"]: row for row in scored(rows, metric="auc", k_repeats=4, control="none")}
    assert area["compact"]["value"] > 0.6
    assert {row["metric"] for row in rows} == {"auc", "average_precision"}
    assert {row["model"] for row in scored(rows, control="image_features")} == {"gist"}
    assert run.provenance["classes"] == ["animal", "fruit", "vehicle"]
    assert (run.folder / "figures/questions_test.png").stat().st_size > 10_000
    table = pd.read_csv(run.folder / "predictions/test.tsv", sep="\t")
    assert table[[c for c in table if str(c).startswith("p(")]].to_numpy().max() <= 1


@pytest.mark.slow
def test_what_pictures_alone_tell(both: Path, tmp_path: Path) -> None:
    """Is scikit-learn's LDA on the training images' features; the test decisions are those of the others."""
    run = train(small(both, *FEW, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
    rows = scored(evaluate(run.folder, quiet, quiet), control="image_features", metric="accuracy")
    assert {(row["model"], row["k_repeats"]) for row in rows} == {("gist", 1), ("gist", 4)}
    _, gist = embed(small(both), quiet, quiet)
    trained = open_trained(run.folder, quiet)
    [table] = [source.trials for source in trained.setting.sources.of.values()]
    label_N = trained.setting.task.of["eeg"].target_N
    parts = []
    for part in (trained.trained_rows(0, final=True)["eeg"], trained.rows(0, TEST)["eeg"]):
        images, first = np.unique(table["image_id"].to_numpy(dtype=str)[part], return_index=True)
        parts.append((gist.select(list(images)).vectors["both"].astype(float), label_N[part][first]))
    (x, y), (x_test, y_test) = parts
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(3, 1 / 3))
    own = (lda.fit((x - x.mean(0)) / x.std(0), y).predict((x_test - x.mean(0)) / x.std(0)) == y_test).mean()
    assert [row["value"] for row in rows] == pytest.approx([own, own], abs=0.01)  # each test image as often
    said: list[str] = []
    recipe = (run.folder / "recipe.toml").read_text()
    (run.folder / "recipe.toml").write_text(recipe.replace(f"{both / 'embeddings'}", f"{tmp_path / 'none'}"))
    assert not scored(evaluate(run.folder, said.append, quiet), control="image_features")
    assert "control image_features is left out: no table of gist vectors" in said[0]


def test_a_person_whom_training_never_met(both: Path, tmp_path: Path) -> None:
    recipe = small(both, *FEW, "split.new_people=02", f"paths.runs={tmp_path}")
    run = train(recipe, "x", "test", quiet, quiet)
    assert list(run.provenance["people"]["eeg"]) == ["01"]
    splits = run.splits
    assert set(splits.loc[splits["split"] == TRAIN, "person"]) == {"01"}
    assert set(splits.loc[splits["split"] == TEST, "person"]) == {"02"}
    rows = evaluate(run.folder, quiet, quiet)
    found = scored(rows, metric="balanced_accuracy", model="compact", k_repeats=4, control="none")
    assert 0 <= found[0]["value"] <= 1
    with pytest.raises(SplitError, match=r"split\.new_people: no trial of 09; there are 01, 02"):
        train(small(both, "split.new_people=09", f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)


def test_predictions_of_recordings_that_the_run_never_saw(both: Path, tmp_path: Path) -> None:
    recipe = small(both, *FEW, "data.people=01", f"paths.runs={tmp_path}")
    run = train(recipe, "x", "test", quiet, quiet)
    (own,) = predict(run.folder, None, tmp_path / "own", quiet, quiet)
    evaluate(run.folder, quiet, quiet)
    table = pd.read_csv(run.folder / "predictions/test.tsv", sep="\t")
    mine = table[(table["model"] == "compact") & (table["k_repeats"] == 1)].set_index("trial_id")
    again = pd.read_csv(own, sep="\t").set_index("trial_id")
    assert np.allclose(mine.loc[again.index, "p(fruit)"], again["p(fruit)"], atol=2e-6)
    assert again["person_is_known"].all()
    (other,) = predict(run.folder, both / "stores/small/sub-02", tmp_path, quiet, quiet)
    new = pd.read_csv(other, sep="\t")
    assert len(new) == 480
    assert not new["person_is_known"].any()
    said: list[str] = []
    (whole,) = predict(run.folder, both / "stores/small/sub-01", tmp_path, said.append, quiet)
    every, splits = pd.read_csv(whole, sep="\t").set_index("trial_id"), run.splits.set_index("trial_id")
    fitted = set(splits.index[splits["final"].astype(int) == 1])
    assert 0 < len(fitted) < len(every)
    assert set(every.index[every["trial_was_trained"] == 1]) == fitted
    assert said[-1].startswith(f"{len(fitted)} of these trials trained their decoder")
    concepts = set(splits.loc[sorted(fitted), "concept"])
    for table in (every, new, pd.read_csv(own, sep="\t")):
        assert ((table["concept_was_trained"] == 1) == table["concept"].isin(concepts)).all()
    assert not new["trial_was_trained"].any()
    assert not again["concept_was_trained"].any()
    with pytest.raises(StoreError, match="no signal store; convert the recording"):
        predict(run.folder, tmp_path, None, quiet, quiet)


@pytest.mark.parametrize("kind", ["retrieve", "fusion"])
def test_train_reads_no_test_trial(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    read: set[str] = set()
    original = Epochs.read

    def spy(self: Epochs, rows: NDArray[np.int64], shift: NDArray[np.int64] | None = None) -> torch.Tensor:
        read.update(self.trials["trial_id"].iloc[rows])
        return original(self, rows, shift)

    monkeypatch.setattr(Epochs, "read", spy)
    make = small_pairs if kind == "fusion" else small
    run = train(make(both, *RETRIEVE, f"paths.runs={tmp_path}", "train.steps=4"), "x", "test", quiet, quiet)
    splits = run.splits
    held = set(splits.loc[splits["split"] == TEST, "trial_id"])
    assert held
    assert not held & read
    found = [path for name in ("small", "small-meg") for path in (both / "stores" / name).rglob("trials.tsv")]
    tables = [pd.read_csv(path, sep="\t", dtype=str) for path in found]
    concept = pd.concat(tables).set_index("trial_id")["concept"]
    assert not set(concept.loc[sorted(read)]) & set(splits.loc[splits["split"] == TEST, "concept"])


LEAKS: dict[str, tuple[tuple[str, ...], str]] = {
    "test trials": ((UNUSED,), r"leak: \d+ test trials of eeg would be in the final fit"),
    "their concepts": ((TEST,), r"leak: concept \S+ is in the train and in the test part"),
}


@pytest.mark.parametrize("what", list(LEAKS))
def test_a_leak_in_the_fit_that_is_tested_is_refused(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    without, message = LEAKS[what]

    def leaky(source: Source, stratum_N: NDArray[np.int64], split: NDArray[np.str_], *_: Any, **__: Any) -> Any:
        return np.flatnonzero(~np.isin(split, without) & (stratum_N >= 0))

    monkeypatch.setattr("synapse_diffusion.training.folds.final_rows", leaky)
    with pytest.raises(SplitError, match=message):
        train(small(both, *RETRIEVE, "train.steps=2", "train.checks=1", f"paths.runs={tmp_path}"), "x", "test")


def test_settings_that_do_not_go_together(both: Path) -> None:
    with pytest.raises(SettingsError, match="projection is a setting of task = 'retrieve', not of 'classify'"):
        small(both, "target.projection=8")
    with pytest.raises(
        SettingsError, match=r"^recipe: loss.name = 'siglip' does nothing where target.task is 'classify'; leave"
    ):
        small(both, "loss.name=siglip")
    with pytest.raises(SettingsError, match=r"^recipe: target.projection = 8 does nothing where loss.name is 'cosine'"):
        small(both, "target.task=retrieve", "loss.name=cosine", "target.projection=8")
    with pytest.raises(SettingsError, match="new_people needs method = 'concepts'"):
        small(both, "split.new_people=01", "split.method=blocks")
    with pytest.raises(SettingsError, match="modality = 'comb' pairs whole recordings: leave out sessions, runs"):
        small_pairs(both, "data.sessions=01", "data.runs=01")


@pytest.mark.slow
def test_the_eyes_alone_have_a_run_of_their_own(both: Path, tmp_path: Path) -> None:
    """Stored as recorded, less what the filter takes; the same trials on the same sides; nothing in them to decode."""
    eyes = ["data.name=eyes", "convert.only_channels=EOG001", f"paths.runs={tmp_path}", "view.scaling=robust", *FEW]
    stores = f"paths.stores={tmp_path / 'stores'}"
    recipe = small_meg(both, *eyes, stores)
    convert(recipe, quiet, quiet)
    folder = min((tmp_path / "stores/eyes").glob("*/*/*"))
    beside = open_store(both / "stores/small-meg" / folder.relative_to(tmp_path / "stores/eyes"))
    store = open_store(folder)
    assert (store.sensors.names, store.sensors.kinds, store.sensors.units) == (("EOG001",), ("eog",), ("V",))
    assert store.trials.equals(beside.trials)
    assert store.segments == beside.segments
    raw = mne.io.read_raw_fif(min((both / "bids-meg").rglob("*_meg.fif")), preload=True).pick("eog")
    raw.filter(0.1, 30.0, picks="eog").resample(100, method="polyphase")
    n = min(len(store.signal_TC), raw.n_times)
    assert np.corrcoef(store.signal_TC[:n, 0], raw.get_data()[0, :n])[0, 1] > 0.99
    run = train(recipe, "x", "test", quiet, quiet)
    main = train(small_meg(both, *FEW, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
    assert run.splits.equals(main.splits)
    (run.folder / "recipe.toml").write_text(dump_recipe(small_meg(both, *eyes, stores, "evaluate.permutations=2000")))
    rows = scored(evaluate(run.folder, quiet, quiet), control="none", metric="auc", k_repeats=1)
    assert all(row["p_holm"] > 0.01 for row in rows if row["model"] == "linear")
    with pytest.raises(DataError, match=r"no channel EOG9 \(convert\.only_channels\); it has"):
        convert(small_meg(both, *eyes, stores, "data.name=none", "convert.only_channels=EOG9"), quiet, quiet)
    with pytest.raises(SettingsError, match="only_channels are stored as they are: ica must be 'none'"):
        small_meg(both, *eyes, "convert.ica=eog_ecg")
