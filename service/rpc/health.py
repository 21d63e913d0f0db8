"""The standard health service, ``grpc.health.v1``, for probes and load balancers.

Source: https://grpc.io/docs/guides/health-checking/
"""

from typing import Final

from grpc_health.v1 import health_pb2

from service.backend import Backend
from service.problems import Kind, Problem
from service.rpc.calls import Call
from service.rpc.messages import SERVICE, parse
from service.status import check_ready

HEALTH_SERVICE: Final = "grpc.health.v1.Health"

_State = health_pb2.HealthCheckResponse


class Health:
    """Tells whether this server, which has one state for all its services, is ready."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def check(self, _: Call, message: bytes) -> bytes:
        """Answer ``Check``.

        Raises:
            Problem: 400 for a malformed message, 404 for an unknown service.
        """
        state = self._state_of(message)
        if state == _State.SERVICE_UNKNOWN:
            detail = f"no such service; there is {SERVICE!r}, and '' for the whole server"
            raise Problem(Kind.NOT_FOUND, detail)
        return _encoded(state)

    def state(self, message: bytes) -> bytes:
        """Return the answer to ``Watch`` for the state now.

        Raises:
            Problem: 400 for a malformed message.
        """
        return _encoded(self._state_of(message))

    def _state_of(self, message: bytes) -> int:
        request = parse(health_pb2.HealthCheckRequest, message)
        if request.service not in ("", SERVICE):
            return int(_State.SERVICE_UNKNOWN)
        try:
            check_ready(self._backend.models, self._backend.board, self._backend.inference)
        except Problem:
            return int(_State.NOT_SERVING)
        return int(_State.SERVING)


def _encoded(state: int) -> bytes:
    encoded: bytes = _State(status=state).SerializeToString()
    return encoded
