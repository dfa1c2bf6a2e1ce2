"""Drawing: each function returns its figure, and keeps it as a PNG where `path` says."""
