"""Fetch the recordings and tables that a recipe needs: chosen, resumable, checked."""

from synapse_diffusion.download.recordings import download_recordings
from synapse_diffusion.download.things import download_things

__all__ = ["download_recordings", "download_things"]
