"""Recursive least squares: the update, its faster exact forms, P, targets, scores, and one iteration of training."""
