"""A fit's whole state in one safetensors file: weights, averages, best weights, moments, counters.

The file is the same whether one process wrote it or several (DDP, FSDP), and opens in any of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from synapse_diffusion.parallel import Group, shared_like, whole
from synapse_diffusion.runs import load_tensors, save_atomically


@dataclass
class State:
    """Where a fit is."""

    step: int = 0
    total_loss: float = 0.0
    """Of the steps since the last check."""
    since_check: int = 0
    best_loss: float = math.inf
    since_best: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Kept:
    """What changes in a fit beside the counters: a module, its optimizer, averaged and best weights by name."""

    module: nn.Module
    optimizer: torch.optim.AdamW
    ema: dict[str, Tensor]
    best: dict[str, Tensor]

    def save(self, path: Path, state: State, group: Group) -> None:
        """Write the file; all processes must call this, the first one writes."""
        tensors = {f"model.{name}": whole(value) for name, value in self.module.state_dict().items()}
        tensors |= {f"ema.{name}": whole(value) for name, value in self.ema.items()}
        tensors |= {f"best.{name}": whole(value) for name, value in self.best.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": whole(value).clone() for name, value in values.items()}
        if group.rank == 0:
            save_atomically(tensors, path, {"state": json.dumps(asdict(state))})

    def load(self, path: Path) -> State:
        """Take the file's state. Raises `RunError` where it is damaged."""
        tensors = load_tensors(path)
        with safe_open(path, "pt") as file:
            values: dict[str, Any] = json.loads(file.metadata()["state"])
        fill(self.module, _part(tensors, "model."))
        parameters = dict(self.module.named_parameters())
        self.ema.update({n: shared_like(v, parameters[n]) for n, v in _part(tensors, "ema.").items()})
        self.best.update({n: shared_like(v, parameters[n]) for n, v in _part(tensors, "best.").items()})
        order = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer.").items():
            index, _, what = name.partition(".")
            like = order[int(index)]
            moments.setdefault(int(index), {})[what] = value if what == "step" else shared_like(value, like)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        return State(**values)


@torch.no_grad()
def fill(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put whole tensors into a module's weights and buffers, however it is shared."""
    for name, held in module.state_dict(keep_vars=True).items():
        held.copy_(shared_like(values[name], held))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
