"""`python -m relay.local_engine`: print the port as one JSON line on standard output, and serve until SIGTERM.

With --exit-with-stdin it also ends when its standard input is closed, so that it never outlives its parent process.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial

from relay.errors import RelayError
from relay.local_engine.server import serve
from relay.log_lines import log_to_stderr


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m relay.local_engine", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0: any free port")
    parser.add_argument("--exit-with-stdin", action="store_true", help="exit when standard input is closed")
    arguments = parser.parse_args()
    log_to_stderr()
    try:
        asyncio.run(_main(arguments.host, arguments.port, arguments.exit_with_stdin))
    except RelayError as error:
        sys.exit(str(error))


async def _main(host: str, port: int, exit_with_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    server = asyncio.ensure_future(
        serve(host, port, on_ready=lambda port: print(json.dumps({"port": port}), flush=True))
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, server.cancel)
    if exit_with_stdin:
        # A thread, because standard input may be a pipe, a file or a terminal; a daemon, because its read blocks.
        watch = partial(_wait_for_end_of_input, loop, server.cancel)
        threading.Thread(target=watch, name="relay-stdin", daemon=True).start()
    with contextlib.suppress(asyncio.CancelledError):
        await server


def _wait_for_end_of_input(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
    while os.read(sys.stdin.fileno(), 65536):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed already
        loop.call_soon_threadsafe(stop)


if __name__ == "__main__":
    main()
