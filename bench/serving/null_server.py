"""A server that does nothing, to find out how much a load generator can send.

    python -m bench.serving.null_server PORT

It reads a request and answers a constant JSON of the size of an answer of ``/classify``.
"""

import asyncio
import sys
from typing import Final

_BODY: Final = b'{"label":"cat","class_id":3,"confidence":0.5,"model":"none"}'.ljust(400)
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY


class NullServer(asyncio.Protocol):
    """Answers every request; finds its end by its Content-Length."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            _, found, rest = head.partition(b"content-length:")
            length = int(rest.split(b"\r\n", 1)[0]) if found else 0
            if len(self._received) < end + 4 + length:
                return
            self._received = self._received[end + 4 + length :]
            self._transport.write(ANSWER)


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(NullServer, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve on uvloop where it is installed: the server must not be the limit."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(int(sys.argv[1])))
    else:
        uvloop.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
