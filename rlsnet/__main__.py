"""Entry point of `python -m rlsnet`, the same program as `rlsnet`."""

from rlsnet.cli.main import main

main()
