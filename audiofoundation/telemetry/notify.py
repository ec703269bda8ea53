"""How a process tells the one that started it that it is ready: systemd's sd_notify protocol."""

import os
import socket
from contextlib import suppress

NOTIFY_SOCKET = "NOTIFY_SOCKET"


def notify_ready() -> None:
    """Say "ready" to whoever started this process, if they asked. Workers call it once they consume."""
    address = os.environ.get(NOTIFY_SOCKET)
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, suppress(OSError):
        client.sendto(b"READY=1", address)
