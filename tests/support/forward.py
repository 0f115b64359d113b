"""One connection of a virtual machine, handed on to a port of this machine: its two ends are standard input and output.

Run by qemu for each connection, with nothing but the standard library: `python -I -S forward.py PORT`.
"""

import contextlib
import os
import socket
import sys
import threading


def hand_on(read: int, to: socket.socket) -> None:
    """Send what comes from a file descriptor until it ends."""
    with contextlib.suppress(OSError):
        while block := os.read(read, 65536):
            to.sendall(block)
        to.shutdown(socket.SHUT_WR)


def main() -> None:
    """Hand both ways on; ends when the far end has."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as far:
        threading.Thread(target=hand_on, args=(0, far), daemon=True).start()
        while block := far.recv(65536):
            while block:
                block = block[os.write(1, block) :]


if __name__ == "__main__":
    main()
