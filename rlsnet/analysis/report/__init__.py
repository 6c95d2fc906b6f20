"""Reports and comparisons of runs as self-contained HTML pages."""
