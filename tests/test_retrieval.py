"""Retrieval of images: trained, scored, its tables, galleries, vectors and losses; wrong input in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import RETRIEVE, quiet, scored, small, small_meg
from synapse_diffusion.embed import embed
from synapse_diffusion.errors import SettingsError, StoreError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.evaluate.asking import questions
from synapse_diffusion.evaluate.controls import _noise
from synapse_diffusion.predict import predict
from synapse_diffusion.splits import TEST
from synapse_diffusion.store.embeddings import open_embeddings
from synapse_diffusion.train import train
from synapse_diffusion.training.examples import Batch
from synapse_diffusion.training.sources import open_sources
from synapse_diffusion.training.tasks import make_task
from synapse_diffusion.training.trained import open_trained


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
    recipe, said = small(both, *RETRIEVE, f"paths.runs={tmp_path}", sizes, "train.baselines=false"), list[str]()
    run = train(recipe, "x", "test", quiet, quiet)
    rows = evaluate(run.folder, said.append, quiet)
    found = {r["gallery"]: r for r in scored(rows, metric="top5", model="compact", k_repeats=1)}
    assert set(found) == {12, 40}
    assert len(found) == len(scored(rows, metric="top5", model="compact", k_repeats=1, control="none"))
    assert found[40]["value"] < found[12]["value"]
    assert found[40]["chance"] == pytest.approx(5 / 40)
    assert {row["model"] for row in rows} == {"compact", "observer", "compact - observer"}
    assert not any(row["control"] == "prestimulus" for row in rows)
    assert any(line.startswith("control prestimulus is left out") for line in said)
    named = pd.read_csv(run.folder / "galleries.tsv", sep="\t")
    assert named.groupby("gallery")["image_id"].nunique().to_dict() == {40: 40}
    assert set(run.splits.query("split == 'test'")["image_id"]) <= set(named["image_id"])
    assert len(scored(rows, metric="concept_top1", model="compact", k_repeats=1)) >= 1  # of one image or several each


def test_each_decision_of_the_noise_control_has_noise_of_its_own() -> None:
    signal_BCT = torch.ones(4, 3, 50).cumsum(2)
    batch = Batch({"eeg": signal_BCT}, {"eeg": torch.zeros(4)}, {"eeg": torch.ones(4)}, torch.zeros(4))
    first, again, second = (_noise(batch, (0, 0, 1, at)).signals["eeg"] for at in (0, 0, 4))
    assert torch.equal(first, again)
    every = torch.cat([first, second]).flatten(1)
    assert torch.corrcoef(every).fill_diagonal_(0).abs().max() < 0.5
    assert torch.allclose(every.std(1).mean(), signal_BCT.std((1, 2)).mean(), rtol=0.2)


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


def test_predicted_vectors_are_an_embedding_table(both: Path, tmp_path: Path) -> None:
    """Beside all images' own vectors in the same space, whose cosines rank as retrieval does."""
    run = train(small(both, *RETRIEVE, f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
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


def test_shuffled_images_are_at_chance(both: Path, tmp_path: Path) -> None:
    shuffled = ["labels.shuffled=true", "evaluate.controls=[]", "evaluate.dynamics=true", "evaluate.permutations=20000"]
    rows = evaluate(train(small(both, *RETRIEVE, *shuffled, f"paths.runs={tmp_path}"), "x", "test").folder)
    claims = [row for row in scored(rows, control="shuffled_labels") if row["p_holm"] is not None]
    assert 10 < len(claims) < 200  # of 20,000 permutations the smallest p after Holm is then below .01
    assert "peak_rank_above_chance" in {row["metric"] for row in claims}
    assert min(row["p_holm"] for row in claims) > 0.01
    assert not scored(rows, control="none", metric="peak_rank_above_chance")


@pytest.mark.slow
def test_meg_is_retrieved_too(both: Path, tmp_path: Path) -> None:
    recipe = small_meg(both, *RETRIEVE, f"paths.embeddings={both / 'embeddings'}", f"paths.runs={tmp_path}")
    rows = evaluate(train(recipe, "x", "test", quiet, quiet).folder, quiet, quiet)
    assert {row["modality"] for row in rows} == {"meg"}
