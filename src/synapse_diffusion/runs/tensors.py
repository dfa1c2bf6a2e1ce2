"""Tensors as safetensors files: whole or not there, and read with one sentence for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file

from synapse_diffusion.errors import MissingError, RunError
from synapse_diffusion.store.files import whole


def save_atomically(arrays: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Arrays or tensors as safetensors, complete or not there."""
    try:
        with whole(path) as part:
            if any(isinstance(value, torch.Tensor) for value in arrays.values()):
                save_torch_file({k: v.detach().cpu().contiguous() for k, v in arrays.items()}, part, metadata)
            else:
                save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, part, metadata)
            part.chmod(0o644)  # safetensors makes files that only their owner can read
    except (OSError, SafetensorError) as error:  # the latter for a full disk, too
        raise MissingError(f"{path}: cannot be written: {error}; free some space") from None


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file. Raises `RunError` where it is missing or damaged."""
    if not path.exists():
        raise RunError(f"{path}: missing; train again (what is finished is kept)")
    try:
        tensors: dict[str, torch.Tensor] = load_torch_file(path)
        return tensors
    except Exception as error:  # safetensors raises a class of its own for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path}: cannot be read ({reason}); delete it and train again") from None
