"""Files of stimulus images: found, read, and brought to one size."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from synapse_diffusion.config import PathSettings
from synapse_diffusion.errors import DataError

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def images_root(paths: PathSettings) -> Path:
    """Where the stimulus images are."""
    return Path(paths.images) if paths.images else Path(paths.bids) / "stimuli"


def find_images(root: Path) -> list[Path]:
    """All picture files below a folder. Raises `DataError` where there is none, or two have one stem."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set paths.images to the stimulus images")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )
    if not found:
        raise DataError(f"{root}: no pictures ({', '.join(sorted(SUFFIXES))}) in it; set paths.images")
    of_stem: dict[str, Path] = {}
    for path in found:
        other = of_stem.setdefault(path.stem, path)
        if other != path:
            raise DataError(
                f"{root}: {other.relative_to(root)} and {path.relative_to(root)} would both be image {path.stem}; "
                "rename or remove one"
            )
    return found


def load_picture(path: Path) -> Image.Image:
    """A picture in RGB. Raises `DataError` naming it where it cannot be read."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"mode {picture.mode} has no fixed white; save it with 8 bits a colour")
            if picture.mode == "P" and "transparency" in picture.info:
                return picture.convert("RGBA").convert("RGB")
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = f"{path.name} is no picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}: cannot be read as a picture ({reason}); replace or remove it") from None


def small_pictures(paths: Iterable[Path], side: int) -> NDArray[np.uint8]:
    """Pictures (N, 3, side, side), RGB: the square at the centre, resized (Pillow's bicubic).

    Raises `DataError` naming a picture that cannot be read.
    """
    return np.stack([_square(load_picture(path), side) for path in paths])


def _square(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    cut = picture.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(cut).transpose(2, 0, 1))
