"""Training images and their vectors -> a generator of pictures. Test images and test concepts stay shut."""

from synapse_diffusion.generate.stage import train_generator, untrained

__all__ = ["train_generator", "untrained"]
