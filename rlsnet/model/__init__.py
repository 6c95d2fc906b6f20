"""The network: its arrays, connectivity, neuron models, transfer function and random numbers."""
