"""THINGS-MEG's real tables over CTF recordings of their length; the CTF reader against MNE; broken recordings.

At each onset a pulse with a pattern that spells the concept is written into otherwise noisy sensors, so that a label or
a sample that is off is seen in the converted signal.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import mne
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from conftest import quiet
from synapse_diffusion.bids import find_recordings, open_recording
from synapse_diffusion.bids.recordings import Recording
from synapse_diffusion.config import Recipe, load_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.errors import DataError
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import SignalStore, open_store, read_manifest

SFREQ, PULSE_S, PEAK_T = 1200, 0.05, 4e-12
TABLES = "bids/ds004212-3.0.0"
FOLDER = "sub-BIGMEG1/ses-{session}/meg"
STEM = "sub-BIGMEG1_ses-{session}_task-main_run-{run}"
DROPOUT_S = (13.4, 13.6)


def make_ctf(real: Path) -> ModuleType:
    """The tool that writes CTF recordings."""
    path = real.parent / "tools/make_ctf.py"
    if not path.exists():
        pytest.skip(f"the tool that writes CTF recordings is not at {path}")
    spec = importlib.util.spec_from_file_location("make_ctf", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pattern(concept: int, n_sensors: int) -> NDArray[np.float64]:
    """A zero-mean pattern of +-1 that only this concept has."""
    signs = np.r_[np.ones(n_sensors // 2), -np.ones(n_sensors // 2), np.zeros(n_sensors % 2)]
    return np.asarray(np.random.default_rng(concept).permutation(signs), dtype=np.float64)


def record(
    real: Path, root: Path, session: str, run: str, seconds: float = 348.0, *, dropout: bool = False
) -> pd.DataFrame:
    """The real sidecars and table of a run (its first `seconds`) and a CTF recording below them."""
    source = real / TABLES
    folder, stem = root / FOLDER.format(session=session), STEM.format(session=session, run=run)
    if not folder.exists():
        shutil.copytree(source / FOLDER.format(session=session), folder)
        shutil.copy(source / "participants.tsv", root / "participants.tsv")
    events = folder / f"{stem}_events.tsv"
    table = pd.read_csv(events, sep="\t", keep_default_na=False)
    table = table[table["onset"].astype(float) < seconds - 1.5].reset_index(drop=True)
    n_samples = round(seconds * SFREQ)
    if seconds < 348:
        events.chmod(0o644)
        table.to_csv(events, sep="\t", index=False)
        sidecar = folder / f"{stem}_meg.json"
        sidecar.chmod(0o644)
        sidecar.write_text(sidecar.read_text().replace("347.99916666666667", str(seconds)))
    course = np.exp(-0.5 * ((np.arange(121) - SFREQ * PULSE_S) / 12) ** 2) * PEAK_T
    names = pd.read_csv(folder / f"{stem}_channels.tsv", sep="\t")
    keep = ~names.loc[names["type"] == "OTHER", "name"].str.startswith("MRO11").to_numpy()

    def signal(first: int, last: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([int(session), int(run)])
        x_CT = 50e-15 * rng.standard_normal((272, last - first), dtype=np.float32)
        x_CT += 2e-12 * rng.standard_normal((272, 1)).astype(np.float32)
        for sample, concept in zip(table["sample"], table["things_category_nr"], strict=True):
            if concept != "N/A":
                block = np.outer(pattern(round(float(concept)), 271), course)
                x_CT[keep, sample : sample + 121] += block.astype(np.float32)
        if dropout:
            a, b = (round(t * SFREQ) for t in DROPOUT_S)
            x_CT[:, a:b] = 2e-16 * rng.standard_normal((272, b - a), dtype=np.float32)  # about the last bit
        return x_CT

    ds = folder / f"{stem}_meg.ds"
    ds.chmod(0o755)
    make_ctf(real).write_ctf(folder / f"{stem}_channels.tsv", ds, signal, n_samples)
    return table


def recipe_for(real: Path, root: Path, *overrides: str) -> Recipe:
    paths = [f"paths.bids={root}", f"paths.stores={root / 'stores'}", f"paths.things={real / 'things'}"]
    return load_recipe("meg_fruit_furniture", [*paths, "execution.workers=1", *overrides])


def check(real: Path, store: SignalStore, table: pd.DataFrame) -> int:
    """Every label against THINGS' own list, every sample against the injected pulse; the number of trials."""
    images = pd.read_csv(real / "things/things_images.csv")
    shown = table[table["trial_type"] != "catch"].reset_index(drop=True)
    row = images.iloc[shown["value"].astype(float).astype(int).to_numpy() - 1]
    trials = store.trials
    assert len(store.sensors.names) == 271
    assert "MRO11" not in store.sensors.names
    assert list(trials["image_id"]) == list(row["file_name"].str.removesuffix(".jpg"))
    assert list(trials["concept"]) == list(row["uniqueID"])
    assert np.array_equal(row["concept_nr"], shown["things_category_nr"].astype(float))
    assert np.array_equal(trials["is_test"], shown["trial_type"] == "test")
    assert np.array_equal(trials["onset_sample"], (shown["sample"] + 3) // 6)
    epochs = Epochs([store], 0.0, 0.15)
    rows = np.flatnonzero(epochs.trials["usable"].to_numpy())
    x_NCT = epochs.read(rows).numpy()
    peak_NC = x_NCT[:, :, round(PULSE_S * 200)]
    concepts, which = np.unique(row["concept_nr"].to_numpy()[rows], return_inverse=True)
    patterns_KC = np.stack([pattern(int(concept), 271) for concept in concepts])
    assert np.sum((peak_NC @ patterns_KC.T).argmax(1) != which) == 0
    course_NT = np.einsum("nct,nc->nt", x_NCT, patterns_KC[which]) / 271
    assert np.all(np.abs(course_NT.argmax(1) - round(PULSE_S * 200)) <= 1)  # an onset may lie half a sample off
    assert np.all(np.abs(course_NT.max(1) / PEAK_T - 1) < 0.2)
    return len(trials)


def test_a_minute_of_a_real_table(real: Path, tmp_path: Path) -> None:
    table = record(real, tmp_path, "11", "04", 60.0, dropout=True)
    recipe = recipe_for(real, tmp_path, "data.runs=04")
    said: list[str] = []
    (result,) = convert(recipe, said.append, quiet)
    store = open_store(result.folder)
    check(real, store, table)
    (dropout,) = [s for s in store.segments if s.kind == "dropout"]
    assert abs(dropout.start - 13.4 * 200) <= 1
    assert abs(dropout.stop - 13.6 * 200) <= 2
    counts = read_manifest(result.folder)["counts"]
    assert counts["trial_types"] == table["trial_type"].value_counts().to_dict()
    assert counts["left_out"]["catch"] == (table["trial_type"] == "catch").sum() > 0
    assert counts["segments"]["dropout"] == 1
    assert any("1 dropouts bridged, first at 13.40 s" in line for line in said)
    kept = convert(
        recipe_for(real, tmp_path, "data.runs=04", "data.events.keep_catch=true", "data.name=k"), quiet, quiet
    )
    trials = open_store(kept[0].folder).trials
    assert len(trials) == len(table)
    assert set(trials.loc[trials["is_catch"] == 1, "image_id"]) == {"n/a"}


@pytest.mark.slow
def test_both_sessions_at_full_length(real: Path, tmp_path: Path) -> None:
    n_trials = 0
    first: dict[str, int] = {}
    for session in ("01", "11"):
        for k in range(1, 11):
            run = f"{k:02d}"
            root = tmp_path / f"{session}{run}"
            table = record(real, root, session, run, dropout=(session, run) == ("11", "04"))
            (result,) = convert(recipe_for(real, root, f"data.runs={run}"), quiet, quiet)
            n_trials += check(real, open_store(result.folder), table)
            counts = read_manifest(result.folder)["counts"]
            first = first or counts["trial_types"]
            assert counts["segments"]["dropout"] == ((session, run) == ("11", "04"))
            assert counts["onset_distances"]["outside"] == 0
            shutil.rmtree(root)
    assert n_trials == 4108
    assert first == {"catch": 20, "exp": 186, "test": 20}


def real_ctf(real: Path) -> Recording:
    path = real / "ctf/testdata_ctf_short_discontinuous.ds"
    return Recording("1", "01", "x", "x-01", path, path / "none", "meg")


@pytest.mark.parametrize("order", [None, 1, 2, 3])
def test_real_ctf_reads_as_mne_reads_it(real: Path, order: int | None) -> None:
    recording = real_ctf(real)
    opened = open_recording(recording, compensation=order)
    raw = mne.io.read_raw_ctf(recording.path, clean_names=True).load_data()
    if order is not None:
        raw.apply_gradient_compensation(order)
    theirs = raw.get_data(list(opened.sensors.names)).T
    ours = opened.read(0, opened.n_samples) * opened.gain_C
    assert ours.shape == (2402, 273)
    assert np.all(np.abs(ours - theirs).max(0) <= 3e-7 * np.abs(theirs).max(0))
    assert [s.start for s in opened.segments if s.kind == "boundary"] == [1201]  # the clock jumps there
    assert opened.sensors.kinds == ("mag",) * 273
    distance = np.linalg.norm(opened.sensors.position_C3 - [0, 0, 0.04], axis=1)
    assert np.all((distance > 0.08) & (distance < 0.2))


def broken(tmp_path: Path, real: Path) -> Path:
    """A copy of the real recording in a BIDS folder with one trial."""
    folder = tmp_path / "sub-1/meg"
    ds = folder / "sub-1_task-main_meg.ds"
    shutil.copytree(real / "ctf/testdata_ctf_short_discontinuous.ds", ds)
    for path in [ds, *ds.iterdir()]:
        path.chmod(0o755)
        if path.is_file() and path.name.startswith("testdata"):
            path.rename(path.with_name(path.name.replace("testdata_ctf_short_discontinuous", "sub-1_task-main_meg")))
    write_table(folder, [("1.0", "exp", "1.0", "1.0"), ("1.5", "test", "1854.0", "26107.0")])
    return ds


def write_table(folder: Path, rows: Sequence[tuple[str, ...]]) -> None:
    text = "onset\tduration\ttrial_type\tthings_category_nr\tvalue\tsample\n"
    for onset, kind, concept, value in rows:
        text += f"{onset}\t0.5\t{kind}\t{concept}\t{value}\t{round(float(onset) * SFREQ)}\n"
    (folder / "sub-1_task-main_events.tsv").write_text(text)


def test_broken_recordings_are_one_sentence(real: Path, tmp_path: Path) -> None:
    ds = broken(tmp_path, real)
    recipe = recipe_for(real, tmp_path, "convert.bad_channels=keep", "convert.find_bad_channels=false")
    meg4, res4 = ds / "sub-1_task-main_meg.meg4", ds / "sub-1_task-main_meg.res4"
    assert convert(recipe, quiet, quiet)[0].n_trials == 2
    shutil.rmtree(tmp_path / "stores")
    whole, header = meg4.read_bytes(), res4.read_bytes()
    for damaged in (whole[:-400], whole[: len(whole) // 3]):
        meg4.write_bytes(damaged)
        with pytest.raises(DataError, match=r"\.meg4: holds \d+ bytes of samples, but .* cut short, or of another"):
            convert(recipe, quiet, quiet)
    meg4.write_bytes(b"x" + whole[1:])
    with pytest.raises(DataError, match=r"\.meg4: does not begin as CTF's data files do"):
        convert(recipe, quiet, quiet)
    meg4.unlink()
    with pytest.raises(DataError, match=r"_meg\.meg4: not there; .* is not a whole CTF recording"):
        convert(recipe, quiet, quiet)
    meg4.write_bytes(whole)
    res4.write_bytes(header[:1288] + (5000).to_bytes(4, "big") + header[1292:])
    with pytest.raises(DataError, match="x 5000 samples = 7120000 bytes"):
        convert(recipe, quiet, quiet)
    res4.write_bytes(header[:900])
    with pytest.raises(DataError, match=r"res4: not a CTF header, or cut short"):
        convert(recipe, quiet, quiet)
    res4.unlink()
    res4.symlink_to(tmp_path / "annex")
    with pytest.raises(DataError, match=r"\.res4: not there but a link to a file that was not fetched"):
        convert(recipe, quiet, quiet)
    res4.unlink()
    with pytest.raises(DataError, match=r"\.res4: not there"):
        convert(recipe, quiet, quiet)
    res4.write_bytes(header)
    folder = ds.parent
    for rows, message in (
        (
            [("1.0", "exp", "1.0", "26108.0")],
            r"row 1: value is '26108.0', no image number of .*csv \(1..26107\)",
        ),
        ([("1.0", "exp", "1.0", "N/A")], "row 1: value is 'N/A', no image number"),
        (
            [("1.0", "exp", "3.0", "1.0")],
            r"row 1: .*_nr is '3.0', but image 1 is of concept 1 \(aardvark\)",
        ),
        ([("3.0", "exp", "1.0", "1.0")], "row 1: onset 3.0 is sample 3600, outside the recording of 2402 samples"),
    ):
        write_table(folder, rows)
        with pytest.raises(DataError, match=message):
            convert(recipe, quiet, quiet)
    assert not [path for path in (tmp_path / "stores").rglob("*") if path.is_file()]


def test_what_is_no_recording_is_passed_over(real: Path, tmp_path: Path) -> None:
    ds = broken(tmp_path, real)
    shutil.copytree(ds, ds / "hz.ds")
    shutil.copytree(ds, tmp_path / "sub-emptyroom/meg/sub-emptyroom_task-noise_meg.ds")
    (ds.parent / "._sub-1_task-main_meg.ds").mkdir()
    (ds.parent / "._sub-1_task-main_events.tsv").write_bytes(b"\0\5")
    (ds / "._sub-1_task-main_meg.res4").write_bytes(b"\0\5")
    (ds / "BadChannels").write_text("MLC11-4304\nMRT22\n../annex/objects/MLT11\n")
    (ds.parent / "sub-1_task-main_channels.tsv").write_text(
        "name\ttype\tstatus\nMLC12-4304\tOTHER\tbad\nMLC13-4304\tOTHER\tgood\n"
    )
    for path in [path for path in ds.iterdir() if path.is_file() and path.name.startswith("sub-1")]:
        path.rename(path.with_name(path.name.replace("sub-1", "before")))  # named as it was recorded
    (recording,) = find_recordings(tmp_path, recipe_for(real, tmp_path).data, quiet)
    opened = open_recording(recording, drop_channels=("MRO11-1609",))
    status = dict(zip(opened.sensors.names, opened.sensors.status, strict=True))
    assert {name for name, state in status.items() if state == "bad"} == {"MLC11", "MLC12", "MRT22"}
    assert "MRO11" not in status
