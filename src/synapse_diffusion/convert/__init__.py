"""Raw recordings -> signal stores; two modalities' stores -> an index of what pairs."""

from synapse_diffusion.convert.pairs import convert_pairs, unpaired
from synapse_diffusion.convert.recording import Converted
from synapse_diffusion.convert.stage import convert, n_workers, store_bytes, unconverted

__all__ = ["Converted", "convert", "convert_pairs", "n_workers", "store_bytes", "unconverted", "unpaired"]
