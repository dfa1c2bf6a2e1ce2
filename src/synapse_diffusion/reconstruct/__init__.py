"""A decoder run and a generator -> pictures of what was seen, beside their controls, and scores."""

from synapse_diffusion.reconstruct.opening import open_pictured
from synapse_diffusion.reconstruct.prior import train_prior
from synapse_diffusion.reconstruct.stage import reconstruct, redraw, undrawn

__all__ = ["open_pictured", "reconstruct", "redraw", "train_prior", "undrawn"]
