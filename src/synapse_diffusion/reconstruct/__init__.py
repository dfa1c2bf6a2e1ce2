"""A decoder run and a generator -> pictures of what was seen, beside their controls, and scores."""

from synapse_diffusion.reconstruct.prior import train_prior
from synapse_diffusion.reconstruct.stage import reconstruct

__all__ = ["reconstruct", "train_prior"]
