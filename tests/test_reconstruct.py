"""Pictures from conditions: the generator, the regression from a brain, controls, scores, resumption."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import quiet, small, small_pairs
from synapse_diffusion.config import (
    EvaluateSettings,
    Recipe,
    ReconstructSettings,
    parse_recipe,
)
from synapse_diffusion.convert import convert_pairs
from synapse_diffusion.embed import embed
from synapse_diffusion.encoders import taesd
from synapse_diffusion.errors import RunError, SettingsError, SplitError, StoreError, SynapseError
from synapse_diffusion.generate import train_generator
from synapse_diffusion.reconstruct import reconstruct, train_prior
from synapse_diffusion.reconstruct.scoring import Drawn, columns_of, score
from synapse_diffusion.runs import Run
from synapse_diffusion.store.embeddings import EmbeddingTable, open_embeddings, true_rows
from synapse_diffusion.train import train
from synapse_diffusion.training.conditions import Conditions
from synapse_diffusion.training.pictured import Parts, check_parts, open_generator

TINY = (
    "target.task=retrieve", "target.layers=colour", "train.steps=6", "train.checks=2", "train.refit=false",
    "generator.size=16", "generator.low_side=4", "generator.low_components=8", "generator.components=6",
    "generator.width=16", "generator.depth=1", "generator.heads=2", "generator.steps=12", "generator.checks=3",
    "generator.batch=16", "reconstruct.sampling_steps=3", "reconstruct.k_repeats=[0]",
)  # fmt: skip


def tiny(folder: Path, *more: str) -> Recipe:
    return small(folder, *TINY, *more)


@pytest.fixture(scope="module")
def made(study: Path) -> tuple[Path, Run, Run]:
    """The study with an embedding table; a decoder's run and a generator's."""
    recipe = tiny(study)
    embed(recipe, quiet, quiet)
    return study, train(recipe, "pictures", "test", quiet, quiet), train_generator(recipe, "test", quiet, quiet)


@pytest.fixture(scope="module")
def drawn(made: tuple[Path, Run, Run]) -> tuple[Path, list[dict[str, Any]]]:
    made[1].write_scores([{"task": "retrieve", "value": 1.0}], {})
    return reconstruct(made[1].folder, (), quiet, quiet)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*-*.png"))}


def weights(run: Run) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.checkpoint("generator"))
    return found


def test_a_leak_is_an_error() -> None:
    rows = true_rows(["a1", "a2", "b1", "c1"], ["a", "a", "b", "c"])
    check_parts(rows, Parts(("a1", "a2"), ("b1",), ("c1",)))
    for parts in (Parts(("a1",), ("b1",), ("a2",)), Parts(("a1",), ("b1",), ("a1",)), Parts(("a1",), ("a2",), ("c1",))):
        with pytest.raises(SplitError, match="leak: "):
            check_parts(rows, parts)


def test_the_generator_sees_no_test_concept(made: tuple[Path, Run, Run]) -> None:
    study, run, generator = made
    splits = run.splits
    concept_of = open_embeddings(next((study / "embeddings").glob("small-gist-*"))).rows.set_index("image_id")[
        "concept"
    ]
    trained = concept_of[concept_of.isin(splits.loc[splits["split"] == "train", "concept"])]
    assert not set(trained) & set(splits.loc[splits["split"] == "test", "concept"])
    assert generator.read_provenance()["images"]["train"] == len(trained)


def test_a_generator_goes_on_where_it_was_killed(made: tuple[Path, Run, Run], tmp_path: Path) -> None:
    study, _, whole = made
    recipe = tiny(study, f"paths.runs={tmp_path}")

    def killed(what: str, done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_generator(recipe, "test", quiet, killed)
    [unfinished] = tmp_path.glob("*/checkpoints/*")
    assert unfinished.name == "generator_unfinished.safetensors"
    again = train_generator(recipe, "test", quiet, quiet)
    assert {path.name for path in (again.folder / "checkpoints").iterdir()} == {"generator.safetensors"}
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    curve = pd.read_csv(again.folder / "curve.tsv", sep="\t")
    assert list(curve["step"]) == [4, 8, 12]
    assert curve["validation_loss"].iloc[-1] < curve["validation_loss"].iloc[0]


def test_every_test_picture_is_drawn_and_scored(
    made: tuple[Path, Run, Run], drawn: tuple[Path, list[dict[str, Any]]]
) -> None:
    folder, rows = drawn
    splits = made[1].splits
    images = set(splits.loc[splits["split"] == "test", "image_id"])
    people = {"01", "02"}
    for source, who in (("brain", people), ("shuffled", people), ("none", {"n-a"}), ("true", {"n-a"})):
        assert {path.name for path in (folder / "pictures" / source).iterdir()} == who
        for person in who:
            found = {path.name for path in (folder / "pictures" / source / person).rglob("*.png")}
            assert found == {f"{image}-{sample}.png" for image in images for sample in (0, 1)}
    assert {path.name for path in folder.glob("grid_*.png")} == {"grid_01.png"}
    value = {(r["model"], r["person"], r["metric"]): r["value"] for r in rows}
    assert abs(value["none", "all", "two_way pixels"] - 0.5) < 0.15  # 12 images, two samples
    assert value["autoencoder", "all", "two_way pixels"] == 1.0
    assert value["autoencoder", "all", "ssim"] == pytest.approx(1.0, abs=1e-3)
    beyond = next(r for r in rows if r["model"] == "brain - none" and r["metric"] == "pixcorr")
    assert beyond["value"] == pytest.approx(value["brain", "all", "pixcorr"] - value["none", "all", "pixcorr"])
    assert beyond["low"] <= beyond["value"] <= beyond["high"]
    each = [value["brain", person, "mean_colour"] for person in ("01", "02")]
    assert value["brain", "all", "mean_colour"] == pytest.approx(np.mean(each))
    within = {r["model"] for r in rows if r["metric"] == "two_way_within_category pixels" and r["person"] == "all"}
    assert {"brain", "none", "brain - none", "brain - shuffled", "nearest"} <= within
    assert {r["control"] for r in rows if r["model"] == "none"} == {"no_brain"}
    kept = json.loads((made[1].folder / "scores.json").read_text())["rows"]
    assert {row["task"] for row in kept} == {"retrieve", "reconstruct"}
    missing = json.loads((folder / "columns.json").read_text())["missing"]
    assert {"CLIP", "Inception", "LPIPS"} <= set(missing)


def test_a_picture_that_knows_nothing_is_at_one_half(drawn: tuple[Path, list[dict[str, Any]]]) -> None:
    """One picture for all images: two-way identification is .5 exactly; the brain's margin is over both controls."""
    rng = np.random.default_rng(0)
    images = np.array([f"i{k}" for k in range(9)])
    seen = dict(zip(images, rng.integers(0, 256, (9, 3, 16, 16), np.uint8), strict=True))
    same = np.repeat(rng.integers(0, 256, (1, 2, 3, 16, 16), np.uint8), 9, 0)
    good = np.stack([seen[i] for i in images])[:, None]
    parts = [Drawn("none", "all", 0, images, same)]
    parts += [Drawn(s, p, 4, images, x) for s, x in (("brain", good), ("shuffled", np.roll(good, 1, 0))) for p in "ab"]
    columns = columns_of(ReconstructSettings(), torch.device("cpu"))
    category = {f"i{k}": "ab"[k % 2] for k in range(7)}  # of two images nothing is known
    rows = score(parts, seen, category, columns, EvaluateSettings(permutations=50, bootstrap=50), "eeg")
    value = {(r["model"], r["metric"]): r["value"] for r in rows if r["person"] == "all"}
    assert value["none", "two_way pixels"] == pytest.approx(0.5, abs=1e-12)
    assert value["none", "two_way gist"] == pytest.approx(0.5, abs=1e-12)
    assert value["none", "top1 gist"] == pytest.approx(1 / 9)
    assert (value["brain", "top1 gist"], value["shuffled", "top1 gist"]) == (1.0, 0.0)
    assert value["brain - none", "two_way pixels"] == pytest.approx(0.5, abs=1e-12)
    assert value["none", "two_way_within_category pixels"] == pytest.approx(0.5, abs=1e-12)
    assert value["brain - none", "two_way_within_category gist"] == pytest.approx(0.5, abs=1e-12)
    assert value["brain", "mean_colour"] == pytest.approx(1)
    assert value["brain - shuffled", "pixcorr"] == pytest.approx(1 - value["shuffled", "pixcorr"])
    assert {r["model"] for r in drawn[1]} >= {"brain - none", "brain - shuffled"}


def test_people_who_saw_other_pictures() -> None:
    """Means are of the pictures that all were shown; of people with none in common each stands alone."""
    rng = np.random.default_rng(0)
    seen = {f"i{k}": rng.integers(0, 256, (3, 16, 16), np.uint8) for k in range(9)}

    def drawn_of(people: dict[str, list[int]]) -> list[Drawn]:
        shown = {p: np.array([f"i{k}" for k in ks]) for p, ks in people.items()}
        every = np.array(sorted(set(np.concatenate(list(shown.values())))))
        parts = [Drawn("none", "all", 0, every, np.stack([np.roll(seen[i], 1, 2) for i in every])[:, None])]
        return parts + [Drawn("brain", p, 4, i, np.stack([seen[n] for n in i])[:, None]) for p, i in shown.items()]

    def rows_of(parts: list[Drawn]) -> dict[tuple[str, str], tuple[float, int]]:
        here = {name: seen[name] for one in parts for name in one.images}
        rows = score(parts, here, {}, [], EvaluateSettings(permutations=20, bootstrap=20), "eeg")
        return {(r["model"], r["person"]): (r["value"], r["n"]) for r in rows if r["metric"] == "pixcorr"}

    some = rows_of(drawn_of({"a": [0, 1, 2, 3, 4], "b": [3, 4, 5, 6]}))
    assert some["brain", "all"][0] == pytest.approx(1)
    assert some["brain", "all"][1] == 2
    assert some["brain - none", "all"][1] == 2
    assert ("brain - none", "a") not in some
    apart = rows_of(drawn_of({"a": [0, 1, 2], "b": [3, 4, 5, 6]}))
    assert ("brain", "all") not in apart
    assert (apart["brain - none", "a"][1], apart["brain - none", "b"][1]) == (3, 4)


def test_more_repeats_than_there_are_is_one_sentence(made: tuple[Path, Run, Run]) -> None:
    with pytest.raises(SettingsError, match=r"k_repeats = 24: some test image was shown to someone 4 times only"):
        reconstruct(made[1].folder, ["reconstruct.k_repeats=[1, 24]"], quiet, quiet)


@pytest.mark.slow
def test_a_killed_process_ends_with_the_same_files(
    made: tuple[Path, Run, Run], drawn: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = drawn
    copy = tmp_path / "run"
    shutil.copytree(made[1].folder, copy)
    pictures = copy / folder.name / "pictures"
    shutil.rmtree(pictures)
    command = [sys.executable, "-m", "synapse_diffusion", "reconstruct", str(copy), "--set", "reconstruct.batch=7"]
    process = subprocess.Popen(command, cwd=made[0], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(pictures.rglob("*.png"))) < 20:
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = files_of(pictures)
    assert 20 <= len(left) < len(files_of(folder / "pictures"))
    again, _ = reconstruct(copy, ["reconstruct.batch=7"], quiet, quiet)
    after = files_of(again / "pictures")
    assert after.items() >= left.items()
    shutil.rmtree(again)
    assert files_of(reconstruct(copy, ["reconstruct.batch=7"], quiet, quiet)[0] / "pictures") == after


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver_pp_2m"])
def test_pictures_through_latents_and_by_v(made: tuple[Path, Run, Run], tmp_path: Path, sampler: str) -> None:
    """A tiny autoencoder in the form of TAESD's files; a generator of its latents that predicts v."""
    torch.manual_seed(0)
    for part, network in (("encoder", taesd.encoder(8, 4, 0)), ("decoder", taesd.decoder(8, 4, 0))):
        save_file(network.state_dict(), tmp_path / f"tiny_{part}.safetensors")
    latents = [
        "generator.autoencoder=taesd", f"generator.weights={tmp_path / 'tiny'}", "generator.size=32",
        "generator.patch=2", "generator.prediction=v",
    ]  # fmt: skip
    copy = tmp_path / "runs/run"
    shutil.copytree(made[1].folder, copy, ignore=shutil.ignore_patterns("reconstruction-*"))
    run = train_generator(tiny(made[0], *latents, f"paths.runs={copy.parent}"), "test", quiet, quiet)
    assert json.loads((run.folder / "provenance.json").read_text())["autoencoder"]["kind"] == "taesd"
    more = [*latents, f"paths.runs={copy.parent}", f"reconstruct.sampler={sampler}"]
    out, rows = reconstruct(copy, more, quiet, quiet)
    bound = {r["metric"]: r["value"] for r in rows if r["model"] == "autoencoder" and r["person"] == "all"}
    assert 0 < bound["ssim"] < 0.999  # random weights: no picture comes back whole
    for path in (out / "pictures").rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.size == (32, 32)
    with pytest.raises(SettingsError, match="is not one for a generator of prediction = 'v'"):
        reconstruct(copy, [*more[:-1], "reconstruct.sampler=euler_flow"], quiet, quiet)


def test_the_same_pictures_after_a_kill_and_in_other_batches(
    made: tuple[Path, Run, Run], drawn: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = drawn
    before = files_of(folder / "pictures")
    copy = tmp_path / "run"
    shutil.copytree(made[1].folder, copy)
    for path in list((copy / folder.name / "pictures").rglob("*-1.png"))[::3]:
        path.unlink()
    again, _ = reconstruct(copy, (), quiet, quiet)
    assert files_of(again / "pictures") == before
    shutil.rmtree(again)
    other, _ = reconstruct(copy, ["reconstruct.batch=5"], quiet, quiet)
    assert other == again
    assert set(files_of(other / "pictures")) == set(before)
    from synapse_diffusion.reconstruct.drawing import read_picture

    for name in list(before)[::7]:
        a, b = (read_picture(where / "pictures" / name, 16).astype(int) for where in (folder, other))
        assert np.abs(a - b).max() <= 1, name


def test_people_and_seeds_make_the_difference(drawn: tuple[Path, list[dict[str, Any]]]) -> None:
    table = open_embeddings(drawn[0] / "conditions")
    of = {source: table.vectors["low"][(table.rows["source"] == source).to_numpy()] for source in ("none", "brain")}
    assert (of["none"] == 0).all()
    assert np.abs(of["brain"]).max() > 0
    brain = table.rows["source"] == "brain"
    shuffled = table.vectors["semantic"][(table.rows["source"] == "shuffled").to_numpy()]
    mine = table.vectors["semantic"][brain.to_numpy()]
    assert np.allclose(np.sort(shuffled, 0), np.sort(mine, 0))  # the same vectors, dealt otherwise
    assert not np.allclose(shuffled, mine)


GENERATOR = (
    "size=24", "components=3", "low_side=8", "low_components=4", "doubt=0.0", "dropout=0.5", "prediction=v", "width=24",
    "depth=2", "heads=4", "patch=8", "steps=9", "checks=2", "batch=8", "learning_rate=0.01", "weight_decay=1.0",
    "ema=0.5", "seed=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("setting", GENERATOR)
def test_every_setting_of_the_generator_is_noticed(made: tuple[Path, Run, Run], tmp_path: Path, setting: str) -> None:
    study, _, without = made
    run = train_generator(tiny(study, f"paths.runs={tmp_path}", f"generator.{setting}"), "test", quiet, quiet)
    assert run.folder.name != without.folder.name
    a, b = weights(without), weights(run)
    curves = [(r.folder / "curve.tsv").read_text() for r in (without, run)]
    assert curves[0] != curves[1]
    if setting != "checks=2":
        assert a.keys() != b.keys() or any(a[n].shape != b[n].shape or not torch.equal(a[n], b[n]) for n in a)


def test_min_snr_and_patience_are_noticed(made: tuple[Path, Run, Run], tmp_path: Path) -> None:
    base = (f"paths.runs={tmp_path}", "generator.prediction=v")
    runs = [
        train_generator(tiny(made[0], *base, *more), "test", quiet, quiet)
        for more in ((), ("generator.min_snr=1.0",), ("generator.patience=1", "generator.learning_rate=1e-30"))
    ]
    assert any(not torch.equal(v, weights(runs[1])[n]) for n, v in weights(runs[0]).items())
    assert len(pd.read_csv(runs[2].folder / "curve.tsv", sep="\t")) < 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    ["features=decoder", "prior=flow", "k_repeats=[1]", "samples=1", 'controls=["none"]', "sampler=euler_flow",
     "sampling_steps=2", "shift=1.0", "last_time=0.0", "temperature=1.0",
     "guidance=1.0", "bottleneck=[2]", "seed=1"],
)  # fmt: skip
def test_every_setting_of_reconstruct_is_noticed(
    made: tuple[Path, Run, Run], drawn: tuple[Path, list[dict[str, Any]]], tmp_path: Path, setting: str
) -> None:
    shutil.copytree(made[1].folder, tmp_path / "run", ignore=shutil.ignore_patterns("reconstruction-*"))
    folder, _ = reconstruct(tmp_path / "run", [f"reconstruct.{setting}"], quiet, quiet)
    assert folder.name != drawn[0].name
    assert files_of(folder / "pictures") != files_of(drawn[0] / "pictures")


@pytest.mark.slow
def test_folds_of_the_prior_are_noticed(made: tuple[Path, Run, Run]) -> None:
    flow = ["reconstruct.prior=flow", "prior.steps=6", "prior.checks=2", "prior.width=16", "prior.depth=1"]
    found = [reconstruct(made[1].folder, [*flow, f"prior.folds={n}"], quiet, quiet)[0] for n in (2, 4)]
    assert files_of(found[0] / "pictures") != files_of(found[1] / "pictures")


@pytest.mark.slow
def test_pictures_of_a_run_without_baselines(made: tuple[Path, Run, Run]) -> None:
    run = train(tiny(made[0], "train.baselines=false"), "pictures", "test", quiet, quiet)
    folder, rows = reconstruct(run.folder, (), quiet, quiet)
    assert files_of(folder / "pictures")
    assert {"brain", "brain - none"} <= {row["model"] for row in rows}


@pytest.mark.slow
def test_pictures_of_a_fusion(meg_study: Path) -> None:
    """From both, from each alone, and through few numbers; the flow prior too."""
    fused = small_pairs(meg_study, *TINY, "reconstruct.bottleneck=[2]", "reconstruct.prior=flow", "prior.steps=6")
    embed(small(meg_study, *TINY), quiet, quiet)
    convert_pairs(fused, quiet)
    train_generator(fused, "test", quiet, quiet)
    run = train(fused, "fused", "test", quiet, quiet)
    made = train_prior(run.folder, (), quiet, quiet)
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    folder, rows = reconstruct(run.folder, (), quiet, quiet)
    assert before == {path: path.stat().st_mtime_ns for path in made.iterdir()}  # not trained again
    models = {row["model"] for row in rows}
    less = {"brain eeg", "brain meg", "brain by 2"}
    assert {"brain", *less, *(f"brain - {name}" for name in less)} <= models
    assert {row["modality"] for row in rows} == {"eeg+meg"}
    table = open_embeddings(folder / "said")
    by = {source: table.rows.index[table.rows["source"] == source] for source in ("brain", *less)}
    left = {source: table.vectors["low_doubt"][at].mean() for source, at in by.items()}
    assert left["brain"] < min(left["brain eeg"], left["brain meg"], left["brain by 2"])
    assert np.linalg.matrix_rank(np.concatenate(list(table.vectors.values())[:2], 1)[by["brain by 2"]], 1e-3) == 2
    with pytest.raises(SettingsError, match="is for runs of one modality"):
        reconstruct(folder.parent, ("reconstruct.features=decoder",), quiet, quiet)


WRONG: dict[str, tuple[tuple[str, ...], type[SynapseError], str]] = {
    "no generator": (("generator.steps=13",), RunError, "missing; run `synapse-diffusion train generator`"),
    "a decoder's setting": (("train.steps=3",), SettingsError, "the run is trained; only generator, prior, "),
    "a sampler of the other kind": (("reconstruct.sampler=ddim",), SettingsError, "is not one for a generator of"),
    "an unknown key": (("reconstruct.sample=3",), SettingsError, "no such key; nearest is reconstruct.samples"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_ends_in_one_line(made: tuple[Path, Run, Run], name: str) -> None:
    overrides, error, text = WRONG[name]
    with pytest.raises(error) as caught:
        reconstruct(made[1].folder, overrides, quiet, quiet)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_classes_has_no_pictures(trained: Run) -> None:
    with pytest.raises(SettingsError, match="must be 'retrieve', not 'classify'"):
        reconstruct(trained.folder, (), quiet, quiet)
    with pytest.raises(SettingsError, match="must be 'retrieve', not 'classify'"):
        train_generator(trained.recipe, "test", quiet, quiet)


def test_weights_that_do_not_fit_are_refused(made: tuple[Path, Run, Run], tmp_path: Path) -> None:
    digest = made[2].read_provenance()["generator_digest"]
    with pytest.raises(RunError, match="trained on another embedding table, other images or settings"):
        open_generator(made[2].folder, "0" * 64, torch.device("cpu"))
    shutil.copytree(made[2].folder, tmp_path / "g")
    recipe = tmp_path / "g/recipe.toml"
    recipe.write_text(recipe.read_text().replace("width = 16", "width = 32"))
    with pytest.raises(RunError, match="weights of another architecture"):
        open_generator(tmp_path / "g", digest, torch.device("cpu"))
    (tmp_path / "g/checkpoints/generator.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(RunError, match="cannot be read"):
        open_generator(tmp_path / "g", digest, torch.device("cpu"))


def test_a_table_of_another_width_is_refused() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8), dtype=np.uint8)
    rows = true_rows([f"i{k}" for k in range(8)], ["x"] * 8)
    vectors = np.random.default_rng(1).standard_normal((8, 5)).astype(np.float32)
    conditions = Conditions.fit({"last": vectors}, pictures, 4, 4, 4)
    assert conditions.of_images(EmbeddingTable(rows, {"last": vectors}, {}), pictures).vectors["low"].shape == (8, 4)
    with pytest.raises(StoreError, match="has 4 numbers, and the generator was trained with 5"):
        conditions.of_images(EmbeddingTable(rows, {"last": vectors[:, :4]}, {}), pictures)
    with pytest.raises(StoreError, match="is missing, and the generator was trained with 5"):
        conditions.of_images(EmbeddingTable(rows, {"pooled": vectors}, {}), pictures)


@pytest.mark.parametrize(
    ("setting", "text"),
    [("weights=x", "do not go together"), ("min_snr=5.0", "weights the loss of prediction = 'v'"),
     ("low_side=64", "is above size")],
)  # fmt: skip
def test_settings_that_contradict_each_other(setting: str, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        parse_recipe({}, [f"generator.{setting}"])
