"""The only door to raw BIDS data: recordings, their event tables, the concept table."""

from synapse_diffusion.bids.concepts import ConceptTable, ImageTable, read_concepts, read_images
from synapse_diffusion.bids.events import TrialTable, read_trials
from synapse_diffusion.bids.reading import OpenRecording, open_recording, standard_positions
from synapse_diffusion.bids.recordings import Recording, find_recordings

__all__ = [
    "ConceptTable",
    "ImageTable",
    "OpenRecording",
    "Recording",
    "TrialTable",
    "find_recordings",
    "open_recording",
    "read_concepts",
    "read_images",
    "read_trials",
    "standard_positions",
]
