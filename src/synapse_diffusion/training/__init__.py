"""Data for training, the one loop, and the decoders that it trains."""
