"""Command line: commands, Hydra, sweeps, help and completion."""
