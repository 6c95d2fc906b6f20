"""Work of the commands train, simulate and test, from a configuration to the results in a run folder; resuming of runs."""
