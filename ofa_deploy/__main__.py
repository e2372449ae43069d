"""``ofa-deploy`` and ``python -m ofa_deploy``: little is loaded before Ctrl-C is heard."""

import os
import signal
import sys

_INTERRUPTED = 130


def main() -> None:
    """Entry point. Until a command runs, Ctrl-C has nothing to keep or to tell."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:  # within an import it would come out as another error, or be swallowed
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from ofa_deploy.cli.main import main as run

    try:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
