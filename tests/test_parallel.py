"""Two processes equal one: the trainer itself on shares of one batch, replicated and divided weights."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional

from conftest import quiet, small, small_pairs
from synapse_diffusion.config import Recipe
from synapse_diffusion.embed import embed
from synapse_diffusion.errors import SettingsError, StoreError
from synapse_diffusion.generate import train_generator
from synapse_diffusion.parallel import Group, gather, session
from synapse_diffusion.runs import Run
from synapse_diffusion.train import train
from synapse_diffusion.training import checkpoint


@given(n=st.integers(0, 200), size=st.integers(1, 16))
def test_shares_are_all_rows_once(n: int, size: int) -> None:
    rows = [k for rank in range(size) for k in range(n)[Group(rank, size).share(n)]]
    assert rows == list(range(n))
    lengths = [len(range(n)[Group(rank, size).share(n)]) for rank in range(size)]
    assert max(lengths) - min(lengths) <= 1


@pytest.fixture(scope="module")
def embedded(study: Path) -> Path:
    embed(small(study), quiet, quiet)
    return study


def in_group(size: int, work: Callable[[Group, Path], None], folder: Path) -> None:
    """Run `work` in processes that find each other as torchrun's do.

    They are forked from a process that runs nothing else: a fork of this one would inherit what its threads left half
    done.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["synapse_diffusion.train", "synapse_diffusion.generate"])
    processes = [context.Process(target=_member, args=(rank, size, port, work, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * size


def _member(rank: int, size: int, port: int, work: Callable[[Group, Path], None], folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with session(torch.device("cpu")) as group:
        assert (group.rank, group.size) == (rank, size)
        work(group, folder)


def weights(run: Run) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.checkpoint("fold0_member0"))
    return found


def contrastive(study: Path, runs: Path, *more: str) -> Recipe:
    """Retrieval with everything that is random, 20 steps: dropout, augmentation, several people, gathered negatives."""
    return small(
        study, f"paths.runs={runs}", "target.task=retrieve", "target.layers=gist,colour", "target.weights=learned",
        "train.steps=20", "train.checks=20", "train.noise=0.3", "train.channel_dropout=0.2", "train.time_shift_s=0.02",
        "train.repeats=2", "train.batch=32", "train.refit=false", "train.patience=20",
        "train.learning_rate=0.0005", "train.linear_prior=3.0", *more,
    )  # fmt: skip


def training(recipe: Recipe, group: Group, folder: Path) -> None:
    """Work for a group: `train` joins it."""
    train(recipe, "x", "test", quiet, quiet)


def training_until(n_saves: int, recipe: Recipe, group: Group, folder: Path) -> None:
    """Work for a group: `train`, interrupted after so many checkpoints."""
    saves = 0
    save = checkpoint.Kept.save

    def stopping(self: Any, *args: Any) -> None:
        nonlocal saves
        save(self, *args)
        saves += 1
        if saves == n_saves:
            raise KeyboardInterrupt

    with mock.patch.object(checkpoint.Kept, "save", stopping), suppress(KeyboardInterrupt):
        train(recipe, "x", "test", quiet, quiet)


def training_a_generator(recipe: Recipe, group: Group, folder: Path) -> None:
    """Work for a group: `train_generator` joins it."""
    train_generator(recipe, "test", quiet, quiet)


def gathered_gradient(group: Group, folder: Path) -> None:
    """Work for a group: write the gradient of this process's rows of a contrastive loss."""
    x_BD, target_BD = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.eye(4).repeat(3, 1)
    mine = x_BD[group.share(12)].clone().requires_grad_()
    torch.autograd.backward(functional.cross_entropy(gather(mine, group) @ target_BD.T, torch.arange(12)))
    assert mine.grad is not None
    np.save(folder / f"{group.size}-{group.rank}.npy", mine.grad.numpy() / group.size)


MODELS: dict[str, list[str]] = {"compact": [], "atm": ["model.name=atm"]}


@pytest.mark.parametrize(
    ("name", "sharding"), [("compact", "ddp"), ("compact", "fsdp"), ("atm", "ddp"), ("atm", "fsdp")]
)
def test_two_processes_train_as_one(embedded: Path, tmp_path: Path, name: str, sharding: str) -> None:
    """Losses of 20 steps within 1e-5, weights too, with the contrastive loss over the whole batch."""
    one = train(contrastive(embedded, tmp_path / "one", *MODELS[name]), "x", "test", quiet, quiet)
    recipe = contrastive(embedded, tmp_path / "two", f"execution.sharding={sharding}", *MODELS[name])
    in_group(2, partial(training, recipe), tmp_path)
    two = Run(tmp_path / "two" / one.folder.name)
    curves = [pd.read_csv(run.folder / "curve.tsv", sep="\t") for run in (one, two)]
    assert len(curves[0]) == 20
    for column in ("train_loss", "validation_loss"):
        assert np.abs(curves[0][column] - curves[1][column]).max() < 1e-5, column
    for key, value in weights(one).items():
        assert torch.allclose(value, weights(two)[key], atol=1e-4), key


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_train_a_fusion_as_one(both: Path, tmp_path: Path, sharding: str) -> None:
    """Modalities are left out of the whole batch's pairs, not of each process's."""
    few = [
        "target.task=retrieve", "target.table=truth", "train.steps=8", "train.checks=8", "train.batch=32",
        "train.refit=false", "train.baselines=false", "train.noise=0.3", "train.learning_rate=0.0005",
    ]  # fmt: skip
    one = train(small_pairs(both, *few, f"paths.runs={tmp_path / 'one'}"), "x", "test", quiet, quiet)
    recipe = small_pairs(both, *few, f"paths.runs={tmp_path / 'two'}", f"execution.sharding={sharding}")
    in_group(2, partial(training, recipe), tmp_path)
    curves = [run.curve for run in (one, Run(tmp_path / "two" / one.folder.name))]
    assert set(curves[0]["model"]) == {"fused", "eeg", "meg"}
    for column in ("train_loss", "validation_loss"):
        assert np.abs(curves[0][column] - curves[1][column]).max() < 1e-5, column


@pytest.mark.parametrize(("first", "then"), [("ddp", "one"), ("fsdp", "ddp"), ("one", "fsdp")])
def test_a_checkpoint_opens_in_any_group(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, then: str
) -> None:
    """Stopped half way by one kind of group and finished by another: the same end."""
    whole = train(contrastive(embedded, tmp_path / "whole"), "x", "test", quiet, quiet)

    def work(kind: str, n_saves: int) -> None:
        sharding = "ddp" if kind == "one" else kind
        recipe = contrastive(embedded, tmp_path / "parts", f"execution.sharding={sharding}")
        if kind == "one":
            training_until(n_saves, recipe, Group(), tmp_path)
        else:
            in_group(2, partial(training_until, n_saves, recipe), tmp_path)

    work(first, 10)
    assert list((tmp_path / "parts").rglob("*_unfinished.safetensors"))
    work(then, 0)
    parts = Run(tmp_path / "parts" / whole.folder.name)
    for key, value in weights(whole).items():
        assert torch.allclose(value, weights(parts)[key], atol=1e-4), key


def test_gathered_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    gathered_gradient(Group(), tmp_path)
    in_group(2, gathered_gradient, tmp_path)
    two = np.concatenate([np.load(tmp_path / f"2-{rank}.npy") for rank in range(2)])
    assert np.allclose(np.load(tmp_path / "1-0.npy"), two, atol=1e-7)


def test_the_trainer_starts_its_own_processes(study: Path, tmp_path: Path) -> None:
    """And what goes wrong in one of them is one sentence here; what it says is heard here."""
    few = ["train.steps=4", "train.checks=2", "train.refit=false", f"paths.runs={tmp_path}"]
    said: list[str] = []
    run = train(small(study, *few, "execution.processes=2"), "x", "test", said.append, quiet)
    assert any("train" in line for line in said)
    alone = train(small(study, *few, f"paths.runs={tmp_path / 'alone'}"), "x", "test", quiet, quiet)
    for key, value in weights(alone).items():
        assert torch.allclose(value, weights(run)[key], atol=1e-5), key
    with pytest.raises(SettingsError, match="a batch of 33 cannot be shared equally by 2 processes"):
        train(small(study, *few, "execution.processes=2", "train.batch=33"), "x", "test", quiet, quiet)
    with pytest.raises(StoreError, match="no signal store"):
        train(small(tmp_path, "execution.processes=2"), "x", "test", quiet, quiet)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_train_a_generator_as_one(embedded: Path, tmp_path: Path, sharding: str) -> None:
    tiny = [
        "generator.size=16", "generator.width=16", "generator.depth=1", "generator.heads=2", "generator.steps=8",
        "generator.checks=8", "generator.batch=16", "generator.components=6", "generator.learning_rate=0.0005",
    ]  # fmt: skip
    one = train_generator(contrastive(embedded, tmp_path / "one", *tiny), "test", quiet, quiet)
    recipe = contrastive(embedded, tmp_path / "two", f"execution.sharding={sharding}", *tiny)
    in_group(2, partial(training_a_generator, recipe), tmp_path)
    two = Run(tmp_path / "two" / one.folder.name)
    curves = [pd.read_csv(run.folder / "curve.tsv", sep="\t") for run in (one, two)]
    assert len(curves[0]) == 8
    for column in ("train_loss", "validation_loss"):
        assert np.allclose(curves[0][column], curves[1][column], rtol=1e-4), column
    a, b = (load_file(run.checkpoint("generator")) for run in (one, two))
    for key, value in a.items():
        assert torch.allclose(value, b[key], atol=1e-3), key
