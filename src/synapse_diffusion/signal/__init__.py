"""Mathematics on sampled signals: arrays in, arrays out; no files, no settings."""
