"""What differs between a simulated EEG and a simulated MEG study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.config import SimulateSettings
from synapse_diffusion.simulate import brain, schedule, sensors, writing
from synapse_diffusion.simulate.noise import Levels
from synapse_diffusion.simulate.stimuli import Stimuli

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Modality:
    """Amplitudes (V or T) and the functions that place sensors, order pictures and write files."""

    stream: int
    """Of random numbers: an EEG and a MEG person never share one."""
    prefix: str
    """Of people's names."""
    most_channels: int
    amplitude: Mapping[str, tuple[float, float, float]]
    """By preset: root mean square over pictures and sensors of each stage's peak (early, middle, late)."""
    levels: Levels
    place: Callable[[int, np.random.Generator], sensors.Sensors]
    shared: Callable[[Floats, Sequence[Floats], np.random.Generator], Floats]
    show: Callable[[NDArray[np.bool_], SimulateSettings, np.random.Generator], tuple[schedule.Recording, ...]]
    write: Callable[[Path, str, schedule.Recording, Singles, Singles, sensors.Sensors, Stimuli, SimulateSettings], None]


MODALITIES: Final = {
    "eeg": Modality(
        stream=2,
        prefix="",
        most_channels=128,
        # `realistic` gives single-trial scores near those of published recordings (see docs/explanation/simulation.md)
        amplitude={"realistic": (0.9e-6, 0.6e-6, 0.45e-6), "demo": (1.6e-6, 1.4e-6, 1.7e-6)},
        levels=Levels(
            brain=8e-6, corner_hz=1.5, alpha=3.0, sensor=1e-6, sensor_density=False, mains=2e-6, drift=3e-6,
            offset=2e-3, blink=80e-6,
        ),
        place=sensors.cap,
        shared=brain.shared_by_sensor,
        show=schedule.show_streams,
        write=writing.write_eeg,
    ),
    "meg": Modality(
        stream=3,
        prefix="M",
        most_channels=272,
        amplitude={"realistic": (30e-15, 20e-15, 15e-15), "demo": (60e-15, 50e-15, 60e-15)},
        levels=Levels(
            brain=250e-15, corner_hz=1.5, alpha=4.0, sensor=4e-15, sensor_density=True, mains=100e-15,
            drift=100e-15, offset=20e-12, blink=1.5e-12, heart=1e-12,
        ),
        place=sensors.helmet,
        shared=brain.shared_by_sources,
        show=schedule.show_one_by_one,
        write=writing.write_meg,
    ),
}  # fmt: skip
