"""What a user may choose: one frozen, typed tree; loading, overriding, digest."""

from synapse_diffusion.config.load import dump_recipe, load_recipe, parse_recipe
from synapse_diffusion.config.tree import (
    ConvertSettings,
    DataSettings,
    EmbedSettings,
    EvaluateSettings,
    EventColumns,
    ExecutionSettings,
    LabelSettings,
    ModelSettings,
    PairSettings,
    PathSettings,
    Recipe,
    SimulateSettings,
    SplitSettings,
    TrainSettings,
    ViewSettings,
)

__all__ = [
    "ConvertSettings",
    "DataSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "EventColumns",
    "ExecutionSettings",
    "LabelSettings",
    "ModelSettings",
    "PairSettings",
    "PathSettings",
    "Recipe",
    "SimulateSettings",
    "SplitSettings",
    "TrainSettings",
    "ViewSettings",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
]
