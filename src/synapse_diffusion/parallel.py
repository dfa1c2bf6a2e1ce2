"""The only door to processes and devices."""

from __future__ import annotations

import torch

from synapse_diffusion.errors import MissingError


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes the best there is. Raises `MissingError` for one that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise MissingError(f"execution.device = {name!r} cannot be used: {reason}; take 'auto' or 'cpu'") from None
    return device


def use_threads(n: int) -> None:
    """Threads of PyTorch's mathematics on the CPU; 0 leaves its default."""
    if n:
        torch.set_num_threads(n)
