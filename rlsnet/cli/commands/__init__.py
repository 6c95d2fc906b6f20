"""Commands that need no experiment, one module each, with Options, USAGE and main."""
