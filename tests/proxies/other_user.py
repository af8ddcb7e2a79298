"""Run as a program: drops to a user, sends standard input to a port of 127.0.0.1, and prints the answer's first line.

    python other_user.py <uid> <port> [leave]

With `leave` it closes the connection at once instead of waiting for an answer.
"""

import encodings.idna  # noqa: F401  # sockets load it later, when this user may not read Python's files any more
import os
import socket
import sys


def main(uid: int, port: int, leave: bool) -> None:
    """Send and print."""
    request = sys.stdin.buffer.read()
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        if not leave:
            print(connection.makefile("rb").readline().decode())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), "leave" in sys.argv[3:])
