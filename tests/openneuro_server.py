"""A server on loopback that speaks as much GraphQL and HTTP as OpenNeuro does, with two small data sets."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

EEG1, MEG = "ds003825:1.2.0", "ds004212:3.0.0"
BIG = 300_000  # bytes of a recording


def content(path: str, size: int) -> bytes:
    return (hashlib.sha256(path.encode()).digest() * (size // 32 + 1))[:size]


def description(accession: str, version: str) -> bytes:
    return json.dumps({"Name": "x", "DatasetDOI": f"doi:10.18112/openneuro.{accession}.v{version}"}).encode()


def eeg1() -> dict[str, bytes]:
    rows = "".join(f"sub-{name}\t{int(name == '01')}\n" for name in ("01", "02", "03"))
    files = {
        "dataset_description.json": description("ds003825", "1.2.0"),
        "participants.tsv": f"participant_id\texclude\n{rows}".encode(),
        "task-rsvp_events.json": b"{}",
        "README": b"read me",
        ".DS_Store": b"left over",
    }
    for person in ("01", "02", "03"):
        stem = f"sub-{person}/eeg/sub-{person}_task-rsvp"
        files[f"{stem}_events.tsv"] = b"onset\tduration\n" + person.encode()
        files[f"{stem}_eeg.eeg"] = content(stem, BIG)
        files[f"{stem}_eeg.vhdr"] = b"header " + person.encode()
        files[f"sub-{person}/eeg/._sub-{person}_task-rsvp_events.tsv"] = b"left over"
        files[f"derivatives/eeglab/sub-{person}_task-rsvp_continuous.set"] = content(f"set{person}", 5000)
        files[f"derivatives/eeglab/sub-{person}_task-rsvp_continuous.fdt"] = content(f"fdt{person}", 5000)
    return files


def meg() -> dict[str, bytes]:
    files = {
        "dataset_description.json": description("ds004212", "3.0.0"),
        "participants.tsv": b"participant_id\tsex\nsub-BIGMEG1\tM\n",
        "sub-emptyroom/ses-01/meg/sub-emptyroom_ses-01_task-noise_meg.ds/x.meg4": b"noise",
    }
    for person in (1, 2):
        for session in ("01", "02"):
            stem = f"sub-BIGMEG{person}_ses-{session}_task-main_run-01"
            folder = f"sub-BIGMEG{person}/ses-{session}/meg"
            files[f"{folder}/{stem}_events.tsv"] = b"onset\n1\n"
            files[f"{folder}/._{stem}_events.tsv"] = b"left over"
            files[f"{folder}/{stem}_meg.ds/{stem}_meg.meg4"] = content(stem, 2000)
            files[f"{folder}/{stem}_meg.ds/{stem}_hz.ds/BadChannels"] = b"none"
            files[f"{folder}/{stem}_meg.ds/{stem}_hz2.ds/BadChannels"] = b"none"
        for part in ("", "-1"):
            name = f"derivatives/preprocessed/preprocessed_P{person}-epo{part}.fif"
            files[name] = content(name, 3000)
    return files


class Server(ThreadingHTTPServer):
    """OpenNeuro in small. `cut` and `stall`: after how many bytes of a path the line breaks or waits, once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sets = {EEG1: eeg1(), MEG: meg()}
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.got: list[tuple[str, int]] = []
        """Path and first byte of each file request."""
        self.cut: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.spoilt: dict[str, bytes] = {}
        """Served instead of what the listing says."""
        self.refused: set[str] = set()
        self.extra: dict[str, bytes] = {}
        """Files by address, beside the data sets."""
        self.over = threading.Event()

    def listing(self, snapshot: str) -> list[dict[str, Any]]:
        return [
            {
                "filename": path,
                "size": len(data),
                "id": key(path, data),
                "urls": [f"{self.endpoint}/files/{snapshot}/{path}"],
            }
            for path, data in self.sets[snapshot].items()
        ]

    def handle_error(self, *_: Any) -> None:
        """A client that was killed."""


def key(path: str, data: bytes) -> str:
    """As OpenNeuro: a git-annex key for large files, a git blob's SHA-1 for the others."""
    if len(data) >= 2000:
        return f"SHA256E-s{len(data)}--{hashlib.sha256(data).hexdigest()}{Path(path).suffix}"
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"]
        answer: dict[str, Any]
        if found := re.search(r'snapshot\(datasetId: "(\w+)", tag: "([\d.]+)"', query):
            snapshot = f"{found[1]}:{found[2]}"
            there = snapshot in self.server.sets
            answer = {"snapshot": {"id": snapshot, "files": self.server.listing(snapshot)} if there else None}
        else:
            ids = [{"id": one} for one in self.server.sets]
            answer = {"dataset": {"snapshots": ids}}
        self.reply(json.dumps({"data": answer}).encode())

    def do_HEAD(self) -> None:
        self.file(head=True)

    def do_GET(self) -> None:
        self.file(head=False)

    def file(self, head: bool) -> None:
        parts = unquote(self.path).split("/", 3)
        if self.path in self.server.extra:
            self.reply(self.server.extra[self.path])
            return
        if parts[1] != "files":
            self.reply(b"no", status=404)
            return
        path = parts[3]
        if path in self.server.refused:
            self.reply(b"no", status=404, head=head)
            return
        data = self.server.spoilt.get(path, self.server.sets[parts[2]][path])
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or "00")[1])
        if not head:
            self.server.got.append((path, start))
        self.reply(data[start:], 206 if start else 200, hashlib.md5(data).hexdigest(), head, path)

    def reply(self, data: bytes, status: int = 200, etag: str = "", head: bool = False, path: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if head:
            return
        if path in self.server.cut:
            self.wfile.write(data[: self.server.cut.pop(path)])
            self.close_connection = True
        elif path in self.server.stall:
            self.wfile.write(data[: self.server.stall.pop(path)])
            self.wfile.flush()
            self.server.over.wait(20)
            self.close_connection = True
        else:
            self.wfile.write(data)
