"""Sensor maps: what was planted is found, in space and time, and no test trial is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from conftest import TEN_TWENTY, quiet, write_events, write_recording
from synapse_diffusion.config import parse_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.evaluate.maps import _patches, occlude
from synapse_diffusion.runs import Run
from synapse_diffusion.splits import VALIDATION
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.train import train
from synapse_diffusion.training.trained import open_trained

SFREQ, N_TRIALS = 200.0, 240
PLANTED = ("O1", "O2", "Oz")


@pytest.fixture
def planted(tmp_path: Path) -> Run:
    """A run on a recording whose classes differ at the back of the head, from 0.2 to 0.3 s."""
    rng = np.random.default_rng(0)
    onset_s = 1.0 + 0.8 * np.arange(N_TRIALS)
    labels = [("face", "house")[k] for k in rng.integers(0, 2, N_TRIALS)]

    def fill(x_TC: NDArray[np.float32]) -> None:
        x_TC[:] = 10 * rng.standard_normal(x_TC.shape)
        for onset, label in zip(onset_s, labels, strict=True):
            start = round((onset + 0.2) * SFREQ)
            x_TC[start : start + 20, [TEN_TWENTY.index(name) for name in PLANTED]] += 10.0 * (label == "house")

    folder = tmp_path / "bids/sub-01/eeg"
    write_recording(folder, "sub-01_task-x_eeg", TEN_TWENTY, round((onset_s[-1] + 3) * SFREQ), SFREQ, fill)
    write_events(folder, "sub-01_task-x", onset_s, labels)
    recipe = parse_recipe({
        "paths": {name: str(tmp_path / name) for name in ("bids", "stores", "runs")},
        "data": {"name": "planted", "events": {"label": "trial_type"}},
        "convert": {"highpass_hz": 0.1, "lowpass_hz": 40.0, "sfreq": 100.0, "reference": ["none"]},
        "view": {"stop_s": 0.6}, "labels": {"source": "column", "classes": ["face", "house"]},
        "split": {"method": "blocks", "folds": 3}, "train": {"steps": 60, "checks": 3}, "execution": {"workers": 1},
        "evaluate": {"permutations": 0, "bootstrap": 0, "controls": []},
    })  # fmt: skip
    convert(recipe, quiet, quiet)
    run = train(recipe, "x", "test", quiet, quiet)
    evaluate(run.folder, quiet, quiet)
    return run


def test_the_map_is_where_the_classes_differ(planted: Run) -> None:
    table = pd.read_csv(planted.folder / "maps.tsv", sep="\t")
    assert table.groupby("sensor").size().to_dict() == dict.fromkeys([*TEN_TWENTY, "all"], 6)
    best = table[table["sensor"] != "all"].sort_values("loss_rise").iloc[-1]
    assert best["sensor"] in PLANTED
    assert (best["start_s"], best["stop_s"]) == (0.2, 0.3)
    everywhere = table[table["sensor"] == "all"].set_index("start_s")["loss_rise"]
    assert everywhere.idxmax() == 0.2
    assert everywhere[0.2] > 0.3
    assert everywhere.drop([0.2, 0.3]).abs().max() < 0.1  # the bump's filtered flank may reach into the next window
    assert (planted.folder / "figures/maps_eeg.png").stat().st_size > 20_000


def test_patches_hold_every_sensor_once_or_more() -> None:
    position_C3 = np.random.default_rng(0).standard_normal((271, 3))
    patches = _patches(position_C3)
    assert len(patches) == 32
    assert set(np.concatenate(patches)) == set(range(271))
    assert min(len(patch) for patch in patches) >= 27
    assert [list(patch) for patch in _patches(np.full((4, 3), np.nan))] == [[0], [1], [2], [3]]


def test_maps_are_noticed_and_read_no_test_trial(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = tmp_path / "run", list[NDArray[np.int64]]()
    shutil.copytree(trained.folder, folder)
    opened = open_trained(folder, quiet)
    read = Epochs.read

    def spy(self: Epochs, rows: NDArray[np.int64], shift: NDArray[np.int64] | None = None) -> torch.Tensor:
        seen.append(rows)
        return read(self, rows, shift)

    monkeypatch.setattr(Epochs, "read", spy)
    occlude(opened, quiet)
    assert set(np.concatenate(seen)) <= set(opened.rows(0, VALIDATION)["eeg"])
    assert (folder / "maps.tsv").exists()
    assert not (trained.folder / "maps.tsv").exists()  # evaluate.maps=false in tests
