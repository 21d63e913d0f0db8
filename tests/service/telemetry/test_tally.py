"""Tests that added up metrics are those that would have been written one by one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

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
