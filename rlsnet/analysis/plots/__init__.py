"""Figures of runs, recordings and perturbations, by Matplotlib without pyplot."""
