"""What differs between the two brains that can answer pictures (`simulate.generator`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.simulate import brain, network
from synapse_diffusion.simulate.noise import Levels

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Generator:
    """From pictures to sources and time courses; S stages."""

    features: Callable[[int], Callable[[NDArray[np.uint8]], tuple[Floats, Floats]]]
    """Seed of the study -> picture -> early and middle features."""
    late: Callable[[list[str], list[str], list[str], np.random.Generator], Floats]
    """Categories, concepts and ids of the images -> late source amplitudes."""
    latency_S: Floats
    """In s; people depart from it as from `brain.LATENCY_S`."""
    draw: Callable[[int, np.random.Generator], tuple[Floats, Floats]]
    """Number of trials -> delays in s and gains (N, S)."""
    course: Callable[[Floats, Floats], Floats]
    """Times (T,) and latencies (S,) in s -> time courses (S, T)."""
    noise: Callable[[Levels], Levels]
    observed: bool
    """Do the ideal observers describe it? Then its truth is written."""


def _as_they_are(levels: Levels) -> Levels:
    return levels


GENERATORS: Final = {
    "stages": Generator(
        features=lambda seed: brain.image_features,
        late=brain.late_features,
        latency_S=brain.LATENCY_S,
        draw=brain.draw,
        course=brain.course,
        noise=_as_they_are,
        observed=True,
    ),
    "network": Generator(
        features=network.RandomNetwork,
        late=network.late_features,
        latency_S=network.LATENCY_S,
        draw=network.draw,
        course=network.course,
        noise=network.coloured,
        observed=False,
    ),
}
