"""`python -m rlsnet` is `rlsnet`."""

from rlsnet.cli.main import main

main()
