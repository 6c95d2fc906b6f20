"""The command line: commands, Hydra, sweeps, help and completion."""
