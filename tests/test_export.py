"""Exports: every format holds what `Epochs.read` gives, whole or not at all, one chunk in memory at a time."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import mne
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file

from conftest import quiet, write_store
from synapse_diffusion import export as module
from synapse_diffusion.config import ViewSettings
from synapse_diffusion.errors import DataError, MissingError, SettingsError, StoreError
from synapse_diffusion.export import Format, export, view_of
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import find_stores, open_store, read_table
from synapse_diffusion.types import TRIAL_COLUMNS, Segment

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")  # MNE's reading of metadata under pandas 3.1
VIEW = ViewSettings(start_s=-0.1, stop_s=0.4, baseline=(-0.1, 0.0))


def expected(stores: Path, view: ViewSettings) -> tuple[Epochs, NDArray[np.int64], NDArray[np.float32]]:
    """Epochs of all stores of the data set, their usable rows, and these rows' values."""
    opened = [open_store(folder) for folder in find_stores(stores.parent, stores.name)]
    epochs = Epochs(opened, view.start_s, view.stop_s, view.baseline, view.channels)
    rows = np.flatnonzero(epochs.trials["usable"])
    return epochs, rows, epochs.read(rows).numpy()


def exported(folder: Path, form: Format) -> NDArray[np.float32]:
    """All epochs of an export, read by the format's own library."""
    files = json.loads((folder / "about.json").read_text())["files"]
    if form == "npy":
        return np.asarray(np.load(folder / files[0], allow_pickle=False))
    if form == "hdf5":
        with h5py.File(folder / files[0]) as file:
            return np.asarray(file["epochs"])
    if form == "safetensors":
        return np.concatenate([load_file(folder / name)["epochs"] for name in files])
    return np.concatenate([mne.read_epochs(folder / name).get_data() for name in files])


@pytest.mark.parametrize("form", ["npy", "safetensors", "hdf5", "fif"])
def test_formats_hold_the_epochs(study: Path, tmp_path: Path, form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 200_000)
    monkeypatch.setattr(module, "PART_BYTES", 1_000_000)
    epochs, rows, x_NCT = expected(study / "stores/small", VIEW)
    said: list[str] = []
    done = export(study / "stores/small", tmp_path / "out", form, VIEW, said.append, quiet)
    assert done.shape == x_NCT.shape
    found = exported(tmp_path / "out", form)
    assert np.array_equal(found.astype(np.float32), x_NCT)
    assert "window -0.1 .. 0.4 s" in said[0]
    assert "baseline -0.1 .. 0 s taken off" in said[0]
    trials = read_table(tmp_path / "out/trials.tsv")
    assert list(trials.columns) == [*TRIAL_COLUMNS, "store"]
    assert list(trials["trial_id"]) == list(epochs.trials["trial_id"].iloc[rows])
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert about["shape"] == list(x_NCT.shape)
    assert about["times_s"] == pytest.approx(epochs.times)
    assert about["stores"]["sub-02/ses-01/run-rsvp-01"]["digest"] == epochs.stores[1].digest
    assert str(tmp_path) not in (tmp_path / "out/about.json").read_text()
    sensors = read_table(tmp_path / "out/sensors.tsv")
    assert list(sensors["name"][:16]) == list(epochs.channels)
    assert sorted(set(sensors["store"])) == ["sub-01/ses-01/run-rsvp-01", "sub-02/ses-01/run-rsvp-01"]
    if form in ("safetensors", "fif"):
        assert len(done.files) > 2  # parts
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


def test_fif_is_what_mne_wants(study: Path, tmp_path: Path) -> None:
    export(study / "stores/small", tmp_path / "out", "fif", VIEW, quiet, quiet)
    trials = read_table(tmp_path / "out/trials.tsv")
    first, second = (
        mne.read_epochs(tmp_path / f"out/sub-{person}_ses-01_run-rsvp-01_part-01-epo.fif") for person in ("01", "02")
    )
    assert first.times == pytest.approx(np.arange(-10, 40) / 100)
    assert (first.info["highpass"], first.info["lowpass"]) == pytest.approx((0.1, 30.0))
    assert all(second.event_id[name] == number for name, number in first.event_id.items())  # stable across files
    names = {number: name for name, number in first.event_id.items()}
    assert [names[number] for number in first.events[:, 2]] == list(first.metadata["concept"])
    assert list(first.metadata["image_id"]) == list(trials["image_id"][: len(first)])
    assert list(first.events[:, 0]) == list(trials["onset_sample"].astype(int)[: len(first)])
    store = open_store(study / "stores/small/sub-01/ses-01/run-rsvp-01")
    positions = first.get_montage().get_positions()
    assert positions["coord_frame"] == "head"
    for name, position in zip(store.sensors.names, store.sensors.position_C3, strict=True):
        assert positions["ch_pos"][name] == pytest.approx(position, abs=1e-6)


def test_sensors_of_all_kinds(tmp_path: Path) -> None:
    folder = tmp_path / "mixed/sub-01/ses-01/run-main-01"
    write_store(folder, kinds={"mag": 12, "grad": 24, "eeg": 10}, labels=["a:b;c", "d/e", "f g"], bad=("MAG003",))
    export(folder, tmp_path / "npy", "npy", VIEW, quiet, quiet)
    export(folder, tmp_path / "fif", "fif", VIEW, quiet, quiet)
    epochs = mne.read_epochs(tmp_path / "fif/sub-01_ses-01_run-main-01_part-01-epo.fif")
    wanted = np.load(tmp_path / "npy/epochs.npy")
    assert np.allclose(epochs.get_data(), wanted, rtol=1e-6, atol=0)
    assert epochs.get_channel_types(unique=True) == ["mag", "grad", "eeg"]
    assert epochs.info["bads"] == ["MAG003"]
    assert set(epochs.event_id) == {"a_b_c", "d/e", "f g"}
    sensors = open_store(folder).sensors
    at = epochs.ch_names.index("GRAD005")
    assert epochs.info["chs"][at]["loc"][:3] == pytest.approx(sensors.position_C3[at], abs=1e-6)
    assert np.array_equal(epochs.info["dev_head_t"]["trans"], np.eye(4))
    units = json.loads((tmp_path / "npy/about.json").read_text())["units"]
    assert (units["MAG003"], units["GRAD005"], units["EEG001"]) == ("T", "T/m", "V")


def test_unusable_trials_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "set/sub-01/ses-01/run-x-01"
    write_store(folder, kinds={"eeg": 4}, segments=(Segment(1000, 1100, "bad"),), n_samples=4000)
    said: list[str] = []
    done = export(folder, tmp_path / "out", "npy", VIEW, said.append, quiet)
    _, rows, x_NCT = expected(tmp_path / "set", VIEW)
    n_trials = len(open_store(folder).trials)
    assert 0 < done.n_left_out == n_trials - len(rows)
    assert np.array_equal(np.load(tmp_path / "out/epochs.npy"), x_NCT)
    assert f"{done.n_left_out} left out: they touch a bad stretch" in said[1]
    with pytest.raises(StoreError, match=r"none of \d+ trials is usable from 0 to 90 s"):
        export(folder, tmp_path / "none", "npy", ViewSettings(stop_s=90.0), quiet, quiet)


def test_wrong_inputs(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = study / "stores/small"
    with pytest.raises(StoreError, match="no signal store in it"):
        export(study / "bids", tmp_path / "out", "npy", VIEW, quiet, quiet)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(DataError, match="full: is there already and not an empty folder"):
        export(store, tmp_path / "full", "npy", VIEW, quiet, quiet)
    with pytest.raises(StoreError, match="no channel 'Xz'"):
        export(store, tmp_path / "out", "npy", view_of(["view.channels=Xz"]), quiet, quiet)
    with pytest.raises(SettingsError, match=r"view\.scaling=none: export cuts epochs, scales and rejects nothing"):
        view_of(["view.scaling=none"])
    with pytest.raises(SettingsError, match="must be above start_s"):
        view_of(["view.stop_s=-1.0"])
    shutil.copytree(store, tmp_path / "two/a")
    shutil.copytree(store, tmp_path / "two/b")
    with pytest.raises(StoreError, match="holds the data sets a, b; export one at a time"):
        export(tmp_path / "two", tmp_path / "out", "npy", VIEW, quiet, quiet)
    signal = tmp_path / "two/a/sub-01/ses-01/run-rsvp-01/signal.npy"
    signal.write_bytes(signal.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(StoreError, match="edited or damaged"):
        export(tmp_path / "two/a", tmp_path / "out", "npy", VIEW, quiet, quiet)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"pip install 'synapse-diffusion\[hdf5\]'"):
        export(store, tmp_path / "out", "hdf5", VIEW, quiet, quiet)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("form", ["npy", "safetensors", "hdf5", "fif"])
def test_a_full_disk_and_an_interrupt_leave_nothing(study: Path, tmp_path: Path, form: Format) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(MissingError, match="cannot be written"):
            export(study / "stores/small", tmp_path / "out", form, VIEW, quiet, quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "exporting" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(study / "stores/small", tmp_path / "out", form, VIEW, quiet, interrupt)
    assert not list(tmp_path.iterdir())


def test_too_little_space_is_said_before(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(MissingError, match="the epochs need"):
        export(study / "stores/small", tmp_path / "out", "npy", VIEW, quiet, quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("form", ["npy", "safetensors", "hdf5", "fif"])
def test_one_chunk_is_in_memory(tmp_path: Path, form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """320 MB of overlapping epochs in chunks of 8 MB: memory grows by some chunks, not by the export."""
    folder = tmp_path / "set/sub-01/ses-01/run-x-01"
    write_store(folder, kinds={"eeg": 40}, n_samples=45_000, onset_distance=20)
    monkeypatch.setattr(module, "CHUNK_BYTES", 8 * 2**20)
    monkeypatch.setattr(module, "PART_BYTES", 8 * 2**20)
    grown: list[int] = []

    def memory(what: str, done: int, total: int) -> None:
        if what == "exporting":
            status = Path("/proc/self/status").read_text()
            grown.append(
                int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024
            )

    done = export(folder, tmp_path / "out", form, ViewSettings(stop_s=9.0), quiet, memory)
    size = 4 * int(np.prod(done.shape))
    assert size > 300e6
    assert len(grown) > 30
    assert max(grown) - grown[0] < size / 2  # the allocator keeps some chunks that are free again


def test_tables_are_pandas_and_readable_by_others(study: Path, tmp_path: Path) -> None:
    export(study / "stores/small/sub-01", tmp_path / "out", "safetensors", VIEW, quiet, quiet)
    trials = pd.read_csv(tmp_path / "out/trials.tsv", sep="\t")
    (file,) = sorted((tmp_path / "out").glob("*.safetensors"))
    assert file.name == "epochs-00001-of-00001.safetensors"
    with safe_open(file, "np") as tensors:
        assert tensors.get_slice("epochs").get_shape()[0] == len(trials)
    assert file.stat().st_mode & 0o044 == 0o044
