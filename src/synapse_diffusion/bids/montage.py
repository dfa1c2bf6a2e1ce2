"""MNE's interpolation of sensors, as matrices."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import mne
import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.errors import DataError

HEAD_CENTRE: Final = (0.0, 0.0, 0.04)  # m, head coordinates: MNE's own choice where a head was not digitised
FEWEST: Final = 4  # sensors of known position that others can be interpolated from


def eeg_info(position: Mapping[str, NDArray[np.float64]]) -> Any:
    """MNE's description of electrodes at these places (m, head coordinates)."""
    info = mne.create_info(list(position), 1000.0, "eeg", verbose="error")
    info.set_montage(mne.channels.make_dig_montage(dict(position), coord_frame="head"), verbose="error")
    return info


def interpolation(info: Any, bad: Sequence[str]) -> NDArray[np.float64]:
    """Matrix (C, C) that replaces bad sensors by what the others say of their places.

    EEG: spherical splines (Perrin 1989); MEG: the field of a minimum-norm source estimate (Hämäläinen 1993).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unit = mne.io.RawArray(np.eye(len(info["ch_names"])), info, verbose="error")
        unit.info["bads"] = list(bad)
        unit.interpolate_bads(reset_bads=False, origin=_head_centre(info), verbose="error")
    return np.asarray(unit.get_data(), dtype=np.float64)


def onto(have: Mapping[str, NDArray[np.float64]], want: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Matrix (D, C) from the electrodes that a recording has to those wanted; both by name, with positions in m.

    One of the same name is taken as it is, others by spherical splines. Raises `DataError` where positions are unknown.
    """
    lacking = [name for name in want if name not in have]
    there = {name: place for name, place in have.items() if np.isfinite(place).all()}
    if unknown := [name for name in lacking if not np.isfinite(want[name]).all()]:
        raise DataError(f"{', '.join(unknown)} cannot be interpolated: their positions are unknown")
    if len(there) < FEWEST:
        raise DataError(f"{', '.join(lacking)} cannot be interpolated from {len(there)} electrodes of known position")
    matrix_DC = np.array([[float(name == other) for other in have] for name in want])
    if lacking:
        splines = interpolation(eeg_info(there | {name: want[name] for name in lacking}), lacking)
        rows, columns = ([list(names).index(name) for name in part] for names, part in ((want, lacking), (have, there)))
        matrix_DC[np.ix_(rows, columns)] = splines[len(there) :, : len(there)]
    return matrix_DC


def _head_centre(info: Any) -> str | tuple[float, float, float]:
    """`auto` (fitted to the digitised head) where enough points were digitised; CTF's fiducials alone are too few."""
    try:
        mne.bem.fit_sphere_to_headshape(info, units="m", verbose="error")
    except (RuntimeError, ValueError):
        return HEAD_CENTRE
    return "auto"
