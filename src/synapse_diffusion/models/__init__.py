"""Decoders: `(B, C, T)` signals in, `(B, D)` out; nothing here knows of files, settings or distribution."""
