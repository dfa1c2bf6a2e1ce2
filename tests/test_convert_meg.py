"""MEG that needs no real data: FIF against plain MNE, ICA, epochs that others cut, pairs with EEG, training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from conftest import quiet, small, small_meg
from synapse_diffusion.bids import read_images
from synapse_diffusion.config import parse_recipe
from synapse_diffusion.convert import convert, convert_pairs
from synapse_diffusion.errors import DataError, SettingsError, StoreError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.simulate import simulate
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import SignalStore, find_stores, open_store, read_manifest
from synapse_diffusion.train import train

STEM = "sub-M01_ses-{0}_task-main_run-{1}"


@pytest.fixture(scope="module")
def stores(meg_study: Path) -> list[SignalStore]:
    return [open_store(folder) for folder in find_stores(meg_study / "stores", "small-meg")]


def raw_of(meg_study: Path, store: SignalStore) -> mne.io.BaseRaw:
    session, run = store.trials["session"].iloc[0], store.trials["run"].iloc[0].removeprefix("main-")
    folder = meg_study / f"bids-meg/sub-M01/ses-{session}/meg"
    return mne.io.read_raw_fif(folder / f"{STEM.format(session, run)}_meg.fif", preload=True)


def test_signal_is_mnes(meg_study: Path, stores: list[SignalStore]) -> None:
    assert len(stores) == 4
    raw = raw_of(meg_study, stores[0]).filter(0.1, 30.0)
    raw = raw.crop(tmax=(raw.n_times // 3 * 3 - 1) / 300)  # MNE stretches time where the ratio leaves a remainder
    theirs = raw.resample(100.0, method="polyphase").get_data(list(stores[0].sensors.names)).T[:-20]
    ours = stores[0].signal_TC[: len(theirs)]
    assert set(stores[0].sensors.kinds) == {"mag"}
    assert set(stores[0].sensors.units) == {"T"}
    assert np.all(np.abs(ours - theirs).max(0) < 1e-3 * np.abs(theirs).max(0))


def test_labels_are_the_tables(meg_study: Path, stores: list[SignalStore]) -> None:
    images = read_images(meg_study / "bids-meg")
    for store in stores:
        session, run = store.trials["session"].iloc[0], store.trials["run"].iloc[0].removeprefix("main-")
        path = meg_study / f"bids-meg/sub-M01/ses-{session}/meg" / f"{STEM.format(session, run)}_events.tsv"
        table = pd.read_csv(path, sep="\t", keep_default_na=False)
        shown = table[table["trial_type"] != "catch"]
        at = shown["value"].astype(float).astype(int) - 1
        assert list(store.trials["image_id"]) == [images.images[k] for k in at]
        assert list(store.trials["concept"]) == [images.concepts[k] for k in at]
        assert np.array_equal(store.trials["onset_sample"], (shown["sample"] + 1) // 3)
        counts = read_manifest(store.folder)["counts"]
        assert counts["left_out"]["catch"] == len(table) - len(shown) > 0


def frontal_share(
    signal_TC: NDArray[np.float32], eog_T: NDArray[np.float64], position_C3: NDArray[np.float64]
) -> float:
    """Largest squared correlation of a front sensor with the EOG."""
    front = np.argsort(position_C3[:, 1])[-8:]
    return float(max(np.corrcoef(signal_TC[: len(eog_T), k], eog_T)[0, 1] ** 2 for k in front))


def test_ica_takes_out_eyes_and_heart(meg_study: Path, stores: list[SignalStore], tmp_path: Path) -> None:
    recipe = small_meg(meg_study, f"paths.stores={tmp_path}", "convert.ica=eog_ecg", "data.sessions=01", "data.runs=01")
    said: list[str] = []
    cleaned = open_store(convert(recipe, said.append, quiet)[0].folder)
    before = stores[0]
    raw = raw_of(meg_study, before).filter(0.1, 30.0, picks="all").resample(100.0, method="polyphase")
    for name in ("EOG001", "ECG001"):
        body_T = raw.get_data([name])[0][: len(before.signal_TC)]
        share = [frontal_share(s.signal_TC, body_T, s.sensors.position_C3) for s in (before, cleaned)]
        if name == "EOG001":
            assert share[0] > 0.15
        assert share[1] < 0.2 * share[0] + 0.02, name
    found = read_manifest(cleaned.folder)["counts"]["ica"]["taken_out"]
    assert found["eog"]
    assert found["ecg"]
    assert any("ICA: 20 components, taken out:" in line for line in said)
    evoked = [Epochs([s], 0.0, 0.4).read(np.arange(len(s.trials))).numpy().mean(0) for s in (before, cleaned)]
    back = np.argsort(before.sensors.position_C3[:, 1])[:12]
    assert np.corrcoef(evoked[0][back].ravel(), evoked[1][back].ravel())[0, 1] > 0.8
    many = ("convert.ica=eog_ecg", "convert.ica_components=60")
    with pytest.raises(DataError, match=r"ica_components = 60 of 40 good sensors; ask for fewer"):
        convert(small_meg(meg_study, f"paths.stores={tmp_path / 'x'}", *many), quiet, quiet)


def test_iclabel_looks_at_eeg(tmp_path: Path) -> None:
    pytest.importorskip("mne_icalabel")
    recipe = small(
        tmp_path, "simulate.channels=32", "simulate.people=1", "simulate.main_repeats=1", "convert.ica=iclabel",
        "convert.ica_components=8", "execution.workers=1",
    )  # fmt: skip
    simulate(recipe, quiet, quiet)
    (result,) = convert(recipe, quiet, quiet)
    found = read_manifest(result.folder)["counts"]["ica"]["taken_out"]
    assert "eye blink" in found, found


def write_epochs(
    folder: Path, n: int, *, metadata: bool, codes: list[int] | None = None
) -> tuple[Path, NDArray[np.float64]]:
    """Epochs as the authors of THINGS-MEG give them: (N, 5, 29) in standard deviations, catch trials 999999."""
    rng = np.random.default_rng(0)
    x_NCT = rng.standard_normal((n, 5, 29)).astype(np.float32).astype(np.float64)
    info = mne.create_info(
        ["MLC11-1609", "MLC12-1609", "MRO11-1609", "MRT22-1609", "UPPT001"], 20.0, ["mag"] * 4 + ["stim"]
    )
    codes = codes or [*range(1, n - 3), 1, 1, 2, 999999][:n]
    events = np.column_stack([np.arange(n) * 40, np.zeros(n, int), codes])
    table = pd.DataFrame(
        {"things_image_nr": codes, "session_nr": 1 + np.arange(n) // 20, "run_nr": 1 + np.arange(n) // 10}
    )
    ids = {str(code): code for code in sorted(set(codes))}
    epochs = mne.EpochsArray(x_NCT, info, events, -0.1, event_id=ids, metadata=table if metadata else None)
    folder.mkdir(parents=True)
    path = folder / "preprocessed_P2-epo.fif"
    epochs.save(path, split_size="2MB", overwrite=True)
    return path, x_NCT


@pytest.mark.parametrize("metadata", [True, False])
def test_epochs_that_others_cut(meg_study: Path, tmp_path: Path, metadata: bool) -> None:
    folder = tmp_path / "bids/derivatives/preprocessed"
    n = 60
    _, x_NCT = write_epochs(folder, n, metadata=metadata)
    things = f"paths.things={meg_study / 'bids-meg'}"
    where = (f"paths.bids={tmp_path / 'bids'}", things, "data.folder=derivatives/preprocessed")
    as_they_are = ("convert.sfreq=20", "convert.lowpass_hz=0", "convert.drop_channels=MRO11")
    recipe = small_meg(tmp_path, *where, *as_they_are)
    (result,) = convert(recipe, quiet, quiet)
    store = open_store(result.folder)
    assert store.sensors.names == ("MLC11", "MLC12", "MRT22")
    assert set(store.sensors.units) == {"n/a"}  # standard deviations, whatever the file says
    assert len(store.trials) == n - 1
    images = read_images(meg_study / "bids-meg")
    assert list(store.trials["image_id"][:3]) == list(images.images[:3])
    assert set(store.trials["person"]) == {"BIGMEG2"}
    assert list(store.trials.loc[store.trials["is_test"] == 1, "repeat"]) == [0, 0, 1, 2, 1]
    if metadata:
        assert list(store.trials["session"].unique()) == ["01", "02", "03"]
        assert list(store.trials["run"].unique())[:2] == ["main-01", "main-02"]
    epochs = Epochs([store], -0.1, 1.3)
    assert epochs.trials["usable"].all()
    back = epochs.read(np.arange(n - 1)).numpy()
    assert np.array_equal(back, x_NCT[: n - 1, [0, 1, 3], :28].astype(np.float32))
    assert not Epochs([store], -0.15, 1.3).trials["usable"].any()  # nothing is read across two epochs
    assert convert(recipe, quiet, quiet)[0].skipped
    with pytest.raises(DataError, match=r"epochs at 20 Hz are stored as they are; set convert\.sfreq = 20"):
        convert(small_meg(tmp_path, *where, f"paths.stores={tmp_path / 'y'}"), quiet, quiet)


def test_epochs_say_what_is_test_and_catch(meg_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bids/derivatives/preprocessed"
    path, _ = write_epochs(folder, 3, metadata=False, codes=[1, 2, 3])
    epochs = mne.read_epochs(path)
    epochs.metadata = pd.DataFrame({"things_image_nr": [1, 2, 3], "trial_type": ["exp", "test", "catch"]})
    epochs.save(path, overwrite=True)
    things = f"paths.things={meg_study / 'bids-meg'}"
    where = (f"paths.bids={tmp_path / 'bids'}", things, "data.folder=derivatives/preprocessed")
    recipe = small_meg(tmp_path, *where, "convert.sfreq=20", "convert.lowpass_hz=0")
    trials = open_store(convert(recipe, quiet, quiet)[0].folder).trials
    assert list(trials["is_test"]) == [0, 1]  # shown once, and still a test image
    epochs.metadata = None
    epochs.event_id = {"face": 1, "2": 2, "3": 3}
    epochs.save(path, overwrite=True)
    with pytest.raises(DataError, match="epoch 1: image number face is none of"):
        convert(recipe, quiet, quiet)
    epochs.event_id = {"1": 1, "2": 2, "3": 3}
    epochs.save(path, overwrite=True)
    whole = path.read_bytes()
    for cut in (whole[: len(whole) // 2], whole[: len(whole) // 3], b""):
        path.write_bytes(cut)
        with pytest.raises(DataError, match=r"preprocessed_P2-epo\.fif: .*download them again"):
            convert(recipe, quiet, quiet)


def test_a_bad_sensor_is_interpolated(meg_study: Path, tmp_path: Path) -> None:
    """Without a digitised head, as CTF recordings come."""
    shutil.copytree(meg_study / "bids-meg", tmp_path / "bids-meg")
    path = tmp_path / "bids-meg/sub-M01/ses-01/meg" / f"{STEM.format('01', '01')}_channels.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    name = table["name"][12]
    table.loc[12, "status"] = "bad"
    table.to_csv(path, sep="\t", index=False)
    where = ("data.sessions=01", "data.runs=01", "convert.drop_channels=MRO99")
    said: list[str] = []
    (result,) = convert(small_meg(tmp_path, *where), said.append, quiet)
    mended = open_store(result.folder)
    before = open_store(meg_study / "stores/small-meg/sub-M01/ses-01/run-main-01")
    at = before.sensors.names.index(name)
    assert mended.sensors.status[at] == "bad"
    assert np.corrcoef(mended.signal_TC[:, at], before.signal_TC[:, at])[0, 1] > 0.8
    assert not np.array_equal(mended.signal_TC[:, at], before.signal_TC[:, at])
    others = np.arange(40) != at
    assert np.array_equal(mended.signal_TC[:, others], before.signal_TC[:, others])
    assert any("convert.drop_channels: it has no MRO99" in line for line in said)
    with pytest.raises(DataError, match='"iclabel" knows EEG only; take "eog_ecg" for MEG'):
        convert(small_meg(tmp_path, *where, "convert.ica=iclabel", "data.name=x"), quiet, quiet)


def test_an_unknown_image_in_epochs_is_refused(meg_study: Path, tmp_path: Path) -> None:
    write_epochs(tmp_path / "bids/derivatives/preprocessed", 3, metadata=False, codes=[1, 26108, 2])
    recipe = small_meg(
        tmp_path, f"paths.bids={tmp_path / 'bids'}", f"paths.things={meg_study / 'bids-meg'}", "convert.sfreq=20",
        "convert.lowpass_hz=0", "data.folder=derivatives/preprocessed",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"epoch 2: image number 26108 is none of things_images\.csv"):
        convert(recipe, quiet, quiet)


def test_simulated_eeg_and_meg_pair(meg_study: Path) -> None:
    overrides = ["data.modality=comb", "data.name=both", "pairs.eeg=small", "pairs.meg=small-meg"]
    paired = convert_pairs(small(meg_study, *overrides), quiet)
    tables = [pd.read_csv(meg_study / f"{bids}/things_images.csv") for bids in ("bids", "bids-meg")]
    assert tables[0].equals(tables[1])
    assert len(paired.pairs) == len(tables[0])
    assert paired.unpaired.empty
    assert set(paired.trials["person"]) == {"01", "02", "M01"}
    manifest = json.loads((paired.folder / "manifest.json").read_text())
    assert manifest["eeg"]["people"] == ["01", "02"]
    with pytest.raises(StoreError, match="no signal store"):
        convert_pairs(small(meg_study, *overrides, "pairs.meg=nothing"), quiet)


def test_meg_trains_and_is_scored(meg_study: Path, tmp_path: Path) -> None:
    run = train(small_meg(meg_study, f"paths.runs={tmp_path}", "train.steps=20"), "meg", "test", quiet, quiet)
    rows = evaluate(run.folder, quiet, quiet)
    assert {row["modality"] for row in rows} == {"meg"}
    assert {row["model"] for row in rows} >= {"compact", "linear", "observer"}
    assert all(0 <= row["value"] <= 1 for row in rows if row["metric"] != "right_more_often")


def test_shares_are_all_and_none_twice(meg_study: Path, tmp_path: Path) -> None:
    recipe = small_meg(meg_study, f"paths.stores={tmp_path}")
    done = [convert(recipe, quiet, quiet, (k, 3)) for k in (2, 3, 1)]
    folders = [result.folder for results in done for result in results]
    assert len(folders) == len(set(folders)) == 4
    for folder in folders:
        for path in folder.iterdir():
            assert path.read_bytes() == (meg_study / "stores" / path.relative_to(tmp_path)).read_bytes()
    for shard in ((0, 3), (4, 3)):
        with pytest.raises(SettingsError, match="give k/n with k from 1 to n"):
            convert(recipe, quiet, quiet, shard)


def test_what_mne_bids_writes(tmp_path: Path) -> None:
    """Magnetometers, gradiometers and EEG, split over files, events in words: as MNE-BIDS writes a MEGIN recording."""
    mne_bids = pytest.importorskip("mne_bids")
    rng = np.random.default_rng(0)
    names = [f"MEG{k // 3:03d}{k % 3 + 1}" for k in range(12)]
    kinds = ["grad", "grad", "mag"] * 4
    info = mne.create_info([*names, "EEG001", "EOG001"], 400.0, [*kinds, "eeg", "eog"])
    x_CT = 1e-12 * rng.standard_normal((14, 80_000))
    raw = mne.io.RawArray(x_CT, info)
    with raw.info._unlock():
        raw.info["line_freq"] = 50.0
    raw.info["bads"] = ["MEG0021"]
    raw.set_annotations(mne.Annotations([10.0, 60.0, 150.0], [0.5, 0.5, 0.5], ["face", "house", "face"]))
    raw.save(tmp_path / "whole_raw.fif")
    path = mne_bids.BIDSPath("a1", "b", "pics", run="02", datatype="meg", root=tmp_path / "bids")
    mne_bids.write_raw_bids(mne.io.read_raw_fif(tmp_path / "whole_raw.fif"), path, verbose="error")
    recipe = parse_recipe({
        "paths": {"bids": str(tmp_path / "bids"), "stores": str(tmp_path / "stores")},
        "data": {"modality": "meg", "name": "x", "events": {"label": "trial_type"}},
        "convert": {"highpass_hz": 0.0, "lowpass_hz": 0.0, "sfreq": 400.0, "find_bad_channels": False,
                    "bad_channels": "keep"},
    })  # fmt: skip
    (result,) = convert(recipe, quiet, quiet)
    store = open_store(result.folder)
    assert result.folder.parts[-3:] == ("sub-a1", "ses-b", "run-pics-02")
    assert store.sensors.names == tuple(names)
    assert store.sensors.units == ("T/m", "T/m", "T") * 4
    assert store.sensors.status[names.index("MEG0021")] == "bad"
    assert list(store.trials["label"]) == ["face", "house", "face"]
    assert list(store.trials["onset_sample"]) == [4000, 24_000, 60_000]
    assert np.allclose(store.signal_TC, x_CT[:12].T, atol=1e-18)

    (found,) = (tmp_path / "bids").rglob("*_meg.fif")
    raw.save(found, split_size="2MB", split_naming="bids", overwrite=True)
    found.unlink(missing_ok=True)
    assert len(list((tmp_path / "bids").rglob("*_split-*_meg.fif"))) > 1
    (parts,) = convert(recipe.model_copy(update={"data": recipe.data.model_copy(update={"name": "y"})}), quiet, quiet)
    assert np.array_equal(open_store(parts.folder).signal_TC, store.signal_TC)
    assert len(read_manifest(parts.folder)["sources"]) > 1
