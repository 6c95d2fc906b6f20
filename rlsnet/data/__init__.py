"""Import of recordings from the formats of laboratories: spikes and trials, session by session, into one recording.zarr."""
