"""Another command of this tool at the same time, in a process of its own, heard when it is waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from synapse_diffusion.types import Progress, Say

PAUSE_S: Final = 0.2
CHILD: Final = f"from {__name__} import child; child()"


class Beside:
    """A command that runs while the block does; one that outlasts the block is asked to save and to end.

    So is one whose parent is killed: its standard input ends then.
    """

    def __init__(self, *words: str) -> None:
        self._words = words

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log.jsonl"
        with self._log.open("wb") as log:
            command = [sys.executable, "-c", CHILD, "--log-json", *self._words]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.DEVNULL)
        return self

    def wait(self, say: Say, progress: Progress) -> None:
        """Until it is done, or has failed: say what it said, and show how far it is."""
        with self._log.open(encoding="utf-8") as log:
            ended, line = False, ""
            while not ended:
                ended = self._process.poll() is not None
                for part in log:
                    line += part
                    if not line.endswith("\n"):  # it is being written
                        break
                    event, line = json.loads(line), ""
                    if event["event"] == "said":
                        say(event["line"])
                    elif event["event"] == "progress":
                        what = ", ".join(part for part in (event["what"], event["detail"]) if part)
                        progress(what, event["done"], event["total"] or 0)
                if not ended:
                    time.sleep(PAUSE_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._folder.cleanup()


def child() -> None:
    """The command of this process's arguments, asked to end when standard input does."""
    from synapse_diffusion.cli import main

    def end_with_parent() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, daemon=True).start()
    main()
