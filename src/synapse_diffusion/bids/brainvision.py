"""BrainVision recordings: whole or one clear sentence; their samples, memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.errors import DataError

TYPES: Final = {"single": "<f4", "short": "<i2", "int": "<i4"}


def check_brainvision(path: Path) -> None:
    """Header, data and marker file must be one recording's, and the data whole."""
    text = path.read_bytes().decode("utf-8", "replace")
    keys: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith((";", "Ch")):
            keys.setdefault(key.strip(), value.strip())
    named = keys.get("DataFile", "").replace("$b", path.stem)
    if not named:
        raise DataError(f"{path}: not a BrainVision header: it names no DataFile")
    data = path.parent / named
    if Path(named).stem != path.stem:
        raise DataError(
            f"{path}: its DataFile is {named}, another recording's name; mend the header "
            "(mne_bids.copyfiles.copyfile_brainvision renames all three files together)"
        )
    if not data.exists():
        raise DataError(f"{data}: the data file that {path.name} names is not there; download it again")
    sizes = {"IEEE_FLOAT_32": 4, "INT_16": 2, "INT_32": 4}
    n_channels = keys.get("NumberOfChannels", "0")
    frame = (int(n_channels) if n_channels.isdigit() else 0) * sizes.get(keys.get("BinaryFormat", ""), 0)
    size = data.stat().st_size
    if frame and (size == 0 or size % frame):
        raise DataError(
            f"{data}: truncated: {size} bytes are not a whole number of samples ({frame} bytes each); download it again"
        )


def mapped(path: Path, raw: Any) -> NDArray[Any] | None:
    """The data file as an array (T, all channels), if its numbers, scaled, are MNE's own to the bit."""
    if raw.orig_format not in TYPES:
        return None
    dtype, shape = np.dtype(TYPES[raw.orig_format]), (raw.n_times, len(raw.ch_names))
    data = Path(raw.filenames[0])
    if data.stat().st_size != shape[0] * shape[1] * dtype.itemsize:
        return None
    samples_TC: NDArray[Any] = np.memmap(data, dtype=dtype, mode="r", shape=shape)
    n = min(64, shape[0])
    for start in (0, shape[0] // 2, shape[0] - n):
        theirs = raw.get_data(start=start, stop=start + n).T
        if not np.array_equal(samples_TC[start : start + n].astype(float) * raw._cals, theirs, equal_nan=True):
            return None
    return samples_TC
