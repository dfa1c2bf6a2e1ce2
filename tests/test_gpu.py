"""What a GPU must not change; skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from conftest import quiet, small
from synapse_diffusion.config import Recipe, dump_recipe
from synapse_diffusion.embed import embed
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.runs import Run
from synapse_diffusion.store import signals
from synapse_diffusion.train import train
from synapse_diffusion.training import checkpoint
from synapse_diffusion.training.decoders import DECODERS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")

PLAIN = ("model.dropout=0", "train.channel_dropout=0", "train.noise=0")
RANDOM = ("train.noise=0.3", "train.channel_dropout=0.2", "train.time_shift_s=0.02", "train.repeats=2")


def recipe_of(study: Path, runs: Path, *more: str) -> Recipe:
    """Retrieval in 20 steps, all of them checked."""
    return small(
        study, f"paths.runs={runs}", "target.task=retrieve", "target.layers=gist,colour", "train.steps=20",
        "train.checks=20", "train.batch=32", "train.refit=false", "train.patience=20", "train.learning_rate=0.0005",
        "execution.device=cuda", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def embedded(study: Path) -> Path:
    embed(small(study), quiet, quiet)
    return study


def weights(run: Run) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.checkpoint("fold0_member0"))
    return found


def curve(run: Run) -> pd.DataFrame:
    return pd.read_csv(run.folder / "curve.tsv", sep="\t")


def same_bits(one: Run, other: Run) -> None:
    pd.testing.assert_frame_equal(curve(one), curve(other), check_exact=True)
    for key, value in weights(one).items():
        assert torch.equal(value, weights(other)[key]), key


@pytest.mark.parametrize("name", list(DECODERS))
def test_a_gpu_trains_as_the_cpu(embedded: Path, tmp_path: Path, name: str) -> None:
    """Where nothing is drawn on the device: losses of 20 steps within 1e-3."""
    plain = (*PLAIN, "model.sensor_dropout=0") if name == "brain_module" else PLAIN
    runs = [
        train(recipe_of(embedded, tmp_path / on, f"execution.device={on}", f"model.name={name}", *plain), "x")
        for on in ("cpu", "cuda")
    ]
    for column in ("train_loss", "validation_loss"):
        difference = curve(runs[0])[column] - curve(runs[1])[column]
        assert np.abs(difference).max() < 1e-3, (column, list(difference))


def test_scores_are_those_of_the_cpu(embedded: Path, tmp_path: Path) -> None:
    """A decoder trained on the CPU and evaluated on either."""
    found = []
    for on in ("cpu", "cuda"):
        run = train(recipe_of(embedded, tmp_path / on, "execution.device=cpu", *PLAIN), "x")
        text = (run.folder / "recipe.toml").read_text(encoding="utf-8")
        (run.folder / "recipe.toml").write_text(text.replace('device = "cpu"', f'device = "{on}"'), encoding="utf-8")
        rows = pd.DataFrame(evaluate(run.folder, quiet, quiet))
        found.append(rows.loc[(rows["control"] == "none") & rows["metric"].isin(["top1", "top5"]), "value"].to_numpy())
    np.testing.assert_allclose(found[0], found[1], atol=0.02)


@pytest.mark.parametrize("name", list(DECODERS))
def test_a_stopped_fit_ends_with_the_same_bits(embedded: Path, tmp_path: Path, name: str) -> None:
    recipe = recipe_of(embedded, tmp_path / "parts", f"model.name={name}", "execution.checkpoint_minutes=0", *RANDOM)
    whole = train(recipe_of(embedded, tmp_path / "whole", f"model.name={name}", *RANDOM), "x")
    saves, save = 0, checkpoint.Kept.save

    def stopping(self: Any, *args: Any) -> None:
        nonlocal saves
        save(self, *args)
        saves += 1
        if saves == 10:
            raise KeyboardInterrupt

    with mock.patch.object(checkpoint.Kept, "save", stopping), suppress(KeyboardInterrupt):
        train(recipe, "x")
    assert list((tmp_path / "parts").rglob("*_unfinished.safetensors"))
    same_bits(whole, train(recipe, "x"))


def test_signals_without_room_are_read_from_disk(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits."""
    whole = train(recipe_of(embedded, tmp_path / "gpu", *RANDOM), "x")
    monkeypatch.setattr(signals, "SHARE", 0.0)
    same_bits(whole, train(recipe_of(embedded, tmp_path / "disk", *RANDOM), "x"))


@pytest.mark.filterwarnings("default")  # PyTorch's compiler warns of TF32 and of its own old calls
@pytest.mark.parametrize("how", ["train.precision=bfloat16", "execution.compile=true"])
def test_faster_ways_learn_the_same(embedded: Path, tmp_path: Path, how: str) -> None:
    """Validation loss within 2 %."""
    plain = train(recipe_of(embedded, tmp_path / "plain", *PLAIN), "x")
    other = train(recipe_of(embedded, tmp_path / "other", *PLAIN, how), "x")
    np.testing.assert_allclose(curve(other)["validation_loss"], curve(plain)["validation_loss"], rtol=0.02)


def test_processes_that_share_a_gpu_train_as_one(embedded: Path, tmp_path: Path) -> None:
    """Losses within 1e-3: two of torchrun's, by gloo (NCCL wants a GPU each)."""
    one = train(recipe_of(embedded, tmp_path / "one", *PLAIN), "x")
    recipe = recipe_of(embedded, tmp_path / "two", *PLAIN)
    file = tmp_path / "recipe.toml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "synapse_diffusion", "train", "eeg", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [folder] = [path.parent for path in (tmp_path / "two").rglob("curve.tsv")]
    for column in ("train_loss", "validation_loss"):
        assert np.abs(curve(one)[column] - curve(Run(folder))[column]).max() < 1e-3
