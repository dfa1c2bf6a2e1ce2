"""Raw recordings -> signal stores; two modalities' stores -> an index of what pairs."""

from synapse_diffusion.convert.pairs import convert_pairs, unpaired
from synapse_diffusion.convert.recording import Converted
from synapse_diffusion.convert.stage import convert, unconverted

__all__ = ["Converted", "convert", "convert_pairs", "unconverted", "unpaired"]
