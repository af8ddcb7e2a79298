"""The `relay` command: `app` is its root, and each group of commands has a module that imports on demand.

`finish_recordings` is not a command: the relay runs it as a process of its own.
"""

import sys


def main() -> None:
    """Entry point of the console script: a RelayError is one sentence on standard error and exit code 2."""
    from relay.cli.app import app
    from relay.cli.terminal import say_lines
    from relay.errors import RelayError

    try:
        app()
    except RelayError as error:
        say_lines(f"relay: {error}", err=True)
        sys.exit(2)
    except RuntimeError as error:
        say_lines(f"relay: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
