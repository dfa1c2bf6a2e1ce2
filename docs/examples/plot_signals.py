"""
Signals of your own code
========================

A signal store is a recording, filtered and resampled, with its trials. Epochs are cut from it when they are asked for.
"""

# %%

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from synapse_diffusion import Epochs, convert, find_stores, load_recipe, open_store, simulate

folder = Path(tempfile.mkdtemp())
recipe = load_recipe("study.toml", [f"paths.{name}={folder / name}" for name in ("bids", "stores")])
simulate(recipe)
convert(recipe)

stores = [open_store(path) for path in find_stores(folder / "stores", recipe.data.name)]
for store in stores:
    print(store.folder.relative_to(folder), store.signal_TC.shape, f"{store.sfreq:g} Hz", len(store.trials), "trials")

# %%
# The trial table says what was shown when:

stores[0].trials[["image_id", "concept", "person", "sequence", "onset_sample", "is_test"]].head()

# %%
# Epochs of all recordings at once; a trial whose window touches a bad stretch or another piece is not usable. ``read``
# gives a tensor (trials, sensors, samples) in V.

epochs = Epochs(stores, start_s=-0.1, stop_s=0.6)
rows = np.flatnonzero(epochs.trials["usable"])
x_NCT = epochs.read(rows)
x_NCT.shape

# %%
# The mean response of all sensors:

figure = Figure(figsize=(6, 3), layout="constrained")
axis = figure.subplots()
axis.plot(1000 * epochs.times, 1e6 * x_NCT.mean(0).T.numpy(), linewidth=0.8)
axis.axvline(0, color="0.4", linewidth=0.8)
axis.set(xlabel="ms after onset", ylabel="µV")
