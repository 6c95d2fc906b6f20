"""Learning: the update of recursive least squares and its faster exact forms, P, targets, scores, and one iteration."""
