"""The real event tables of ds003825 over recordings of the true length: every trial gets its own label and sample.

At each onset a pulse with a pattern that spells the concept is written into otherwise noisy channels, so that a label
or a sample that is off is seen in the converted signal.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from conftest import quiet, write_recording
from synapse_diffusion.bids import standard_positions
from synapse_diffusion.config import load_recipe
from synapse_diffusion.convert import convert
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import open_store
from synapse_diffusion.training.tasks import label_trials

PULSE_S, PEAK_V = 0.04, 50e-6  # peak 40 ms after onset, and its height


def pattern(concept: str, n_sensors: int) -> NDArray[np.float64]:
    """A zero-mean pattern of +-1 that only this concept has."""
    rng = np.random.default_rng(list(concept.encode()))
    signs = np.r_[np.ones(n_sensors // 2), -np.ones(n_sensors // 2), np.zeros(n_sensors % 2)]
    return np.asarray(rng.permutation(signs), dtype=np.float64)


def image_of(stim: str) -> str:
    return stim.replace("\\", "/").rsplit("/", 1)[1].removesuffix(".jpg")


def concept_of(stim: str) -> str:
    return stim.replace("\\", "/").split("/")[1]


def record(real: Path, root: Path, version: str, person: str, n_sensors: int | None, names: list[str]) -> pd.DataFrame:
    """The real sidecars and table of a person, over a recording of the true number of samples."""
    source = real / f"bids/ds003825-{version}"
    stem = f"sub-{person}_task-rsvp"
    shutil.copytree(source / f"sub-{person}", root / f"sub-{person}", dirs_exist_ok=True)
    shutil.copy(source / "participants.tsv", root / "participants.tsv")
    sizes = pd.read_csv(real / "bids/ds003825-recording-sizes.csv")
    n_channels, n_samples = sizes.loc[
        sizes["participant_id"] == f"sub-{person}", ["n_channels", "n_samples"]
    ].to_numpy()[0]
    table = pd.read_csv(root / f"sub-{person}/eeg/{stem}_events.tsv", sep="\t")
    n_sensors = n_sensors or int(n_channels)
    onset = table["sample"] if "sample" in table else table["onset"]
    patterns = {concept: pattern(concept, n_sensors) for concept in set(table["stim"].map(concept_of))}
    course = np.exp(-0.5 * ((np.arange(81) - 1000 * PULSE_S) / 8) ** 2)[:, None] * PEAK_V * 1e6

    def fill(data: NDArray[np.float32]) -> None:
        rng = np.random.default_rng(0)
        for start in range(0, len(data), 50_000):
            block = data[start : start + 50_000]
            block[:] = rng.standard_normal(block.shape, dtype=np.float32) + 1000.0 * np.sin(np.arange(n_sensors))
        for at, stim in zip(onset, table["stim"], strict=True):
            data[at : at + 81] += course * patterns[concept_of(stim)]

    write_recording(root / f"sub-{person}/eeg", f"{stem}_eeg", names[:n_sensors], int(n_samples), 1000.0, fill)
    return table


def check(root: Path, real: Path, person: str, table: pd.DataFrame) -> list[str]:
    """Convert and count wrong trials: none. Returns what was said."""
    recipe = load_recipe(
        "eeg_fruit_furniture",
        [f"paths.bids={root}", f"paths.stores={root / 'stores'}", f"paths.things={real / 'things'}",
         f"data.people={person}", "data.include_excluded=true"],
    )  # fmt: skip
    said: list[str] = []
    store = open_store(convert(recipe, said.append, quiet)[0].folder)
    trials = store.trials
    onset = (table["sample"] if "sample" in table else table["onset"]).to_numpy()
    assert np.array_equal(trials["onset_sample"], (onset + 2) // 4)
    assert list(trials["image_id"]) == list(table["stim"].map(image_of))
    concept = table["stim"].map(concept_of)
    assert list(trials["concept"]) == list(concept)
    is_test = table["isteststim"] if "isteststim" in table else np.zeros(len(table))
    assert np.array_equal(trials["is_test"], is_test)
    assert np.array_equal(trials["is_target"], table["istarget"])
    assert np.array_equal(trials["sequence"], table["sequencenumber"])
    main = trials[trials["is_test"] == 0]
    assert np.array_equal(main["repeat"], np.zeros(len(main)))

    # the signal at each trial spells that trial's concept: nearest of all concepts' patterns
    epochs = Epochs([store], 0.0, 0.08)
    rows = np.flatnonzero(epochs.trials["usable"].to_numpy())
    assert len(rows) == len(trials)
    peak_NC = np.concatenate([epochs.read(rows[k : k + 2000])[:, :, 10].numpy() for k in range(0, len(rows), 2000)])
    concepts_there, which = np.unique(trials["concept"], return_inverse=True)
    patterns_KC = np.stack([pattern(name, peak_NC.shape[1]) for name in concepts_there])
    nearest = np.concatenate([(peak_NC[k : k + 2000] @ patterns_KC.T).argmax(1) for k in range(0, len(rows), 2000)])
    assert np.sum(nearest != which) == 0
    height = (peak_NC * patterns_KC[which]).mean(1)
    assert np.all(np.abs(height / PEAK_V - 1) < 0.2)

    classes, label = label_trials(trials, recipe.labels, real / "things")
    expected = {"fruit": 10, "furniture": 11}
    matrix = pd.read_csv(real / "things/category_mat_manual.tsv", sep="\t").to_numpy()
    concepts = pd.read_csv(real / "things/things_concepts.tsv", sep="\t")["uniqueID"]
    row_of = {name: k for k, name in enumerate(concepts)}
    member = matrix[[row_of[name] for name in concept]][:, list(expected.values())]
    assert classes == tuple(expected)
    assert np.array_equal(label, np.where(member.sum(1) == 1, member.argmax(1), -1))
    return said


NAMES = [name for name in standard_positions() if name != "Cz"]


def test_a_third_of_the_channels(real: Path, tmp_path: Path) -> None:
    table = record(real, tmp_path, "1.2.0", "02", 24, NAMES[::5])
    assert len(table) == 24_648
    check(tmp_path, real, "02", table)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "person", "n_trials"), [("1.2.0", "01", 22_248), ("1.2.0", "02", 24_648), ("1.1.0", "02", 24_648)]
)
def test_true_size(real: Path, tmp_path: Path, version: str, person: str, n_trials: int) -> None:
    table = record(real, tmp_path, version, person, None, NAMES)
    assert len(table) == n_trials
    said = check(tmp_path, real, person, table)
    assert any("no column isteststim" in line for line in said) == (person == "01")


@pytest.mark.slow
def test_127_channels_beside_63(real: Path, tmp_path: Path) -> None:
    table = record(real, tmp_path, "1.2.0", "49", None, NAMES)
    check(tmp_path, real, "49", table)
    record(real, tmp_path, "1.2.0", "02", None, NAMES[10:])
    said: list[str] = []
    recipe = load_recipe("eeg_fruit_furniture", [f"paths.bids={tmp_path}", f"paths.stores={tmp_path / 'stores'}"])
    convert(recipe, said.append, quiet)
    line = next(line for line in said if "127 channels" in line)
    assert "sub-49" in line
    assert "training uses the 63 that all have" in line
