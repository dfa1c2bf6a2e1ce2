"""
Vectors of your own image encoder
=================================

Any function of an image may be what a decoder learns to predict: compute its vectors, write them as a table, and name
the table in the recipe.
"""

# %%

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from synapse_diffusion import (
    EmbeddingTable,
    convert,
    evaluate,
    load_recipe,
    simulate,
    train,
    true_rows,
    write_embeddings,
)

folder = Path(tempfile.mkdtemp())
places = [f"paths.{name}={folder / name}" for name in ("bids", "stores", "runs", "embeddings")]
recipe = load_recipe("study.toml", [*places, "target.task=retrieve", "target.table=mine", "labels.classes=[]"])
simulate(recipe)
convert(recipe)

# %%
# The encoder of this example: colour and light on a grid of 4 x 4.

files = sorted((folder / "bids/stimuli").glob("*/*.jpg"))


def encode(path: Path) -> np.ndarray:
    """One picture as 48 numbers."""
    return np.asarray(Image.open(path).convert("RGB").resize((4, 4), Image.Resampling.BOX), dtype=np.float32).ravel()


vectors = np.stack([encode(path) for path in files])
rows = true_rows([path.stem for path in files], [path.parent.name for path in files])
write_embeddings(EmbeddingTable(rows, {"grid": vectors}, {"name": "colours on a grid"}), folder / "embeddings/mine")
vectors.shape

# %%
# The decoder is trained to find each trial's picture by these vectors, and tested among pictures of concepts that were
# never trained.

run = train(recipe)
evaluate(run)
figure = run.draw_retrieval()
