"""Where the files come from: OpenNeuro (through openneuro-py), or a copy of the data set in a folder."""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from synapse_diffusion.download.checks import ANNEX_KEY, Folder, identity
from synapse_diffusion.download.choice import DataSet, RemoteFile, needless
from synapse_diffusion.errors import DataError, MissingError
from synapse_diffusion.types import Progress

OPENNEURO: Final = "https://openneuro.org"
CONNECT_S: Final = 10.0
LISTING_S: Final = 120.0  # the server walks some 20,000 files of ds004212 for its first answer
KEYED: Final = 10_000_000  # bytes: OpenNeuro keeps no file of this size in git itself
BUSY: Final = (408, 500, 502, 503, 504, 522, 524)  # worth another try
NEEDLESS: Final = ("**/._*", "**/.DS_Store", "**/*hz.ds/**", "**/*hz2.ds/**")
"""`choice.needless` as openneuro-py's patterns."""
LISTING: Final = """query {{ snapshot(datasetId: "{accession}", tag: "{version}") {{
    id files(recursive: true) {{ filename size id urls }} }} }}"""
VERSIONS: Final = 'query {{ dataset(id: "{accession}") {{ snapshots {{ id }} }} }}'


class Source(Protocol):
    """A place to take a data set's files from."""

    name: str
    files: list[RemoteFile]

    def read(self, file: RemoteFile) -> bytes:
        """A small file's content."""

    def fetch(self, files: Sequence[RemoteFile], folder: Folder, progress: Progress) -> None:
        """Bring the files into the staging folder. Raises `MissingError` with the reason where some did not come."""


class OpenNeuro:
    """A data set on OpenNeuro.

    The listing is one GraphQL query of ours, with the fields that openneuro-py asks for. A file's `id` is a checksum
    that openneuro-py does not use: in OpenNeuro's server (`services/datalad/datalad_service/common/annex.py` and
    `packages/openneuro-server/src/datalad/files.ts`, 2026) it is the git-annex key of a large file and the git
    blob's SHA-1 of a small one. The files come through `openneuro.download`, which resumes by HTTP ranges, tries
    again, and checks each file's size and the MD5 that S3 gives as ETag of a file uploaded in one part; where a
    large file has no git-annex key, it also asks NEMAR, a mirror, for checksums.

    Raises `MissingError` without openneuro-py or network, `DataError` where the version is not there.
    """

    def __init__(self, data_set: DataSet, endpoint: str) -> None:
        self.name = str(urlsplit(endpoint).netloc)
        self._data_set = data_set
        self._endpoint = endpoint.rstrip("/")
        _library("openneuro")
        found = self._query(LISTING).get("snapshot")
        if not found:
            there = (self._query(VERSIONS).get("dataset") or {}).get("snapshots") or []
            versions = ", ".join(str(one["id"]).rsplit(":", 1)[-1] for one in there)
            raise DataError(
                f"{self.name}: no version {data_set.version} of {data_set.accession}; there are {versions or 'none'}"
            )
        self.files = [_remote_file(entry) for entry in found.get("files") or []]

    def read(self, file: RemoteFile) -> bytes:
        """A small file's content."""
        return get_bytes(file.url)

    def fetch(self, files: Sequence[RemoteFile], folder: Folder, progress: Progress) -> None:
        """By `openneuro.download`, into the staging folder; it takes the few files that describe a data set, always."""
        if withdrawn := [file.path for file in files if not file.url]:
            raise MissingError(f"{self.name}: gives no address for {withdrawn[0]}; it may have been withdrawn")
        (folder.staging / "dataset_description.json").unlink(missing_ok=True)  # openneuro-py stops at a cut one
        wanted = {file.path for file in files}
        keyless = any(file.size > KEYED and not ANNEX_KEY.match(file.key) for file in files)
        total = sum(file.size for file in files)
        with _quiet_library(self._endpoint) as reasons, _watched(files, total, folder, progress):
            try:
                _library("openneuro").download(
                    dataset=self._data_set.accession,
                    tag=self._data_set.version,
                    target_dir=folder.staging,
                    include=patterns(wanted, {file.path for file in self.files}),
                    exclude=NEEDLESS,
                    verify_hash="auto" if keyless else True,
                    metadata_timeout=LISTING_S,
                    source="openneuro",
                )
            except (RuntimeError, OSError, _library("niquests").RequestException) as error:
                raise MissingError(
                    f"{self.name}: not all files came: {reasons[0] if reasons else reason(error)}; "
                    "what came is kept, and the same command goes on from here"
                ) from None

    def _query(self, template: str) -> dict[str, Any]:
        body = {"query": template.format(accession=self._data_set.accession, version=self._data_set.version)}
        answer = _answer("POST", f"{self._endpoint}/crn/graphql", body)
        try:
            values = answer.json()
        except ValueError:
            raise MissingError(f"{self.name}: answered without JSON (HTTP {answer.status_code}); try later") from None
        if faults := values.get("errors"):
            told = str(faults[0].get("message"))
            if "not found" in told.lower() or "does not exist" in told.lower():
                return {}
            raise MissingError(f"{self.name}: refused to list {self._data_set.accession}: {told}; try later")
        return dict(values.get("data") or {})


class Copy:
    """A copy of the data set in a folder: a mirror, a DataLad clone with its content, another download.

    Where files are git-annex links, their names hold the checksums; elsewhere the size after copying is all that is
    checked. Raises `DataError` where the folder is not that data set at that version.
    """

    def __init__(self, data_set: DataSet, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder
        found = identity(folder)
        if found != (data_set.accession, data_set.version):
            holds = f"holds {' '.join(found)}" if found else "has no dataset_description.json of OpenNeuro's"
            raise DataError(f"--from {folder}: {holds}; name a copy of {data_set.accession} {data_set.version}")
        self.files = []
        for top, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]  # .git, .datalad
            self.files += [_local_file(Path(top) / name, folder) for name in names]

    def read(self, file: RemoteFile) -> bytes:
        """A small file's content."""
        return (self._folder / file.path).read_bytes()

    def fetch(self, files: Sequence[RemoteFile], folder: Folder, progress: Progress) -> None:
        """Copied one by one."""
        done, total = 0, sum(file.size for file in files)
        for file in files:
            staged = folder.staging / file.path
            try:
                staged.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._folder / file.path, staged)
            except OSError as error:
                raise MissingError(
                    f"{self._folder / file.path}: cannot be copied: {error.strerror}; in a DataLad clone, "
                    "`datalad get` what you need first"
                ) from None
            done += file.size
            progress("copying, MB", done // 1_000_000, total // 1_000_000)


def get_bytes(url: str) -> bytes:
    """A small file from the network. Raises `MissingError` where it cannot be had."""
    answer = _answer("GET", url)
    if not answer.ok:
        raise MissingError(f"{url}: HTTP {answer.status_code}; try later, or take the files from a folder with --from")
    return bytes(answer.content or b"")


def reason(error: BaseException) -> str:
    """Why it failed, without the layers around it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text.strip().splitlines()[0]


def patterns(wanted: Collection[str], everything: Iterable[str]) -> list[str]:
    """The wanted files as few patterns of openneuro-py: whole folders where nothing else is in them."""
    partial = {""}  # folders that hold something which is not wanted
    for path in everything:
        if path not in wanted and not needless(path):
            partial.update(str(folder) for folder in PurePosixPath(path).parents if str(folder) != ".")
    found: dict[str, None] = {}
    for path in sorted(wanted):
        folders = [str(folder) for folder in reversed(PurePosixPath(path).parents) if str(folder) != "."]
        hidden = any(part.startswith(".") for part in path.split("/"))  # openneuro-py's "**" passes these by
        whole = next((folder for folder in folders if folder not in partial and not hidden), path)
        found["/" + re.sub(r"[][*?!\\{}()|]", "?", whole)] = None
    return list(found)


def _local_file(path: Path, folder: Path) -> RemoteFile:
    """A file or git-annex link, whose content may not be there: its key has the size."""
    annex = ANNEX_KEY.match(path.readlink().name) if path.is_symlink() else None
    size = int(annex[2]) if annex else path.stat().st_size
    return RemoteFile(path.relative_to(folder).as_posix(), size, annex[0] if annex else "")


def _remote_file(entry: dict[str, Any]) -> RemoteFile:
    path = PurePosixPath(str(entry["filename"]))
    if path.is_absolute() or ".." in path.parts or "\\" in str(path):
        raise DataError(f"the listing names {path}, which would be written outside the folder")
    return RemoteFile(
        str(path), int(entry.get("size") or 0), str(entry.get("id") or ""), str((entry.get("urls") or [""])[0])
    )


def _library(name: str) -> Any:
    """openneuro-py, or the HTTP library that comes with it."""
    if name == "openneuro":  # before the import: openneuro-py then leaves its level alone
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingError(
            "openneuro-py is not installed: pip install 'synapse-diffusion[download]', or take the files from a copy "
            "(a DataLad clone, a mirror) with --from"
        ) from None
    except OSError as error:  # it makes a folder for its settings when imported
        raise MissingError(f"openneuro-py cannot make its folder of settings: {error}") from None


def _answer(method: str, url: str, body: dict[str, str] | None = None) -> Any:
    """One request, tried three times where the server is busy; no network: at once."""
    niquests = _library("niquests")
    for wait_s in (1.0, 3.0, 0.0):
        try:
            answer = niquests.request(method, url, json=body, timeout=(CONNECT_S, LISTING_S))
        except niquests.RequestException as error:
            raise MissingError(
                f"{urlsplit(url).netloc} cannot be reached: {reason(error)}; check the network or a proxy "
                "(HTTPS_PROXY), or take the files from a folder with --from"
            ) from None
        if answer.status_code not in BUSY or not wait_s:
            break
        time.sleep(wait_s)
    return answer


@contextmanager
def _quiet_library(endpoint: str) -> Iterator[list[str]]:
    """openneuro-py without its prints and bars, at an endpoint of ours; collects why files did not come.

    The only place that touches what openneuro-py keeps private.
    """
    inner: Any = importlib.import_module("openneuro._download")
    reasons: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (text := record.getMessage()).lstrip("❌ ").startswith("Failed to download") and ": " in text:
                reasons.append(text.strip("❌ ").removeprefix("Failed to download "))

    kept = inner.gql_url, inner.console.quiet
    inner.gql_url, inner.console.quiet = f"{endpoint}/crn/graphql", True
    handler = Collect()
    logging.getLogger("openneuro").addHandler(handler)
    try:
        yield reasons
    finally:
        logging.getLogger("openneuro").removeHandler(handler)
        inner.gql_url, inner.console.quiet = kept


@contextmanager
def _watched(files: Sequence[RemoteFile], total: int, folder: Folder, progress: Progress) -> Iterator[None]:
    """Report the bytes that have arrived, every second."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            progress("fetching, MB", folder.staged_bytes(files) // 1_000_000, total // 1_000_000)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
