"""Stimuli, RSVP sequences, recordings and truth, written as a BIDS data set in the form of ds003825 v1.2.0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pybv
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

from synapse_diffusion.bids.truth import PersonTruth, write_truth
from synapse_diffusion.config import Recipe, SimulateSettings
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.errors import DataError, MissingError
from synapse_diffusion.simulate import brain
from synapse_diffusion.simulate.pictures import CATEGORIES, draw_picture
from synapse_diffusion.types import Progress, Say

AMPLITUDE_V: Final = {"realistic": (0.9e-6, 0.6e-6, 0.45e-6), "demo": (1.6e-6, 1.4e-6, 1.7e-6)}
"""Root mean square over pictures and sensors of each stage's peak (early, middle, late), in V.

`realistic` gives single-trial scores near those of published recordings (see docs/simulation.md)."""
BRAIN_NOISE_V: Final = 8e-6
SENSOR_NOISE_V: Final = 1e-6
CORNER_HZ: Final = 1.5
ALPHA: Final = 3.0
MAINS_V: Final = 2e-6
DRIFT_V: Final = 3e-6  # per square root of a second
BLINK_V: Final = 80e-6
BLINKS_HZ: Final = 0.2
BLINK_WIDTH_S: Final = 0.06
BLINK_SPREAD: Final = 0.3  # standard deviation of the log amplitude
REST_S: Final = (2.0, 3.0)  # between sequences
LEAD_S: Final = 5.0
TARGETS: Final = 2  # fixation changes a sequence: flagged, as in the real study
RESPONSE_S: Final = 0.7  # a response has died out by then


@dataclass(frozen=True)
class Stimuli:
    """The pictures of a study: one row each, and where their files lie."""

    table: pd.DataFrame
    """image_id, file, concept, category, is_test."""
    early_NF: NDArray[np.float64]
    middle_NF: NDArray[np.float64]


def simulate(recipe: Recipe, say: Say, progress: Progress) -> Path:
    """Write the study to `paths.bids`; does nothing if the same one is there. Returns the folder.

    Raises `DataError` if something else is there, `MissingError` if the disk is full.
    """
    settings, root = recipe.simulate, Path(recipe.paths.bids)
    digest = digest_of({**settings.model_dump(mode="json"), "stimuli": recipe.paths.stimuli})
    if root.exists():
        if _digest_of_study(root) == digest:
            say(f"{root}: this study is simulated already")
            return root
        raise DataError(f"{root}: holds another study or other files; remove it or set paths.bids to a new folder")
    draft = root.with_name(f".{root.name}.unfinished")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        stimuli = _stimuli(draft, settings, recipe.paths.stimuli, progress)
        rng = np.random.default_rng([settings.seed, 1])
        table = stimuli.table
        late = brain.late_features(list(table["category"]), list(table["concept"]), list(table["image_id"]), rng)
        mixing = rng.standard_normal((stimuli.middle_NF.shape[1], brain.N_SOURCES["middle"]))
        for k in range(settings.people):
            progress("recording", k, settings.people)
            _record(draft, f"{k + 1:02d}", stimuli, mixing, late, settings)
        progress("recording", settings.people, settings.people)
        _write_dataset(draft, stimuli, settings, digest)
        draft.rename(root)
    except OSError as error:
        raise MissingError(f"{root}: cannot be written: {error.strerror}; free some space or set paths.bids") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    say(f"{root}: {len(table)} pictures of {table['concept'].nunique()} concepts, {settings.people} people")
    return root


def _digest_of_study(root: Path) -> str | None:
    try:
        about = json.loads((root / "dataset_description.json").read_text())
        return str(about["GeneratedBy"][0]["Digest"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _stimuli(root: Path, settings: SimulateSettings, folder: str, progress: Progress) -> Stimuli:
    rows, early, middle = [], [], []
    for file, concept, category, is_test, load in _pictures(settings, folder):
        picture = load()
        path = root / "stimuli" / concept / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=95)
        rows.append((Path(file).stem, f"{concept}/{file}", concept, category, is_test))
        features = brain.image_features(picture)
        early.append(features[0])
        middle.append(features[1])
        if len(rows) % 100 == 0:
            progress("drawing pictures", len(rows), 0)
    table = pd.DataFrame(rows, columns=["image_id", "file", "concept", "category", "is_test"])
    return Stimuli(table, _standard(np.stack(early)), _standard(np.stack(middle)))


def _pictures(
    settings: SimulateSettings, folder: str
) -> list[tuple[str, str, str, int, Callable[[], NDArray[np.uint8]]]]:
    """(file, concept, category, is_test, how to get it) of each picture.

    The last concepts of each category have test pictures beside those of the main part.
    """
    if not folder:
        unknown = [name for name in settings.categories if name not in CATEGORIES]
        if unknown:
            raise DataError(
                f"simulate.categories: no drawings of {', '.join(unknown)}; there are {', '.join(CATEGORIES)}"
            )
        chosen = settings.categories or tuple(CATEGORIES)
        return [
            (
                f"{concept}_{k + 1:02d}s.jpg",
                concept,
                category,
                int(k >= settings.exemplars),
                partial(draw_picture, concept, k, settings.seed, settings.picture_size),
            )
            for category in chosen
            for at, concept in enumerate(CATEGORIES[category])
            for k in range(
                settings.exemplars + settings.test_images * (at >= len(CATEGORIES[category]) - settings.test_concepts)
            )
        ]
    path = Path(folder) / "concepts.tsv"
    if not path.exists():
        raise DataError(f"{path}: not there; a stimulus folder needs concepts.tsv with file, concept, category")
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    if missing := [name for name in ("file", "concept", "category") if name not in table]:
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    found: list[tuple[str, str, str, int, Callable[[], NDArray[np.uint8]]]] = []
    for concept, group in table.groupby("concept", sort=True):
        files = list(group["file"])
        n_test = min(settings.test_images, len(files) - 1)
        for k, file in enumerate(files):
            is_test = int(k >= len(files) - n_test)
            category = str(group["category"].iloc[0])
            picture = Path(folder) / file
            load = partial(_load_picture, picture, settings.picture_size)
            found.append((Path(file).name, str(concept), category, is_test, load))
    return found


def _load_picture(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        return np.asarray(Image.open(path).convert("RGB").resize((size, size)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}") from None


def _standard(features: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((features - features.mean(0)) / (features.std(0) + 1e-9))


def _record(
    root: Path,
    person: str,
    stimuli: Stimuli,
    mixing: NDArray[np.float64],
    late_NS: NDArray[np.float64],
    settings: SimulateSettings,
) -> None:
    """One person's recording: sequences, signal, event table, truth."""
    rng = np.random.default_rng([settings.seed, 2, int(person)])
    names = brain.electrodes(settings.channels)
    anatomy = brain.grow_anatomy(names, rng)
    middle_NS = _standard(stimuli.middle_NF @ mixing)
    patterns = np.stack(
        [
            stimuli.early_NF @ anatomy.gain_early.T,
            middle_NS @ anatomy.gain_middle.T,
            late_NS @ anatomy.gain_late.T,
        ]
    )
    # a response shared by all pictures: the evoked potential that a reader of EEG expects to see
    patterns += 1.0 * patterns.std(axis=1, keepdims=True) * np.sign(rng.standard_normal((3, 1, len(names))))
    scale = np.array(AMPLITUDE_V[settings.preset]) / np.sqrt(patterns.var(axis=1).mean(axis=1))
    gain = np.exp(0.15 * rng.standard_normal())  # skull and cap: one factor a person
    patterns *= (gain * scale)[:, None, None]
    trials, n_samples = _schedule(stimuli, settings, rng)
    shift_N = rng.standard_normal(len(trials))
    gain_NS = 1.0 + brain.GAIN_SD * rng.standard_normal((len(trials), 3))
    signal_CT = _noise(anatomy, n_samples, settings, rng)
    _add_responses(signal_CT, trials, patterns, shift_N, gain_NS, anatomy, settings)
    truth = PersonTruth(
        images=tuple(stimuli.table["image_id"]),
        concepts=tuple(stimuli.table["concept"]),
        categories=tuple(stimuli.table["category"]),
        sensors=tuple(names),
        pattern_SNC=patterns,
        latency_S=anatomy.latency_S,
        width_S=brain.WIDTH_S,
        latency_sd_S=brain.LATENCY_SD_S,
        gain_sd_S=brain.GAIN_SD,
        noise_MCC=np.stack(
            [anatomy.noise_covariance_CC, np.eye(len(names)), np.outer(anatomy.blink_C, anatomy.blink_C)]
        ),
        noise_power_MF=_noise_powers(settings.sfreq),
        frequency_F=_frequencies(settings.sfreq),
        onset_distance_s=settings.onset_distance_s,
    )
    drawn = pd.DataFrame(gain_NS, columns=["gain_early", "gain_middle", "gain_late"])
    drawn.insert(0, "shift", shift_N)
    drawn.insert(0, "eventnumber", np.arange(len(trials)))
    write_truth(root, person, truth, drawn)
    _write_recording(root, person, signal_CT, names, trials, stimuli, settings)


def _schedule(stimuli: Stimuli, settings: SimulateSettings, rng: np.random.Generator) -> tuple[pd.DataFrame, int]:
    """RSVP sequences in random order, the test images last, as in the real study; and the recording's length."""
    is_test = stimuli.table["is_test"].to_numpy() == 1
    distance = round(settings.onset_distance_s * settings.sfreq)
    at, sequence, rows = LEAD_S * settings.sfreq, 0, []
    for part, repeats in ((~is_test, settings.main_repeats), (is_test, settings.test_repeats)):
        shown = np.concatenate([rng.permutation(np.flatnonzero(part)) for _ in range(repeats)])
        for start in range(0, len(shown), settings.sequence_length):
            images = shown[start : start + settings.sequence_length]
            targets = rng.choice(len(images), min(TARGETS, len(images)), replace=False)
            for k, image in enumerate(images):
                rows.append((round(at) + k * distance, image, sequence, k, int(k in targets)))
            at += len(images) * distance + rng.uniform(*REST_S) * settings.sfreq
            sequence += 1
    trials = pd.DataFrame(rows, columns=["sample", "image", "sequence", "position", "target"])
    return trials, round(at + LEAD_S * settings.sfreq)


def _noise(
    anatomy: brain.Anatomy, n_samples: int, settings: SimulateSettings, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Brain noise (spatially correlated, 1/f with an alpha peak), sensor noise, mains hum, drift, blinks; in V."""
    n_sensors, sfreq = len(anatomy.blink_C), settings.sfreq
    n_fft = fft.next_fast_len(n_samples, real=True)
    shape = np.sqrt(_noise_spectrum(fft.rfftfreq(n_fft, 1 / sfreq))).astype(np.float32)
    shape /= np.sqrt((shape[1:] ** 2).mean())
    white = rng.standard_normal((n_sensors, n_fft), dtype=np.float32)
    coloured = fft.irfft(fft.rfft(white) * shape, n_fft)[:, :n_samples]
    root = np.linalg.cholesky(anatomy.noise_covariance_CC + 1e-9 * np.eye(n_sensors)).astype(np.float32)
    signal_CT = (np.float32(BRAIN_NOISE_V) * root) @ coloured
    signal_CT += np.float32(SENSOR_NOISE_V) * rng.standard_normal(signal_CT.shape, dtype=np.float32)
    t = np.arange(n_samples) / sfreq
    hum = np.sin(2 * np.pi * settings.mains_hz * t) + 0.3 * np.sin(2 * np.pi * 3 * settings.mains_hz * t)
    signal_CT += np.outer(MAINS_V * rng.lognormal(0, 0.4, n_sensors), hum).astype(np.float32)
    steps = rng.standard_normal((n_sensors, n_samples // 50 + 2)) * DRIFT_V * np.sqrt(50 / sfreq)
    coarse = np.cumsum(steps, axis=1) + 2e-3 * rng.standard_normal((n_sensors, 1))
    knots = np.arange(coarse.shape[1]) * 50
    for c in range(n_sensors):
        signal_CT[c] += np.interp(np.arange(n_samples), knots, coarse[c]).astype(np.float32)
    blink = np.exp(-0.5 * ((np.arange(round(0.5 * sfreq)) / sfreq - 0.2) / BLINK_WIDTH_S) ** 2)
    for start in rng.integers(0, n_samples - len(blink), round(BLINKS_HZ * n_samples / sfreq)):
        strength = BLINK_V * rng.lognormal(0, BLINK_SPREAD)
        signal_CT[:, start : start + len(blink)] += np.outer(anatomy.blink_C * strength, blink).astype(np.float32)
    return signal_CT


def _frequencies(sfreq: float) -> NDArray[np.float64]:
    return np.asarray(np.arange(0.05, sfreq / 2, 0.05))


def _noise_powers(sfreq: float) -> NDArray[np.float64]:
    """One-sided spectra (3, F) in V^2/Hz of brain noise, of sensor noise with drift, and of blinks."""
    f = _frequencies(sfreq)
    brain = _noise_spectrum(f)
    brain *= BRAIN_NOISE_V**2 / (brain.sum() * (f[1] - f[0]))
    sensor = SENSOR_NOISE_V**2 / (sfreq / 2) + DRIFT_V**2 / (2 * np.pi**2 * f**2)
    kernel = BLINK_WIDTH_S * np.sqrt(2 * np.pi) * np.exp(-0.5 * (2 * np.pi * f * BLINK_WIDTH_S) ** 2)
    blink = 2 * BLINKS_HZ * BLINK_V**2 * np.exp(2 * BLINK_SPREAD**2) * kernel**2
    return np.stack([brain, sensor, blink])


def _noise_spectrum(frequency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of brain noise at `frequency` (Hz), in arbitrary units: 1/f above a corner, and an alpha peak."""
    pink = 1.0 / (1.0 + frequency / CORNER_HZ)
    at_ten = 1.0 / (1.0 + 10.0 / CORNER_HZ)
    return np.asarray(pink + ALPHA * at_ten * np.exp(-0.5 * ((frequency - 10.0) / 1.0) ** 2))


def _add_responses(
    signal_CT: NDArray[np.float32],
    trials: pd.DataFrame,
    patterns_SNC: NDArray[np.float64],
    shift_N: NDArray[np.float64],
    gain_NS: NDArray[np.float64],
    anatomy: brain.Anatomy,
    settings: SimulateSettings,
) -> None:
    """Add each trial's response, overlapping those of its neighbours."""
    times = np.arange(round(RESPONSE_S * settings.sfreq)) / settings.sfreq
    images = trials["image"].to_numpy()
    patterns = patterns_SNC.astype(np.float32)
    for k, sample in enumerate(trials["sample"]):
        latency = anatomy.latency_S + brain.LATENCY_SD_S * shift_N[k]
        kernel_ST = np.exp(-0.5 * ((times - latency[:, None]) / brain.WIDTH_S[:, None]) ** 2) * gain_NS[k][:, None]
        signal_CT[:, sample : sample + len(times)] += patterns[:, images[k]].T @ kernel_ST.astype(np.float32)


def _write_recording(
    root: Path,
    person: str,
    signal_CT: NDArray[np.float32],
    names: list[str],
    trials: pd.DataFrame,
    stimuli: Stimuli,
    settings: SimulateSettings,
) -> None:
    folder = root / f"sub-{person}" / "eeg"
    stem = f"sub-{person}_task-rsvp"
    folder.mkdir(parents=True)
    pybv.write_brainvision(
        data=signal_CT, sfreq=settings.sfreq, ch_names=names, ref_ch_names=brain.REFERENCE, fname_base=f"{stem}_eeg",
        folder_out=str(folder), resolution=0.1, unit="µV", fmt="binary_float32",
    )  # fmt: skip
    _events(trials, stimuli, settings).to_csv(folder / f"{stem}_events.tsv", sep="\t", index=False)
    about = {
        "TaskName": "rsvp",
        "SamplingFrequency": settings.sfreq,
        "PowerLineFrequency": settings.mains_hz,
        "EEGReference": brain.REFERENCE,
        "EEGChannelCount": len(names),
        "RecordingDuration": signal_CT.shape[1] / settings.sfreq,
        "SoftwareFilters": "n/a",
    }
    _write_json(folder / f"{stem}_eeg.json", about)
    channels = pd.DataFrame({"name": names, "type": "EEG", "units": "µV", "status": "good"})
    channels.to_csv(folder / f"{stem}_channels.tsv", sep="\t", index=False)


def _events(trials: pd.DataFrame, stimuli: Stimuli, settings: SimulateSettings) -> pd.DataFrame:
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


def _write_dataset(root: Path, stimuli: Stimuli, settings: SimulateSettings, digest: str) -> None:
    concepts = stimuli.table.drop_duplicates("concept").sort_values("concept")
    concepts[["concept"]].rename(columns={"concept": "uniqueID"}).to_csv(
        root / "things_concepts.tsv", sep="\t", index=False
    )
    matrix = pd.get_dummies(concepts["category"]).astype(int)
    matrix.to_csv(root / "category_mat_manual.tsv", sep="\t", index=False)
    people = [f"sub-{k + 1:02d}" for k in range(settings.people)]
    pd.DataFrame({"participant_id": people, "exclude": 0}).to_csv(root / "participants.tsv", sep="\t", index=False)
    _write_json(
        root / "dataset_description.json",
        {
            "Name": f"Simulated RSVP study ({settings.preset} signal-to-noise ratio)",
            "BIDSVersion": "1.8.0",
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["synapse-diffusion simulate"],
            "GeneratedBy": [{"Name": "synapse-diffusion", "Digest": digest}],
        },
    )
    (root / ".bidsignore").write_text("things_concepts.tsv\ncategory_mat_manual.tsv\n")
    _write_json(
        root / "task-rsvp_events.json",
        {
            "duration": {"Description": "event duration in ms"},
            "isteststim": {"Description": "1: one of the repeated test images at the end"},
            "stim": {"Description": "stimulus path; folder: concept"},
            "sample": {"Description": "onset in samples"},
        },
    )


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
