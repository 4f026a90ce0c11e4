"""`python -m xception_cli`, the same as the `xception` command."""

import signal

# Ctrl-C while modules are imported ends the command without a traceback; `main` handles it later.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from xception_cli.cli import main

if __name__ == "__main__":
    main()
