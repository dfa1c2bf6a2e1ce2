"""Decoders in runs: scikit-learn is equalled; each trains, resumes, takes MEG; every setting is noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from conftest import predictions, quiet, small, small_meg
from synapse_diffusion.config import parse_recipe
from synapse_diffusion.errors import SettingsError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.models.base import Shape
from synapse_diffusion.models.compact import CompactDecoder
from synapse_diffusion.models.linear import binned, fit_linear
from synapse_diffusion.runs import Run
from synapse_diffusion.signal.scaling import Scaler
from synapse_diffusion.train import train
from synapse_diffusion.training import checkpoint
from synapse_diffusion.training.data import ScaledEpochs, open_stores
from synapse_diffusion.training.examples import Asked, Examples, Pick, Trials, read
from synapse_diffusion.training.sources import open_sources


def gaussian(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes of epochs with a common, strongly correlated noise."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).standard_normal((6, 6))
    x = np.einsum("dc,nct->ndt", mixing, np.cumsum(rng.standard_normal((n, 6, 20)), axis=2))
    y = np.arange(n) % 2
    x += 0.3 * y[:, None, None] * np.sin(np.arange(20) / 3) * np.arange(6)[:, None]
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


def test_the_linear_path_begins_as_shrinkage_lda() -> None:
    x, y = gaussian(600, 1)
    person = torch.zeros(600, dtype=torch.long)
    model = CompactDecoder(Shape(6, 20, 2, 1, 32.0))
    model.fit_statistics(x, y, person)
    model.eval()
    torch.autograd.backward(torch.nn.functional.cross_entropy(model(x, person), y))
    assert model.linear.grad is not None
    step = -(model.linear.grad[0, 1] - model.linear.grad[0, 0])
    with torch.no_grad():
        features = model._binned(model.whiten(x, person))
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features.numpy(), y.numpy())
    ours = (features @ model.whiten_FF @ step).numpy()
    assert np.corrcoef(ours, features.numpy() @ lda.coef_[0])[0, 1] > 0.995


@pytest.mark.parametrize("each", [1, 2, 1.5, 60])
def test_whitened_noise_has_variance_one_however_few_trials_a_concept_has(each: float) -> None:
    x = 3 * torch.randn(600, 6, 20, generator=torch.Generator().manual_seed(4))
    person = torch.arange(600) % 2
    model = CompactDecoder(Shape(6, 20, 2, 2, 32.0))
    model.fit_statistics(x, (torch.arange(600) // 2 / each).long(), person)
    other = 3 * torch.randn(600, 6, 20, generator=torch.Generator().manual_seed(5))
    assert float(model.whiten(other, person).std()) == pytest.approx(1, abs=0.03)
    assert float(model.linear_features(other, person).std()) == pytest.approx(1, abs=0.1)


def test_of_one_trial_no_noise_is_known() -> None:
    x = torch.randn(1, 6, 20)
    model = CompactDecoder(Shape(6, 20, 2, 1, 32.0))
    model.fit_statistics(x, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    assert torch.isfinite(model(torch.randn(4, 6, 20), torch.zeros(4, dtype=torch.long))).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_linear_baseline_is_scikit_learns(n_classes: int) -> None:
    x_NCT, y_N = (tensor.numpy() for tensor in gaussian(400, 2))
    label_N, nobody_N = y_N + (np.arange(400) % 3 > 1) * (n_classes - 2), np.zeros(400, np.int64)
    features_NF = binned(x_NCT, 2).astype(np.float64)
    decoder = fit_linear(x_NCT, label_N, nobody_N, n_classes, 1, 2, pooled=True)
    assert decoder is not None
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(n_classes, 1 / n_classes))
    expected = lda.fit(features_NF, label_N).predict_log_proba(features_NF)
    assert np.allclose(decoder.log_probability(x_NCT, nobody_N), expected, atol=1e-4)


SMALL_MODELS: dict[str, list[str]] = {
    "compact": [], "eegnet": [], "tsconv": [], "atm": [],
    "brain_module": ["model.components=12", "model.width=12", "model.layers=2"],
}  # fmt: skip


PEERS = [pytest.param(name, marks=pytest.mark.slow) for name in list(SMALL_MODELS)[2:]]


@pytest.mark.parametrize("name", ["compact", "eegnet", *PEERS])
def test_every_decoder_trains_and_is_evaluated(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    few = ["train.steps=6", "train.checks=2", f"paths.runs={tmp_path}", f"model.name={name}", *SMALL_MODELS[name]]
    recipe = small(study, *few)
    with monkeypatch.context() as patch:  # stopped at the first check, then to the end
        patch.setattr(checkpoint.Kept, "save", stop_after(checkpoint.Kept.save))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, "x", "test", quiet, quiet)
    run = train(recipe, "x", "test", quiet, quiet)
    whole = train(small(study, *few, f"paths.runs={tmp_path / 'whole'}"), "x", "test", quiet, quiet)
    assert predictions(run) == predictions(whole)
    rows = evaluate(run.folder, quiet, quiet)
    assert {row["model"] for row in rows} >= {name, "linear", "observer"}
    known = [v for row in run.provenance["shape"]["eeg"]["positions"] for v in row]
    assert len(known) == 3 * 16
    assert all(abs(v) < 0.2 for v in known)
    shutil.rmtree(tmp_path / "whole")


def stop_after(save: Any) -> Any:
    """Saves once, then is interrupted."""

    def stop(*args: Any) -> None:
        save(*args)
        raise KeyboardInterrupt

    return stop


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tsconv", "brain_module"])
def test_decoders_take_meg(meg_study: Path, tmp_path: Path, name: str) -> None:
    few = ["train.steps=6", "train.checks=2", f"paths.runs={tmp_path}", f"model.name={name}", *SMALL_MODELS[name]]
    run = train(small_meg(meg_study, *few), "x", "test", quiet, quiet)
    assert {row["model"] for row in evaluate(run.folder, quiet, quiet)} >= {name, "linear"}
    positions = np.array(run.provenance["shape"]["meg"]["positions"])
    stores = open_stores(run.recipe, quiet)
    assert np.allclose(positions, np.mean([store.sensors.position_C3 for store in stores], axis=0), atol=1e-6)


def test_a_run_without_positions_is_read(study: Path, tmp_path: Path) -> None:
    """As one was written before decoders knew of them."""
    few = ["train.steps=2", "train.checks=1", f"paths.runs={tmp_path}"]
    run = train(small(study, *few), "x", "test", quiet, quiet)
    scores = evaluate(run.folder, quiet, quiet)
    path = run.folder / "provenance.json"
    provenance = json.loads(path.read_text())
    del provenance["shape"]["eeg"]["positions"]
    path.write_text(json.dumps(provenance))
    assert evaluate(run.folder, quiet, quiet) == scores


@pytest.mark.parametrize(
    "setting",
    ["train.time_shift_s=0.05", "train.noise=0.5", "train.channel_dropout=0.3", "train.label_smoothing=0.3",
     "train.ema=0.0", "train.linear_prior=0.0", "train.weight_decay=0.9", "train.precision=bfloat16", "train.batch=32",
     "train.members=2", "train.repeats=2", "model.width=8", "model.components=4", "model.dropout=0.1", "view.clamp=1.0",
     "view.scaling=robust", "view.baseline=[0.0, 0.1]", "view.reject=autoreject",
     "view.targets=leave_out", "view.channels=Oz,O1,O2,Pz",
     "model.name=eegnet", "labels.shuffled=true", "split.per_person=true"],
)  # fmt: skip
def test_every_setting_is_noticed(study: Path, trained: Run, tmp_path: Path, setting: str) -> None:
    assert differs(study, tmp_path, [], setting)


@pytest.mark.parametrize(
    ("name", "setting"),
    [("eegnet", "model.components=3"), ("eegnet", "model.width=4"), ("eegnet", "model.dropout=0.1"),
     ("tsconv", "model.components=8"), ("tsconv", "model.width=8"), ("tsconv", "model.dropout=0.1"),
     ("tsconv", "model.projector=residual"), ("atm", "model.components=8"), ("atm", "model.width=8"),
     ("atm", "model.layers=2"), ("atm", "model.dropout=0.1"), ("atm", "model.projector=residual"),
     ("brain_module", "model.components=8"), ("brain_module", "model.width=8"), ("brain_module", "model.layers=1"),
     ("brain_module", "model.dropout=0.5"), ("brain_module", "model.sensor_dropout=0.0"),
     ("brain_module", "model.projector=residual")],
)  # fmt: skip
def test_every_setting_of_a_decoder_is_noticed(
    study: Path, trained: Run, tmp_path: Path, name: str, setting: str
) -> None:
    assert differs(study, tmp_path, [f"model.name={name}", *SMALL_MODELS[name]], setting)


def test_random_weights_of_repeats_are_noticed(study: Path, trained: Run, tmp_path: Path) -> None:
    assert differs(study, tmp_path, ["train.repeats=2"], "train.repeat_weights=random")


def test_random_weights_keep_the_signal_and_more_of_the_noise() -> None:
    """Shares of one: n trials of independent noise keep 2 / (n + 1) of its variance, 1 / n under equal weights."""
    n = 4
    item = np.repeat(np.arange(3), n)
    group = Trials(np.arange(3 * n), np.zeros(3 * n, np.int64), item, item)
    examples = Examples({"eeg": group}, np.arange(3))
    expected = {"random": {k: 2 / (k + 1) for k in range(1, 5)}, "equal": {k: 1 / k for k in range(1, 5)}}
    for weights, variance in expected.items():
        rng = np.random.default_rng(0)
        kept: dict[int, list[float]] = {}
        for _ in range(2000):
            pick = examples.draw(np.arange(3), rng, n, weights).picks["eeg"]
            share = np.repeat(1 / pick.size_N, pick.size_N) if pick.weight is None else pick.weight
            ends = np.cumsum(pick.size_N) - pick.size_N
            assert np.allclose(np.add.reduceat(share, ends), 1, atol=1e-6)
            for size, squares in zip(pick.size_N, np.add.reduceat(share**2, ends), strict=True):
                kept.setdefault(int(size), []).append(float(squares))
        assert set(kept) == {1, 2, 3, 4}
        for size, squares in kept.items():
            assert np.mean(squares) == pytest.approx(variance[size], abs=0.015), (weights, size)
    with pytest.raises(SettingsError, match="repeat_weights = 'random' needs repeats of 2 or more, not 1"):
        parse_recipe({}, ["train.repeat_weights=random"])


def test_a_weighted_mean_is_read(study: Path) -> None:
    sources = open_sources(small(study), torch.device("cpu"), quiet)
    epochs = sources.of["eeg"].epochs
    rows = np.flatnonzero(epochs.trials["usable"].to_numpy())[:3]
    scaler = Scaler(np.zeros(16, np.float32), 1e6 * np.eye(16, dtype=np.float32))
    data = {"eeg": ScaledEpochs(epochs, {"x/*": scaler}, "x", small(study, "view.clamp=0.0").view)}
    weight = np.array([0.25, 0.75, 1.0], np.float32)
    pick = Pick(rows, np.array([2, 1]), np.zeros(2, np.int64), weight)
    asked = Asked({"eeg": pick}, np.zeros(2, np.int64))
    single = data["eeg"].read(rows)
    expected = torch.stack([0.25 * single[0] + 0.75 * single[1], single[2]])
    assert torch.allclose(read(asked, data).signals["eeg"], expected, atol=1e-4)
    second = read(asked.part(slice(1, 2)), data).signals["eeg"]
    assert torch.allclose(second, expected[1:], atol=1e-4)


WITHOUT: dict[tuple[str, ...], Any] = {}  # predictions of the runs that settings are compared with


def differs(study: Path, folder: Path, base: list[str], setting: str) -> bool:
    """Does a short run with the setting predict otherwise than one without?"""
    short = ["train.steps=6", "train.checks=2", "train.refit=false", "train.learning_rate=0.01", *base]

    def predicted(*overrides: str) -> Any:
        recipe = small(study, *short, *overrides, f"paths.runs={folder}")
        return predictions(train(recipe, "x", "test", quiet, quiet))

    if (key := tuple(base)) not in WITHOUT:
        WITHOUT[key] = predicted()
    return bool(WITHOUT[key] != predicted(setting))
