"""A study with known truth, in real BIDS form."""

from synapse_diffusion.simulate.study import simulate, unsimulated

__all__ = ["simulate", "unsimulated"]
