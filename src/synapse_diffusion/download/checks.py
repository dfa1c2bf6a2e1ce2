"""Files on disk: checksums, a record of what was checked, staging, disk space."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from synapse_diffusion.download.choice import RemoteFile
from synapse_diffusion.errors import DataError, MissingError
from synapse_diffusion.store.files import whole

STAGING: Final = ".synapse-download"
ANNEX_KEY: Final = re.compile(r"(SHA256|SHA512|SHA1|MD5)E?-s(\d+)--([0-9a-f]+)")
CHUNK: Final = 1 << 20


def matches(path: Path, key: str) -> bool | None:
    """Whether a file's content is what the key says; None where the key holds no checksum."""
    if annex := ANNEX_KEY.match(key):
        return _digest(path, hashlib.new(annex[1].lower())) == annex[3]
    if re.fullmatch(r"[0-9a-f]{40}", key):  # a git blob: SHA-1 over a header and the content
        return _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)) == key
    return None


class Folder:
    """A data set's folder on disk, the staging folder in it, and the record of files that were checked.

    A file comes to its place by a rename, after its size and checksum were right. The record
    (`.synapse-download/checked.json`: size, time of change, key) spares hashing it again in the next call;
    a file that changed since is hashed, and fetched again where it differs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staging = root / STAGING / "files"
        self._record_path = root / STAGING / "checked.json"
        self._record: dict[str, list[object]] = {}
        try:
            record = json.loads(self._record_path.read_text(encoding="utf-8"))
            self._record = record if isinstance(record, dict) else {}
        except (OSError, ValueError):
            pass  # no record or a cut one: everything is hashed anew

    def holds(self, file: RemoteFile) -> bool:
        """Whether the file is in its place, with the right size and content."""
        path = self.root / file.path
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        if self._record.get(file.path) == _state(path, file):
            return True
        if matches(path, file.key) is False:
            return False
        self._record[file.path] = _state(path, file)
        return True

    def staged_bytes(self, files: Iterable[RemoteFile]) -> int:
        """How much of these is in the staging folder already."""
        return sum(min(_size(self.staging / file.path), file.size) for file in files)

    def settle(self, file: RemoteFile, fresh: bool) -> bool:
        """Move a staged file to its place if it is whole; False if it is not.

        A whole file whose content is wrong is removed, so that it is fetched anew. `fresh`: the file was fetched and
        checked in this call, so that only an annex key can speak against it (a 40-digit id is a git blob's
        SHA-1 in the server's code of 2026, and was a hash of the path too in older code: no reason to stop).
        """
        staged, place = self.staging / file.path, self.root / file.path
        if not staged.is_file() or staged.stat().st_size != file.size:
            return False
        right = matches(staged, file.key)
        if right is None and not fresh:
            return False
        if right is False and not (fresh and not ANNEX_KEY.match(file.key)):
            staged.unlink()
            return False
        place.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(place)
        self._record[file.path] = _state(place, file)
        return True

    def clean(self) -> None:
        """Remove what is staged though in its place, and empty folders; parts of other people's files stay."""
        for top, folders, names in os.walk(self.staging, topdown=False):
            for staged in (Path(top) / name for name in names):
                if (self.root / staged.relative_to(self.staging)).exists():
                    staged.unlink()
            for path in (*(Path(top) / name for name in folders), Path(top)):
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()

    def keep_record(self) -> None:
        """Write down what was checked."""
        with whole(self._record_path) as part:
            part.write_text(json.dumps(self._record, indent=0, sort_keys=True), encoding="utf-8")

    def check_identity(self, accession: str, version: str) -> None:
        """Raises `DataError` where the folder holds another data set or version."""
        found = identity(self.root)
        if found and found != (accession, version):
            raise DataError(f"{self.root}: holds {' '.join(found)}, not {accession} {version}; name another folder")

    def free_bytes(self) -> int:
        """Free space of the disk that the folder is (or will be) on."""
        there = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        return shutil.disk_usage(there).free


def identity(root: Path) -> tuple[str, str] | None:
    """Accession and version that dataset_description.json names by its DOI, if it does."""
    try:
        text = (root / "dataset_description.json").read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"openneuro\.(ds\d{6})\.v([0-9.]+[0-9])", text)
    return (found[1], found[2]) if found else None


def make_folder(folder: Path) -> None:
    """Raises `MissingError` where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(f"{folder}: cannot be made: {error.strerror}; name another folder") from None
    if not os.access(folder, os.W_OK):
        raise MissingError(f"{folder}: cannot be written to; name another folder")


def in_words(n_bytes: int) -> str:
    """Bytes for people, in powers of 1000."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _state(path: Path, file: RemoteFile) -> list[object]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, file.key]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
