"""`python -m synapse_diffusion`, e.g. under torchrun: the same as the command."""

from synapse_diffusion.cli import main

main()
