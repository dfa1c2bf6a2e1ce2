"""Which picture is shown when: in streams as in ds003825, or one by one over sessions and runs as in ds004212."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.config import SimulateSettings
from synapse_diffusion.errors import SettingsError

REST_S: Final = (2.0, 3.0)  # between sequences
LEAD_S: Final = 5.0  # before the first picture and after the last
FIF_LIMIT: Final = 2**31 - 2**24  # bytes; MNE splits what is longer
TARGETS: Final = 2  # fixation changes a sequence: flagged, as in the real study


@dataclass(frozen=True)
class Recording:
    """One continuous recording of a person."""

    session: str
    run: str
    trials: pd.DataFrame
    """sample, image (row in the stimuli; one past the last: the artificial picture of catch trials); streams also have
    sequence, position, target."""
    n_samples: int


def show_streams(
    is_test: NDArray[np.bool_], settings: SimulateSettings, rng: np.random.Generator
) -> tuple[Recording, ...]:
    """RSVP sequences in random order, the test images last, in one recording."""
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
    return (Recording("", "", trials, round(at + LEAD_S * settings.sfreq)),)


def show_one_by_one(
    is_test: NDArray[np.bool_], settings: SimulateSettings, rng: np.random.Generator
) -> tuple[Recording, ...]:
    """Main pictures dealt over all sessions, test pictures over the runs of each session, catch trials in each run.

    Raises `SettingsError` where there are fewer main trials than runs, or a run would not fit into one FIF file.
    """
    sessions, runs = settings.sessions, settings.runs
    main = np.concatenate([rng.permutation(np.flatnonzero(~is_test)) for _ in range(settings.main_repeats)])
    if len(main) < sessions * runs:
        raise SettingsError(f"simulate.sessions x simulate.runs = {sessions * runs}: only {len(main)} main trials")
    recordings = []
    for session, mine in enumerate(np.array_split(main, sessions)):
        # the repeats of a test picture are dealt to the sessions in turn
        repeats = range(session, settings.test_repeats, sessions)
        test = np.concatenate([main[:0], *(rng.permutation(np.flatnonzero(is_test)) for _ in repeats)])
        for run, parts in enumerate(zip(np.array_split(mine, runs), np.array_split(test, runs), strict=True)):
            n_shown = sum(map(len, parts))
            n_catch = round(n_shown * settings.catch_share / (1 - settings.catch_share))
            images = rng.permutation(np.concatenate([*parts, np.full(n_catch, len(is_test))]))
            jitter = settings.onset_jitter_s * rng.uniform(-1, 1, len(images))
            onset = LEAD_S + np.cumsum(settings.onset_distance_s + jitter) - settings.onset_distance_s
            trials = pd.DataFrame({"sample": np.rint(onset * settings.sfreq).astype(int), "image": images})
            length = round((onset[-1] + LEAD_S) * settings.sfreq)
            if (size := 4 * length * (settings.channels + 2)) > FIF_LIMIT:
                raise SettingsError(
                    f"simulate.runs = {runs}: a run of {len(images)} trials takes {size / 2**30:.1f} GiB, a FIF file "
                    "holds 2; set more runs or sessions"
                )
            recordings.append(Recording(f"{session + 1:02d}", f"{run + 1:02d}", trials, length))
    return tuple(recordings)
