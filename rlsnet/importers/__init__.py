"""From what laboratories store to a recording.zarr: one module a format, spikes and trials session by session."""
