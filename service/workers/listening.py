"""The addresses that the server listens on unless it is told others."""

import socket
from typing import Final

EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104 — a server's default
EVERY_ADDRESS: Final = "::"


def default_host() -> str:
    """Return ``::`` where one socket listens for IPv6 and IPv4 both, otherwise ``0.0.0.0``.

    BentoML listens on one address, by default an IPv4 one, while ``localhost`` is ``::1`` first for
    Node, Java and browsers. One socket for both needs a kernel with IPv6 (a container may have
    none) that does not keep the two apart (the sysctl ``net.ipv6.bindv6only``).
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            if probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                return EVERY_IPV4
            probe.bind((EVERY_ADDRESS, 0))
            probe.listen(1)
            # Bound is not reached: without IPv6 routes or addresses the kernel still binds.
            with socket.create_connection(("127.0.0.1", probe.getsockname()[1]), timeout=1):
                return EVERY_ADDRESS
    except OSError:
        return EVERY_IPV4
