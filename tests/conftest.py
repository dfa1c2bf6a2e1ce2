"""Small studies in the real format, made once a session; the real data where they are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.convert import convert, convert_pairs
from synapse_diffusion.embed import embed
from synapse_diffusion.runs import Run
from synapse_diffusion.simulate import simulate
from synapse_diffusion.store.embeddings import EmbeddingTable, true_rows, write_embeddings
from synapse_diffusion.store.files import draft_store
from synapse_diffusion.train import train
from synapse_diffusion.types import Segment, SensorArray

TEN_TWENTY = [
    "Fp1", "Fp2", "F3", "F4", "F7", "F8", "Fz", "C3", "C4", "Cz", "T7", "T8", "P3", "P4", "P7", "P8", "Pz", "O1", "O2",
    "Oz",
]  # fmt: skip
REAL = Path(__file__).parents[2] / "shared/data"

SMALL: dict[str, Any] = {
    "data": {
        "name": "small",
        "events": {
            "image": "stim", "is_test": "isteststim", "is_target": "istarget", "sequence": "sequencenumber",
            "duration_unit": "milliseconds",
        },
    },
    "simulate": {
        "preset": "demo", "people": 2, "categories": ["animal", "fruit", "vehicle"], "exemplars": 12, "main_repeats": 2,
        "test_repeats": 4, "sequence_length": 40, "channels": 16, "sfreq": 200.0, "picture_size": 32,
    },
    "convert": {"lowpass_hz": 30.0, "sfreq": 100.0},
    "view": {"stop_s": 0.5},
    "labels": {"classes": ["animal", "fruit", "vehicle"]},
    "split": {"test": "dataset", "validation_concepts": 0.25},
    "train": {"steps": 60, "checks": 6},
    "evaluate": {"permutations": 50, "bootstrap": 50, "maps": False},
    "execution": {"checkpoint_minutes": 0.0},
}  # fmt: skip

SMALL_MEG: dict[str, Any] = {
    **SMALL,
    "data": {
        "modality": "meg", "name": "small-meg",
        "events": {
            "image_number": "value", "concept_number": "things_category_nr", "is_test": "trial_type=test",
            "is_catch": "trial_type=catch",
        },
    },
    "simulate": {
        **SMALL["simulate"], "channels": 40, "people": 1, "main_repeats": 1, "onset_distance_s": 0.7, "duration_s": 0.5,
        "onset_jitter_s": 0.1, "catch_share": 0.1, "sessions": 2, "runs": 2, "sfreq": 300.0,
    },
    "split": {**SMALL["split"], "validation_sequences": 0.0, "test_sequences": 0.0},
    "execution": {"workers": 1, "checkpoint_minutes": 0.0},
}  # fmt: skip


FEW = ("train.steps=40", "train.checks=4", "evaluate.k_repeats=[1, 0]")
RETRIEVE = ("target.task=retrieve", "target.table=truth", *FEW)


def quiet(*_: object) -> None:
    """For `say` and `progress`."""


@pytest.fixture(scope="session")
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"the real recordings and tables are not at {REAL}")
    return REAL


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bids/, stores/ and runs/ of a small simulated study, converted."""
    folder = tmp_path_factory.mktemp("study")
    recipe = small(folder)
    simulate(recipe, quiet, quiet)
    convert(recipe, quiet, quiet)
    return folder


@pytest.fixture(scope="session")
def meg_study(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bids-meg/ and its stores, and beside them those of the EEG study."""
    folder = tmp_path_factory.mktemp("meg")
    (folder / "stores").mkdir()
    for name in ("bids", "stores/small"):
        (folder / name).symlink_to(study / name)
    recipe = small_meg(folder)
    simulate(recipe, quiet, quiet)
    convert(recipe, quiet, quiet)
    return folder


@pytest.fixture(scope="session")
def both(meg_study: Path) -> Path:
    """EEG and MEG stores, their index, and a table of vectors that the responses do hold: what was simulated."""
    recipe = small(meg_study)
    convert_pairs(small_pairs(meg_study), quiet)
    shown = pd.read_csv(meg_study / "bids/derivatives/truth/sub-01_images.tsv", sep="\t", dtype=str)
    _, gist = embed(recipe, quiet, quiet)
    vectors = {
        "kind": np.stack([_one_of(c, sorted(set(shown["category"]))) for c in shown["category"]]).astype(np.float32),
        "look": gist.select(list(shown["image_id"])).vectors["both"],
    }
    table = EmbeddingTable(true_rows(list(shown["image_id"]), list(shown["concept"])), vectors, {"kind": "hand"})
    write_embeddings(table, meg_study / "embeddings/truth")
    return meg_study


def _one_of(name: str, names: list[str]) -> NDArray[np.float64]:
    return np.asarray(
        np.eye(len(names))[names.index(name)] + 0.01 * np.random.default_rng(0).standard_normal(len(names))
    )


@pytest.fixture(scope="session")
def trained(study: Path) -> Run:
    """A small run on that study."""
    return train(small(study), "small", "test", quiet, quiet)


def predictions(run: Run) -> bytes:
    """What its decoders say to validation."""
    return (run.folder / "predictions/validation.tsv").read_bytes()


def scored(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if row.items() >= {"split": "test", "person": "all", **wanted}.items()]


def small(folder: Path, *overrides: str) -> Recipe:
    """The small study's recipe."""
    names = ("bids", "stores", "runs", "embeddings")
    return parse_recipe({**SMALL, "paths": {name: str(folder / name) for name in names}}, overrides)


def small_meg(folder: Path, *overrides: str) -> Recipe:
    """The small study's pictures shown to other people in a MEG."""
    paths = {"bids": str(folder / "bids-meg"), "stores": str(folder / "stores"), "runs": str(folder / "runs")}
    return parse_recipe({**SMALL_MEG, "paths": paths}, overrides)


def small_pairs(folder: Path, *overrides: str) -> Recipe:
    """Both, paired by image."""
    names = ("bids", "stores", "runs", "embeddings")
    tree = {name: value for name, value in SMALL.items() if name != "simulate"}
    tree |= {"data": {"modality": "comb", "name": "pairs"}, "pairs": {"eeg": "small", "meg": "small-meg"}}
    return parse_recipe({**tree, "paths": {name: str(folder / name) for name in names}}, overrides)


def write_recording(
    folder: Path,
    stem: str,
    names: list[str],
    n_samples: int,
    sfreq: float,
    fill: Callable[[NDArray[np.float32]], None] | None = None,
) -> Path:
    """A BrainVision recording (float32, resolution 0.1 uV) of any size; `fill` gets it as a (T, C) map, in uV."""
    folder.mkdir(parents=True, exist_ok=True)
    channels = "".join(f"Ch{k + 1}={name},,0.1,µV\n" for k, name in enumerate(names))
    (folder / f"{stem}.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem}.eeg\nMarkerFile={stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(names)}\nSamplingInterval={1e6 / sfreq:g}\n\n[Binary Infos]\n"
        f"BinaryFormat=IEEE_FLOAT_32\n\n[Channel Infos]\n{channels}",
        encoding="utf-8",
    )
    (folder / f"{stem}.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={stem}.eeg\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101000000000000\n",
        encoding="utf-8",
    )
    data: NDArray[np.float32] = np.memmap(folder / f"{stem}.eeg", "<f4", "w+", shape=(n_samples, len(names)))
    if fill is not None:
        fill(data)
        for start in range(0, n_samples, 100_000):  # to units of the header's resolution
            data[start : start + 100_000] /= np.float32(0.1)
    return folder / f"{stem}.vhdr"


def write_events(folder: Path, stem: str, onset_s: NDArray[np.floating], labels: list[str]) -> Path:
    """events.tsv with onset, duration and trial_type."""
    path = folder / f"{stem}_events.tsv"
    rows = "".join(f"{onset:.6f}\t0.1\t{label}\n" for onset, label in zip(onset_s, labels, strict=True))
    path.write_text("onset\tduration\ttrial_type\n" + rows)
    return path


def write_store(
    folder: Path,
    kinds: dict[str, int],
    *,
    labels: Sequence[str] = ("a", "b"),
    bad: Sequence[str] = (),
    segments: Sequence[Segment] = (),
    n_samples: int = 6000,
    onset_distance: int = 100,
    known: bool = True,
) -> Path:
    """A store at 100 Hz by hand: sensors on half a sphere, a response at 120 ms that falls off from front to back.

    Planar gradiometers lie in pairs; units V, T, T/m.
    """
    rng = np.random.default_rng(0)
    names = [f"{kind.upper()}{k:03d}" for kind, n in kinds.items() for k in range(n)]
    kind_C = [kind for kind, n in kinds.items() for _ in range(n)]
    places = []
    for kind, n in kinds.items():
        k = np.arange(n) // (2 if kind == "grad" else 1) + 0.5
        z = k / k.max()
        angle, width = k * np.pi * (3 - np.sqrt(5)), np.sqrt(1 - z**2)
        places.append((0.1 if kind == "eeg" else 0.12) * np.stack([width * np.cos(angle), width * np.sin(angle), z], 1))
    position_C3 = np.concatenate(places)
    scale_C = np.array([{"eeg": 1e-5, "mag": 1e-13, "grad": 1e-11}[kind] for kind in kind_C])
    onset = np.arange(60, n_samples - 20, onset_distance)
    signal_TC = rng.standard_normal((n_samples, len(names)))
    for at in onset:
        signal_TC[at + 7 : at + 18] += 2 * np.outer(np.hanning(11), position_C3[:, 1] / 0.1)
    trials = pd.DataFrame({
        "trial_id": [f"sub-01_ses-01_{folder.name}_{k:06d}" for k in range(len(onset))], "image_id": "n/a",
        "concept": "n/a", "person": "01", "session": "01", "run": folder.name.removeprefix("run-"), "sequence": 0,
        "repeat": 0, "onset_sample": onset, "duration_s": 0.1, "is_test": 0, "is_target": 0, "is_catch": 0,
        "label": np.resize(np.array(labels), len(onset)),
    })  # fmt: skip
    sensors = SensorArray(
        names=tuple(names),
        kinds=tuple(kind_C),
        units=tuple({"eeg": "V", "mag": "T", "grad": "T/m"}[kind] for kind in kind_C),
        position_C3=position_C3 if known else np.full_like(position_C3, np.nan),
        status=tuple("bad" if name in bad else "good" for name in names),
    )
    with draft_store(folder) as draft:
        draft.signal(n_samples, len(names))[:] = signal_TC * scale_C
        draft.finish(100.0, sensors, trials, segments, {"notes": []})
    return folder


def noise(n_samples: int, n_sensors: int, seed: int = 0) -> NDArray[np.float32]:
    """Correlated 1/f-like noise in uV (T, C), with electrode offsets and hum."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.standard_normal((n_samples, n_sensors)), axis=0) * 0.3
    common = np.cumsum(rng.standard_normal((n_samples, 1)), axis=0) * 0.3
    hum = np.sin(2 * np.pi * 50 * np.arange(n_samples) / 250)[:, None]
    white = 5 * rng.standard_normal((n_samples, n_sensors))
    return np.asarray(walk + common + white + hum + 5e3 * rng.standard_normal(n_sensors), dtype=np.float32)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Decoders this small lose more to a second thread than they gain."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quiet_mne() -> None:
    mne.set_log_level("error")
