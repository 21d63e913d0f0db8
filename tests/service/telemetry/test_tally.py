"""Tests that added up metrics are those that would have been written one by one."""

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.telemetry import tally as module
from service.telemetry.tally import Tally

SECONDS = (0.0, 0.001, 0.0011, 0.5, 1.0, 2.0)


def collectors(registry):
    return (
        Counter("counted", "a", registry=registry),
        Gauge("held", "b", registry=registry),
        Histogram("took", "c", buckets=(0.001, 1.0), registry=registry),
    )


def values(registry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


def test_what_is_tallied_is_written_once_and_is_the_same():
    one_by_one, added_up = CollectorRegistry(), CollectorRegistry()
    counter, gauge, histogram = collectors(one_by_one)
    for seconds in SECONDS:
        counter.inc()
        gauge.inc()
        histogram.observe(seconds)
    gauge.dec()

    counter, gauge, histogram = collectors(added_up)
    before, tally = values(added_up), Tally()
    for seconds in SECONDS:
        tally.add(counter)
        tally.add(gauge)
        tally.observe(histogram, seconds)
    tally.add(gauge, -1.0)
    assert values(added_up) == before
    for _ in range(2):
        tally.write()
        assert values(added_up) == values(one_by_one)


def test_the_last_value_of_a_gauge_counts():
    registry = CollectorRegistry()
    _, gauge, _ = collectors(registry)
    tally = Tally()
    tally.set(gauge, 1.0)
    tally.set(gauge, 2.0)
    assert "held 0.0" in values(registry)
    tally.write()
    assert "held 2.0" in values(registry)


def test_numbers_are_written_in_time_and_again_later(monkeypatch):
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)
    registry = CollectorRegistry()
    counter, *_ = collectors(registry)
    tally = Tally()

    async def main():
        for total in ("2.0", "3.0"):
            tally.add(counter)
            tally.write_soon()
            if total == "2.0":
                tally.add(counter)
                tally.write_soon()
            while f"counted_total {total}" not in values(registry):
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 30))
