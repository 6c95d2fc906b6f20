"""Trains recurrent spiking networks to reproduce recorded neural activity, by recursive least squares."""
