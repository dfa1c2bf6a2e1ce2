"""A trained run -> scores, intervals, pictures. The only place where test data are read."""

from synapse_diffusion.evaluate.observers import observer_epochs, person_observer
from synapse_diffusion.evaluate.seeds import evaluate_seeds
from synapse_diffusion.evaluate.stage import evaluate, unscored

__all__ = ["evaluate", "evaluate_seeds", "observer_epochs", "person_observer", "unscored"]
