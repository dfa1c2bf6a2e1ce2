"""The only door to raw data: BIDS recordings, their event tables, montages, the concept table; THINGS-EEG2's files."""

from synapse_diffusion.bids.concepts import ConceptTable, ImageTable, rarest, read_concepts, read_images
from synapse_diffusion.bids.eeg2 import find_eeg2, open_eeg2, open_eeg2_epochs, read_codes
from synapse_diffusion.bids.events import TrialTable, read_trials
from synapse_diffusion.bids.reading import OpenEpochs, OpenRecording, open_recording, standard_positions
from synapse_diffusion.bids.recordings import Recording, find_recordings

__all__ = [
    "ConceptTable",
    "ImageTable",
    "OpenEpochs",
    "OpenRecording",
    "Recording",
    "TrialTable",
    "find_eeg2",
    "find_recordings",
    "open_eeg2",
    "open_eeg2_epochs",
    "open_recording",
    "rarest",
    "read_codes",
    "read_concepts",
    "read_images",
    "read_trials",
    "standard_positions",
]
