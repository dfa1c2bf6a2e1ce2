"""The stages as jobs of a Slurm cluster: submitted as one chain, and watched. Light: `cli` imports its commands."""
