"""Run folders: layout, checkpoints, metrics, use of resources, memory plan, progress and trackers."""
