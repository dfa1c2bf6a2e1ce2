"""Pictures as data URIs: figures of the run, what was seen, found and drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from PIL import Image

from synapse_diffusion.errors import DataError
from synapse_diffusion.report.contents import Contents
from synapse_diffusion.report.words import repeats
from synapse_diffusion.store.pictures import load_picture

T = TypeVar("T")
FilesByK = dict[int, dict[str, Path]]
"""By number of repeats, each image's file."""
LEVELS: Final = ((72, 80), (56, 75), (40, 70), (28, 60))
"""Side in pixels and JPEG quality of thumbnails, from good to small."""
BUDGET: Final = 4_200_000  # bytes of reconstructions before base64, so that a page stays under 8 MB
SAMPLED: Final = 60  # thumbnails by which a level is judged
MOST_PEOPLE: Final = 3
FIRST: Final = 8  # pictures on the first screen
FOUND: Final = 24  # rows of the retrieval gallery
TITLES: Final = {
    "brain": "brain", "shuffled": "shuffled", "none": "no brain", "other_person": "another's weights",
    "true": "true vector", "autoencoder": "autoencoder alone", "nearest": "nearest in training",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """An `img`; width and height in CSS pixels, 0 for thumbnails (the style sheet's)."""

    uri: str
    alt: str
    caption: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Cell:
    """One source's pictures of one image, by number of repeats (0: not made of trials)."""

    title: str
    versions: tuple[tuple[int, Picture], ...]


@dataclass(frozen=True)
class Drawn:
    """An image: what was seen, what was drawn of it."""

    image: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Found:
    """A decision: what was seen, the first pictures found (id, picture, whether it is the true one), the place."""

    image: str
    person: str
    seen: Picture | None
    first: tuple[tuple[str, Picture | None, bool], ...]
    place: str


@dataclass(frozen=True)
class Reconstructions:
    """All images, what of them is shown on the first screen, and what a reader must know."""

    images: tuple[Drawn, ...]
    first: tuple[Drawn, ...]
    repeats: tuple[int, ...]
    note: str


def figure(path: Path, alt: str, caption: str) -> Picture:
    """A PNG as it is."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
    return Picture(_uri(content, "png"), alt, caption, width, height)


def thumbnail(path: Path, alt: str, level: tuple[int, int] = LEVELS[0]) -> Picture:
    """The square at the centre as a JPEG, made smaller where it is larger."""
    return Picture(_uri(_small(path, *level), "jpeg"), alt)


def reconstructions(contents: Contents, n_runs: int) -> Reconstructions | None:
    """The reconstruction that was scored last; None where there is none."""
    scored = sorted(contents.run.folder.glob("reconstruction-*/columns.json"), key=lambda path: path.stat().st_mtime)
    folders = [path.parent / "pictures" for path in scored]
    if not folders:
        return None
    columns = _columns(folders[-1])
    images = sorted({name for _, files in columns for of_k in files.values() for name in of_k})
    try:
        seen = contents.seen
        note = ""
    except DataError as error:
        seen, note = {}, f"The pictures that were seen are not shown: {error}. "
    columns = [("seen", {0: {name: seen[name] for name in images if name in seen}}), *columns]
    paths = [path for _, files in columns for of_k in files.values() for path in of_k.values()]
    level, share = _level(paths, BUDGET // n_runs)
    kept = evenly(images, max(1, int(share * len(images))))
    note += "" if len(kept) == len(images) else f"{len(kept)} of {len(images)} pictures are shown, evenly spaced. "
    note += "" if len(folders) == 1 else f"The latest of {len(folders)} reconstructions. "
    if "other_person" in contents.recipe.reconstruct.controls and not (folders[-1] / "other_person").exists():
        note += "None is drawn with another person's weights: all people here share one set. "
    drawn = tuple(Drawn(name, _cells(name, columns, level)) for name in kept)
    numbers = sorted({k for one in drawn for cell in one.cells for k, _ in cell.versions if k})
    return Reconstructions(drawn, tuple(map(_plain, evenly(drawn, FIRST))), tuple(numbers), note.strip())


def gallery(contents: Contents) -> tuple[list[Found], str]:
    """Decisions from the most repeats, evenly spaced over images, not chosen by success; and what they are of."""
    table = contents.decisions
    if table.empty:
        return [], ""
    k = int(table["k_repeats"].max())
    mine = table[table["k_repeats"] == k].sort_values(["image_id", "person"], kind="stable")
    chosen = evenly([rows.to_dict("records") for _, rows in mine.groupby("image_id")], FOUND)
    try:
        seen = contents.seen
        note = ""
    except DataError as error:
        seen, note = {}, f" Pictures are not shown: {error}."
    shown: dict[str, Picture] = {}

    def picture(name: str) -> Picture | None:
        if name in seen and name not in shown:
            shown[name] = thumbnail(seen[name], name)
        return shown.get(name)

    rows = []
    for number, of_image in enumerate(chosen):  # people take turns
        row = of_image[number % len(of_image)]
        image = str(row["image_id"])
        names = str(row.get("top5") or row["predicted"]).split("/")
        first = tuple((name, picture(name), name == image) for name in names)
        place = f"{row['rank'] + 1:g} of {row['gallery']}"
        rows.append(Found(image, str(row["person"]), picture(image), first, place))
    about = f"{len(rows)} of {len(mine):,} decisions from {repeats(k)}, evenly spaced over pictures, people in turn."
    return rows, about + note


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most so many, from the first on at equal distances."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def _columns(folder: Path) -> list[tuple[str, FilesByK]]:
    """By title, files by number of repeats and image; the brain for a few people, controls for the first."""
    found = []
    order = {name: k for k, name in enumerate(TITLES)}
    parts = [part for part in folder.iterdir() if part.is_dir()]
    for part in sorted(parts, key=lambda part: (order.get(part.name.split()[0], len(order)), part.name)):
        people = sorted(person for person in part.iterdir() if person.is_dir())
        for person in people[: MOST_PEOPLE if part.name == "brain" else 1]:
            files = {int(of_k.name[1:]): _first_draws(of_k) for of_k in sorted(person.glob("k*"))}
            title = TITLES.get(part.name, part.name)
            found.append((f"{title} sub-{person.name}" if part.name == "brain" else title, files))
    return found


def _first_draws(folder: Path) -> dict[str, Path]:
    return {path.stem.removesuffix("-0"): path for path in sorted(folder.glob("*-0.png"))}


def _cells(image: str, columns: Iterable[tuple[str, FilesByK]], level: tuple[int, int]) -> tuple[Cell, ...]:
    cells = []
    for title, files in columns:
        there = [(k, of_k[image]) for k, of_k in sorted(files.items()) if image in of_k]
        versions = tuple(
            (k, thumbnail(path, f"{image}: {title}" + (f", {repeats(k)}" if k else ""), level)) for k, path in there
        )
        if versions:
            cells.append(Cell(title, versions))
    return tuple(cells)


def _plain(one: Drawn) -> Drawn:
    """What was seen, the brain's and the no-brain picture, from the most repeats."""
    chosen = [cell for cell in one.cells if cell.title in ("seen", "no brain")]
    brain = [cell for cell in one.cells if cell.title.startswith("brain")][:1]
    return Drawn(one.image, tuple(Cell(c.title, c.versions[-1:]) for c in [*chosen[:1], *brain, *chosen[1:]]))


def _level(paths: Sequence[Path], budget: int) -> tuple[tuple[int, int], float]:
    """The best level at which all thumbnails fit the budget, and which share of them fits."""
    sampled = evenly(paths, SAMPLED)
    for level in LEVELS:
        total = sum(len(_small(path, *level)) for path in sampled) / max(1, len(sampled)) * len(paths)
        if total <= budget:
            return level, 1.0
    return LEVELS[-1], budget / total


def _small(path: Path, side: int, quality: int) -> bytes:
    picture = load_picture(path)
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    picture = picture.crop((left, top, left + edge, top + edge))
    if edge > side:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    picture.save(content, "jpeg", quality=quality, optimize=True)
    return content.getvalue()


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
