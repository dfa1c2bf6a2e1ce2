"""Networks as they are kept in a run: built, saved, loaded; with a new person's weights where one is met."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch

from synapse_diffusion.config import ModelSettings, Recipe, decoding
from synapse_diffusion.errors import RunError, SettingsError
from synapse_diffusion.models.atm import ATM
from synapse_diffusion.models.base import Decoder, Shape
from synapse_diffusion.models.brain_module import BrainModule
from synapse_diffusion.models.compact import CompactDecoder
from synapse_diffusion.models.eegnet import EEGNet
from synapse_diffusion.models.fusion import EarlyNetwork, Network
from synapse_diffusion.models.tsconv import TSConv
from synapse_diffusion.parallel import Group, whole
from synapse_diffusion.runs import load_tensors, save_atomically
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.training.checkpoint import fill
from synapse_diffusion.training.learner import Learner
from synapse_diffusion.training.objectives import Objective

DECODERS: Final[dict[str, Callable[..., Decoder]]] = {
    "compact": CompactDecoder,
    "eegnet": EEGNet,
    "tsconv": TSConv,
    "atm": ATM,
    "brain_module": BrainModule,
}


BUILT_IN: Final = frozenset(DECODERS)
LINEAR_PRIOR: Final = {False: 3.0, True: 1000.0}
"""Of decoders of classes, and of directions: chosen on validation of simulated studies."""


def shape_of(epochs: Epochs, n_outputs: int, n_people: int) -> Shape:
    """The shape of a decoder for these epochs."""
    positions = tuple(tuple(None if np.isnan(v) else round(float(v), 6) for v in row) for row in epochs.position_C3)
    return Shape(len(epochs.channels), epochs.n_times, n_outputs, n_people, epochs.sfreq, positions)


def register_decoder(name: str, decoder: Callable[..., Decoder]) -> None:
    """Let `model.name = name` mean `decoder`, from here on and in this process.

    It is called with a `Shape`, and by keyword with those settings of `model` that a recipe gives and its signature
    names (`components`, `width`, `layers`, `dropout`, ...). A run is known by the name, not by the code behind it: new
    code, new name. Raises `SettingsError` for the name of a decoder that comes with the package.
    """
    if name in BUILT_IN:
        raise SettingsError(f"register_decoder: {name!r} is a decoder of the package; give yours another name")
    decoding.DECODERS[name] = tuple(inspect.signature(decoder).parameters)[1:]
    DECODERS[name] = decoder


def build(shape: Shape, settings: ModelSettings) -> Decoder:
    """The decoder that the settings name, with fresh weights from torch's current seed."""
    return DECODERS[settings.name](shape, **settings.given())


def build_learner(
    shapes: Mapping[str, Shape], objective: Objective, recipe: Recipe, n_training: int, group: Group
) -> Learner:
    """A fresh network of these modalities and its objective. Raises `SettingsError` where early fusion does not fit."""
    network: Network | EarlyNetwork
    if len(shapes) > 1 and recipe.model.fusion == "early":
        network = EarlyNetwork(build(joined(shapes), recipe.model), tuple(shapes))
    else:
        decoders = {name: build(shape, recipe.model) for name, shape in shapes.items()}
        network = Network(decoders, unit=objective.unit)
    prior = recipe.train.linear_prior
    if prior is None:
        prior = LINEAR_PRIOR[objective.unit]
    return Learner(
        network, objective, prior=prior / n_training, group=group, bfloat16=recipe.train.precision == "bfloat16"
    )


def joined(shapes: Mapping[str, Shape]) -> Shape:
    """The shape of one decoder of all sensors."""
    several = list(shapes.values())
    for name in ("n_times", "sfreq"):
        values = {modality: getattr(shape, name) for modality, shape in shapes.items()}
        if len(set(values.values())) > 1:
            raise SettingsError(
                f"model.fusion = 'early' needs equal rates and windows, but {name} is "
                + " and ".join(f"{value:g} ({modality})" for modality, value in values.items())
                + "; convert both to one rate, or take 'precision'"
            )
    positions = tuple(row for shape in several for row in shape.positions)
    n_sensors = sum(shape.n_sensors for shape in several)
    first = several[0]
    return Shape(n_sensors, first.n_times, first.n_outputs, 1, first.sfreq, positions, first.starts)


def save_learner(learner: Learner, path: Path, group: Group) -> None:
    """Weights and fitted statistics as safetensors; all processes must call this, the first one writes."""
    state = {name: whole(value) for name, value in learner.state_dict().items()}
    if group.rank == 0:
        save_atomically(state, path)


def load_learner(learner: Learner, path: Path) -> Learner:
    """A trained learner in evaluation mode, from one freshly built. Raises `RunError` where the file does not fit."""
    try:
        fill(learner, load_tensors(path))
    except (RuntimeError, KeyError):
        raise RunError(f"{path}: weights of another shape than the recipe's; train again") from None
    return learner.eval()


@torch.no_grad()
def add_person(decoder: Decoder) -> None:
    """Give a decoder one person more, of whom it knows nothing: no departure from what is shared, or the mean.

    Their index is the number of people before. A decoder without weights of people stays as it is.
    """
    for name, how in decoder.person_tensors().items():
        owner, _, attribute = name.rpartition(".")
        module = decoder.get_submodule(owner)
        value = getattr(module, attribute)
        row = torch.zeros_like(value[:1]) if how == "zero" else value.mean(0, keepdim=True)
        grown = torch.cat([value.detach(), row])
        if isinstance(value, torch.nn.Parameter):
            setattr(module, attribute, torch.nn.Parameter(grown))
        else:
            module.register_buffer(attribute, grown)


def person_row(decoder: Decoder) -> dict[str, torch.Tensor]:
    """What a decoder knows of the person whom `add_person` gave it, by tensor."""
    return {name: _tensor(decoder, name)[-1].detach().clone() for name in decoder.person_tensors()}


@torch.no_grad()
def set_person(decoder: Decoder, row: Mapping[str, torch.Tensor]) -> None:
    """Let it know that of them instead. Raises `RunError` where the row is of another decoder."""
    names = decoder.person_tensors()
    if set(row) != set(names) or any(_tensor(decoder, n)[-1].shape != value.shape for n, value in row.items()):
        raise RunError(f"a person's weights are of another decoder ({', '.join(row) or 'none'}); adapt again")
    for name, value in row.items():
        held = _tensor(decoder, name)
        held[-1] = value.to(held.device)


def learn_person_only(decoder: Decoder) -> None:
    """Let training move nothing but the person whom `add_person` gave the decoder."""
    for parameter in decoder.parameters():
        parameter.requires_grad_(False)
    for name in decoder.person_tensors():
        value = _tensor(decoder, name)
        if isinstance(value, torch.nn.Parameter):
            value.requires_grad_(True)
            hook: Callable[..., object] = value.register_hook
            hook(_last_row)


def _last_row(gradient: torch.Tensor) -> torch.Tensor:
    kept = torch.zeros_like(gradient)
    kept[-1] = gradient[-1]
    return kept


def _tensor(decoder: Decoder, name: str) -> torch.Tensor:
    owner, _, attribute = name.rpartition(".")
    value: torch.Tensor = getattr(decoder.get_submodule(owner), attribute)
    return value
