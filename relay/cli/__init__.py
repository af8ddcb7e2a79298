"""The `relay` command: `app` is its root. The modules of the commands import the rest of the relay on demand.

`finish_recordings` is not a command: the relay runs it as a process of its own.
"""

import sys


def main() -> None:
    """Run the console script: a RelayError is printed on standard error, with exit code 2."""
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
