"""Analysis of stored results: scores, perturbation effects, comparisons, figures and reports, without simulation."""
