"""Settings of `evaluate` and `execution`: each is told from its absence by what it changes, and by nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import quiet, small
from synapse_diffusion.config import EvaluateSettings, ExecutionSettings, dump_recipe
from synapse_diffusion.convert.stage import n_workers
from synapse_diffusion.errors import MissingError, StoreError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.runs import Run
from synapse_diffusion.store.files import open_store
from synapse_diffusion.train import train
from synapse_diffusion.training.checkpoint import Kept
from synapse_diffusion.training.data import open_stores

Rows = list[dict[str, Any]]
TESTED_ELSEWHERE = {
    "gallery": "test_retrieval.py: a larger gallery holds more images",
    "maps": "test_maps.py",
    "processes": "test_parallel.py",
    "sharding": "test_parallel.py",
}


@pytest.fixture(scope="module")
def base(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return again(trained, tmp_path_factory.mktemp("base"))


def again(run: Run, folder: Path, *overrides: str) -> Rows:
    """Scores of a copy of the run whose recipe has other settings of evaluation (or of execution)."""
    shutil.copytree(run.folder, folder / "run")
    (folder / "run/recipe.toml").write_text(dump_recipe(small(run.folder.parents[1], *overrides)))
    return evaluate(folder / "run", quiet, quiet)


def of(rows: Rows, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


WHAT = ("split", "person", "model", "metric", "k_repeats", "control")


def test_every_setting_of_the_two_branches_is_looked_at() -> None:
    settings = {*EvaluateSettings.model_fields, *ExecutionSettings.model_fields} - set(TESTED_ELSEWHERE)
    text = Path(__file__).read_text()
    for name in settings:
        assert f"evaluate.{name}=" in text or f"execution.{name}=" in text, name


def test_repeats_are_noticed(trained: Run, base: Rows, tmp_path: Path) -> None:
    rows = again(trained, tmp_path, "evaluate.k_repeats=[2]")
    assert {row["k_repeats"] for row in base} == {1, 4}
    assert {row["k_repeats"] for row in rows} == {1, 2}  # single trials always
    assert [r for r in of(rows, *WHAT, "value") if r[4] == 1] == [r for r in of(base, *WHAT, "value") if r[4] == 1]


def test_permutations_are_noticed(trained: Run, base: Rows, tmp_path: Path) -> None:
    rows = again(trained, tmp_path, "evaluate.permutations=0")
    assert {row["p"] for row in rows} == {row["p_holm"] for row in rows} == {None}
    assert of(rows, *WHAT, "value") == of(base, *WHAT, "value")
    assert min(row["p"] for row in base if row["p"] is not None) == pytest.approx(1 / 51)  # of 50


def test_draws_are_noticed(trained: Run, base: Rows, tmp_path: Path) -> None:
    rows = again(trained, tmp_path, "evaluate.bootstrap=0")
    assert {of_row for row in of(rows, "low", "high", "low_people", "high_people") for of_row in row} == {None}
    assert of(rows, *WHAT, "value", "p") == of(base, *WHAT, "value", "p")
    assert None not in {row["low"] for row in base}


def test_controls_are_noticed(trained: Run, base: Rows, tmp_path: Path) -> None:
    rows = again(trained, tmp_path, 'evaluate.controls=["noise"]')
    assert {row["control"] for row in rows} == {"none", "noise"}
    assert {row["control"] for row in base} >= {"none", "noise", "mean", "wrong_person"}
    mine = [row for row in base if row["control"] in ("none", "noise")]
    assert of(rows, *WHAT, "value") == of(mine, *WHAT, "value")


def test_dynamics_are_noticed(trained: Run, base: Rows, tmp_path: Path) -> None:
    rows = again(trained, tmp_path, "evaluate.dynamics=true")
    what = (*WHAT, "value", "p")  # but the adjusted p: the peaks are claims too
    assert of(rows[: len(base)], *what) == of(base, *what)
    assert {row["metric"]: row["p_holm"] for row in rows[len(base) :]}["peak_auc"] is not None
    curve = pd.read_csv(tmp_path / "run/dynamics.tsv", sep="\t").query("measure == 'auc'").set_index("time_s")["value"]
    area = pd.read_csv(tmp_path / "run/generalisation_eeg.tsv", sep="\t")
    assert len(area) == len(curve) ** 2
    same = area[area["train_s"] == area["test_s"]].set_index("train_s")["auc"]
    assert np.allclose(same, curve.loc[same.index], atol=1e-6)


def test_the_seed_is_noticed(trained: Run, base: Rows, tmp_path: Path) -> None:
    rows = again(trained, tmp_path, "evaluate.seed=1")
    single = [k for k, row in enumerate(base) if row["k_repeats"] == 1 and row["control"] != "noise"]
    assert [rows[k]["value"] for k in single] == [base[k]["value"] for k in single]
    for name in ("low", "low_people", "p"):
        assert of(rows, name) != of(base, name), name


def test_the_device_is_noticed(study: Path) -> None:
    with pytest.raises(MissingError, match=r"execution\.device = 'cuda:99' cannot be used: .+; take 'auto' or 'cpu'"):
        train(small(study, "execution.device=cuda:99"), "x", "test", quiet, quiet)


@pytest.fixture
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads_as_before")
def test_threads_are_noticed(trained: Run, base: Rows, tmp_path: Path) -> None:
    rows = again(trained, tmp_path, "execution.threads=2", "evaluate.bootstrap=0", "evaluate.permutations=0")
    assert torch.get_num_threads() == 2
    assert [row[-1] for row in of(rows, *WHAT, "value")] == pytest.approx([row["value"] for row in base], abs=0.02)


def test_workers_are_noticed(study: Path) -> None:
    assert n_workers(small(study, "execution.workers=3"), 8) == 3
    assert n_workers(small(study, "execution.workers=3"), 2) == 2
    assert n_workers(small(study, "execution.workers=0"), 1) == 1


def test_the_check_of_stores_is_noticed(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "stores/small", tmp_path / "small")
    signal = tmp_path / "small/sub-01/ses-01/run-rsvp-01/signal.npy"
    whole = bytearray(signal.read_bytes())
    whole[-1] ^= 1
    signal.write_bytes(whole)
    with pytest.raises(StoreError, match=r"signal\.npy: edited or damaged"):
        open_stores(small(study, f"paths.stores={tmp_path}"), quiet)
    assert len(open_stores(small(study, f"paths.stores={tmp_path}", "execution.verify_stores=false"), quiet)) == 2
    assert open_store(signal.parent, verify_signal=False).sfreq == 100


FEW = ("train.steps=6", "train.checks=3", "train.refit=false")


def test_checkpoints_by_the_clock_are_noticed(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []
    monkeypatch.setattr(Kept, "save", lambda self, path, *_: saved.append(path))
    train(small(study, *FEW, f"paths.runs={tmp_path / 'often'}"), "x", "test", quiet, quiet)
    assert len(saved) == 3  # execution.checkpoint_minutes=0.0 in tests: at each check
    seldom = "execution.checkpoint_minutes=60.0"
    train(small(study, *FEW, seldom, f"paths.runs={tmp_path / 'seldom'}"), "x", "test", quiet, quiet)
    assert len(saved) == 3


def test_compiling_is_noticed(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is asked for; what PyTorch then does takes minutes on a CPU."""
    asked: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *_, **__: asked.append(type(self).__name__))
    train(small(study, *FEW, f"paths.runs={tmp_path / 'plain'}"), "x", "test", quiet, quiet)
    assert asked == []
    train(small(study, *FEW, "execution.compile=true", f"paths.runs={tmp_path}"), "x", "test", quiet, quiet)
    assert asked
