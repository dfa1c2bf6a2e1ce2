"""What scripts and notebooks use: names of the package, a run's tables and figures, decoders of one's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from torch import Tensor, nn

import synapse_diffusion
from conftest import small
from synapse_diffusion import Run, SynapseError, evaluate, load_recipe, predict, register_decoder, report, train
from synapse_diffusion.config import decoding
from synapse_diffusion.errors import RunError, SettingsError
from synapse_diffusion.models.base import Decoder, Shape
from synapse_diffusion.training import decoders


@pytest.fixture(scope="module")
def scored(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("scored") / trained.folder.name
    shutil.copytree(trained.folder, folder)
    run = Run(str(folder))
    evaluate(run)
    return run


def test_names_open_when_they_are_used() -> None:
    code = "import sys, synapse_diffusion; print({'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"set()\n"
    assert "synapse_diffusion.train" in sys.modules  # a module of a function's name, imported before
    opened: dict[str, Any] = {name: getattr(synapse_diffusion, name) for name in synapse_diffusion.__all__}
    assert all(callable(value) for value in opened.values()), opened
    assert set(synapse_diffusion.__all__) <= set(dir(synapse_diffusion))
    with pytest.raises(ImportError, match="cannot import name 'trian'"):
        exec("from synapse_diffusion import trian")


def test_a_run_tells_its_scores_and_decisions(scored: Run) -> None:
    scores = scored.scores
    mine = scores[(scores["split"] == "test") & (scores["model"] == "compact") & (scores["k_repeats"] == 1)]
    mine = mine[(mine["person"] == "all") & (mine["control"] == "none") & (mine["metric"] == "balanced_accuracy")]
    counts = scored.confusion()
    assert list(counts.index) == list(counts.columns) == ["animal", "fruit", "vehicle"]
    assert (np.diag(counts) / counts.sum(axis=1)).mean() == pytest.approx(mine["value"].item())
    decisions = scored.predictions
    assert set(decisions["split"]) == {"validation", "test"}
    assert counts.to_numpy().sum() == ((decisions["split"] == "test") & (decisions["model"] == "compact")
                                       & (decisions["k_repeats"] == 1)).sum()  # fmt: skip
    assert decisions["person"].iloc[0] == "01"
    assert set(scored.curve["fold"]) == {0}
    with pytest.raises(RunError, match=r"no decisions of test compact 3; there are .*test compact 4"):
        scored.confusion(k_repeats=3)


def test_a_run_draws_what_evaluate_has_kept(scored: Run, tmp_path: Path) -> None:
    drawn: dict[str, Callable[[Path], Figure]] = {
        "confusion_val": lambda path: scored.draw_confusion("validation", path), "curve": scored.draw_curve,
        "models_4": lambda path: scored.draw_models(4, path),
    }  # fmt: skip
    for name, draw in drawn.items():
        figure = draw(tmp_path / f"{name}.png")
        assert figure.axes
        assert np.array_equal(imread(tmp_path / f"{name}.png"), imread(scored.folder / f"figures/{name}.png"))
    with pytest.raises(RunError, match="no picture was to be found"):
        scored.draw_retrieval()
    with pytest.raises(RunError, match="no test scores of means of 5"):
        scored.draw_models(5)


def test_stages_take_a_run_for_its_folder(scored: Run, tmp_path: Path) -> None:
    said: list[str] = []
    assert report(scored, tmp_path / "page.html", say=said.append).stat().st_size > 10_000
    assert [path.name for path in predict(scored, out=str(tmp_path))] == ["trials_test.tsv"]
    with pytest.raises(SynapseError, match="not a run"):
        evaluate(str(tmp_path))


def test_a_decoder_of_ones_own(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "DECODERS", dict(decoders.DECODERS))
    monkeypatch.setattr(decoding, "DECODERS", dict(decoding.DECODERS))

    class Mean(Decoder):
        """The mean over time, and one layer."""

        def __init__(self, shape: Shape, *, dropout: float = 0.25) -> None:
            super().__init__(shape)
            self.dropout = dropout
            self.layer = nn.Linear(shape.n_sensors, shape.n_outputs)

        def forward(self, x_BCT: Tensor, person_B: Tensor, fold_B: Tensor | None = None) -> Tensor:
            out: Tensor = self.layer(x_BCT.mean(2))
            return out

    few: list[Any] = ["train.steps=6", "train.checks=2", "evaluate.controls=[]", f"paths.runs={tmp_path}"]
    with pytest.raises(SettingsError, match=r"no such decoder; one of compact, .*register_decoder"):
        small(study, "model.name=mean")
    with pytest.raises(SettingsError, match="'eegnet' is a decoder of the package"):
        register_decoder("eegnet", Mean)
    register_decoder("mean", Mean)
    assert load_recipe("demo", ["model.name=mean"]).model.name == "mean"
    with pytest.raises(SettingsError, match=r"width is a setting of compact, .*, not of mean"):
        small(study, "model.name=mean", "model.width=4")
    run = train(small(study, "model.name=mean", "model.dropout=0.5", *few))
    assert run.folder.name.startswith("small-")
    evaluate(run)
    assert "mean" in set(run.scores["model"])
    built = decoders.build(Shape(4, 20, 3, 1, 100.0), small(study, "model.name=mean", "model.dropout=0.5").model)
    assert built.dropout == 0.5
    assert built(torch.zeros(2, 4, 20), torch.zeros(2, dtype=torch.long)).shape == (2, 3)


def test_paths_are_text_too_and_faults_are_sentences(scored: Run, study: Path, tmp_path: Path) -> None:
    stores = synapse_diffusion.find_stores(str(study / "stores"), "small")
    opened = [synapse_diffusion.open_store(str(folder)) for folder in stores]
    scored.draw_curve(str(tmp_path / "curve.png"))
    assert (tmp_path / "curve.png").exists()
    with pytest.raises(SynapseError, match="no store is given"):
        synapse_diffusion.Epochs([], 0.0, 0.5)
    with pytest.raises(SynapseError, match=r"from 0.6 to 0.1 s ends before it begins"):
        synapse_diffusion.Epochs(opened, 0.6, 0.1)
    with pytest.raises(RunError, match="nowhere: no such folder"):
        _ = Run("nowhere").scores
    with pytest.raises(RunError, match="no decisions of tset, but of test, validation"):
        scored.draw_confusion("tset")
