"""Commands that need no experiment of their own: a module each, with Options, USAGE and main."""
