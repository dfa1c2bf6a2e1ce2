"""A cap of electrodes and a helmet of gradiometers, and how they see dipoles in a spherical head."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import mne
import numpy as np
from mne.io.constants import FIFF
from numpy.typing import NDArray

from synapse_diffusion.bids import standard_positions

Floats = NDArray[np.float64]

CENTRE: Final = (0.0, 0.0, 0.04)  # m, head frame
RADIUS: Final = 0.095
LANDMARKS: Final = {"nasion": [0, 0.1, 0], "lpa": [-0.08, 0, 0], "rpa": [0.08, 0, 0]}  # m, head frame
REFERENCE: Final = "Cz"
ELECTRODES: Final = [
    "Oz", "O1", "O2", "Pz", "P3", "P4", "P7", "P8", "PO7", "PO8", "POz", "CPz", "C3", "C4", "Fz", "F3", "F4", "T7",
    "T8", "Fp1", "Fp2", "F7", "F8", "CP5", "CP6", "PO3", "PO4", "FC5", "FC6", "P1", "P2", "TP9", "TP10", "P5", "P6",
    "CP1", "CP2", "FC1", "FC2", "TP7", "TP8", "FT9", "FT10", "AF3", "AF4", "CP3", "CP4", "C1", "C2", "C5", "C6",
    "F1", "F2", "F5", "F6", "FC3", "FC4", "FT7", "FT8", "AF7", "AF8", "AFz", "FCz",
]  # fmt: skip
"""Any number of them from the left covers the head, the back of it more densely."""
HELMET: Final = np.array([0.110, 0.121, 0.115])  # semi-axes of the inner coils' ellipsoid in m: right, front, up
BASELINE: Final = 0.05  # m between the two coils of a CTF axial gradiometer
OFFSET_M: Final = 0.003  # standard deviation of where a head sits in the helmet, at most twice that
TILT: Final = math.radians(3.0)
EYES: Final = np.array([[-0.03, 0.075, 0.005], [0.03, 0.075, 0.005]])  # m, head frame
LID: Final = np.array([0.0, 0.5, 0.87])  # current of a blink: upwards, a little to the front
HEART: Final = np.array([-0.03, 0.03, -0.35])
HEART_AXIS: Final = np.array([-0.5, 0.4, -0.77])  # of its current at the R wave: left, front, down


@dataclass(frozen=True)
class Sensors:
    """What records one person; C sensors."""

    names: list[str]
    lead_field: Callable[[Floats, Floats], Floats]
    """Positions and directions (S, 3) of unit dipoles in m, head frame -> gains (C, S) in V or T per Am."""
    blink_C: Floats
    """Topography of a blink, its largest value 1."""
    heart_C: Floats
    """Likewise of the heart's R wave; 0 where the study has none."""
    heart_period_s: float = 1.0
    info: Any = None
    """MNE's description of a helmet, its place on the head included."""


def cap(n: int, rng: np.random.Generator) -> Sensors:
    """`n` electrodes of the 10-05 system; draws nothing."""
    del rng
    names = electrodes(n)
    positions = np.stack([standard_positions()[name] for name in names])
    eye = np.array([0.0, 0.1, -0.02])
    blink = np.exp(-np.linalg.norm(positions - eye, axis=1) / 0.04)
    return Sensors(names, partial(_potentials, names), blink / blink.max(), np.zeros(n))


def helmet(n: int, rng: np.random.Generator) -> Sensors:
    """`n` axial gradiometers like CTF's (MNE's coil 5001) spread evenly over a helmet with an open face."""
    point_C3 = _spread(n)
    normal_C3 = point_C3 / HELMET**2
    normal_C3 /= np.linalg.norm(normal_C3, axis=1, keepdims=True)
    names = _names(point_C3)
    order = np.argsort(names)
    names, point_C3, normal_C3 = [names[k] for k in order], point_C3[order], normal_C3[order]
    info = mne.create_info(names, 1000.0, "mag", verbose="error")
    for channel, point, normal in zip(info["chs"], point_C3, normal_C3, strict=True):
        along = np.cross(normal, [0.3, 0.5, 0.8])  # no sensor looks this way exactly
        along /= np.linalg.norm(along)
        channel["coil_type"] = FIFF.FIFFV_COIL_CTF_GRAD
        channel["loc"] = np.concatenate([point, along, np.cross(normal, along), normal])
    to_head = mne.transforms.rotation(*(TILT * rng.standard_normal(3).clip(-2, 2)))
    to_head[:3, 3] = CENTRE + OFFSET_M * rng.standard_normal(3).clip(-2, 2)
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", to_head)
    info.set_montage(mne.channels.make_dig_montage(**LANDMARKS, coord_frame="head"), verbose="error")
    blink = _fields(info, EYES, np.stack([LID, LID])).sum(1)
    coil_C3, axis_C3 = point_C3 @ to_head[:3, :3].T + to_head[:3, 3], normal_C3 @ to_head[:3, :3].T
    heart = ((_from_afar(coil_C3) - _from_afar(coil_C3 + BASELINE * axis_C3)) * axis_C3).sum(1)
    return Sensors(
        names=names,
        lead_field=partial(_fields, info),
        blink_C=blink / np.abs(blink).max(),
        heart_C=heart / np.abs(heart).max(),
        heart_period_s=float(rng.uniform(0.75, 1.05)),
        info=info,
    )


def _spread(n: int) -> Floats:
    """`n` points (n, 3) on the helmet, m, device frame (origin in its middle): those of a spiral of equal areas."""
    for total in itertools.count(n):
        height = 1 - 2 * (np.arange(total) + 0.5) / total
        azimuth = np.arange(total) * np.pi * (3 - math.sqrt(5))  # from straight back
        front = np.clip((np.abs(np.angle(np.exp(1j * azimuth))) - 1.7) / 0.8, 0, 1)
        inside = height > np.sin(np.radians(-20 + 40 * front))  # the rim rises over the face
        if inside.sum() >= n:
            break
    height, azimuth = height[inside][:n], azimuth[inside][:n]
    ring = np.sqrt(1 - height**2)
    return np.asarray(HELMET * np.stack([ring * np.sin(azimuth), -ring * np.cos(azimuth), height], axis=1))


def _names(point_C3: Floats) -> list[str]:
    """Names in CTF's manner: M, side (L, R, Z the middle), lobe (O, P, C, T, F), a number."""
    unit = point_C3 / HELMET
    up, back = np.degrees(np.arcsin(unit[:, 2])), np.degrees(np.arctan2(np.abs(unit[:, 0]), -unit[:, 1]))
    lobe = np.select([up > 60, back > 100, (up < 25) & (back > 55), up < 25, back < 80], [*"CFTOP"], "C")
    side = np.select([np.abs(point_C3[:, 0]) < 0.006, point_C3[:, 0] < 0], [*"ZL"], "R")
    counts: dict[str, int] = {}
    names = []
    for region in (f"M{a}{b}" for a, b in zip(side, lobe, strict=True)):
        counts[region] = counts.get(region, 10) + 1
        names.append(f"{region}{counts[region]}")
    return names


def _fields(info: Any, position: Floats, direction: Floats) -> Floats:
    """Fields (C, sources) in T of unit dipoles at `position` (m, head frame)."""
    sphere = mne.make_sphere_model(r0=CENTRE, head_radius=None, verbose="error")
    return _forward(info, sphere, (*CENTRE, RADIUS), position, direction, eeg=False)


def _forward(info: Any, sphere: Any, within: Any, position: Floats, direction: Floats, *, eeg: bool) -> Floats:
    sources = mne.setup_volume_source_space(
        pos={"rr": position, "nn": direction}, sphere=within, sphere_units="m", mindist=0.0, verbose="error"
    )
    forward = mne.make_forward_solution(
        info, trans=None, src=sources, bem=sphere, meg=not eeg, eeg=eeg, mindist=0.0, verbose="error"
    )
    free = forward["sol"]["data"].reshape(len(info["ch_names"]), -1, 3)
    used = forward["src"][0]["vertno"]
    if len(used) != len(position):
        raise AssertionError(f"{len(position) - len(used)} sources lie outside the inner sphere")
    return np.asarray(np.einsum("csx,sx->cs", free, direction))


def _from_afar(point_C3: Floats) -> Floats:
    """The heart's field (C, 3) in arbitrary units: a current dipole in a conductor without bounds (Biot-Savart)."""
    away = point_C3 - HEART
    return np.asarray(np.cross(HEART_AXIS, away) / np.linalg.norm(away, axis=1, keepdims=True) ** 3)


def electrodes(n: int) -> list[str]:
    """Names of `n` electrodes of the 10-05 system, the reference not among them."""
    others = [name for name in standard_positions() if name not in ELECTRODES and name != REFERENCE]
    return [*ELECTRODES, *others][:n]


def _potentials(names: list[str], position: Floats, direction: Floats) -> Floats:
    """Potentials (C, sources) of unit dipoles at `position` (m, head frame), referenced to `REFERENCE`."""
    with_reference = [*names, REFERENCE]
    info = mne.create_info(with_reference, 1000.0, "eeg", verbose="error")
    positions = {name: standard_positions()[name] for name in with_reference}
    montage = mne.channels.make_dig_montage(positions, **LANDMARKS, coord_frame="head")
    info.set_montage(montage, verbose="error")
    sphere = mne.make_sphere_model(r0=CENTRE, head_radius=RADIUS, info=info, verbose="error")
    gain = _forward(info, sphere, sphere, position, direction, eeg=True)
    return np.asarray(gain[:-1] - gain[-1:])
