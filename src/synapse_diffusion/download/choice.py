"""Which files of a data set are needed: persons, sessions, raw or derivative; no leftovers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from synapse_diffusion.errors import DataError, SettingsError

SMALL: Final = 1_000_000  # bytes: a file of a derivative that names no person and is smaller describes all of it


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set; `path` with "/", `size` in bytes.

    `key` is a git-annex key (`SHA256E-s1024--<hash>.eeg`), the SHA-1 of a git blob, or empty: not known.
    """

    path: str
    size: int
    key: str = ""
    url: str = ""


@dataclass(frozen=True)
class DataSet:
    """A published data set at the version that the recipes are for."""

    name: str
    accession: str
    version: str
    prefix: str
    """What a person's number follows, e.g. BIGMEG."""
    digits: int
    """How many digits a person's number has at least."""
    derivative: str
    """Folder of the cleaned copy."""
    derivative_person: re.Pattern[str]
    """Finds the person in a file name of it."""

    def person(self, name: str) -> str:
        """A person as the data set writes them: `2`, `02` and `sub-02` are 02, `1` is BIGMEG1."""
        short = name.strip().removeprefix("sub-")
        return f"{self.prefix}{int(short):0{self.digits}d}" if short.isascii() and short.isdigit() else short

    def person_of(self, path: str, derivative: bool) -> str:
        """Whose file it is; empty: nobody's."""
        if not derivative:
            top = path.split("/", 1)[0]
            return top.removeprefix("sub-") if "/" in path and top.startswith("sub-") else ""
        found = self.derivative_person.search(path.rsplit("/", 1)[-1]) if path.startswith(self.derivative) else None
        return self.person(found[1]) if found else ""


DATA_SETS: Final = {
    "eeg1": DataSet("eeg1", "ds003825", "1.2.0", "", 2, "derivatives/eeglab/", re.compile(r"sub-([A-Za-z0-9]+)")),
    "meg": DataSet("meg", "ds004212", "3.0.0", "BIGMEG", 1, "derivatives/preprocessed/", re.compile(r"_P(\d+)-epo")),
}


def needless(path: str) -> bool:
    """Leftovers of macOS, and the two .ds folders of head positions inside each CTF recording."""
    *folders, name = path.split("/")
    return name.startswith("._") or name == ".DS_Store" or any(f.endswith(("hz.ds", "hz2.ds")) for f in folders)


def excluded_people(participants: bytes) -> set[str]:
    """Whom participants.tsv marks `exclude = 1`."""
    rows = csv.DictReader(io.StringIO(participants.decode("utf-8-sig", errors="replace")), delimiter="\t")
    return {str(row.get("participant_id")).removeprefix("sub-") for row in rows if row.get("exclude") == "1"}


def choose(
    data_set: DataSet,
    files: Iterable[RemoteFile],
    people: Sequence[str],
    sessions: Sequence[str],
    derivative: bool,
    excluded: Collection[str],
) -> tuple[list[RemoteFile], tuple[str, ...]]:
    """The files to fetch, in order of path, and the persons in them.

    All files at the top come along; of a derivative, also the raw data's event tables. Without `people` all are
    taken but `excluded` and recordings of the empty room.
    Raises `SettingsError` for a person or session that is not there, naming those that are.
    """
    kept = sorted((file for file in files if not needless(file.path)), key=lambda file: file.path)
    owner = {file.path: data_set.person_of(file.path, derivative) for file in kept}
    there = sorted(set(owner.values()) - {""})
    if not there:
        raise DataError(f"{data_set.accession} {data_set.version}: its listing holds no recordings of a person")
    wanted = _named("--subject", [data_set.person(name) for name in people], there, data_set)
    if not wanted:
        wanted = tuple(name for name in there if name not in excluded and "empty" not in name.lower())
    if derivative and sessions:
        raise SettingsError("--session: the derivative holds a person's sessions in one; leave --session out")
    if sessions and not any(_session(path) for path in owner):
        raise SettingsError(f"--session: {data_set.name} ({data_set.accession}) has no sessions; leave it out")
    days = sorted({_session(path) for path, person in owner.items() if person in wanted} - {""})
    given = [name.strip().removeprefix("ses-") for name in sessions]
    asked = _named("--session", [f"{int(n):02d}" if n.isascii() and n.isdigit() else n for n in given], days, data_set)
    chosen = [
        file
        for file in kept
        if "/" not in file.path
        or (owner[file.path] in wanted and (not asked or _session(file.path) in {*asked, ""}))
        or (derivative and _describes(file, data_set, owner, wanted))
    ]
    return chosen, wanted


def _describes(file: RemoteFile, data_set: DataSet, owner: Mapping[str, str], wanted: Collection[str]) -> bool:
    """Event tables of the raw data, and small files about a whole derivative."""
    if file.path.startswith(data_set.derivative):
        return not owner[file.path] and file.size < SMALL
    return file.path.endswith("_events.tsv") and data_set.person_of(file.path, derivative=False) in wanted


def _session(path: str) -> str:
    parts = path.split("/")
    return parts[1].removeprefix("ses-") if len(parts) > 2 and parts[1].startswith("ses-") else ""


def _named(option: str, names: Sequence[str], there: Sequence[str], data_set: DataSet) -> tuple[str, ...]:
    folded = {name.lower(): name for name in there}
    if missing := [name for name in names if name.lower() not in folded]:
        where = f"{data_set.accession} {data_set.version}"
        raise SettingsError(f"{option} {','.join(missing)}: not in {where}; there are {', '.join(there)}")
    return tuple(dict.fromkeys(folded[name.lower()] for name in names))
