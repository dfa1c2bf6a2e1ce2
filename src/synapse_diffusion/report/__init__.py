"""One HTML file of runs for people: the answer, the pictures, and what speaks for and against it."""

from synapse_diffusion.report.stage import page_path, report, unreported

__all__ = ["page_path", "report", "unreported"]
