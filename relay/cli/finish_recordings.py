"""Repair and finish recordings: `python -m relay.cli.finish_recordings FOLDER [--max-days N] [--max-mb N]`.

The relay runs it after each session, as a separate process, and logs its output: recordings deleted, and failures.
"""

import argparse
import os
import sys
from pathlib import Path

from relay.cli.terminal import say
from relay.recording.postprocess import finalize_all


def main() -> None:
    """Entry point of the process that the relay starts."""
    parser = argparse.ArgumentParser(prog="python -m relay.cli.finish_recordings", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--max-days", type=float)
    parser.add_argument("--max-mb", type=float)
    arguments = parser.parse_args()
    if hasattr(os, "nice"):
        os.nice(15)  # running sessions come first
    failures = finalize_all(arguments.root, arguments.max_days, arguments.max_mb, say)
    for failure in failures:
        say(failure, err=True)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
