"""Tests of access, limits, metrics, health and the repository over gRPC."""

import asyncio
import ipaddress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from service.problems import Problem
from service.rpc.calls import original_client, peer_address
from service.rpc.messages import SERVICE, message_class
from service.rpc.reader import MessageReader
from service.upload import MAX_ARRIVING_BYTES
from tests.service.rpc.conftest import Client, connected, infer, serving, status_of

Code = grpc.StatusCode
TOKEN = (("authorization", "Bearer public"),)
ADMINISTRATOR = (("authorization", "Bearer administrator"),)
INFER = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"


def check(client: Client, service: str = "") -> Any:
    return client.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest(service=service).SerializeToString())


def test_a_token_is_needed_except_for_health(call):
    async def ask(client: Client) -> Any:
        return (
            await status_of(client("ModelInfer", infer())),
            await status_of(client("ModelInfer", infer(), metadata=ADMINISTRATOR)),
            await status_of(client("ModelInfer", infer(), metadata=TOKEN)),
            await status_of(client("ModelMetadata")),
            await status_of(client.channel.stream_stream(STREAM)().read()),
            (await client("ServerLive")).live,
            (await client("ServerReady")).ready,
            (await check(client)).status,
        )

    *calls, live, ready, health = call(ask, token="public")
    denied = Code.UNAUTHENTICATED
    assert calls == [denied, denied, Code.OK, denied, denied]
    assert (live, ready, health) == (True, True, health_pb2.HealthCheckResponse.SERVING)


def test_the_rate_limit_counts_calls_and_messages_of_streams(call):
    async def ask(client: Client) -> Any:
        first = await status_of(client("ModelInfer", infer()))
        second = await status_of(client("ModelInfer", infer()))
        return first, second, await status_of(client("ServerLive"))

    assert call(ask, rate_limit=0.01) == (Code.OK, Code.RESOURCE_EXHAUSTED, Code.OK)


def test_the_repository(call):
    load = message_class("RepositoryModelLoadRequest")(model_name="tiny_b")
    unload = message_class("RepositoryModelUnloadRequest")(model_name="tiny_b")

    async def ask(client: Client) -> Any:
        denied = await status_of(client("RepositoryModelUnload", unload))
        await client("RepositoryModelUnload", unload, metadata=ADMINISTRATOR)
        listed = await client("RepositoryIndex")
        gone = await status_of(client("ModelInfer", infer()))
        await client("RepositoryModelLoad", load, metadata=ADMINISTRATOR)
        return denied, listed, gone, await status_of(client("ModelInfer", infer()))

    denied, listed, gone, after = call(ask, admin_token="administrator")
    assert denied is Code.UNAUTHENTICATED
    assert [(one.name, one.state) for one in listed.models] == [
        ("tiny_a", "READY"),
        ("tiny_b", "UNAVAILABLE"),
    ]
    assert (gone, after) == (Code.NOT_FOUND, Code.OK)


def test_descriptions_are_those_of_rest(call):
    named = message_class("ModelMetadataRequest")(name="tiny_a")
    statistics = message_class("ModelStatisticsRequest")(name="tiny_b")

    async def ask(client: Client) -> Any:
        await client("ModelInfer", infer())
        return (
            await client("ServerMetadata"),
            await client("ModelMetadata", named),
            (await client("ModelConfig", named)).config,
            (await client("ModelStatistics", statistics)).model_stats,
            (await client("ModelStatistics")).model_stats,
            (await client("ModelReady", named)).ready,
        )

    server, metadata, config, (stats,), everything, ready = call(ask)
    assert "statistics" in server.extensions
    assert [list(one.shape) for one in metadata.inputs] == [[-1, 32, 32, 3]]
    assert (config.max_batch_size, list(config.output[0].dims)) == (512, [10])
    assert (stats.name, stats.inference_count) == ("tiny_b", 3)
    assert stats.inference_stats.success.count == 1
    assert [one.name for one in everything] == ["tiny_a", "tiny_b"]
    assert ready


def test_the_earlier_deadline_ends_a_call(call):
    async def ask(client: Client) -> Any:
        endless = client.channel.stream_unary(INFER)
        own = await status_of(endless())  # it sends nothing
        return own, await status_of(endless(timeout=0.1))

    assert call(ask, deadline_seconds=0.5) == (Code.DEADLINE_EXCEEDED, Code.DEADLINE_EXCEEDED)


def test_a_call_without_a_message_is_refused(call):
    async def ask(client: Client) -> grpc.StatusCode:
        silent = client.channel.stream_unary(INFER)()
        await silent.done_writing()
        return await status_of(silent)

    assert call(ask) is Code.INVALID_ARGUMENT


def test_slow_messages_are_few_and_leave_room_for_others(call):
    async def ask(client: Client) -> Any:
        silent = client.channel.stream_unary(INFER)
        calls = [asyncio.ensure_future(status_of(silent())) for _ in range(3)]
        refused = [await one for one in asyncio.as_completed(calls)][:2]
        return refused, await status_of(client("ModelInfer", infer()))

    settings = {"max_body_bytes": MAX_ARRIVING_BYTES, "deadline_seconds": 3}
    assert call(ask, **settings) == ([Code.UNAVAILABLE] * 2, Code.OK)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_messages_have_a_largest_size_before_compression(tiny_store, compression):
    async def main() -> Any:
        async with (
            serving(tiny_store, max_body_bytes=100_000) as server,
            connected(server, compression=compression) as client,
        ):
            large = infer(raw_input_contents=[bytes(100_000)])
            refused = await status_of(client("ModelInfer", large))
            return refused, await status_of(client("ModelInfer", infer()))

    assert asyncio.run(main()) == (Code.RESOURCE_EXHAUSTED, Code.OK)


def test_connections_are_limited(tiny_store):
    async def main() -> Any:
        async with serving(tiny_store, max_connections=1) as server, connected(server) as first:
            before = await status_of(first("ServerLive"))
            # Channels of one process with equal options would share a connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as second:
                refused = await status_of(Client(second)("ServerLive"))
            return before, refused, await status_of(first("ServerLive"))

    assert asyncio.run(main()) == (Code.OK, Code.UNAVAILABLE, Code.OK)


def test_calls_are_counted_and_traced(tiny_store):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def main() -> Any:
        async with serving(tiny_store) as server, connected(server) as client:
            call = client.channel.unary_unary(INFER)(
                infer().SerializeToString(), metadata=(("traceparent", parent),)
            )
            await call
            await status_of(client("ModelInfer", infer(model="none")))
            text = server._backend.metrics.render().decode()
            return dict(await call.trailing_metadata()), text

    metadata, text = asyncio.run(main())
    assert metadata["traceparent"].split("-")[1] == parent.split("-")[1]
    for code in ("200", "404"):
        assert f'cifar10_requests_total{{code="{code}",route="{INFER}"}} 1.0' in text
    assert 'cifar10_rejected_total{reason="no-such-model"} 1.0' in text
    assert "cifar10_requests_in_flight 0.0" in text


def test_health_knows_its_services(call):
    async def ask(client: Client) -> Any:
        watch = client.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(b"")
        watched = await watch.read()
        watch.cancel()
        return (
            watched.status,
            (await check(client, SERVICE)).status,
            await status_of(check(client, "nothing")),
        )

    serving_ = health_pb2.HealthCheckResponse.SERVING
    assert call(ask) == (serving_, serving_, Code.NOT_FOUND)


@pytest.mark.parametrize(
    "method",
    [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        f"{SERVICE}/ModelInfer",
        f"{SERVICE}/ModelMetadata",
    ],
)
def test_bytes_that_are_no_message_are_the_client_s_fault(call, caplog, method):
    async def ask(client: Client) -> Code:
        stream = client.channel.stream_stream(f"/{method}")()
        await stream.write(b"\xff")
        await stream.done_writing()
        return await stream.code()

    assert call(ask) is Code.INVALID_ARGUMENT
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_reflection_describes_every_service(call, version):
    questions = [{"list_services": ""}, {"file_containing_symbol": SERVICE}]

    async def ask(client: Client) -> Any:
        requests = [reflection_pb2.ServerReflectionRequest(**one) for one in questions]
        stream = client.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        return [answer async for answer in stream(one.SerializeToString() for one in requests)]

    services, described = call(ask)
    names = [one.name for one in services.list_services_response.service]
    assert SERVICE in names
    assert "grpc.health.v1.Health" in names
    assert b"ModelInferRequest" in described.file_descriptor_response.file_descriptor_proto[0]


def test_open_streams_end_with_their_worker(tiny_store):
    async def main() -> Any:
        async with serving(tiny_store) as server, connected(server) as client:
            stream = client.channel.stream_stream(STREAM)()
            await stream.write(infer().SerializeToString())
            answer = await stream.read()
            await server.stop(60)  # does not wait for the stream's client
            return answer, await stream.code()

    answer, code = asyncio.run(main())
    assert answer
    assert code is Code.UNAVAILABLE


def test_stopping_lets_a_call_end(tiny_store):
    async def main() -> Any:
        async with serving(tiny_store) as server, connected(server) as client:
            call = client.channel.stream_unary(INFER)()
            await call.wait_for_connection()
            await call.write(infer().SerializeToString())
            stopping = asyncio.ensure_future(server.stop(60))
            answer = await call
            await stopping
            return answer

    assert asyncio.run(main())


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:50001", "127.0.0.1"),
        ("ipv6:[::1]:50001", "::1"),
        ("ipv6:%5B2001:db8::1%5D:50001", "2001:db8::1"),
        ("ipv6:[::ffff:10.0.0.1]:5", "10.0.0.1"),
        ("unix:/tmp/socket", ""),
    ],
)
def test_addresses_of_peers(peer, address):
    assert peer_address(peer) == address


def test_only_trusted_proxies_name_the_client():
    trusted = (ipaddress.ip_network("10.0.0.0/8"),)
    assert original_client("10.0.0.1", "1.2.3.4, 5.6.7.8, 10.0.0.2", trusted) == "5.6.7.8"
    assert original_client("9.9.9.9", "1.2.3.4", trusted) == "9.9.9.9"
    assert original_client("10.0.0.1", "", trusted) == "10.0.0.1"
    assert original_client("10.0.0.1", "not an address", trusted) == "not an address"


class SlowContext:
    """Stands in for gRPC's context of a call whose message has not arrived."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.is_read = False

    async def read(self) -> bytes:
        await self.arrived.wait()
        self.is_read = True
        return b"a message"


def test_a_message_that_arrives_after_its_deadline_is_read_and_so_freed():
    async def main():
        context = SlowContext()
        with pytest.raises(Problem, match="before the call's deadline"):
            await MessageReader(1_000).read(context, asyncio.get_running_loop().time())
        context.arrived.set()
        await asyncio.sleep(0)
        return context.is_read

    assert asyncio.run(main())
