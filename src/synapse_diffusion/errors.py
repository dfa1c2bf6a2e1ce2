"""Every failure that a user can cause: one base class, an exit code each."""

from __future__ import annotations

from typing import ClassVar


class SynapseError(Exception):
    """A failure with a cause outside this program; its text is one clear sentence for the user."""

    exit_code: ClassVar[int] = 2


class SettingsError(SynapseError):
    """A recipe or an override holds wrong keys or values; one line a fault."""


class DataError(SynapseError):
    """A recording, table or picture on disk is not what it should be."""


class StoreError(SynapseError):
    """A signal store is incomplete, edited or of another format."""


class BusyError(StoreError):
    """Another process is writing this store."""


class SplitError(SynapseError):
    """Trials cannot be divided as asked, or a division leaks."""


class RunError(SynapseError):
    """A run folder is missing something, or does not fit what is asked of it."""


class MissingError(SynapseError):
    """Something outside the program is not there: a package, disk space, a device."""

    exit_code: ClassVar[int] = 3


class StoppedError(SynapseError):
    """The process was asked to end (SIGTERM) and has saved its work."""

    exit_code: ClassVar[int] = 143
