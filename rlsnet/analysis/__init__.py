"""Results read, summarised and shown: scores, perturbation effects, comparisons, figures and reports. Nothing is simulated here."""
