"""`python -m rlsnet` is `rlsnet`."""

from rlsnet.cli import main

main()
