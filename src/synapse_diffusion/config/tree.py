"""The settings tree: all branches, what a result depends on, and where two trees differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from synapse_diffusion.config.base import NotNegative, Settings
from synapse_diffusion.config.decoding import (
    EmbedSettings,
    EvaluateSettings,
    LabelSettings,
    LossSettings,
    ModelSettings,
    SplitSettings,
    TargetSettings,
    TrainSettings,
    ViewSettings,
)
from synapse_diffusion.config.pictures import GeneratorSettings, PretrainedSettings, PriorSettings, ReconstructSettings
from synapse_diffusion.config.recordings import (
    ConvertSettings,
    DataSettings,
    PairSettings,
    PathSettings,
    SimulateSettings,
)
from synapse_diffusion.config.tuning import TuneSettings

PICTURES: Final = ("generator", "prior", "pretrained", "reconstruct")
"""Branches that change no decoder."""


class ExecutionSettings(Settings):
    """How fast, not what: left out of the digest."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` (of several processes, each its own GPU), `cuda:1`, `mps`."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Recordings converted side by side; 0: what processors and memory allow."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the mathematics in training and evaluation; 0: PyTorch's default."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Processes that train one decoder together; 0: one for each GPU, one on a CPU. torchrun's count goes first."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """Several processes: each holds all weights, or a share of them (FSDP2)."""
    compile: bool = False
    """Compile the decoder (torch.compile): minutes once, then faster steps on a GPU."""
    checkpoint_minutes: NotNegative = 5.0
    """A checkpoint at the next check after so many minutes, and on SIGTERM and SIGUSR1 at once; 0: at every check."""
    verify_stores: bool = True
    """Check each store's signal against its checksum before use."""


IDLE: Final[tuple[tuple[str, tuple[object, ...], tuple[str, ...]], ...]] = (
    ("target.task", ("classify", "questions"), ("loss.name", "loss.temperature", "loss.mmd_share", "evaluate.gallery")),
    ("target.task", ("questions", "retrieve"), ("train.label_smoothing",)),
    ("loss.name", ("cosine", "squared"), ("loss.temperature", "target.projection")),
    ("data.modality", ("eeg", "meg"), ("model.fusion", "train.modality_dropout")),
)  # fmt: skip
"""Settings that do nothing where another has one of some values."""


class Recipe(Settings):
    """One experiment."""

    paths: PathSettings = PathSettings()
    data: DataSettings = DataSettings()
    pairs: PairSettings = PairSettings()
    simulate: SimulateSettings = SimulateSettings()
    convert: ConvertSettings = ConvertSettings()
    view: ViewSettings = ViewSettings()
    split: SplitSettings = SplitSettings()
    labels: LabelSettings = LabelSettings()
    embed: EmbedSettings = EmbedSettings()
    target: TargetSettings = TargetSettings()
    loss: LossSettings = LossSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    generator: GeneratorSettings = GeneratorSettings()
    prior: PriorSettings = PriorSettings()
    pretrained: PretrainedSettings = PretrainedSettings()
    reconstruct: ReconstructSettings = ReconstructSettings()
    tune: TuneSettings = TuneSettings()
    execution: ExecutionSettings = ExecutionSettings()

    @model_validator(mode="after")
    def _none_is_idle(self) -> Self:
        def value(key: str) -> object:
            branch, name = key.split(".")
            return getattr(getattr(self, branch), name)

        def default(key: str) -> object:
            branch, name = key.split(".")
            return type(getattr(self, branch)).model_fields[name].default

        for key, values, names in IDLE:
            idle = [name for name in names if value(key) in values and value(name) != default(name)]
            if idle:
                raise ValueError(
                    f"{idle[0]} = {value(idle[0])!r} does nothing where {key} is {value(key)!r}; leave it out"
                )
        return self

    def digest(self, *branches: str) -> str:
        """Hex digest of what a trained decoder depends on (of `branches` only, if given)."""
        values = self.model_dump(mode="json", exclude={"paths", "execution"})
        chosen = branches or [name for name in values if name not in (*PICTURES, "tune", "evaluate")]
        return digest_of({name: values[name] for name in chosen})


def digest_of(values: dict[str, Any]) -> str:
    """SHA-256 of a tree of plain values, independent of key order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def conversion_settings(recipe: Recipe) -> dict[str, Any]:
    """What a signal store depends on beside its sources."""
    convert = recipe.convert.model_dump(mode="json")
    if not convert["only_channels"]:  # stores that were made before there was such a setting stay valid
        del convert["only_channels"]
    return {
        "convert": convert,
        "events": recipe.data.events.model_dump(mode="json"),
    }


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted keys whose values differ in two trees of settings, and both values."""
    found: list[tuple[str, Any, Any]] = []
    for key in sorted({*a, *b}):
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append((f"{prefix}{key}", one, other))
    return found
