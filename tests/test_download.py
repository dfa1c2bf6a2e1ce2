"""`download`, against a server on loopback."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openneuro_server import BIG, EEG1, Server, content, description, key, meg
from synapse_diffusion.download import download_recordings, download_things, things
from synapse_diffusion.download.checks import STAGING
from synapse_diffusion.download.choice import DATA_SETS, RemoteFile, choose, needless
from synapse_diffusion.download.sources import patterns
from synapse_diffusion.errors import DataError, MissingError, SettingsError

LINES: list[str] = []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    one = Server()
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    LINES.clear()
    yield one
    one.over.set()
    one.shutdown()
    one.server_close()
    thread.join()


def fetch(server: Server, what: str, out: Path, *people: str, **options: Any) -> tuple[str, ...]:
    LINES.clear()
    server.got.clear()
    return download_recordings(what, out, LINES.append, lambda *_: None, people, endpoint=server.endpoint, **options)


def there(out: Path) -> set[str]:
    return {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and STAGING not in p.parts}


TOP = {"dataset_description.json", "participants.tsv", "task-rsvp_events.json", "README"}
PERSON_2 = {f"sub-02/eeg/sub-02_task-rsvp_{end}" for end in ("events.tsv", "eeg.eeg", "eeg.vhdr")}
EEG_2 = "sub-02/eeg/sub-02_task-rsvp_eeg.eeg"


def test_one_person_is_fetched_and_once_only(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "eeg"
    assert fetch(server, "eeg1", out, "2") == ("02",)
    assert there(out) == TOP | PERSON_2
    assert (out / EEG_2).read_bytes() == server.sets[EEG1][EEG_2]
    assert not (out / STAGING / "files").exists()
    assert re.match(r"ds003825 1\.2\.0 from 127\S+: 7 of 7 files, 300\.\d kB to fetch \(0 B are here", LINES[0])
    fetch(server, "eeg1", out, "sub-02")
    assert server.got == []
    assert "0 of 7 files, 0 B to fetch (300." in LINES[0]
    fetch(server, "eeg1", out, "3")
    assert {path for path, _ in server.got if path.startswith("sub-")} == {
        path.replace("02", "03") for path in PERSON_2
    }


def test_excluded_people_only_where_named(server: Server, tmp_path: Path) -> None:
    assert fetch(server, "eeg1", tmp_path, dry_run=True) == ("02", "03")
    assert "left out (participants.tsv says exclude): 01" in LINES[0]
    assert there(tmp_path) == set()
    assert fetch(server, "eeg1", tmp_path, "01", dry_run=True) == ("01",)


def test_derivatives(server: Server, tmp_path: Path) -> None:
    fetch(server, "eeg1", tmp_path / "eeg", "02", derivative=True)
    ends = ("derivatives/eeglab/sub-02_task-rsvp_continuous.set", "derivatives/eeglab/sub-02_task-rsvp_continuous.fdt")
    assert there(tmp_path / "eeg") == TOP | {*ends, "sub-02/eeg/sub-02_task-rsvp_events.tsv"}
    fetch(server, "meg", tmp_path / "meg", "1", derivative=True)
    found = {path for path in there(tmp_path / "meg") if path.startswith("derivatives")}
    assert found == {f"derivatives/preprocessed/preprocessed_P1-epo{part}.fif" for part in ("", "-1")}


def test_sessions_of_meg_without_leftovers(server: Server, tmp_path: Path) -> None:
    assert fetch(server, "meg", tmp_path, "1", sessions=["2"]) == ("BIGMEG1",)
    stem = "sub-BIGMEG1_ses-02_task-main_run-01"
    assert {path for path in there(tmp_path) if "/" in path} == {
        f"sub-BIGMEG1/ses-02/meg/{stem}_events.tsv",
        f"sub-BIGMEG1/ses-02/meg/{stem}_meg.ds/{stem}_meg.meg4",
    }
    assert not any(needless(path) for path, _ in server.got)
    assert fetch(server, "meg", tmp_path, dry_run=True) == ("BIGMEG1", "BIGMEG2")  # no empty room


@pytest.mark.parametrize(
    ("what", "people", "options", "message"),
    [
        ("eeg1", ["51"], {}, "--subject 51: not in ds003825 1.2.0; there are 01, 02, 03"),
        ("meg", ["BIGMEG9"], {}, "there are BIGMEG1, BIGMEG2, emptyroom"),
        ("meg", ["1"], {"sessions": ["12"]}, "--session 12: not in ds004212 3.0.0; there are 01, 02"),
        ("eeg1", ["2"], {"sessions": ["1"]}, "has no sessions"),
        ("meg", ["1"], {"sessions": ["1"], "derivative": True}, "leave --session out"),
    ],
)
def test_what_is_not_there(
    server: Server, tmp_path: Path, what: str, people: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        fetch(server, what, tmp_path, *people, **options)


def test_a_version_that_is_not_there(server: Server, tmp_path: Path) -> None:
    server.sets["ds003825:1.1.0"] = server.sets.pop(EEG1)
    with pytest.raises(DataError, match=r"no version 1\.2\.0 of ds003825; there are 3\.0\.0, 1\.1\.0"):
        fetch(server, "eeg1", tmp_path, "2")


def test_a_broken_line_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cut[EEG_2] = 100_000
    fetch(server, "eeg1", tmp_path, "2")
    starts = [start for path, start in server.got if path == EEG_2]
    assert starts[0] == 0
    assert 0 < starts[1] <= 100_000
    assert (tmp_path / EEG_2).read_bytes() == server.sets[EEG1][EEG_2]


@pytest.mark.parametrize("spoil", ["content", "size"])
def test_spoilt_files_are_fetched_again(server: Server, tmp_path: Path, spoil: str) -> None:
    fetch(server, "eeg1", tmp_path, "2")
    for path in (EEG_2, "sub-02/eeg/sub-02_task-rsvp_eeg.vhdr"):
        data = bytearray((tmp_path / path).read_bytes())
        data[3] ^= 1
        (tmp_path / path).write_bytes(data if spoil == "content" else data[:-2])
    fetch(server, "eeg1", tmp_path, "2")
    fetched = {path for path, _ in server.got if path.startswith("sub-")}
    assert fetched == {EEG_2, "sub-02/eeg/sub-02_task-rsvp_eeg.vhdr"}
    assert all((tmp_path / path).read_bytes() == server.sets[EEG1][path] for path in PERSON_2)


def test_wrong_content_never_reaches_its_place(server: Server, tmp_path: Path) -> None:
    server.spoilt[EEG_2] = content("other", BIG)  # ETag and size fit: only the git-annex key tells
    with pytest.raises(MissingError, match=r"_eeg\.eeg came twice with another size or content.*SHA256E"):
        fetch(server, "eeg1", tmp_path, "2")
    assert EEG_2 not in there(tmp_path)
    assert "sub-02/eeg/sub-02_task-rsvp_events.tsv" in there(tmp_path)


def test_a_killed_download_goes_on(server: Server, tmp_path: Path) -> None:
    server.stall[EEG_2] = 150_000
    out = tmp_path / "eeg"
    code = "from synapse_diffusion.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "download", "eeg1", str(out), "--subject", "02"],
        env={**os.environ, "SYNAPSE_OPENNEURO": server.endpoint},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    staged = out / STAGING / "files" / EEG_2
    until = time.monotonic() + 20
    while time.monotonic() < until and not (staged.exists() and staged.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there_before = staged.stat().st_size
    assert 0 < there_before < BIG
    assert EEG_2 not in there(out)
    server.over.set()
    fetch(server, "eeg1", out, "03")  # another person does not cost what came of this one
    assert EEG_2 not in there(out)
    fetch(server, "eeg1", out, "02")
    assert [start for path, start in server.got if path == EEG_2] == [there_before]
    assert (out / EEG_2).read_bytes() == server.sets[EEG1][EEG_2]


def test_a_file_that_cannot_be_had(server: Server, tmp_path: Path) -> None:
    server.refused.add(EEG_2)
    with pytest.raises(
        MissingError, match=r"not all files came: sub-02/eeg/\S+_eeg\.eeg: .*HTTP 404; what came is kept"
    ):
        fetch(server, "eeg1", tmp_path, "2")
    assert there(tmp_path) == (TOP | PERSON_2) - {EEG_2}
    server.refused.clear()
    fetch(server, "eeg1", tmp_path, "2")
    assert [path for path, _ in server.got if "/" in path] == [EEG_2]


def test_no_space(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(MissingError, match=r"300\.\d kB are needed and 1\.0 kB are free; choose fewer"):
        fetch(server, "eeg1", tmp_path / "new", "2")
    assert server.got == []
    assert not (tmp_path / "new").exists()


def test_another_data_set_is_not_mixed_in(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_bytes(description("ds003825", "1.1.0"))
    with pytest.raises(DataError, match=r"holds ds003825 1\.1\.0, not ds003825 1\.2\.0; name another folder"):
        fetch(server, "eeg1", tmp_path, "2")


def test_no_network_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refused
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code = "from synapse_diffusion.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "download", "meg", "out", "--subject", "1"],
            env={**os.environ, "SYNAPSE_OPENNEURO": endpoint, "NO_PROXY": "127.0.0.1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    assert done.returncode == 3
    assert re.fullmatch(r"error: 127\S+ cannot be reached: .*refused; check the network .*--from\n", done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chosen", [["--subject", "02,3", "--derivative"], ["--recipe", "mine.toml"]])
def test_command(server: Server, tmp_path: Path, chosen: list[str]) -> None:
    code = "from synapse_diffusion.cli import main; main()"
    (tmp_path / "mine.toml").write_text('[data]\npeople = ["02", "03"]\nfolder = "derivatives/eeglab"\n')
    arguments = ["download", "eeg1", "eeg", *chosen]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "SYNAPSE_OPENNEURO": server.endpoint},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "02, 03 are whole in eeg" in lines[1]
    assert lines[2].endswith("synapse-diffusion download things FOLDER")
    assert lines[3].endswith("--set paths.bids=eeg --set paths.things=FOLDER --set data.folder=derivatives/eeglab")


def test_without_openneuro_py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openneuro", None)
    with pytest.raises(MissingError, match=r"pip install 'synapse-diffusion\[download\]'"):
        download_recordings("eeg1", tmp_path, print, lambda *_: None, endpoint="http://127.0.0.1:9")


def test_from_a_copy(server: Server, tmp_path: Path) -> None:
    fetch(server, "eeg1", tmp_path / "mirror", "2")
    link = tmp_path / "mirror" / EEG_2
    data = link.read_bytes()
    annex = tmp_path / "mirror/.git/annex" / key("x.eeg", data)
    annex.parent.mkdir(parents=True)
    link.rename(annex)
    link.symlink_to(annex)  # as in a DataLad clone
    fetch(server, "eeg1", tmp_path / "new", copy=tmp_path / "mirror")
    assert there(tmp_path / "new") == TOP | PERSON_2
    assert not (tmp_path / "new" / EEG_2).is_symlink()

    annex.write_bytes(content("other", BIG))
    with pytest.raises(MissingError, match="came twice with another size or content"):
        fetch(server, "eeg1", tmp_path / "newer", copy=tmp_path / "mirror")
    annex.unlink()
    with pytest.raises(MissingError, match="`datalad get` what you need first"):
        fetch(server, "eeg1", tmp_path / "newest", copy=tmp_path / "mirror")
    with pytest.raises(DataError, match=r"--from .*has no dataset_description\.json of OpenNeuro's"):
        fetch(server, "eeg1", tmp_path / "newest", copy=tmp_path)


def test_a_listing_may_not_leave_the_folder(server: Server, tmp_path: Path) -> None:
    server.sets[EEG1]["../outside.tsv"] = b"x"
    with pytest.raises(DataError, match="outside the folder"):
        fetch(server, "eeg1", tmp_path, "2")


def test_patterns_are_few() -> None:
    files = [RemoteFile(path, len(data)) for path, data in meg().items()]
    chosen, _ = choose(DATA_SETS["meg"], files, ["1"], [], False, ())
    everything = {file.path for file in files}
    assert patterns({file.path for file in chosen}, everything) == [
        "/dataset_description.json",
        "/participants.tsv",
        "/sub-BIGMEG1",
    ]
    first = sorted(file.path for file in chosen if "BIGMEG1" in file.path)[1:]  # the events table has come
    assert len(patterns(set(first), everything)) == 2


def tables() -> dict[str, bytes]:
    """THINGS' tables in form and size, with made-up names."""
    names = [f"thing{k:04d}" for k in range(things.N_CONCEPTS)]
    concepts = "Word\tuniqueID\r\n" + "".join(f"a {name}\t{name}\r\n" for name in names)
    head = "\t".join(f"category {k}" for k in range(things.N_CATEGORIES))
    row = "\t".join("1" if k == 3 else "0" for k in range(things.N_CATEGORIES))
    counts = [14] * things.N_CONCEPTS
    counts[5] += things.N_IMAGES - sum(counts)
    files = [f"{name}_{k:03d}s.jpg" for name, n in zip(names, counts, strict=True) for k in range(n)]
    return {
        things.CONCEPTS: concepts.encode(),
        things.CATEGORIES: f"{head}\n".encode() + f"{row}\n".encode() * things.N_CONCEPTS,
        things.NAMES[0]: "\n".join(files).encode(),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_things_from_a_folder(tmp_path: Path) -> None:
    given = tables()
    nested = {f"a/{things.CONCEPTS}": given[things.CONCEPTS], f"b/{things.CATEGORIES}": given[things.CATEGORIES]}
    folder = write(tmp_path / "given", {**nested, things.NAMES[0]: given[things.NAMES[0]]})
    LINES.clear()
    download_things(tmp_path / "out", LINES.append, folder)
    assert there(tmp_path / "out") == {things.CONCEPTS, things.CATEGORIES, things.IMAGES}
    lines = (tmp_path / "out" / things.IMAGES).read_text().splitlines()
    assert lines[:2] == ["image_nr,file_name,uniqueID,concept_nr", "1,thing0000_000s.jpg,thing0000,1"]
    assert lines[-1].startswith("26107,thing1853_013s.jpg,thing1853,1854")
    assert "1854 concepts, 27 categories, 26107 images" in LINES[0]
    download_things(tmp_path / "again", LINES.append, tmp_path / "out")  # its own output will do


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (things.CONCEPTS, lambda data: b"", "no things_concepts.tsv in it"),
        (things.CONCEPTS, lambda data: data[:5000], "different uniqueIDs, not 1854"),
        (things.CATEGORIES, lambda data: data[: data.rindex(b"\n", 0, -1) + 1], "1853 rows of 27 categories, not 1854"),
        (things.CATEGORIES, lambda data: data[:-2] + b"2\n", "something else than 0 and 1"),
        (things.NAMES[0], lambda data: data[: data.rindex(b"\n")], "26106 images, not 26107"),
        (things.NAMES[0], lambda data: data + b"\nunheard_01s.jpg", "'unheard', which is no concept"),
    ],
)
def test_things_from_a_wrong_folder(tmp_path: Path, name: str, change: Any, message: str) -> None:
    given = tables()
    given[name] = change(given[name])
    folder = write(tmp_path / "given", {name: data for name, data in given.items() if data})
    with pytest.raises(DataError, match=re.escape(message)):
        download_things(tmp_path / "out", LINES.append, folder)
    assert not (tmp_path / "out").exists()


def test_things_from_the_web(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tables()
    known = {name: things.Published(f"x/{name}", hashlib.sha256(data).hexdigest()) for name, data in given.items()}
    monkeypatch.setattr(things, "PUBLISHED", known)
    server.extra = {f"/x/{name}": data for name, data in given.items()}
    download_things(tmp_path / "out", LINES.append, site=server.endpoint)
    assert len(there(tmp_path / "out")) == 3
    server.extra[f"/x/{things.NAMES[0]}"] = b"changed"
    with pytest.raises(MissingError, match=r"SHA-256 is .* take file_names_THINGS\.txt from https://osf\.io/jum2f"):
        download_things(tmp_path / "out", LINES.append, site=server.endpoint)
    del server.extra[f"/x/{things.NAMES[0]}"]
    with pytest.raises(MissingError, match=r"HTTP 404.*osf\.io/jum2f"):
        download_things(tmp_path / "out", LINES.append, site=server.endpoint)


def test_the_published_tables(real: Path, tmp_path: Path) -> None:
    """The hashes are those of the real tables, and the image table made from the list is the real one."""
    for name, published in things.PUBLISHED.items():
        assert hashlib.sha256((real / "things" / name).read_bytes()).hexdigest() == published.sha256
    folder = write(tmp_path / "given", {name: (real / "things" / name).read_bytes() for name in things.PUBLISHED})
    download_things(tmp_path / "out", LINES.append, folder)
    assert (tmp_path / "out" / things.IMAGES).read_bytes() == (real / "things" / things.IMAGES).read_bytes()
