"""Decode what was seen from EEG and MEG, and resynthesise the picture."""

__version__ = "0.1.0"
