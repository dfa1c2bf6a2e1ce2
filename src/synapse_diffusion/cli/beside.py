"""Another command of this tool at the same time, in a process of its own, heard when it is waited for."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from synapse_diffusion.types import Progress, Say

PAUSE_S: Final = 0.2


class Beside:
    """A command that runs while the block does; one that outlasts the block is asked to save and to end."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log.jsonl"
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "synapse_diffusion", "--log-json", *self._words]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL)
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
        self._folder.cleanup()
