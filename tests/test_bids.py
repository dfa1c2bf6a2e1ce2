"""Reading BIDS: onset units from evidence, damaged files in one sentence, the same signal as MNE reads."""

from __future__ import annotations

import json
from pathlib import Path

import mne
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import noise, quiet, write_events, write_recording
from synapse_diffusion.bids import find_recordings, open_recording, read_trials
from synapse_diffusion.bids.brainvision import mapped
from synapse_diffusion.config import DataSettings, EventColumns
from synapse_diffusion.errors import DataError

LABEL = EventColumns(label="trial_type")


def make(root: Path, n_samples: int = 20_000, sfreq: float = 200.0) -> Path:
    """One recording of four channels with ten trials; returns its folder."""
    folder = root / "sub-01/eeg"

    def fill(data: NDArray[np.float32]) -> None:
        data[:] = noise(n_samples, 4)

    write_recording(folder, "sub-01_task-x_eeg", ["Fz", "Cz", "Pz", "Oz"], n_samples, sfreq, fill)
    write_events(folder, "sub-01_task-x", np.arange(10) * 3.5 + 2.25, ["a", "b"] * 5)
    return folder


def trials_of(root: Path, columns: EventColumns = LABEL) -> NDArray[np.int64]:
    recording = find_recordings(root, DataSettings(), quiet)[0]
    opened = open_recording(recording)
    table = read_trials(recording, columns, opened.n_samples, opened.sfreq, quiet).trials
    return np.asarray(table["onset_sample"].to_numpy())


def rewrite(path: Path, header: str, rows: list[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n")


def test_onsets_in_seconds_or_in_samples(tmp_path: Path) -> None:
    events = make(tmp_path) / "sub-01_task-x_events.tsv"
    expected = np.arange(10) * 700 + 450
    assert np.array_equal(trials_of(tmp_path), expected)
    rewrite(events, "onset\tduration\ttrial_type", [f"{s}\t0\ta" for s in expected])  # v1.1.x
    assert np.array_equal(trials_of(tmp_path), expected)
    rewrite(events, "onset\ttrial_type\tsample", [f"{s / 200}\ta\t{s}" for s in expected])  # v1.2.0
    assert np.array_equal(trials_of(tmp_path), expected)
    rewrite(events, "onset\ttrial_type\tsample", [f"{s}\ta\t{s}" for s in expected])
    assert np.array_equal(trials_of(tmp_path), expected)


def test_what_evidence_does_not_decide_is_refused_and_can_be_set(tmp_path: Path) -> None:
    events = make(tmp_path) / "sub-01_task-x_events.tsv"
    rewrite(events, "onset\ttrial_type", [f"{10 * k}\ta" for k in range(1, 10)])
    with pytest.raises(DataError, match=r"events\.tsv: onsets 10\.\.90 fit .* both .*onset_unit"):
        trials_of(tmp_path)
    seconds = trials_of(tmp_path, EventColumns(label="trial_type", onset_unit="seconds"))
    assert np.array_equal(seconds, 2000 * np.arange(1, 10))
    rewrite(events, "onset\ttrial_type\tsample", ["1.0\ta\t200", "2.0\ta\t480"])
    with pytest.raises(DataError, match="row 2: onset 2 and sample 480 do not agree"):
        trials_of(tmp_path)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("onset\ttrial_type", ["1.5\ta", "100.0\ta"], r"row 2: onset 100\.0 is sample 20000, outside .* 20000 samples"),
        ("onset\ttrial_type", ["-1.5\ta", "10.25\ta"], r"row 1: onset -1\.5 is sample -300"),
        ("onset\ttrial_type", ["x\ta"], "row 1: onset 'x' is not a number"),
        ("onset\tkind", ["1.5\ta"], r"no column 'trial_type' \(data\.events\.label\); it has onset, kind"),
        ("start\ttrial_type", ["1.5\ta"], "no column 'onset'"),
        ("onset\ttrial_type", [], "has no rows"),
    ],
)
def test_bad_event_tables(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    rewrite(make(tmp_path) / "sub-01_task-x_events.tsv", header, rows)
    with pytest.raises(DataError, match=message) as caught:
        trials_of(tmp_path)
    assert "sub-01_task-x_events.tsv" in str(caught.value)


def test_damaged_recordings(tmp_path: Path) -> None:
    folder = make(tmp_path)
    header, data = folder / "sub-01_task-x_eeg.vhdr", folder / "sub-01_task-x_eeg.eeg"
    text, whole = header.read_text(), data.read_bytes()

    data.write_bytes(whole[:-7])
    with pytest.raises(DataError, match=r"_eeg\.eeg: truncated: 319993 bytes"):
        trials_of(tmp_path)
    data.write_bytes(whole[: len(whole) // 2])
    (folder / "sub-01_task-x_eeg.json").write_text(json.dumps({"RecordingDuration": 100.0}))
    with pytest.raises(DataError, match=r"holds 50\.000 s, its sidecar says RecordingDuration 100"):
        trials_of(tmp_path)
    data.write_bytes(whole)
    header.write_text(text.replace("DataFile=sub-01_task-x_eeg.eeg", "DataFile=old_name.eeg"))
    with pytest.raises(DataError, match=r"its DataFile is old_name\.eeg, another recording's name"):
        trials_of(tmp_path)
    header.write_text("nonsense")
    with pytest.raises(DataError, match="not a BrainVision header"):
        trials_of(tmp_path)
    header.write_text(text)
    data.unlink()
    with pytest.raises(DataError, match=r"_eeg\.eeg: the data file that .* names is not there"):
        trials_of(tmp_path)
    header.unlink()
    with pytest.raises(DataError, match="holds event tables but no recordings"):
        trials_of(tmp_path)


def test_excluded_people_are_left_out_and_said(tmp_path: Path) -> None:
    make(tmp_path)
    write_recording(tmp_path / "sub-02/eeg", "sub-02_task-x_eeg", ["Fz"], 100, 200.0)
    (tmp_path / "participants.tsv").write_text("participant_id\texclude\nsub-01\t0\nsub-02\t1\n")
    said: list[str] = []
    assert [r.person for r in find_recordings(tmp_path, DataSettings(), said.append)] == ["01"]
    assert "left out (participants.tsv says exclude): 02" in said[0]
    assert len(find_recordings(tmp_path, DataSettings(include_excluded=True), quiet)) == 2
    with pytest.raises(DataError, match=r"data\.people names 7; there are 01, 02"):
        find_recordings(tmp_path, DataSettings(people=("7",)), quiet)


@pytest.mark.parametrize("suffix", [".fif", ".edf", ".set", ".vhdr"])
def test_formats_give_the_signal_that_mne_reads(tmp_path: Path, suffix: str) -> None:
    folder = make(tmp_path)
    raw = mne.io.read_raw_brainvision(folder / "sub-01_task-x_eeg.vhdr", preload=True)
    raw.set_annotations(mne.Annotations([20.0, 60.0], [2.0, 0.0], ["BAD_muscle", "boundary"]))
    if suffix != ".vhdr":
        for path in folder.glob("*_eeg.*"):
            path.unlink()
        target = folder / f"sub-01_task-x_eeg{suffix}"
        raw.save(target) if suffix == ".fif" else mne.export.export_raw(target, raw)
    recording = find_recordings(tmp_path, DataSettings(), quiet)[0]
    opened = open_recording(recording)
    ours = opened.read(500, 900) * opened.gain_C
    theirs = mne.io.read_raw(recording.path).get_data(start=500, stop=900).T
    assert np.allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())
    assert opened.sensors.names == ("Fz", "Cz", "Pz", "Oz")
    assert np.isfinite(opened.sensors.position_C3).all()
    if suffix in (".fif", ".set"):
        assert {(s.start, s.kind) for s in opened.segments} >= {(4000, "bad"), (12_000, "boundary")}


def test_a_cleaned_derivative_takes_the_raw_events(tmp_path: Path) -> None:
    """As in ds003825: derivatives/eeglab/*.set at a lower rate, without event tables, beside events in raw samples."""
    folder = make(tmp_path)
    raw = mne.io.read_raw_brainvision(folder / "sub-01_task-x_eeg.vhdr", preload=True).resample(100.0)
    target = tmp_path / "derivatives/eeglab/sub-01_task-x_continuous.set"
    target.parent.mkdir(parents=True)
    mne.export.export_raw(target, raw)
    (folder / "sub-01_task-x_eeg.json").write_text(json.dumps({"SamplingFrequency": 200}))
    rows = [f"{s}\t0\ta" for s in np.arange(10) * 1900 + 450]
    for header, found in (("onset\tduration\ttrial_type", rows), ("onset\ttrial_type\tsample", [])):
        table = found or [f"{s / 200}\ta\t{s}" for s in np.arange(10) * 1900 + 450]
        rewrite(folder / "sub-01_task-x_events.tsv", header, table)
        recording = find_recordings(tmp_path, DataSettings(folder="derivatives/eeglab"), quiet)[0]
        opened = open_recording(recording)
        assert opened.sfreq == 100.0
        trials = read_trials(recording, LABEL, opened.n_samples, opened.sfreq, quiet).trials
        assert np.array_equal(trials["onset_sample"], np.arange(10) * 950 + 225)


def test_channels_tsv_and_bad_rows(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "sub-01_task-x_channels.tsv").write_text(
        "name\ttype\tunits\tstatus\nFz\tEEG\tuV\tgood\nCz\tEOG\tuV\tgood\nPz\tEEG\tuV\tbad\nOz\tEEG\tuV\tgood\n"
    )
    rewrite(
        folder / "sub-01_task-x_events.tsv",
        "onset\tduration\ttrial_type",
        ["1.5\t0\ta", "5.0\t2.0\tBAD_x", "9.5\t0\tb"],
    )
    recording = find_recordings(tmp_path, DataSettings(), quiet)[0]
    opened = open_recording(recording)
    assert opened.sensors.names == ("Fz", "Pz", "Oz")
    assert opened.sensors.status == ("good", "bad", "good")
    table = read_trials(recording, LABEL, opened.n_samples, opened.sfreq, quiet)
    assert list(table.trials["label"]) == ["a", "b"]
    assert table.counts["left_out"]["bad"] == 1
    assert [(s.start, s.stop) for s in table.bad] == [(1000, 1401)]


def test_only_bids_words_for_bad_make_a_bad_stretch(tmp_path: Path) -> None:
    events = make(tmp_path) / "sub-01_task-x_events.tsv"
    rewrite(events, "onset\ttrial_type", ["1.5\tbadger", "5.25\tbad", "9.5\tBAD_x"])
    assert len(trials_of(tmp_path)) == 1


def test_flags_are_zero_or_one(tmp_path: Path) -> None:
    events = make(tmp_path) / "sub-01_task-x_events.tsv"
    columns = EventColumns(label="trial_type", is_catch="catch", sequence="block", keep_catch=True)
    rewrite(events, "onset\ttrial_type\tcatch\tblock", ["1.5\ta\tyes\tb1", "5.25\ta\tFalse\tb2", "9.5\ta\tn/a\tb1"])
    recording = find_recordings(tmp_path, DataSettings(), quiet)[0]
    table = read_trials(recording, columns, 20_000, 200.0, quiet).trials
    assert list(table["is_catch"]) == [1, 0, 0]
    assert list(table["sequence"]) == [0, 1, 0]
    rewrite(events, "onset\ttrial_type\tcatch\tblock", ["1.5\ta\tmaybe\tb1"])
    with pytest.raises(DataError, match="row 1: catch is 'maybe'; a flag must be 0 or 1"):
        read_trials(recording, columns, 20_000, 200.0, quiet)


def test_real_headers(real: Path) -> None:
    for path in sorted((real / "brainvision").glob("*.vhdr")):
        raw = mne.io.read_raw_brainvision(path)
        samples_TC = mapped(path, raw)
        if samples_TC is not None:
            theirs = raw.get_data().T
            assert np.array_equal(samples_TC.astype(float) * raw._cals, theirs), path
