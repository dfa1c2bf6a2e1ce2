"""One folder a run: recipe, provenance, splits, scalers, checkpoints, predictions, figures, scores."""

from synapse_diffusion.runs.files import NEEDED, Scalers
from synapse_diffusion.runs.making import Given, begin_run, open_run, prepare_run, run_of, untrained
from synapse_diffusion.runs.run import CLAIMS, MAIN_METRIC, SHOWN, Run, bar, caption, score_row, with_holm
from synapse_diffusion.runs.tensors import load_tensors, save_atomically

__all__ = [
    "CLAIMS",
    "MAIN_METRIC",
    "NEEDED",
    "SHOWN",
    "Given",
    "Run",
    "Scalers",
    "bar",
    "begin_run",
    "caption",
    "load_tensors",
    "open_run",
    "prepare_run",
    "run_of",
    "save_atomically",
    "score_row",
    "untrained",
    "with_holm",
]
