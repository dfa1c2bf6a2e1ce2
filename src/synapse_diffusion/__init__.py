"""Decode what was seen from EEG and MEG, and resynthesise the picture.

What a script or a notebook needs is imported from here; each name opens its module when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from synapse_diffusion.adapt import adapt_run
    from synapse_diffusion.config import Recipe, load_recipe, parse_recipe
    from synapse_diffusion.convert import convert, convert_pairs
    from synapse_diffusion.embed import embed
    from synapse_diffusion.errors import SynapseError
    from synapse_diffusion.evaluate import evaluate, evaluate_seeds
    from synapse_diffusion.generate import train_generator
    from synapse_diffusion.pipeline import run_recipe
    from synapse_diffusion.predict import predict
    from synapse_diffusion.reconstruct import reconstruct
    from synapse_diffusion.report import report
    from synapse_diffusion.runs import Run
    from synapse_diffusion.simulate import simulate
    from synapse_diffusion.store.embeddings import EmbeddingTable, open_embeddings, true_rows, write_embeddings
    from synapse_diffusion.store.epochs import Epochs
    from synapse_diffusion.store.files import SignalStore, find_stores, open_store
    from synapse_diffusion.train import train
    from synapse_diffusion.training.decoders import register_decoder

__version__ = "0.1.0"
__all__ = [
    "EmbeddingTable",
    "Epochs",
    "Recipe",
    "Run",
    "SignalStore",
    "SynapseError",
    "adapt_run",
    "convert",
    "convert_pairs",
    "embed",
    "evaluate",
    "evaluate_seeds",
    "find_stores",
    "load_recipe",
    "open_embeddings",
    "open_store",
    "parse_recipe",
    "predict",
    "reconstruct",
    "register_decoder",
    "report",
    "run_recipe",
    "simulate",
    "train",
    "train_generator",
    "true_rows",
    "write_embeddings",
]
_DOORS: Final = {
    "adapt": ("adapt_run",),
    "config": ("Recipe", "load_recipe", "parse_recipe"),
    "convert": ("convert", "convert_pairs"),
    "embed": ("embed",),
    "errors": ("SynapseError",),
    "evaluate": ("evaluate", "evaluate_seeds"),
    "generate": ("train_generator",),
    "pipeline": ("run_recipe",),
    "predict": ("predict",),
    "reconstruct": ("reconstruct",),
    "report": ("report",),
    "runs": ("Run",),
    "simulate": ("simulate",),
    "store.embeddings": ("EmbeddingTable", "open_embeddings", "true_rows", "write_embeddings"),
    "store.epochs": ("Epochs",),
    "store.files": ("SignalStore", "find_stores", "open_store"),
    "train": ("train",),
    "training.decoders": ("register_decoder",),
}
_DOOR_OF: Final = {name: module for module, names in _DOORS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _DOOR_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_DOOR_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`synapse_diffusion.train` is the function, also where the module of that name was imported before."""

    def __setattr__(self, name: str, value: Any) -> None:
        of_its_name = isinstance(value, ModuleType) and name in _DOOR_OF
        super().__setattr__(name, getattr(value, name) if of_its_name else value)


sys.modules[__name__].__class__ = _Package
