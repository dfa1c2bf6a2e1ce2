"""What a simulated study knows of itself: written by `simulate`, read by the ideal observers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from synapse_diffusion.errors import DataError

FOLDER: Final = "derivatives/truth"
STAGES: Final = ("early", "middle", "late")
ARRAYS: Final = (
    "pattern_SNC", "latency_S", "width_S", "latency_sd_S", "gain_sd_S", "noise_MCC", "noise_power_MF", "frequency_F",
)  # fmt: skip


@dataclass(frozen=True)
class PersonTruth:
    """One person's noise-free responses and noise; S stages, N images, C sensors, everything in s and the sensors'
    unit (V of EEG, T of MEG).

    A picture's response is `sum_s gain_s * pattern_SNC[s, n] * exp(-((t - latency_s - shift) / width_s)^2 / 2)`
    with `gain_s = 1 + gain_sd_s * e_s` drawn for each trial and stage, and `shift = latency_sd_s * e` with one
    `e` a trial; all `e` standard normal.
    """

    images: tuple[str, ...]
    concepts: tuple[str, ...]
    categories: tuple[str, ...]
    sensors: tuple[str, ...]
    pattern_SNC: NDArray[np.float64]
    latency_S: NDArray[np.float64]
    width_S: NDArray[np.float64]
    latency_sd_S: NDArray[np.float64]
    gain_sd_S: NDArray[np.float64]
    noise_MCC: NDArray[np.float64]
    """Spatial covariances of the noise's components (brain; sensors and drift; blinks; MEG: heart), V^2 or T^2."""
    noise_power_MF: NDArray[np.float64]
    """Their one-sided power spectra in 1/Hz, at `frequency_F` in Hz; mains hum is left out."""
    frequency_F: NDArray[np.float64]
    onset_distance_s: float

    def response(self, image: str, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean response (C, T) in V or T to an image at `times` in s after onset, at nominal gain and latency."""
        n = self.images.index(image)
        kernel_ST = np.exp(-0.5 * ((times - self.latency_S[:, None]) / self.width_S[:, None]) ** 2)
        return np.asarray(np.einsum("sc,st->ct", self.pattern_SNC[:, n], kernel_ST))


def write_truth(root: Path, person: str, truth: PersonTruth, drawn: pd.DataFrame) -> None:
    """One person's truth; `drawn` holds each trial's gains and latency shift."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(getattr(truth, name)) for name in ARRAYS}
    save_file(arrays, folder / f"sub-{person}_truth.safetensors")
    table = pd.DataFrame({"image_id": truth.images, "concept": truth.concepts, "category": truth.categories})
    table.to_csv(folder / f"sub-{person}_images.tsv", sep="\t", index=False)
    drawn.to_csv(folder / f"sub-{person}_trials.tsv", sep="\t", index=False, float_format="%.5f")
    about = {"onset_distance_s": truth.onset_distance_s, "sensors": truth.sensors, "stages": STAGES}
    text = json.dumps(about, indent=1)
    (folder / f"sub-{person}_truth.json").write_text(text + "\n")


def read_truth(root: Path, person: str) -> PersonTruth | None:
    """The truth of a simulated person; None for a real one. Raises `DataError` where it is damaged."""
    folder = root / FOLDER
    if not (folder / f"sub-{person}_truth.json").exists():
        return None
    try:
        about: Mapping[str, Any] = json.loads((folder / f"sub-{person}_truth.json").read_text())
        arrays = load_file(folder / f"sub-{person}_truth.safetensors")
        table = pd.read_csv(folder / f"sub-{person}_images.tsv", sep="\t", dtype=str)
        return PersonTruth(
            images=tuple(table["image_id"]),
            concepts=tuple(table["concept"]),
            categories=tuple(table["category"]),
            sensors=tuple(about["sensors"]),
            onset_distance_s=about["onset_distance_s"],
            **arrays,
        )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{folder}: damaged truth of sub-{person}: {error}; simulate the study again") from None
