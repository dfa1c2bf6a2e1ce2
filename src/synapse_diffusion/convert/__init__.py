"""Raw recordings -> signal stores; two modalities' stores -> an index of what pairs."""

from synapse_diffusion.convert.pairs import convert_pairs
from synapse_diffusion.convert.recording import Converted
from synapse_diffusion.convert.stage import convert

__all__ = ["Converted", "convert", "convert_pairs"]
