"""What loading weights through a library of models shares: its failures in one line each, and its silence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synapse_diffusion.errors import DataError, MissingError, SynapseError


@contextmanager
def faults(setting: str, weights: str, what: str) -> Iterator[None]:
    """Whatever fails in here as one line: `MissingError` where nothing is found, `DataError` for what is no `what`."""
    try:
        yield
    except SynapseError:
        raise
    except Exception as error:  # of any kind, from configuration, download, safetensors
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = " ".join(line.strip() for line in lines[: 1 + lines[0].endswith(":")])
        if isinstance(error, OSError) and not Path(weights).is_dir():
            raise MissingError(
                f"{setting} = {weights!r}: no such folder, and not to be had from huggingface.co or its cache: {reason}"
            ) from None
        raise DataError(f"{weights}: cannot be loaded as {what}: {reason}") from None


@contextmanager
def quietly(library: Any) -> Iterator[None]:
    """Without the library's progress bars, lists of unused keys, and a line for each try at the network."""
    log, hub = library.utils.logging, logging.getLogger("huggingface_hub")
    verbosity, level, bars = log.get_verbosity(), hub.level, log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arguments that the libraries themselves give to huggingface_hub
            yield
    finally:
        log.set_verbosity(verbosity)
        hub.setLevel(level)
        if bars:
            log.enable_progress_bar()
