"""Simulation of the network: state, time step, trial, delivery of spikes, inputs and perturbations, without learning."""
