"""Training while an experiment runs: messages are recorded in a thread, and the networks learn between trials."""
