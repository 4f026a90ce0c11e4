"""`python -m xception_cli`, the same as the `xception` command."""

from xception_cli.cli import main

main()
