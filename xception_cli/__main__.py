"""`python -m xception_cli`, the same as the `xception` command."""

import signal

# Ctrl-C while modules are imported ends the command without a traceback; `main` handles it later.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# It asks a training to save (`training.stopping`). Until there is something to save, and in other
# commands and their helper processes, it does nothing; by default it would end them.
if hasattr(signal, "SIGUSR1") and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

from xception_cli.cli import main

if __name__ == "__main__":
    main()
