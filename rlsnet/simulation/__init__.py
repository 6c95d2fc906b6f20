"""The network in time: state, step, trial, delivery of spikes, inputs and perturbations. There is no learning here."""
