"""Retrieval, questions, fusion, new people: trained, scored, controlled; leaks refused; wrong input in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import mne
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from conftest import quiet, small, small_meg, small_pairs
from synapse_diffusion.adapt import adapt_run
from synapse_diffusion.config import dump_recipe
from synapse_diffusion.convert import convert, convert_pairs
from synapse_diffusion.embed import embed
from synapse_diffusion.errors import DataError, RunError, SettingsError, SplitError, StoreError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.evaluate.asking import questions, two_people
from synapse_diffusion.models.base import Shape
from synapse_diffusion.models.eegnet import EEGNet
from synapse_diffusion.models.fusion import Network
from synapse_diffusion.parallel import Group
from synapse_diffusion.predict import predict
from synapse_diffusion.runs import Run
from synapse_diffusion.splits import TEST, TRAIN, UNUSED, split_together
from synapse_diffusion.store.embeddings import EmbeddingTable, open_embeddings, true_rows, write_embeddings
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import open_store
from synapse_diffusion.train import train
from synapse_diffusion.training import folds
from synapse_diffusion.training.examples import Batch, read
from synapse_diffusion.training.learner import Learner
from synapse_diffusion.training.objectives import Classes
from synapse_diffusion.training.parts import make_folds
from synapse_diffusion.training.setting import Setting
from synapse_diffusion.training.sources import Source, open_sources
from synapse_diffusion.training.tasks import make_task
from synapse_diffusion.training.trained import open_trained

FEW = ("train.steps=40", "train.checks=4", "evaluate.k_repeats=[1, 0]")
RETRIEVE = ("target.task=retrieve", "target.table=truth", *FEW)


@pytest.fixture(scope="module")
def both(meg_study: Path) -> Path:
    """EEG and MEG stores, their index, and a table of vectors that the responses do hold: what was simulated."""
    recipe = small(meg_study)
    convert_pairs(small_pairs(meg_study), quiet)
    shown = pd.read_csv(meg_study / "bids/derivatives/truth/sub-01_images.tsv", sep="\t", dtype=str)
    _, gist = embed(recipe, quiet, quiet)
    vectors = {
        "kind": np.stack([one_of(c, sorted(set(shown["category"]))) for c in shown["category"]]).astype(np.float32),
        "look": gist.select(list(shown["image_id"])).vectors["both"],
    }
    table = EmbeddingTable(true_rows(list(shown["image_id"]), list(shown["concept"])), vectors, {"kind": "hand"})
    write_embeddings(table, meg_study / "embeddings/truth")
    return meg_study


def one_of(name: str, names: list[str]) -> NDArray[np.float64]:
    return np.asarray(
        np.eye(len(names))[names.index(name)] + 0.01 * np.random.default_rng(0).standard_normal(len(names))
    )


def scored(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if row.items() >= {"split": "test", "person": "all", **wanted}.items()]


def test_images_are_retrieved(both: Path, tmp_path: Path) -> None:
    run = train(small(both, *RETRIEVE, f"paths.runs={tmp_path}", "evaluate.dynamics=true"), "x", "test", quiet, quiet)
    rows = evaluate(run.folder, quiet, quiet)
    rank = {row["model"]: row for row in scored(rows, metric="mean_rank", k_repeats=4, control="none")}
    assert set(rank) == {"compact", "linear", "encoding", "compact + encoding", "observer"}
    assert rank["compact"]["value"] < 0.4
    assert rank["compact"]["p"] < 0.05
    assert rank["observer"]["value"] < rank["compact"]["value"]
    assert rank["compact"]["gallery"] == 12
    for control in ("mean", "noise", "prestimulus"):
        for row in scored(rows, metric="top1", k_repeats=1, control=control):
            assert row["low"] <= row["chance"] + 1e-9, control
    assert {row["transductive"] for row in rows} == {True, False}
    assert all(row["transductive"] == row["metric"].startswith(("csls", "sinkhorn", "procrustes")) for row in rows)
    turned = scored(rows, metric="procrustes_mean_rank", k_repeats=4)
    assert [row["model"] for row in turned] == ["compact"]  # baselines and observers are not turned
    assert turned[0]["value"] < 0.4
    table = pd.read_csv(run.folder / "predictions/test.tsv", sep="\t")
    mine = table[(table["model"] == "compact") & (table["k_repeats"] == 4)]
    top1 = scored(rows, metric="top1", model="compact", k_repeats=4, control="none")[0]["value"]
    assert top1 == pytest.approx((mine["predicted"] == mine["image_id"]).mean())
    assert top1 == pytest.approx((mine["rank"] == 0).mean())
    for name in (
        "retrieval",
        "models_1",
        "models_4",
        "curve",
        "split_half_reliability_eeg",
        "similarity_to_targets_eeg",
    ):
        assert (run.folder / f"figures/{name}.png").stat().st_size > 10_000, name
    times = pd.read_csv(run.folder / "dynamics.tsv", sep="\t")
    assert set(times["measure"]) == {"rank_above_chance", "split_half_reliability", "similarity_to_targets"}


def test_vectors_and_scores_are_of_one_space(both: Path, tmp_path: Path) -> None:
    """With a space that each member has learned for itself."""
    more = ["train.members=2", "target.projection=4", "train.steps=4", "train.checks=1", f"paths.runs={tmp_path}"]
    run = train(small(both, *RETRIEVE, *more), "x", "test", quiet, quiet)
    trained = open_trained(run.folder, quiet)
    models, rows = trained.models(0, final=True), trained.rows(0, TEST)
    targets = {name: trained.setting.task.of[name].target_N[r] for name, r in rows.items()}
    gallery_K = np.unique(targets["eeg"])
    asked = next(questions(trained.setting, rows, targets)).asked
    predicted_ND, gallery_KD = models.spaces(asked, gallery_K, "compact")
    assert predicted_ND.shape[1] == gallery_KD.shape[1] == 2 * 4
    assert np.allclose(predicted_ND @ gallery_KD.T, models.ask(asked, gallery_K)["compact"], atol=1e-6)


def test_folds_share_their_galleries(both: Path, tmp_path: Path) -> None:
    """Of people who saw other test images."""
    more = ["split.per_person=true", "split.test=held_out", "split.test_concepts=0.25", "split.test_sequences=0.25"]
    few = ["evaluate.gallery=[0, 60]", "train.steps=2", "train.checks=1", "train.baselines=false"]
    run = train(small(both, *RETRIEVE, *more, *few, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
    assert len(open_trained(run.folder, quiet).folds) == 2
    rows = scored(evaluate(run.folder, quiet, quiet), metric="top5", model="compact", k_repeats=1, control="none")
    assert max(row["gallery"] for row in rows) == 60
    assert len(rows) == 2


def test_of_several_data_sets_tables_the_own_one_is_taken(both: Path, tmp_path: Path) -> None:
    few = ["target.task=retrieve", "train.steps=2", "train.checks=1", "train.refit=false", "train.baselines=false"]
    paths = [f"paths.runs={tmp_path / 'runs'}", f"paths.embeddings={tmp_path / 'embeddings'}"]
    embed(small(both, *paths), quiet, quiet)
    eeg = train(small(both, *few, *paths), "x", "test", quiet, quiet)
    shutil.copytree(both / "bids/stimuli", tmp_path / "images")
    picture = next((tmp_path / "images").rglob("*.jpg"))
    shutil.copy(picture, picture.with_name("another_01s.jpg"))
    folder, table = embed(small_meg(both, *paths, f"paths.images={tmp_path / 'images'}"), quiet, quiet)
    recipe = small_meg(both, *few, *paths)
    meg = train(recipe, "x", "test", quiet, quiet)
    assert folder.name.startswith("small-meg-gist-")
    assert meg.provenance["targets"] == table.digest != eeg.provenance["targets"]
    assert open_trained(eeg.folder, quiet).setting.task.digest == eeg.provenance["targets"]
    renamed = small(both, *few, *paths, "data.name=other")  # neither is its own: the run says which
    sources = open_sources(small(both, *few, *paths), torch.device("cpu"), quiet)
    for digest in (table.digest, eeg.provenance["targets"]):
        assert make_task(renamed, sources, digest).digest == digest
    with pytest.raises(StoreError, match="no embedding table of encoder gist"):
        make_task(small(both, *few, *paths, "embed.blur=[2]"), sources)
    with pytest.raises(StoreError, match="no embedding table of encoder gist"):
        make_task(small(both, *few, *paths, "embed.layers=colour"), sources)
    assert make_task(small(both, *few, *paths, "target.layers=colour"), sources).names == ("colour",)


def test_a_larger_gallery_holds_more_images(both: Path, tmp_path: Path) -> None:
    sizes = "evaluate.gallery=[0, 3, 40, 40]"  # of 12 test images, 3 is none
    recipe = small(both, *RETRIEVE, f"paths.runs={tmp_path}", sizes, "train.baselines=false")
    rows = evaluate(train(recipe, "x", "test", quiet, quiet).folder, quiet, quiet)
    found = {r["gallery"]: r for r in scored(rows, metric="top5", model="compact", k_repeats=1)}
    assert set(found) == {12, 40}
    assert len(found) == len(scored(rows, metric="top5", model="compact", k_repeats=1, control="none"))
    assert found[40]["value"] < found[12]["value"]
    assert found[40]["chance"] == pytest.approx(5 / 40)
    assert {row["model"] for row in rows} == {"compact", "observer", "compact - observer"}
    assert not any(row["control"] == "prestimulus" for row in rows)


LOSSES = [
    "loss.name=siglip", "loss.name=cosine", "loss.name=squared", "loss.temperature=0.5", "loss.mmd_share=0.5",
    "target.weights=learned", "target.projection=4", "target.scaling=centre", "target.layers=kind",
    "target.components=3",
]  # fmt: skip


@pytest.mark.slow
def test_every_loss_and_target_setting_is_noticed(both: Path, tmp_path: Path) -> None:
    few = ["target.task=retrieve", "target.table=truth", "train.steps=6", "train.checks=2", "train.refit=false"]

    def weights(*more: str) -> bytes:
        run = train(small(both, *few, *more, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
        return (run.folder / "predictions/validation.tsv").read_bytes()

    base = weights()
    for setting in LOSSES:
        assert weights(setting) != base, setting
    three = weights("target.components=3")
    assert weights("target.components=3", "target.scaling=whiten") != three


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


@pytest.fixture(scope="module")
def fused(both: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[dict[str, Any]]]:
    runs = tmp_path_factory.mktemp("fused")
    run = train(small_pairs(both, *FEW, f"paths.runs={runs}"), "x", "test", quiet, quiet)
    return run, evaluate(run.folder, quiet, quiet)


def test_a_fusion_stands_beside_what_it_must_beat(fused: tuple[Run, list[dict[str, Any]]]) -> None:
    run, rows = fused
    models = {row["model"] for row in scored(rows, metric="accuracy", control="none")}
    assert models == {
        "fused", "fused without eeg", "fused without meg", "eeg", "meg", "sum", "linear eeg", "linear meg",
        "two eeg people",
    }  # fmt: skip
    compared = {row["model"] for row in scored(rows, metric="right_more_often")}
    assert {"fused - eeg", "fused - meg", "fused - sum", "fused - two eeg people"} <= compared
    assert {"fused without eeg - meg", "fused without meg - eeg"} <= compared
    assert all(row["modality"] == "eeg+meg" for row in rows)
    assert {row["model"] for row in scored(rows, control="image_features")} == {"gist"}
    assert {row["model"] for row in scored(rows, control="wrong_person")} == {"fused"}
    splits = run.splits
    sides = splits.groupby("concept")["split"].nunique()
    assert sides.max() == 1  # over both modalities
    table = pd.read_csv(run.folder / "predictions/test.tsv", sep="\t")
    assert (table["image_id"] != "n/a").all()
    assert {"meg_trial_id", "meg_person"} <= set(table)


def test_killed_while_trust_is_weighed_the_fusion_is_weighed_again(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["train.steps=4", "train.checks=2", "train.baselines=false"]
    whole = train(small_pairs(both, *few, f"paths.runs={tmp_path / 'whole'}"), "x", "test", quiet, quiet)
    killed = small_pairs(both, *few, f"paths.runs={tmp_path / 'killed'}")
    with monkeypatch.context() as patch:
        patch.setattr(folds, "calibrate", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(killed, "x", "test", quiet, quiet)
    again = train(killed, "x", "test", quiet, quiet)
    for name in ("fold0_fused_member0", "fold0_refit_fused_member0"):
        assert again.checkpoint(name).read_bytes() == whole.checkpoint(name).read_bytes()


def test_without_one_modality_the_fusion_reads_nothing_of_it(fused: tuple[Run, list[dict[str, Any]]]) -> None:
    trained = open_trained(fused[0].folder, quiet)
    models = trained.models(0, final=True)
    rows = trained.rows(0, TEST)
    targets = {name: trained.setting.task.of[name].target_N[r] for name, r in rows.items()}
    asked = next(questions(trained.setting, rows, targets)).asked
    batch = read(asked, models.data)
    louder = replace(batch, signals={**batch.signals, "meg": 3 * batch.signals["meg"]})
    answer, changed = models.answer(batch), models.answer(louder)
    assert np.array_equal(answer["fused without meg"], changed["fused without meg"])
    assert not np.allclose(answer["fused"], changed["fused"])
    network = models.networks["fused"][0].network
    assert isinstance(network, Network)
    assert network.exponent_M3.abs().sum() > 0  # decided on validation


def test_a_fusion_decodes_a_recording_of_one_modality(
    both: Path, fused: tuple[Run, list[dict[str, Any]]], tmp_path: Path
) -> None:
    run, _ = fused
    pairs = pd.read_csv(run.folder / "predictions/test.tsv", sep="\t")
    pairs = pairs[(pairs["model"] == "meg") & (pairs["k_repeats"] == 1)].set_index("meg_trial_id")
    (path,) = predict(run.folder, both / "stores/small-meg", tmp_path, quiet, quiet)
    alone = pd.read_csv(path, sep="\t").set_index("trial_id")
    assert alone["person_is_known"].all()
    assert len(pairs) > 20
    assert np.allclose(alone.loc[pairs.index, "p(fruit)"], pairs["p(fruit)"], atol=2e-6)
    with pytest.raises(StoreError, match=r"eeg and meg; a recording of eeg or meg alone is needed"):
        predict(run.folder, both / "stores", tmp_path, quiet, quiet)
    with pytest.raises(RunError, match="a fusion; what it says of its test pairs is in predictions/"):
        predict(run.folder, None, tmp_path, quiet, quiet)
    with pytest.raises(RunError, match="a fusion; new people are met by runs of one modality"):
        adapt_run(run.folder, both / "stores/small-meg", None, quiet, quiet)


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


@pytest.mark.slow
def test_modality_dropout_is_noticed(both: Path, tmp_path: Path) -> None:
    def weights(*more: str) -> bytes:
        few = ["train.steps=6", "train.checks=2", "train.refit=false", "split.validation_sequences=0.0"]
        run = train(small_pairs(both, *few, *more, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
        return (run.folder / "checkpoints/fold0_fused_member0.safetensors").read_bytes()

    assert weights() != weights("train.modality_dropout=0.0")


def test_two_people_never_share_a_trial(both: Path) -> None:
    recipe = small_pairs(both)
    sources = open_sources(recipe, torch.device("cpu"), quiet)
    task = make_task(recipe, sources)
    fold = make_folds(sources, task, recipe, quiet)[0]

    rows = np.flatnonzero(fold["eeg"] == TEST)
    first, second = two_people(Setting(recipe, sources, task, {}), "eeg", rows, 2, np.random.default_rng(0))
    trials = sources.of["eeg"].trials
    used = np.concatenate([*first, *second])
    assert len(set(used)) == len(used) > 0
    for a, b in zip(first, second, strict=True):
        pair = trials.iloc[[*a, *b]]
        assert pair["image_id"].nunique() == 1
        assert set(trials["person"].iloc[a]) != set(trials["person"].iloc[b])


def test_early_fusion_needs_equal_rates(both: Path, tmp_path: Path) -> None:
    few = [*FEW, f"paths.runs={tmp_path}", "model.fusion=early"]
    run = train(small_pairs(both, *few), "x", "test", quiet, quiet)
    rows = evaluate(run.folder, quiet, quiet)
    assert {"fused", "fused without eeg", "sum"} <= {row["model"] for row in rows}
    assert not scored(rows, control="wrong_person")  # it knows no people


@pytest.mark.slow
def test_images_are_retrieved_from_both(both: Path, tmp_path: Path) -> None:
    run = train(small_pairs(both, *RETRIEVE, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
    rows = evaluate(run.folder, quiet, quiet)
    models = {row["model"] for row in scored(rows, metric="top1", control="none")}
    assert {"fused", "eeg", "meg", "sum", "encoding eeg", "encoding meg", "fused + encoding"} <= models


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
    with pytest.raises(StoreError, match="no signal store; convert the recording"):
        predict(run.folder, tmp_path, None, quiet, quiet)


def test_predicted_vectors_are_an_embedding_table(both: Path, tmp_path: Path) -> None:
    run = train(small(both, *RETRIEVE, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
    """Beside all images' own vectors in the same space, whose cosines rank as retrieval does."""
    _, folder = predict(run.folder, None, tmp_path, quiet, quiet)
    table = open_embeddings(folder)
    assert np.allclose(np.linalg.norm(table.vectors["compact"], axis=1), 1, atol=1e-5)
    evaluate(run.folder, quiet, quiet)
    decided = pd.read_csv(run.folder / "predictions/test.tsv", sep="\t", dtype=str)
    decided = decided[(decided["model"] == "compact") & (decided["k_repeats"] == "1")].set_index("trial_id")
    rows, images = table.rows, sorted(set(decided["image_id"]))
    brain, true = (rows["source"] == source for source in ("brain", "true"))
    at = rows[true].set_index("image_id").index.get_indexer(pd.Index(images))
    nearest = (table.vectors["compact"][brain] @ table.vectors["compact"][true][at].T).argmax(1)
    assert [images[k] for k in nearest] == list(decided.loc[rows.loc[brain, "row_id"], "predicted"])


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


def test_a_concept_on_two_sides_of_two_modalities_is_a_leak(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_pairs(both)
    sources = open_sources(recipe, torch.device("cpu"), quiet)
    task = make_task(recipe, sources)
    honest = split_together

    def leaky(*args: Any, **kwargs: Any) -> list[NDArray[np.str_]]:
        eeg, meg = honest(*args, **kwargs)
        concept = sources.of["meg"].trials["concept"].to_numpy(dtype=str)
        held = sources.of["eeg"].trials["concept"].to_numpy(dtype=str)[eeg == TRAIN][0]
        meg[(concept == held) & (meg != UNUSED)] = TEST
        return [eeg, meg]

    monkeypatch.setattr("synapse_diffusion.training.parts.split_together", leaky)
    with pytest.raises(SplitError, match=r"leak: concept \w+ is in the train and, of meg, in the test part"):
        make_folds(sources, task, recipe, quiet)


def test_a_test_trial_in_the_scalers_is_a_leak(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(source: Source, stratum_N: NDArray[np.int64], split: NDArray[np.str_], *_: Any, **__: Any) -> Any:
        return np.flatnonzero(split != UNUSED)

    monkeypatch.setattr("synapse_diffusion.training.folds.final_rows", leaky)
    with pytest.raises(SplitError, match=r"leak: \d+ test trials of eeg would be in the scalers of fold0_refit"):
        train(small(both, *RETRIEVE, "train.steps=2", "train.checks=1", f"paths.runs={tmp_path}"), "x", "test")


def test_who_lacks_a_modality_teaches_its_decoder_nothing() -> None:
    shape = Shape(3, 40, 2, 1, 100.0)
    torch.manual_seed(0)
    network = Network({"eeg": EEGNet(shape), "meg": EEGNet(shape)}, unit=False).eval()
    learner = Learner(network, Classes(torch.arange(8) % 2, 2, 0.0), prior=0.0, group=Group(), bfloat16=False)
    x, person, target = torch.randn(8, 3, 40), torch.zeros(8, dtype=torch.long), torch.arange(8) % 2
    there = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0.0])

    def gradient(noise: float) -> list[torch.Tensor]:
        meg = x.flip(0) + noise * (1 - there)[:, None, None] * torch.randn(8, 3, 40)
        present = {"eeg": torch.ones(8), "meg": there}
        signals, people = {"eeg": x, "meg": meg}, {"eeg": person, "meg": person}
        batch = Batch(signals, people, present, target, {"meg": torch.arange(5)})
        return list(torch.autograd.grad(learner(batch, 0.0), list(network.decoder("meg").parameters())))

    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(gradient(0.0), gradient(1.0), strict=True))
    assert any(g.abs().max() > 1e-3 for g in gradient(0.0))


WRONG: Mapping[str, tuple[tuple[str, ...], type[Exception], str]] = {
    "no table": (("target.task=retrieve",), StoreError, "no embedding table of encoder gist; run"),
    "a table that is not there": (("target.task=retrieve", "target.table=x"), StoreError, "missing or damaged"),
    "a layer": ((*RETRIEVE, "target.layers=conv1"), StoreError, "no layer 'conv1'; it has kind, look"),
    "blocks": ((*RETRIEVE, "split.method=blocks"), SettingsError, "split.method must be 'concepts', not 'blocks'"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_wrong_targets_are_one_sentence(both: Path, tmp_path: Path, what: str) -> None:
    overrides, kind, message = WRONG[what]
    paths = [f"paths.embeddings={tmp_path}"] if what == "no table" else []
    with pytest.raises(kind, match=message):
        train(small(both, *overrides, *paths, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)


def test_settings_that_do_not_go_together(both: Path) -> None:
    with pytest.raises(SettingsError, match="projection is a setting of task = 'retrieve', not of 'classify'"):
        small(both, "target.projection=8")
    with pytest.raises(SettingsError, match="new_people needs method = 'concepts'"):
        small(both, "split.new_people=01", "split.method=blocks")
    with pytest.raises(SettingsError, match="modality = 'comb' pairs whole recordings: leave out sessions, runs"):
        small_pairs(both, "data.sessions=01", "data.runs=01")


def test_shuffled_images_are_at_chance(both: Path, tmp_path: Path) -> None:
    shuffled = ["labels.shuffled=true", "evaluate.controls=[]", "evaluate.dynamics=true", "evaluate.permutations=2000"]
    rows = evaluate(train(small(both, *RETRIEVE, *shuffled, f"paths.runs={tmp_path}"), "x", "test").folder)
    claims = [row for row in scored(rows, control="shuffled_labels") if row["p_holm"] is not None]
    assert len(claims) > 10
    assert "peak_rank_above_chance" in {row["metric"] for row in claims}
    assert min(row["p_holm"] for row in claims) > 0.01
    assert not scored(rows, control="none", metric="peak_rank_above_chance")


def test_scores_are_written_as_returned(both: Path, fused: tuple[Run, list[dict[str, Any]]]) -> None:
    run, rows = fused
    assert json.loads((run.folder / "scores.json").read_text())["rows"] == rows


@pytest.mark.slow
def test_meg_is_retrieved_too(both: Path, tmp_path: Path) -> None:
    recipe = small_meg(both, *RETRIEVE, f"paths.embeddings={both / 'embeddings'}", f"paths.runs={tmp_path}")
    rows = evaluate(train(recipe, "x", "test", quiet, quiet).folder, quiet, quiet)
    assert {row["modality"] for row in rows} == {"meg"}


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
