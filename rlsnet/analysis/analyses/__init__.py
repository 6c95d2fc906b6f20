"""Analyses of a trained network beside the recording, each a function of arrays; see `analyse` for the order and the store."""
