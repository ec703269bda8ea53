"""Ports for the platform's servers."""

import random
import socket
from collections.abc import Collection

from audiofoundation.errors import Conflict

# Below Linux's ephemeral range (32768 upwards): there, an outgoing connection could take a server's port
# in the moment between its death and its restart.
_FIRST, _LAST = 18_000, 32_000
_TRIES = 200


def is_port_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def pick_port(host: str, *, wanted: int = 0, taken: Collection[int] = (), option: str = "") -> int:
    """Return `wanted` if it is free, or with 0 a free port that is not in `taken`.

    `option` is what asked for it, for the message.

    Raises:
        Conflict: the wanted port is in use, or no free one was found.
    """
    if wanted:
        if wanted in taken or not is_port_free(host, wanted):
            advice = f"choose another one{option and f' with {option}'}, or 0 for any free port"
            raise Conflict(f"port {wanted} on {host} is in use; {advice}")
        return wanted
    chooser = random.SystemRandom()
    for _ in range(_TRIES):
        port = chooser.randrange(_FIRST, _LAST)
        if port not in taken and is_port_free(host, port):
            return port
    raise Conflict(f"no free port between {_FIRST} and {_LAST} on {host}")
