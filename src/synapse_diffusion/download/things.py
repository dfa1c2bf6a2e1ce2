"""THINGS' tables: the concepts, their 27 categories, and the images in THINGS' numbering."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from synapse_diffusion.download.checks import make_folder
from synapse_diffusion.download.sources import get_bytes
from synapse_diffusion.errors import DataError, MissingError
from synapse_diffusion.store.files import whole
from synapse_diffusion.types import Say

CONCEPTS: Final = "things_concepts.tsv"
CATEGORIES: Final = "category_mat_manual.tsv"
IMAGES: Final = "things_images.csv"
NAMES: Final = ("file_names_THINGS.txt", "image_paths.csv")  # lists of image files: ViCCo-Group's, OSF's
N_CONCEPTS: Final = 1854
N_CATEGORIES: Final = 27
N_IMAGES: Final = 26107
OSF: Final = "https://osf.io/jum2f"
GITHUB: Final = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Published:
    """Where a table is published, at a fixed commit, and the SHA-256 that it must have."""

    address: str
    sha256: str


PUBLISHED: Final = {
    CONCEPTS: Published(
        "ViCCo-Group/thingsvision/a325699ecab4f29703ab10136641538ff8b44e2e/thingsvision/data/things_concepts.tsv",
        "f6eb4ec6fcad61e50a746bee820f98d1595fe655e9e210a9a407e9a17fd8cee4",
    ),
    CATEGORIES: Published(
        "LukasMut/VICE/f484c1446459c12c15deb2df1476f53969ad6f4d/data/category_mat_manual.tsv",
        "1530a3d042706c2b1f1f1975143147131f8d52b31c24cf8869da2c075cc62d6d",
    ),
    NAMES[0]: Published(
        "ViCCo-Group/dimension_encoding/aaa833cfccdc7fe9d83244f2ed6865333c5b029b/data/66d/file_names_THINGS.txt",
        "fbafdde5f556e1aac49e19c208c25b3c184dfc4401abf1e2c90c57110c5bbd1f",
    ),
}


def download_things(out: Path, say: Say, copy: Path | None = None, site: str = GITHUB) -> None:
    """Write the three tables into `out`, from the web or from the folder `copy` (searched with its subfolders).

    `things_images.csv` (image_nr, file_name, uniqueID, concept_nr; from 1) is made where it is not given: THINGS
    numbers its images in order of concept, then of file name, so the list of file names decides it.
    From the web, every file must have the SHA-256 in `PUBLISHED`, and comes only where it is not in `out` already.
    The hashes are those of copies made earlier; the addresses were established in an archive of GitHub, where the
    files' lengths and ends agree with these copies, and have not been fetched from by the developers themselves.
    In both cases the tables must agree: 1,854 concepts, 27 categories of 0 and 1, 26,107 images of these concepts.
    Raises `DataError` for a wrong or missing file in `copy`, `MissingError` where the web does not give them.
    """
    if copy is not None and not copy.is_dir():
        raise DataError(f"--from {copy}: no such folder; name one with THINGS' tables ({OSF})")
    if copy is None:
        tables = {name: _published(name, out, site) for name in PUBLISHED}
        where, names = site, NAMES[0]
    else:
        tables = {name: _found(copy, (name,))[1] for name in (CONCEPTS, CATEGORIES)}
        names, content = _found(copy, (IMAGES, *NAMES))
        tables[names], where = content, str(copy)
    concepts = _concepts(tables[CONCEPTS], where)
    _check_categories(tables[CATEGORIES], where)
    if names != IMAGES:
        tables[IMAGES] = _numbered(tables[names], names, concepts, where)
    _check_images(tables[IMAGES], concepts, where)

    make_folder(out)
    for name in (CONCEPTS, CATEGORIES, IMAGES):
        with whole(out / name) as part:
            part.write_bytes(tables[name])
    names = f"{CONCEPTS}, {CATEGORIES} and {IMAGES}"
    say(f"{names} in {out}: {N_CONCEPTS} concepts, {N_CATEGORIES} categories, {N_IMAGES} images")
    say(f"next: add --set paths.things={out} to a recipe that decodes THINGS' categories")


def _published(name: str, out: Path, site: str) -> bytes:
    source = PUBLISHED[name]
    if (out / name).is_file() and _sha256(content := (out / name).read_bytes()) == source.sha256:
        return content
    try:
        content = get_bytes(f"{site}/{source.address}")
    except MissingError as error:
        raise MissingError(f"{error} (THINGS' tables are also at {OSF})") from None
    if (got := _sha256(content)) != source.sha256:
        raise MissingError(
            f"{site}/{source.address}: SHA-256 is {got[:12]}..., not {source.sha256[:12]}...; "
            f"take {name} from {OSF} and name its folder by --from"
        )
    return content


def _found(folder: Path, names: tuple[str, ...]) -> tuple[str, bytes]:
    for name in names:
        if paths := sorted(folder.rglob(name), key=lambda path: (len(path.parts), path)):
            try:
                return name, paths[0].read_bytes()
            except OSError as error:
                raise DataError(f"{paths[0]}: cannot be read: {error.strerror}") from None
    raise DataError(f"--from {folder}: no {' or '.join(names)} in it; it is one of THINGS' tables ({OSF})")


def _concepts(content: bytes, where: str) -> list[str]:
    rows = _rows(content, "\t", CONCEPTS, where)
    names = [row.get("uniqueID") or "" for row in rows]
    if len(names) != N_CONCEPTS or len(set(names)) != N_CONCEPTS or "" in names:
        found = len(set(names) - {""})
        raise DataError(f"{where}: {CONCEPTS} has {found} different uniqueIDs, not {N_CONCEPTS}; take it from {OSF}")
    return names


def _check_categories(content: bytes, where: str) -> None:
    rows = _rows(content, "\t", CATEGORIES, where)
    n_columns = len(rows[0]) if rows else 0
    if (len(rows), n_columns) != (N_CONCEPTS, N_CATEGORIES):
        raise DataError(
            f"{where}: {CATEGORIES} has {len(rows)} rows of {n_columns} categories, not {N_CONCEPTS} of "
            f"{N_CATEGORIES}; take it from {OSF}"
        )
    if any(value not in ("0", "1") for row in rows for value in row.values()):
        raise DataError(f"{where}: {CATEGORIES} holds something else than 0 and 1; take it from {OSF}")


def _numbered(content: bytes, name: str, concepts: list[str], where: str) -> bytes:
    """The image table out of a list of file names or paths."""
    images: dict[str, list[str]] = defaultdict(list)
    for line in content.decode("utf-8-sig", errors="replace").splitlines():
        file = line.strip().strip('"').replace("\\", "/").rsplit("/", 1)[-1]
        if file.endswith(".jpg"):
            images[file.rsplit("_", 1)[0]].append(file)
    if unknown := sorted(set(images) - set(concepts)):
        raise DataError(f"{where}: {name} names images of {unknown[0]!r}, which is no concept; take it from {OSF}")
    lines = ["image_nr,file_name,uniqueID,concept_nr"]
    for number, concept in enumerate(concepts, start=1):
        for file in sorted(images[concept]):
            lines.append(f"{len(lines)},{file},{concept},{number}")
    return ("\n".join(lines) + "\n").encode()


def _check_images(content: bytes, concepts: list[str], where: str) -> None:
    rows = _rows(content, ",", IMAGES, where)
    if len(rows) != N_IMAGES:
        raise DataError(f"{where}: {IMAGES} has {len(rows)} images, not {N_IMAGES}; take them from {OSF}")
    number = {concept: str(k) for k, concept in enumerate(concepts, start=1)}
    before = ("", "")
    for k, row in enumerate(rows, start=1):
        concept, file = row.get("uniqueID") or "", row.get("file_name") or ""
        here = (f"{int(number.get(concept, '0')):05d}", file)
        if row.get("image_nr") != str(k) or number.get(concept) != row.get("concept_nr") or here <= before:
            raise DataError(f"{where}: {IMAGES} line {k + 1}: not image {k} in order of concept and file name")
        before = here


def _rows(content: bytes, delimiter: str, name: str, where: str) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: {name} is no UTF-8 table: {error}") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
