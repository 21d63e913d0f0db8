"""Address that the server listens on."""

import os
import socket
from typing import Final

EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104 — a server's default
EVERY_ADDRESS: Final = "::"


def default_host() -> str:
    """Return ``::`` if one socket can listen for both IPv6 and IPv4, otherwise ``0.0.0.0``.

    BentoML listens on one address, by default an IPv4 address, but Node, Java and browsers try
    ``::1`` first for ``localhost``. One socket can serve both only if the kernel supports IPv6,
    which a container may lack, and does not separate the two (the sysctl ``net.ipv6.bindv6only``).
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            if probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                return EVERY_IPV4
            probe.bind((EVERY_ADDRESS, 0))
            probe.listen(1)
            # Binding proves nothing: the kernel also binds without IPv6 routes or addresses.
            with socket.create_connection(("127.0.0.1", probe.getsockname()[1]), timeout=1):
                return EVERY_ADDRESS
    except OSError:
        return EVERY_IPV4


def listening_host(descriptor: int) -> str:
    """Return the address that an inherited socket listens on."""
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        return str(listener.getsockname()[0])
