"""Fusion of EEG and MEG: beside what it must beat, with one modality missing, killed, and its leaks refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from conftest import FEW, RETRIEVE, quiet, scored, small_pairs
from synapse_diffusion.adapt import adapt_run
from synapse_diffusion.errors import RunError, SplitError, StoreError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.evaluate.asking import questions, two_people
from synapse_diffusion.models.base import Shape
from synapse_diffusion.models.eegnet import EEGNet
from synapse_diffusion.models.fusion import Network
from synapse_diffusion.parallel import Group
from synapse_diffusion.predict import predict
from synapse_diffusion.runs import Run
from synapse_diffusion.splits import FINAL_ONLY, TEST, TRAIN, UNUSED, split_together
from synapse_diffusion.train import train
from synapse_diffusion.training import folds
from synapse_diffusion.training.examples import Batch, read
from synapse_diffusion.training.learner import Learner
from synapse_diffusion.training.objectives import Classes
from synapse_diffusion.training.parts import make_folds
from synapse_diffusion.training.setting import Setting
from synapse_diffusion.training.sources import open_sources
from synapse_diffusion.training.tasks import make_task
from synapse_diffusion.training.trained import open_trained


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
    sides = splits[splits["split"] != FINAL_ONLY].groupby("concept")["split"].nunique()
    assert sides.max() == 1  # over both modalities
    final = set(splits.loc[splits["final"].astype(int) == 1, "concept"])
    assert final == set(splits["concept"]) - set(splits.loc[splits["split"] == TEST, "concept"])
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


def test_scores_are_written_as_returned(both: Path, fused: tuple[Run, list[dict[str, Any]]]) -> None:
    run, rows = fused
    assert json.loads((run.folder / "scores.json").read_text())["rows"] == rows
