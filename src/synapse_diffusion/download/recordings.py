"""Recordings of THINGS-EEG1 and THINGS-MEG: list, choose, see that they fit, fetch, check."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from synapse_diffusion.download.checks import Folder, in_words, make_folder
from synapse_diffusion.download.choice import DATA_SETS, RemoteFile, choose, excluded_people
from synapse_diffusion.download.sources import OPENNEURO, Copy, OpenNeuro, Source
from synapse_diffusion.errors import MissingError
from synapse_diffusion.types import Progress, Say


def download_recordings(
    what: str,
    out: Path,
    say: Say,
    progress: Progress,
    people: Sequence[str] = (),
    sessions: Sequence[str] = (),
    derivative: bool = False,
    copy: Path | None = None,
    dry_run: bool = False,
    endpoint: str | None = None,
) -> tuple[str, ...]:
    """Fetch persons (and sessions) of `eeg1` (ds003825 1.2.0) or `meg` (ds004212 3.0.0) into the folder `out`.

    From OpenNeuro, or from a `copy` of the data set in a folder. What is in `out` already, with the right size and
    checksum, stays; what a killed call had fetched in part goes on from there. A file appears at its place only when
    it is whole. Checked are

    * each file's size against the listing;
    * each file's content against its git-annex key (SHA-256 or MD5) or git blob SHA-1, where the listing has one
      (`sources.OpenNeuro`); after that it is hashed again only if its time of change differs (`checks.Folder`);
    * while fetching, by openneuro-py: sizes, and the MD5 in S3's ETag.

    All of this was tried against a server on loopback that follows OpenNeuro's source, not against openneuro.org.

    `dry_run` says what would be fetched and stops. `endpoint`: another server than openneuro.org; the environment
    variable SYNAPSE_OPENNEURO is the default. Returns the persons.
    Raises `SettingsError` for unknown persons or sessions, `DataError` for a folder with another data set,
    `MissingError` without network, library or disk space, or where a file stays wrong.
    """
    data_set = DATA_SETS[what]
    folder = Folder(out)
    folder.check_identity(data_set.accession, data_set.version)
    source: Source
    if copy is not None:
        source = Copy(data_set, copy)
    else:
        source = OpenNeuro(data_set, endpoint or os.environ.get("SYNAPSE_OPENNEURO") or OPENNEURO)
    excluded = set() if people else _excluded(source)
    chosen, persons = choose(data_set, source.files, people, sessions, derivative, excluded)
    if left_out := sorted(excluded - set(persons)):
        say(f"left out (participants.tsv says exclude): {', '.join(left_out)}; --subject takes them in")

    lacking = []
    for k, file in enumerate(chosen):
        progress("checking what is here, files", k, len(chosen))
        if not dry_run:
            folder.settle(file, fresh=False)
        if not folder.holds(file):
            lacking.append(file)
    staged = folder.staged_bytes(lacking)
    needed = sum(file.size for file in lacking) - staged
    here = sum(file.size for file in chosen) - needed
    free = folder.free_bytes()
    say(
        f"{data_set.accession} {data_set.version} from {source.name}: {len(lacking)} of {len(chosen)} files, "
        f"{in_words(needed)} to fetch ({in_words(here)} are here already); {in_words(free)} are free in {out}"
    )
    if needed > free:
        raise MissingError(
            f"{out}: {in_words(needed)} are needed and {in_words(free)} are free; choose fewer persons or sessions "
            "(--subject, --session) or another disk"
        )
    if dry_run:
        return persons
    make_folder(out)
    try:
        _fetch(source, lacking, folder, progress)
    finally:
        folder.keep_record()
    folder.clean()
    say(f"{data_set.accession} {data_set.version}: {len(chosen)} files of {', '.join(persons)} are whole in {out}")
    return persons


def _fetch(source: Source, lacking: list[RemoteFile], folder: Folder, progress: Progress) -> None:
    """Fetch, check, move to their places; what came wrong is fetched a second time."""
    for _ in range(2):
        if not lacking:
            return
        came = False
        try:
            source.fetch(lacking, folder, progress)
            came = True
        finally:
            lacking = [file for file in lacking if not folder.settle(file, fresh=came)]
    if lacking:
        raise MissingError(
            f"{source.name}: {lacking[0].path} came twice with another size or content than the listing says "
            f"({lacking[0].size} bytes, {lacking[0].key or 'no checksum'}); try later or from elsewhere (--from)"
        )


def _excluded(source: Source) -> set[str]:
    table = next((file for file in source.files if file.path == "participants.tsv"), None)
    return excluded_people(source.read(table)) if table else set()
