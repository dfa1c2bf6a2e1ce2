"""Pickled dicts of arrays (`np.save` of a dict), read without running what a pickle can name.

A pickle may name any function and have it called. Here the few names that numpy's arrays need stand for values of our
own, and only the steps that build containers and arrays are known; anything else ends in one sentence.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import numpy as np

from synapse_diffusion.errors import DataError

MAPPED_BYTES: Final = 1 << 20  # arrays from here on stay in the file
DTYPES: Final = re.compile(r"[biuf][0-9]{1,2}|[US][0-9]{1,5}|O[48]?")
STEPS: Final = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT,
    pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINUNICODE,
    pickle.BINUNICODE8, pickle.SHORT_BINBYTES, pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.TUPLE,
    pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS,
    pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET, pickle.GLOBAL,
    pickle.STACK_GLOBAL, pickle.REDUCE,
)  # fmt: skip
FAULTS: Final = (
    pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError, OverflowError,
    RecursionError, struct.error,
)  # fmt: skip


def read_dict(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    """The dict that `np.save` (or `pickle.dump`, protocol 4) wrote: text, numbers, lists and arrays.

    Arrays of 1 MiB and more are memory-mapped, read-only: opening costs no memory, and a reader that goes through them
    in pieces needs no more than a piece. (Files of numpy before 1.17 hold arrays as text: those cost four times
    their size.) Raises `DataError` where the file is missing, cut short, no such dict, lacks one of the keys `needed`,
    or names anything that numpy's arrays do not need, which is not run.
    """
    try:
        with path.open("rb") as file:
            _skip_header(file)
            found = _plain(_Reader(file, path).load(), path, {})
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror or error}); check paths.bids") from None
    except FAULTS as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: cannot be read as a dict of arrays ({type(error).__name__}: {reason}): damaged, cut short, or "
            "another kind of file; download it again"
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no dict but {type(found).__name__}; download it again")
    if missing := [key for key in needed if key not in found]:
        raise DataError(f"{path}: its dict has no {', '.join(missing)}; it has {', '.join(map(str, found))}")
    return found


def _skip_header(file: BinaryIO) -> None:
    """Move to the pickle: after npy's header of an array of objects, or to the start of a bare pickle."""
    if file.read(6) != b"\x93NUMPY":
        file.seek(0)
        return
    file.seek(0)
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version](file)
    if not header[2].hasobject:
        raise ValueError(f"it holds an array {header[0]} of {header[2]}")


@dataclass(frozen=True)
class _Stretch:
    """Bytes that stay in the file."""

    start: int
    size: int


class _Type:
    """A dtype, while it is built."""

    def __init__(self, text: str, *_: object) -> None:
        if not DTYPES.fullmatch(text):
            raise ValueError(f"dtype {text!r}")
        self.text, self.order = text, "|"

    def build(self, state: Any) -> None:
        """`state`: version, byte order, sub-array, names, fields, sizes."""
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError(f"dtype {self.text!r} with fields")
        self.order = state[1]

    def dtype(self) -> np.dtype[Any]:
        """As numpy's; never one of objects."""
        if self.text.startswith("O"):
            raise ValueError("an array of objects where numbers belong")
        return np.dtype(self.order + self.text)


class _Array:
    """An array, while it is built."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def build(self, state: Any) -> None:
        """`state`: version, shape, dtype, Fortran's order?, and bytes, their place in the file, or a list."""
        version, shape, kind, fortran, content = state
        if version != 1 or not isinstance(kind, _Type) or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"an array of shape {shape!r}")
        self.state = (tuple(shape), kind, "F" if fortran else "C", content)

    def value(self, path: Path) -> Any:
        """The array; of objects its list, or the object itself where there is one."""
        shape, kind, order, content = self.state
        if isinstance(content, list):
            if len(content) != prod(shape):
                raise ValueError(f"{len(content)} objects for shape {shape}")
            return content if shape else content[0]
        size = content.size if isinstance(content, _Stretch) else len(content)
        if size != prod(shape) * kind.dtype().itemsize:
            raise ValueError(f"{size} bytes for {shape} of {kind.dtype()}")
        if isinstance(content, _Stretch):
            return np.memmap(path, kind.dtype(), "r", content.start, shape, order)
        return np.frombuffer(content, kind.dtype()).reshape(shape, order=order)


def _scalar(kind: _Type, content: bytes) -> Any:
    return np.frombuffer(content, kind.dtype())[0].item()


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 holds them."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes as {encoding!r}")
    return text.encode("latin1")


NAMES: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Type,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    ("_codecs", "encode"): _encoded,
}


class _Reader(pickle._Unpickler):
    """Python's own unpickler in Python, with few names and few steps."""

    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    stack: list[Any]
    _unframer: Any

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self._file, self._path = file, path
        self._size = os.fstat(file.fileno()).st_size

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for here. Raises `DataError` for any that is not one of numpy's few."""
        if (module, name) not in NAMES:
            raise DataError(
                f"{self._path}: it asks to run {module}.{name}, which no dict of arrays needs: refused; do not open it "
                "otherwise, and download it again from its authors"
            )
        return NAMES[module, name]

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _Type):
            raise ValueError("a state for what is no array")
        self.stack[-1].build(state)

    def _bytes4(self) -> None:
        self._take(struct.unpack("<I", self.read(4))[0])

    def _bytes8(self) -> None:
        self._take(struct.unpack("<Q", self.read(8))[0])

    def _take(self, size: int) -> None:
        """Many bytes stay where they are; picklers write them outside of frames."""
        frame = self._unframer.current_frame
        if size < MAPPED_BYTES or (frame is not None and frame.tell() < len(frame.getbuffer())):
            self.append(self.read(size))
            return
        start = self._file.tell()
        if start + size > self._size:
            raise EOFError(f"an array of {size} bytes begins at {start} of {self._size}")
        self._file.seek(size, os.SEEK_CUR)
        self.append(_Stretch(start, size))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{step[0]: pickle._Unpickler.dispatch[step[0]] for step in STEPS},
        pickle.BUILD[0]: _build,
        pickle.BINBYTES[0]: _bytes4,
        pickle.BINBYTES8[0]: _bytes8,
    }


def _plain(value: Any, path: Path, done: dict[int, Any]) -> Any:
    """The same with every array finished; what occurs twice is made once (`done`, by identity)."""
    if not isinstance(value, _Array | dict | list | tuple):
        return value
    if id(value) not in done:
        if isinstance(value, _Array):
            plain = _plain(value.value(path), path, done)
        elif isinstance(value, dict):
            plain = {key: _plain(part, path, done) for key, part in value.items()}
        else:
            plain = [_plain(part, path, done) for part in value]
        done[id(value)] = plain
    return done[id(value)]
