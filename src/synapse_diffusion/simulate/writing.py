"""The files of a simulated study: recordings with their tables, and what describes the data set."""

from __future__ import annotations

import datetime
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
import pandas as pd
import pybv
from numpy.typing import NDArray

from synapse_diffusion.config import SimulateSettings
from synapse_diffusion.simulate.schedule import Recording
from synapse_diffusion.simulate.sensors import LANDMARKS, REFERENCE, Sensors
from synapse_diffusion.simulate.stimuli import Stimuli

BODY: Final = {"EOG001": "EOG", "ECG001": "ECG"}
DATE: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
ID_STRUCT: Final = 31  # FIFF's type of an id: version, machine, machine, seconds, microseconds
TABLES: Final = ("things_concepts.tsv", "category_mat_manual.tsv", "things_images.csv")
COLUMNS: Final = {
    "eeg": (
        "rsvp",
        {
            "duration": "event duration in ms",
            "isteststim": "1: one of the repeated test images at the end",
            "stim": "stimulus path; folder: concept",
            "sample": "onset in samples",
        },
    ),
    "meg": (
        "main",
        {
            "duration": "event duration in s",
            "trial_type": "exp: main picture; test: repeated picture; catch: artificial picture, to respond to",
            "things_category_nr": "row of the picture's concept in things_concepts.tsv, from 1",
            "value": "image_nr of the picture in things_images.csv",
            "sample": "onset in samples",
        },
    ),
}


def write_eeg(
    root: Path,
    person: str,
    recording: Recording,
    signal_CT: NDArray[np.float32],
    body_PT: NDArray[np.float32],
    sensors: Sensors,
    stimuli: Stimuli,
    settings: SimulateSettings,
) -> None:
    """A BrainVision recording (V) in the form of ds003825 v1.2.0."""
    del body_PT  # that study has no such channels
    folder, stem, names = root / f"sub-{person}" / "eeg", f"sub-{person}_task-rsvp", sensors.names
    folder.mkdir(parents=True)
    pybv.write_brainvision(
        data=signal_CT, sfreq=settings.sfreq, ch_names=names, ref_ch_names=REFERENCE, fname_base=f"{stem}_eeg",
        folder_out=str(folder), resolution=0.1, unit="µV", fmt="binary_float32",
    )  # fmt: skip
    _stream_events(recording.trials, stimuli, settings).to_csv(folder / f"{stem}_events.tsv", sep="\t", index=False)
    about = {
        "TaskName": "rsvp",
        "SamplingFrequency": settings.sfreq,
        "PowerLineFrequency": settings.mains_hz,
        "EEGReference": REFERENCE,
        "EEGChannelCount": len(names),
        "RecordingDuration": signal_CT.shape[1] / settings.sfreq,
        "SoftwareFilters": "n/a",
    }
    _write_json(folder / f"{stem}_eeg.json", about)
    channels = pd.DataFrame({"name": names, "type": "EEG", "units": "µV", "status": "good"})
    channels.to_csv(folder / f"{stem}_channels.tsv", sep="\t", index=False)


def _stream_events(trials: pd.DataFrame, stimuli: Stimuli, settings: SimulateSettings) -> pd.DataFrame:
    """The columns of ds003825 v1.2.0, in its order and with its habits (-1 for the object of a test row)."""
    table = stimuli.table.iloc[trials["image"].to_numpy()].reset_index(drop=True)
    concepts = sorted(stimuli.table["concept"].unique())
    number = table["concept"].map({name: k for k, name in enumerate(concepts)})
    test = table["is_test"] == 1
    within = stimuli.table.groupby("concept").cumcount().iloc[trials["image"].to_numpy()].reset_index(drop=True)
    test_ids = {image: k for k, image in enumerate(stimuli.table.loc[stimuli.table["is_test"] == 1, "image_id"])}
    seconds = trials["sample"] / settings.sfreq
    return pd.DataFrame(
        {
            "onset": seconds.round(6),
            "duration": round(settings.duration_s * 1000),
            "eventnumber": np.arange(len(trials)),
            "blocksequencenumber": np.where(test, -1, trials["sequence"] % 12),
            "isteststim": test.astype(int),
            "object": table["concept"].where(~test, "-1"),
            "objectnumber": number.where(~test, -1),
            "presentationnumber": trials["position"],
            "sequencenumber": trials["sequence"],
            "stim": [f"stimuli\\{file.replace('/', chr(92))}" for file in table["file"]],
            "stimnumber": within.where(~test, -1),
            "teststimnumber": table["image_id"].map(test_ids).fillna(-1).astype(int),
            "withinsequencenumber": np.where(test, -1, trials["position"]),
            "istarget": trials["target"],
            "stimname": [Path(file).name for file in table["file"]],
            "response": 0,
            "rt": 0.0,
            "correct": 0,
            "time_stimon": seconds.round(6),
            "time_stimoff": (seconds + settings.duration_s).round(6),
            "stimdur": settings.duration_s,
            "sample": trials["sample"],
        }
    )


def write_meg(
    root: Path,
    person: str,
    recording: Recording,
    signal_CT: NDArray[np.float32],
    body_PT: NDArray[np.float32],
    sensors: Sensors,
    stimuli: Stimuli,
    settings: SimulateSettings,
) -> None:
    """A FIF recording (T; EOG and ECG in V) with the tables of ds004212."""
    stem = f"sub-{person}_ses-{recording.session}"
    folder, run = root / f"sub-{person}" / f"ses-{recording.session}" / "meg", f"task-main_run-{recording.run}"
    folder.mkdir(parents=True, exist_ok=True)
    info = mne.create_info([*sensors.names, *BODY], settings.sfreq, ["mag"] * len(signal_CT) + ["eog", "ecg"])
    for channel, known in zip(info["chs"], sensors.info["chs"], strict=False):
        channel["coil_type"], channel["loc"] = known["coil_type"], known["loc"]
    info["dev_head_t"], info["line_freq"] = sensors.info["dev_head_t"], settings.mains_hz
    info.set_montage(mne.channels.make_dig_montage(**LANDMARKS, coord_frame="head"), verbose="error")
    info.set_meas_date(DATE)
    raw = mne.io.RawArray(np.concatenate([signal_CT, body_PT], dtype=float), info, copy=None, verbose="error")
    path = folder / f"{stem}_{run}_meg.fif"
    raw.save(path, fmt="single", verbose="error")
    _fix_ids(path)
    events = _picture_events(recording.trials, stimuli, settings)
    events.to_csv(folder / f"{stem}_{run}_events.tsv", sep="\t", index=False)
    about = {
        "TaskName": "main",
        "Manufacturer": "n/a",
        "PowerLineFrequency": settings.mains_hz,
        "SamplingFrequency": settings.sfreq,
        "SoftwareFilters": "n/a",
        "RecordingDuration": recording.n_samples / settings.sfreq,
        "RecordingType": "continuous",
        "DewarPosition": "upright",
        "DigitizedLandmarks": True,
        "DigitizedHeadPoints": False,
        "MEGChannelCount": len(signal_CT),
        "MEGREFChannelCount": 0,
        "EEGChannelCount": 0,
        "EOGChannelCount": 1,
        "ECGChannelCount": 1,
        "EMGChannelCount": 0,
        "MiscChannelCount": 0,
        "TriggerChannelCount": 0,
    }
    _write_json(folder / f"{stem}_{run}_meg.json", about)
    channels = pd.DataFrame(
        {
            "name": info["ch_names"],
            "type": ["MEGGRADAXIAL"] * len(signal_CT) + list(BODY.values()),
            "units": ["T"] * len(signal_CT) + ["V"] * len(BODY),
            "low_cutoff": 0.0,
            "high_cutoff": settings.sfreq / 2,
            "description": ["Axial Gradiometer"] * len(signal_CT) + ["Electrooculogram", "Electrocardiogram"],
            "sampling_frequency": settings.sfreq,
            "status": "good",
        }
    )
    channels.to_csv(folder / f"{stem}_{run}_channels.tsv", sep="\t", index=False)
    system = {
        "MEGCoordinateSystem": "ElektaNeuromag",
        "MEGCoordinateUnits": "m",
        "AnatomicalLandmarkCoordinates": dict(zip(("NAS", "LPA", "RPA"), LANDMARKS.values(), strict=True)),
        "AnatomicalLandmarkCoordinateSystem": "ElektaNeuromag",
        "AnatomicalLandmarkCoordinateUnits": "m",
    }
    _write_json(folder / f"{stem}_coordsystem.json", system)


def _fix_ids(path: Path) -> None:
    """Overwrite the ids of a FIF file, which name this machine and the time: equal settings, equal bytes."""
    with path.open("r+b") as file:
        while header := file.read(16):
            _, kind, size, _ = struct.unpack(">4i", header)
            if kind == ID_STRUCT:
                file.write(struct.pack(">5i", 0x10004, 0, 0, int(DATE.timestamp()), 0))  # FIFF 1.4
            else:
                file.seek(size, 1)


def image_numbers(stimuli: Stimuli) -> pd.DataFrame:
    """The study's `things_images.csv`: its pictures numbered from 1 by concept, then file name; index: row there."""
    table = stimuli.table[["concept"]].assign(file=[Path(file).name for file in stimuli.table["file"]])
    table = table.sort_values(["concept", "file"])
    return pd.DataFrame(
        {
            "image_nr": np.arange(1, len(table) + 1),
            "file_name": table["file"],
            "uniqueID": table["concept"],
            "concept_nr": table["concept"].rank(method="dense").astype(int),
        }
    )


def _picture_events(trials: pd.DataFrame, stimuli: Stimuli, settings: SimulateSettings) -> pd.DataFrame:
    """The columns of ds004212, numbers written as it writes them (`24812.0`, `N/A` in catch trials)."""
    row = trials["image"].to_numpy()
    catch = row == len(stimuli.table)
    numbers = image_numbers(stimuli).sort_index().iloc[np.where(catch, 0, row)]
    is_test = stimuli.table["is_test"].to_numpy()[np.where(catch, 0, row)] == 1

    def text(column: str) -> list[str]:
        return ["N/A" if absent else f"{number:.1f}" for number, absent in zip(numbers[column], catch, strict=True)]

    return pd.DataFrame(
        {
            "onset": trials["sample"] / settings.sfreq,
            "duration": settings.duration_s,
            "trial_type": np.select([catch, is_test], ["catch", "test"], "exp"),
            "things_category_nr": text("concept_nr"),
            "value": text("image_nr"),
            "sample": trials["sample"],
        }
    )


def write_dataset(root: Path, modality: str, people: list[str], stimuli: Stimuli, preset: str, digest: str) -> None:
    """What describes the data set: people, concepts, pictures and columns."""
    concepts = stimuli.table.drop_duplicates("concept").sort_values("concept")
    concepts[["concept"]].rename(columns={"concept": "uniqueID"}).to_csv(root / TABLES[0], sep="\t", index=False)
    pd.get_dummies(concepts["category"]).astype(int).to_csv(root / TABLES[1], sep="\t", index=False)
    image_numbers(stimuli).to_csv(root / TABLES[2], index=False)
    names = [f"sub-{person}" for person in people]
    pd.DataFrame({"participant_id": names, "exclude": 0}).to_csv(root / "participants.tsv", sep="\t", index=False)
    _write_json(
        root / "dataset_description.json",
        {
            "Name": f"Simulated {modality.upper()} study ({preset} signal-to-noise ratio)",
            "BIDSVersion": "1.8.0",
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["synapse-diffusion simulate"],
            "GeneratedBy": [{"Name": "synapse-diffusion", "Digest": digest}],
        },
    )
    (root / ".bidsignore").write_text("".join(f"{name}\n" for name in TABLES))
    task, about = COLUMNS[modality]
    _write_json(root / f"task-{task}_events.json", {name: {"Description": text} for name, text in about.items()})


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
