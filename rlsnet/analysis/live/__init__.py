"""View of a run while it trains: a page on this computer, a display in the terminal, and a page to keep."""
