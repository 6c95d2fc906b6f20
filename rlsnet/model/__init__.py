"""Model: arrays of the network, connectivity, neuron models, transfer function and random numbers."""
