"""Bad channels, their repair and the reference: one matrix over the sensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import mne
import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.bids.montage import FEWEST, eeg_info, interpolation
from synapse_diffusion.config import ConvertSettings
from synapse_diffusion.errors import DataError
from synapse_diffusion.signal.faults import NAN_CHANNEL, ChannelStatistics, Scan, blocks_of
from synapse_diffusion.types import SensorArray

MATRIX_BLOCK: Final = 65536  # samples a block when multiplying in place
MOST_LISTED: Final = 12
MIN_GOOD: Final = 0.2  # share of good channels below which a recording is refused


def judge(
    sensors: SensorArray, found: Scan, statistics: ChannelStatistics, settings: ConvertSettings, path: Path
) -> dict[str, str]:
    """Bad channels and why: those that the data set names, NaN ones, and (by setting) those that look it.

    Raises `DataError` where too few are left.
    """
    if settings.only_channels:
        return {}
    why = {k: "marked" for k, status in enumerate(sensors.status) if status == "bad"}
    why |= {int(k): "NaN" for k in np.flatnonzero(found.nan_share_C > NAN_CHANNEL)}
    if settings.find_bad_channels:
        looks = statistics.find_bad(settings.noisy_z, settings.min_correlation)
        why |= {k: reason for k, reason in looks.items() if k not in why and sensors.status[k] != "reference"}
    by_name = {sensors.names[k]: reason for k, reason in sorted(why.items())}
    n_good = len(sensors.names) - len(why)
    if n_good < max(1, MIN_GOOD * len(sensors.names)):
        raise DataError(
            f"{path}: {n_good} of {len(sensors.names)} channels are good: bad channels: {listed(by_name)}; see "
            "convert.*bad_channels"
        )
    return by_name


def listed(why: Mapping[str, str]) -> str:
    """`Fz (noisy), Cz (flat)`, the first few of many."""
    pairs = [f"{name} ({reason})" for name, reason in why.items()]
    return ", ".join(pairs[:MOST_LISTED]) + (
        f" and {len(pairs) - MOST_LISTED} more" if len(pairs) > MOST_LISTED else ""
    )


def with_status(sensors: SensorArray, bad: Mapping[str, str]) -> SensorArray:
    """The sensors with these marked bad."""
    pairs = zip(sensors.names, sensors.status, strict=True)
    return replace(sensors, status=tuple("bad" if name in bad else status for name, status in pairs))


def repair_matrix(
    raw: Any, sensors: SensorArray, settings: ConvertSettings, notes: list[str], path: Path
) -> NDArray[np.float64]:
    """(C, C): replaces bad channels, then takes off the EEG reference. Raises `DataError` for an unknown reference."""
    n = len(sensors.names)
    if settings.only_channels:
        return np.eye(n)
    bad = np.array([status == "bad" for status in sensors.status])
    matrix = np.eye(n)
    if bad.any() and settings.bad_channels != "keep":
        matrix = _interpolation(raw, sensors, bad, settings, notes)
    if settings.reference == ("none",) or "eeg" not in sensors.kinds:
        return matrix
    if settings.reference == ("average",):
        weights = np.where(bad, 0.0, 1.0) / np.sum(~bad)
    else:
        if missing := [name for name in settings.reference if name not in sensors.names]:
            raise DataError(f"{path}: convert.reference names {', '.join(missing)}; it has {', '.join(sensors.names)}")
        weights = np.array([name in settings.reference for name in sensors.names]) / len(settings.reference)
    zeroed = bad & ~matrix.any(axis=1)
    return np.asarray(matrix - np.where(zeroed[:, None], 0.0, weights @ matrix))


def apply_matrix(signal_TC: NDArray[np.float32], matrix_CC: NDArray[np.float64]) -> None:
    """Multiply every sample by a matrix, in place."""
    if np.array_equal(matrix_CC, np.eye(len(matrix_CC))):
        return
    transform = np.ascontiguousarray(matrix_CC.T, dtype=np.float32)
    for start, stop in blocks_of(len(signal_TC), MATRIX_BLOCK):
        signal_TC[start:stop] = signal_TC[start:stop] @ transform


def _interpolation(
    raw: Any, sensors: SensorArray, bad: NDArray[np.bool_], settings: ConvertSettings, notes: list[str]
) -> NDArray[np.float64]:
    """MNE's, or zero where too few positions are known."""
    n = len(sensors.names)
    known: NDArray[np.bool_] = np.asarray(np.isfinite(sensors.position_C3).all(axis=1))
    if settings.bad_channels == "zero" or not known[bad].all() or (known & ~bad).sum() < FEWEST:
        if settings.bad_channels == "interpolate":
            notes.append("bad channels set to zero: too few sensor positions are known to interpolate")
        return np.diag(np.where(bad, 0.0, 1.0))
    names = [name for name, there in zip(sensors.names, known, strict=True) if there]
    names_bad = [name for name, is_bad in zip(sensors.names, bad, strict=True) if is_bad]
    matrix = np.eye(n)
    matrix[np.ix_(known, known)] = interpolation(sensor_info(raw, sensors, names), names_bad)
    return matrix


def sensor_info(raw: Any, sensors: SensorArray, names: list[str]) -> Any:
    """MNE's description of these sensors."""
    if "eeg" not in sensors.kinds:
        info = mne.pick_info(raw.info, [raw.ch_names.index(name) for name in names], verbose="error")
        with info._unlock():
            info["comps"], info["projs"], info["bads"] = [], [], []
        for channel in info["chs"]:
            channel["coil_type"] = channel["coil_type"] & 0xFFFF  # above: the compensation's order, irrelevant here
        return info
    positions = dict(zip(sensors.names, sensors.position_C3, strict=True))
    return eeg_info({name: positions[name] for name in names})
