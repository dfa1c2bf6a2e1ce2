"""Decoders as they are kept in a run: built, saved, loaded, asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from synapse_diffusion.config import ModelSettings
from synapse_diffusion.errors import RunError
from synapse_diffusion.models.atm import ATM
from synapse_diffusion.models.base import Decoder, Shape
from synapse_diffusion.models.brain_module import BrainModule
from synapse_diffusion.models.compact import CompactDecoder
from synapse_diffusion.models.eegnet import EEGNet
from synapse_diffusion.models.linear import LinearDecoder
from synapse_diffusion.models.tsconv import TSConv
from synapse_diffusion.runs import load_tensors, save_atomically
from synapse_diffusion.store.epochs import Epochs

DECODERS: Final[dict[str, Callable[..., Decoder]]] = {
    "compact": CompactDecoder,
    "eegnet": EEGNet,
    "tsconv": TSConv,
    "atm": ATM,
    "brain_module": BrainModule,
}


def shape_of(epochs: Epochs, n_outputs: int, n_people: int) -> Shape:
    """The shape of a decoder for these epochs."""
    positions = tuple(tuple(None if np.isnan(v) else round(float(v), 6) for v in row) for row in epochs.position_C3)
    return Shape(len(epochs.channels), epochs.n_times, n_outputs, n_people, epochs.sfreq, positions)


def build(shape: Shape, settings: ModelSettings) -> Decoder:
    """The decoder that the settings name, with fresh weights from torch's current seed."""
    return DECODERS[settings.name](shape, **settings.given())


def save_network(model: Decoder, path: Path) -> None:
    """Weights and fitted statistics as safetensors."""
    save_atomically(model.state_dict(), path)


def load_network(path: Path, shape: Shape, settings: ModelSettings, device: torch.device) -> Decoder:
    """A trained decoder in evaluation mode. Raises `RunError` where the file is missing or does not fit."""
    model = build(shape, settings)
    try:
        model.load_state_dict(load_tensors(path))
    except RuntimeError:
        raise RunError(f"{path}: weights of another shape than the recipe's; train again") from None
    return model.to(device).eval()


def save_linear(decoder: LinearDecoder, path: Path) -> None:
    """Weights as safetensors, choices in its metadata."""
    about = json.dumps({"width": decoder.width, "pooled": decoder.pooled})
    save_atomically({"weight_PFK": decoder.weight_PFK, "bias_PK": decoder.bias_PK}, path, {"about": about})


def load_linear(path: Path) -> LinearDecoder:
    """A linear decoder. Raises `RunError` where the file is missing or damaged."""
    tensors = load_tensors(path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    return LinearDecoder(about["width"], tensors["weight_PFK"].numpy(), tensors["bias_PK"].numpy(), about["pooled"])


@torch.no_grad()
def network_log_probability(
    members: Sequence[Decoder], x_NCT: torch.Tensor, person_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log class probabilities (N, K): the members' mean, normalised."""
    person = torch.from_numpy(person_N).to(x_NCT.device)
    mean = torch.stack([torch.log_softmax(member(x_NCT, person).double(), 1) for member in members]).mean(0)
    return np.asarray(torch.log_softmax(mean, 1).cpu().numpy())
