"""A search over settings, by Ray Tune (pip extra `tune`)."""

from synapse_diffusion.tune.results import Found
from synapse_diffusion.tune.stage import tune

__all__ = ["Found", "tune"]
