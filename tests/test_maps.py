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
from synapse_diffusion.evaluate.maps import integrated_gradients, loss_of, map_contributions
from synapse_diffusion.runs import Run
from synapse_diffusion.splits import VALIDATION
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.train import train
from synapse_diffusion.training.examples import read
from synapse_diffusion.training.trained import open_trained

SFREQ, N_TRIALS = 200.0, 240
PLANTED = ("O1", "O2", "Oz")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a recording whose classes differ at the back of the head, from 0.2 to 0.3 s."""
    tmp_path, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
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
    assert table.groupby("sensor").size().to_dict() == dict.fromkeys(TEN_TWENTY, 6)
    share = table.pivot_table(index="sensor", columns="start_s", values="contribution") / table["contribution"].sum()
    assert set(share[0.2].nlargest(3).index) == set(PLANTED)
    assert share.loc[list(PLANTED), 0.2].sum() > 0.9
    assert share.drop(columns=0.2).sum().abs().max() < 0.05
    assert (planted.folder / "figures/maps_eeg.png").stat().st_size > 20_000


def test_contributions_add_up_to_the_fall_of_the_loss(planted: Run) -> None:
    opened = open_trained(planted.folder, quiet)
    rows = opened.rows(0, VALIDATION)["eeg"]
    asked = opened.setting.single("eeg", rows, opened.setting.task.of["eeg"].target_N[rows])
    models = opened.models(0, final=False)
    [learner], batch = models.networks["compact"], read(asked, models.data)
    with torch.no_grad():
        none, all_of_it = (float(loss_of(learner, batch, "eeg", share * batch.signals["eeg"])) for share in (0.0, 1.0))
    assert none - all_of_it > 0.5
    assert integrated_gradients(learner, batch, "eeg").sum() == pytest.approx(none - all_of_it, rel=0.05)


def test_maps_are_noticed_and_read_no_test_trial(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = tmp_path / "run", list[NDArray[np.int64]]()
    shutil.copytree(trained.folder, folder)
    opened = open_trained(folder, quiet)
    own = Epochs.read

    def spy(self: Epochs, rows: NDArray[np.int64], shift: NDArray[np.int64] | None = None) -> torch.Tensor:
        seen.append(rows)
        return own(self, rows, shift)

    monkeypatch.setattr(Epochs, "read", spy)
    map_contributions(opened, quiet)
    assert set(np.concatenate(seen)) <= set(opened.rows(0, VALIDATION)["eeg"])
    assert (folder / "maps.tsv").exists()
    assert not (trained.folder / "maps.tsv").exists()  # evaluate.maps=false in tests
