"""A person whom training never met: own scaling, few-shot weights, and what must not help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from conftest import quiet
from synapse_diffusion.config import Recipe, parse_recipe
from synapse_diffusion.config.tree import conversion_settings, digest_of
from synapse_diffusion.errors import SettingsError, SplitError
from synapse_diffusion.evaluate import evaluate
from synapse_diffusion.runs import Run
from synapse_diffusion.splits import ADAPT, TEST
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import draft_store
from synapse_diffusion.train import train
from synapse_diffusion.types import SensorArray

N_SENSORS, RATE, WINDOW = 12, 50.0, 20  # Hz; samples
CLASSES, CONCEPTS, EXEMPLARS = ("a", "b", "c", "d"), 14, 10
SIZES = (20, 80, 400)


def mixed(rng: np.random.Generator, mixing_CS: NDArray[np.float64], label_N: NDArray[np.int64]) -> Any:
    """Signals (T, C) in V: each class its own sources with a course, seen through a person's mixing, in noise."""
    pattern_KS = 0.9 * np.random.default_rng(1).standard_normal((len(CLASSES), mixing_CS.shape[1]))
    signal_TC = rng.standard_normal(((len(label_N) + 2) * 25, N_SENSORS))
    for k, label in enumerate(label_N):
        at = 25 * (k + 1)
        signal_TC[at : at + WINDOW] += np.outer(np.hanning(WINDOW), mixing_CS @ pattern_KS[label])
    return 1e-5 * signal_TC


def write_person(recipe: Recipe, person: str, departure: float) -> None:
    """A recording of someone whose mixing is the shared one and, by `departure`, their own."""
    rng = np.random.default_rng([7, int(person)])
    shared, own = (r.standard_normal((N_SENSORS, 5)) / np.sqrt(5) for r in (np.random.default_rng(0), rng))
    names = [f"{kind}{k:02d}" for kind in CLASSES for k in range(CONCEPTS)]
    concept = np.repeat(rng.permutation(np.repeat(names, EXEMPLARS)), 1)
    label = np.array([CLASSES.index(name[0]) for name in concept])
    trials = pd.DataFrame({
        "trial_id": [f"sub-{person}_{k:05d}" for k in range(len(concept))], "concept": concept, "person": person,
        "image_id": [f"{name}_{person}_{k}" for k, name in enumerate(concept)], "session": "01", "run": "x-01",
        "sequence": np.arange(len(concept)) // 20, "repeat": 0, "onset_sample": 25 * (1 + np.arange(len(concept))),
        "duration_s": 0.1, "is_test": 0, "is_target": 0, "is_catch": 0, "label": np.array(CLASSES)[label],
    })  # fmt: skip
    sensors = SensorArray(
        tuple(f"E{k}" for k in range(N_SENSORS)), ("eeg",) * N_SENSORS, ("V",) * N_SENSORS,
        np.full((N_SENSORS, 3), np.nan), ("good",) * N_SENSORS,
    )  # fmt: skip
    mixing_CS = np.sqrt(1 - departure**2) * shared + departure * own
    signal_TC = mixed(rng, mixing_CS, label)
    folder = Path(recipe.paths.stores) / "mixed" / f"sub-{person}/ses-01/run-x-01"
    with draft_store(folder) as draft:
        draft.signal(*signal_TC.shape)[:] = signal_TC
        about = {"settings_digest": digest_of(conversion_settings(recipe)), "modality": "eeg", "notes": []}
        draft.finish(RATE, sensors, trials, (), about)


def mixed_recipe(folder: Path, *overrides: str) -> Recipe:
    return parse_recipe(
        {
            "paths": {"stores": str(folder / "stores"), "runs": str(folder / "runs"), "bids": str(folder)},
            "data": {"name": "mixed"},
            "view": {"stop_s": WINDOW / RATE},
            "labels": {"source": "column", "classes": list(CLASSES)},
            "split": {
                "validation_sequences": 0.0, "test_sequences": 0.0, "new_people": ["04"], "adapt_trials": list(SIZES),
                "test_concepts": 0.25,
            },
            "train": {"steps": 80, "checks": 8},
            "evaluate": {"permutations": 0, "bootstrap": 0, "controls": [], "k_repeats": [1]},
            "execution": {"checkpoint_minutes": 0.0, "threads": 1},
        },
        overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people whose mixing is much the same, and one whose is rather their own."""
    folder = tmp_path_factory.mktemp("mixed")
    for person, departure in (("01", 0.3), ("02", 0.3), ("03", 0.3), ("04", 0.8), ("05", 0.8)):
        write_person(mixed_recipe(folder), person, departure)
    return folder


@pytest.fixture(scope="module")
def run(people: Path) -> Run:
    return train(mixed_recipe(people, "data.people=01,02,03,04"), "x", "test", quiet, quiet)


def accuracy(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {
        r["model"]: r["value"]
        for r in rows
        if r["split"] == "test" and r["person"] == "all" and r["metric"] == "balanced_accuracy"
    }


def test_few_shot(run):
    import time
    t = time.time()
    found = accuracy(evaluate(run.folder, quiet, quiet))
    print(time.time()-t)
    for k, v in found.items(): print(k, round(v, 3))
    assert 0
