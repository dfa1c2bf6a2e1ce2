"""What a user may choose: one frozen, typed tree; loading, overriding, digest."""

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
from synapse_diffusion.config.load import dump_recipe, load_recipe, parse_recipe
from synapse_diffusion.config.pictures import GeneratorSettings, PretrainedSettings, PriorSettings, ReconstructSettings
from synapse_diffusion.config.recordings import (
    ConvertSettings,
    DataSettings,
    EventColumns,
    PairSettings,
    PathSettings,
    SimulateSettings,
)
from synapse_diffusion.config.tree import ExecutionSettings, Recipe
from synapse_diffusion.config.tuning import TuneSettings, Values

__all__ = [
    "ConvertSettings",
    "DataSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "EventColumns",
    "ExecutionSettings",
    "GeneratorSettings",
    "LabelSettings",
    "LossSettings",
    "ModelSettings",
    "PairSettings",
    "PathSettings",
    "PretrainedSettings",
    "PriorSettings",
    "Recipe",
    "ReconstructSettings",
    "SimulateSettings",
    "SplitSettings",
    "TargetSettings",
    "TrainSettings",
    "TuneSettings",
    "Values",
    "ViewSettings",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
]
