"""One RPC as the rest of the service sees it: its client, its deadline and its metadata."""

import asyncio
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORWARDED: Final = "x-forwarded-for"


@dataclass(frozen=True, slots=True)
class Call:
    """An RPC whose message has not been read."""

    deadline: float
    """Time on the event loop's clock by which it must be answered: the client's deadline, or this
    server's if that is earlier."""
    client: str
    """The client's address; empty if unknown."""
    headers: tuple[tuple[bytes, bytes], ...]
    """The metadata, as HTTP headers."""

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


def read_call(context: Any, seconds: float, trusted: tuple[Network, ...]) -> Call:
    """Return the call of an RPC.

    Args:
        context: gRPC's context.
        seconds: this server's own time limit.
        trusted: networks of the proxies whose ``x-forwarded-for`` names the client.
    """
    left = context.time_remaining()
    if left is not None:
        seconds = min(seconds, left)
    headers = tuple(
        (key.encode(), value if isinstance(value, bytes) else value.encode())
        for key, value in context.invocation_metadata() or ()
    )
    client = peer_address(context.peer())
    if trusted:
        forwarded = b",".join(value for key, value in headers if key == _FORWARDED.encode())
        client = original_client(client, forwarded.decode("latin-1"), trusted)
    return Call(asyncio.get_running_loop().time() + seconds, client, headers)


def peer_address(peer: str) -> str:
    """Return the address in what gRPC calls a peer, such as ``ipv6:%5B::1%5D:5000``; empty if it
    has none."""
    family, _, rest = unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    return rest.rpartition(":")[0].strip("[]").removeprefix("::ffff:")


def original_client(address: str, forwarded: str, trusted: Iterable[Network]) -> str:
    """Return the last address that no trusted proxy has.

    Args:
        address: address of the connection.
        forwarded: ``X-Forwarded-For``: addresses that proxies have added, the nearest last.
        trusted: networks of proxies that are trusted to name the client.
    """
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
    networks = tuple(trusted)
    while hops and _is_in(address, networks):
        address = hops.pop()
    return address


def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
