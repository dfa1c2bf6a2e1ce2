"""CTF recordings (`.ds` folders): whole or one clear sentence; their integers, memory-mapped."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.errors import DataError

MEG4_HEADER: Final = 8  # bytes before the samples of each .meg4 file
COUNTS_AT: Final = 1288  # in res4: samples a trial (i4), channels (i2), padding, rate (f8), length (f8), trials (i2)
COUNTS_FORMAT: Final = ">ihxxddh"
ROWS: Final = 16  # channels transposed at a time: their pieces stay in the processor's cache


@dataclass(frozen=True)
class CtfHeader:
    """Where the data are: `n_blocks` blocks of (n_channels, n_samples) integers."""

    n_blocks: int
    n_channels: int
    n_samples: int
    data: tuple[Path, ...]
    """The .meg4 file, and .1_meg4, .2_meg4... where the recording is longer than 2 GB."""


def check_ctf(folder: Path) -> CtfHeader:
    """The header of a `.ds` folder whose data are as long as it says. Raises `DataError`."""
    res4 = _inside(folder, ".res4")
    first = _inside(folder, ".meg4")
    with first.open("rb") as file:
        if not file.read(4).startswith(b"MEG4"):
            raise DataError(f"{first}: does not begin as CTF's data files do; download it again")
    with res4.open("rb") as file:
        head = file.read(COUNTS_AT + struct.calcsize(COUNTS_FORMAT))
    if not head.startswith(b"MEG4") or len(head) < COUNTS_AT + struct.calcsize(COUNTS_FORMAT):
        raise DataError(f"{res4}: not a CTF header, or cut short; download it again")
    n_samples, n_channels, _, _, n_trials = struct.unpack_from(COUNTS_FORMAT, head, COUNTS_AT)
    data = (first, *sorted(folder.glob(f"{first.stem}.[0-9]*_meg4"), key=_part_number))
    found = sum(path.stat().st_size - MEG4_HEADER for path in data)
    block = 4 * n_channels * n_samples
    # fewer blocks than the header announces are a recording that was stopped; part of a block is a broken one
    whole = block > 0 and not any((path.stat().st_size - MEG4_HEADER) % block for path in data)
    if not whole or not 1 <= found // block <= max(n_trials, 1):
        raise DataError(
            f"{first}: holds {found} bytes of samples, but {res4.name} says blocks of {n_channels} channels x "
            f"{n_samples} samples = {block} bytes, {n_trials} at most: cut short, or of another recording; "
            "download the folder again"
        )
    return CtfHeader(found // block, n_channels, n_samples, data)


def _inside(folder: Path, suffix: str) -> Path:
    """The one file of that suffix: `<name of the folder><suffix>`, or whatever the folder was called before."""
    named = folder / f"{folder.stem}{suffix}"
    others = (path for path in folder.glob(f"*{suffix}") if path.is_file() and not path.name.startswith("._"))
    found = [named] if named.is_file() else sorted(others)
    if not found:
        link = " but a link to a file that was not fetched" if named.is_symlink() else ""
        raise DataError(f"{named}: not there{link}; {folder.name} is not a whole CTF recording: download it again")
    return found[0]


def _part_number(path: Path) -> int:
    return int(path.suffix.removeprefix(".").split("_")[0])


def bad_channels(folder: Path) -> list[str]:
    """Names listed in the folder's `BadChannels` (in BIDS `<name>_BadChannels`), without their system's number."""
    lists = [path for path in sorted(folder.glob("*BadChannels")) if path.is_file() and not path.name.startswith("._")]
    listed = [path.read_text("utf-8", "replace").split() for path in lists]
    return [clean_name(name) for names in listed for name in names]


def links_for_mne(folder: Path) -> Path | None:
    """A temporary folder of links in which MNE can read this recording; None where it can do so as it is.

    MNE wants the files to be named as the folder, and stumbles over a blank line or a full name in `BadChannels`.
    """
    stem = _inside(folder, ".res4").stem
    if stem == folder.stem and not (folder / "BadChannels").exists():
        return None
    view = Path(tempfile.mkdtemp(suffix=".ds"))
    for path in folder.iterdir():
        if path.name != "BadChannels" and not path.name.startswith("._"):
            (view / path.name.replace(stem, view.stem, 1)).symlink_to(path.resolve())
    return view


def clean_name(name: str) -> str:
    """`MLC11-1609` -> `MLC11`: the number is that of the system, which others do not share."""
    return name.split("-")[0]


def gaps(header: CtfHeader, raw: Any) -> list[int]:
    """First samples of blocks that do not follow the one before in time, by the system clock's channel.

    A recording in blocks whose clock was not recorded counts as interrupted at each.
    """
    starts = list(range(header.n_samples, header.n_samples * header.n_blocks, header.n_samples))
    clock = [k for k, name in enumerate(raw.ch_names) if name.startswith("SCLK")]
    if not clock:
        return starts
    step = 1.0 / raw.info["sfreq"]
    seconds = {k: raw.get_data(picks=clock[:1], start=k - 1, stop=k + 1, verbose="error")[0] for k in starts}
    return [k for k, (before, after) in seconds.items() if abs(after - before - step) > 0.5 * step]


def ctf_reader(header: CtfHeader) -> Callable[[int, int, NDArray[np.int64]], NDArray[np.float32]]:
    """`read(start, stop, channels)` -> (T, C) float32 counts."""
    blocks: list[NDArray[Any]] = []
    shape = (header.n_channels, header.n_samples)
    for path in header.data:
        n_blocks = (path.stat().st_size - MEG4_HEADER) // (4 * shape[0] * shape[1])
        mapped: NDArray[Any] = np.memmap(path, ">i4", "r", offset=MEG4_HEADER, shape=(n_blocks, *shape))
        blocks += list(mapped)
    edges = np.arange(len(blocks) + 1) * header.n_samples

    def read(start: int, stop: int, channels: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((stop - start, len(channels)), np.float32)
        for block, (first, last) in zip(blocks, pairwise(edges), strict=True):
            a, b = max(start, int(first)), min(stop, int(last))
            if a < b:
                for k in range(0, len(channels), ROWS):
                    rows = block[channels[k : k + ROWS], a - first : b - first]
                    out[a - start : b - start, k : k + ROWS] = rows.T
        return out

    return read
