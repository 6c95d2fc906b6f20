"""Spikes and markers that arrive while an experiment runs: sources, the stored stream, and trials assembled from it."""
