"""Stores: whole or not there; epochs are the signal's own samples."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import TEN_TWENTY, quiet, small, write_events, write_recording
from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.errors import DataError, MissingError, StoreError
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import find_stores, open_store, whole
from synapse_diffusion.store.signals import Joined, Mapped


@pytest.fixture
def store(study: Path, tmp_path: Path) -> Path:
    """A copy of one store, to be damaged."""
    folder = tmp_path / "small/sub-01/ses-01/run-rsvp-01"
    shutil.copytree(study / "stores" / folder.relative_to(tmp_path), folder)
    return folder


def test_damage_is_found(store: Path) -> None:
    open_store(store)
    signal = store / "signal.npy"
    whole = signal.read_bytes()
    signal.write_bytes(whole[:-400])
    with pytest.raises(StoreError, match=r"signal\.npy: cut short"):
        open_store(store)
    signal.write_bytes(whole[:-4] + b"\1\2\3\4")
    with pytest.raises(StoreError, match=r"signal\.npy: edited or damaged"):
        open_store(store)
    signal.write_bytes(whole)
    trials = store / "trials.tsv"
    trials.write_text(trials.read_text().replace("\t0\t", "\t1\t", 1))
    with pytest.raises(StoreError, match=r"trials\.tsv: edited or damaged"):
        open_store(store)
    trials.unlink()
    with pytest.raises(StoreError, match=r"trials\.tsv: missing"):
        open_store(store)
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(StoreError, match="version 1"):
        open_store(store)
    (store / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json: missing or damaged"):
        open_store(store)


def test_equal_input_gives_equal_bytes_and_is_not_converted_again(study: Path, tmp_path: Path) -> None:
    recipe = small(study, f"paths.stores={tmp_path}")
    first = convert(recipe, quiet, quiet)
    assert not any(result.skipped for result in first)
    for path in sorted(first[0].folder.iterdir()):
        other = study / "stores" / path.relative_to(tmp_path)
        assert path.read_bytes() == other.read_bytes(), path.name
    assert all(result.skipped for result in convert(recipe, quiet, quiet))
    changed = small(study, f"paths.stores={tmp_path}", "convert.lowpass_hz=20.0")
    with pytest.raises(StoreError, match=r"other settings \(convert.lowpass_hz = 30.0 there, 20.0 now\); remove it"):
        convert(changed, quiet, quiet)


def test_two_files_for_one_store_are_refused(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bids/sub-01/eeg"
    folder.mkdir(parents=True)
    for path in (study / "bids/sub-01/eeg").iterdir():
        for name in (path.name, path.name.replace("task-rsvp", "task-rsvp_acq-b")):
            (folder / name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="are one person, session, task and run"):
        convert(small(tmp_path), quiet, quiet)


def test_a_full_disk_leaves_nothing(study: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(MissingError, match="cannot be written"):
            convert(small(study, f"paths.stores={tmp_path}", "execution.workers=1"), quiet, quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def one_recording(root: Path, bad: bool = True) -> Recipe:
    """20 channels at 200 Hz with a NaN stretch, a flat and a NaN channel, a pulse at each onset."""
    onset = np.arange(20) * 4.0 + 5.25

    def fill(data: NDArray[np.float32]) -> None:
        rng = np.random.default_rng(0)
        mixing = np.exp(-0.2 * np.abs(np.subtract.outer(np.arange(20), np.arange(20))))
        data[:] = 5 * rng.standard_normal(data.shape) @ mixing
        for second in onset:
            at = round(second * 200)
            data[at : at + 21, 19] += 100 * np.hanning(21)
        if bad:
            data[4000:4100] = np.nan
            data[:, 4] = 3.0
            data[:, 7] = np.nan

    write_recording(root / "bids/sub-01/eeg", "sub-01_task-x_eeg", TEN_TWENTY, 18_000, 200.0, fill)
    write_events(root / "bids/sub-01/eeg", "sub-01_task-x", onset, ["a", "b"] * 10)
    return parse_recipe(
        {
            "paths": {"bids": str(root / "bids"), "stores": str(root / "stores")},
            "data": {"events": {"label": "trial_type"}},
            "convert": {"highpass_hz": 1.0, "lowpass_hz": 40.0, "sfreq": 100.0},
        }
    )


def test_nan_and_flat_channels_are_said_and_handled(tmp_path: Path) -> None:
    recipe = one_recording(tmp_path)
    said: list[str] = []
    result = convert(recipe, said.append, quiet)[0]
    assert any("F7 (flat), C3 (NaN); interpolate" in line for line in said)
    assert any("1 dropouts bridged, first at 20.00 s" in line for line in said)
    opened = open_store(result.folder)
    assert np.isfinite(opened.signal_TC).all()
    status = dict(zip(opened.sensors.names, opened.sensors.status, strict=True))
    assert [name for name, state in status.items() if state == "bad"] == ["F7", "C3"]
    assert [(s.start, s.stop, s.kind) for s in opened.segments] == [(2000, 2051, "dropout")]
    good = [k for k, state in enumerate(opened.sensors.status) if state == "good"]
    assert np.abs(opened.signal_TC[:, good].mean(1)).max() < 1e-9  # the average of the good ones is the reference
    deviation = opened.signal_TC.std(0)
    assert 0.2 < deviation[7] / np.median(deviation) < 2.0  # interpolated, not flat


def test_every_channel_bad_is_an_error(tmp_path: Path) -> None:
    write_recording(tmp_path / "bids/sub-01/eeg", "sub-01_task-x_eeg", ["Fz", "Cz"], 8000, 200.0)
    write_events(tmp_path / "bids/sub-01/eeg", "sub-01_task-x", np.array([5.25]), ["a"])
    recipe = parse_recipe(
        {
            "paths": {"bids": str(tmp_path / "bids"), "stores": str(tmp_path / "stores")},
            "data": {"events": {"label": "trial_type"}},
            "convert": {"lowpass_hz": 40.0, "sfreq": 100.0},
        }
    )
    with pytest.raises(DataError, match="0 of 2 channels are good"):
        convert(recipe, quiet, quiet)
    assert not [path for path in (tmp_path / "stores").rglob("*") if path.is_file()]


def test_epochs_are_slices_of_the_signal(tmp_path: Path) -> None:
    recipe = one_recording(tmp_path)
    opened = open_store(convert(recipe, quiet, quiet)[0].folder)
    epochs = Epochs([opened], -0.1, 0.4, baseline=(-0.1, 0.0))
    assert epochs.n_times == 50
    usable = epochs.trials["usable"].to_numpy()
    assert list(np.flatnonzero(~usable)) == []  # the dropout at 20.0..20.5 s lies between trials at 17.25 and 21.25 s
    wide = Epochs([opened], -0.8, 0.4)
    assert list(np.flatnonzero(~wide.trials["usable"].to_numpy())) == [4]
    rows = np.array([7, 2, 2])
    x_BCT = epochs.read(rows).numpy()
    for k, row in enumerate(rows):
        onset = opened.trials["onset_sample"].iloc[row]
        expected = opened.signal_TC[onset - 10 : onset + 40].T
        assert np.allclose(x_BCT[k], expected - expected[:, :10].mean(1, keepdims=True), atol=1e-12)
    shifted = epochs.read(rows, np.array([3, 0, -(10**6)]))
    onset = opened.trials["onset_sample"].iloc[7] + 3
    window = opened.signal_TC[onset - 10 : onset + 40].T
    assert np.allclose(shifted[0].numpy(), window - window[:, :10].mean(1, keepdims=True), atol=1e-12)
    assert np.isfinite(shifted.numpy()).all()  # never past the recording's start


def test_signals_end_to_end_give_the_same_windows(study: Path) -> None:
    """As a GPU holds them, with fewer channels and in another order."""
    stores = [open_store(folder) for folder in find_stores(study / "stores", "small")]
    assert len(stores) > 1
    rng = np.random.default_rng(0)
    which = rng.integers(0, len(stores), 50)
    first = rng.integers(0, min(len(store.signal_TC) for store in stores) - 30, 50)
    for channels in (stores[0].sensors.names, ("Oz", "Pz", "O1")):
        mapped = Mapped(stores, channels).cut(which, first, 30)
        assert torch.equal(mapped, Joined(stores, channels, torch.device("cpu")).cut(which, first, 30))
        columns = [stores[0].sensors.names.index(name) for name in channels]
        for k in range(50):
            assert np.array_equal(mapped[k], stores[which[k]].signal_TC[first[k] : first[k] + 30, columns])


def test_the_pulse_is_where_it_was_written(tmp_path: Path) -> None:
    recipe = one_recording(tmp_path, bad=False)
    opened = open_store(convert(recipe, quiet, quiet)[0].folder)
    x_BCT = Epochs([opened], -0.2, 0.4).read(np.arange(20)).numpy()
    mean = x_BCT[:, 19].mean(0)
    assert mean.argmax() == 20 + 5  # the pulse's peak: 50 ms after onset, at 100 Hz
    assert mean.max() == pytest.approx(100e-6 * 19 / 20, rel=0.1)


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole(path) as part:
        part.write_text("one")
        assert not path.exists()

    def stopped() -> None:
        with whole(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]
