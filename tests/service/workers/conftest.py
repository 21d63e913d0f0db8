"""Fixture: run a scenario with a client."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.service.workers.client import Client, Scenario


@pytest.fixture
def talk() -> Iterator[Callable[[Scenario], Client]]:
    def run(scenario: Scenario) -> Client:
        async def main() -> Client:
            client = Client()
            await scenario(client)
            client.stop()
            return client

        return asyncio.run(main())

    return run
