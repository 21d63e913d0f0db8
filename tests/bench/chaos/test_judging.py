"""Tests of each trial's verdict on made-up figures."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from bench.chaos import (
    attack,
    bombs,
    full_disk,
    fuzz,
    kill,
    large,
    logs,
    mpo,
    reload,
    second_server,
    slow_readers,
    soak,
    trailers,
    upgrades,
)
from bench.chaos.bystanders import judge_memory, judge_times
from bench.chaos.traffic import percentile_ms, times_with_failures
from bench.load.loops import Sent

OTHERS = {
    "other_requests_failed": 0.0,
    "small_p99_alone_ms": 4.0,
    "small_p99_attacked_ms": 20.0,
}
SOUND: dict[str, tuple[Callable[..., list[str]], dict[str, float]]] = {
    "attack": (
        attack.judge,
        {
            **OTHERS,
            "attack_requests_failed": 0,
            "workers_lost": 0,
            "memory_before_mb": 200,
            "memory_after_mb": 240,
        },
    ),
    "kill": (
        kill.judge,
        {"failed_requests": 16, "connections_of_the_killed": 16, "longest_recovery_s": 0.5},
    ),
    "reload": (reload.judge, {"failed_requests": 0, "wrong": 0}),
    "bombs": (bombs.judge, {"failures": 0, "workers_that_died": 0, "other_requests_failed": 0}),
    "large": (
        large.judge,
        {"failed_requests": 0, "times_faster": 4.0, "same_class": 5, "photos": 5},
    ),
    "soak": (soak.judge, {"failed_requests": 0, "memory_growth_percent": 1.0}),
    "slow_readers": (
        slow_readers.judge,
        {
            "never_readers": 60,
            "never_readers_released": 60,
            "largest_answer_bytes": 500,
            "stop_with_never_readers_s": 3.0,
        },
    ),
    "trailers": (trailers.judge, {"forged_trailers_accepted": 0}),
    "upgrades": (
        upgrades.judge,
        {"upgrades_asked": 30, "upgrades_answered_wrongly": 0, "bodies_answered_as_requests": 0},
    ),
    "mpo": (mpo.judge, {"phone_pictures": 6, "phone_pictures_refused": 0}),
    "full_disk": (
        full_disk.judge,
        {
            **OTHERS,
            "lost_with_the_killed_worker": 0,
            "workers_that_died": 0,
            "killed_worker_replaced_after_s": 0.6,
            "metrics_status": 503,
            "asked_without_shared_memory": 20,
            "answered_without_shared_memory": 20,
        },
    ),
    "logs": (
        logs.judge,
        {
            **OTHERS,
            "lost_with_the_killed_worker": 0,
            "killed_worker_replaced_after_s": 0.6,
            "stop_s": 2.0,
        },
    ),
    "second_server": (
        second_server.judge,
        {
            **OTHERS,
            "workers_lost": 0,
            "second_on_the_same_port_failed": 1,
            "second_on_its_own_port_started": 1,
            "counted_before": 100,
            "counted_after_one_that_failed": 150,
            "counted_after_one_that_started": 200,
            "counted_at_the_end": 250,
        },
    ),
    "fuzz": (
        fuzz.judge,
        {
            "crashes": 0,
            "undesigned": 0,
            "failures_over_sockets": 0,
            "workers_that_died": 0,
            "sent_over_sockets": 20_000,
            "inputs": 1_000_000,
            "memory_growth_percent": 1.0,
            "in_process_memory_growth_percent": 1.0,
        },
    ),
}
BROKEN: tuple[tuple[str, Mapping[str, float], str], ...] = (
    ("attack", {"attack_requests_failed": 2}, "2 requests of the attack got a 5xx"),
    ("attack", {"workers_lost": 1}, "1 workers were lost"),
    ("attack", {"small_p99_attacked_ms": 20.1}, "small requests: p99 of 20.1 ms"),
    ("attack", {"photo_p99_alone_ms": 50, "photo_p99_attacked_ms": 30_000}, "photo requests: p99"),
    ("attack", {"other_requests_failed": 3}, "3 requests of other clients"),
    ("attack", {"memory_after_mb": 241}, "memory of 241 MB afterwards, 200 MB before"),
    ("kill", {"failed_requests": 17}, "17 requests failed"),
    ("kill", {"longest_recovery_s": 2.5}, "replaced after 2.5 s"),
    ("reload", {"failed_requests": 1}, "1 requests failed"),
    ("reload", {"wrong": 1}, "1 reloads left a worker with the wrong file"),
    ("bombs", {"workers_that_died": 1}, "1 workers died"),
    ("bombs", {"failures": 1}, "1 bombs got no answer"),
    ("large", {"times_faster": 3.0}, "3.0 times faster"),
    ("large", {"same_class": 4}, "4 of 5 photos"),
    ("soak", {"memory_growth_percent": 5.5}, "memory grew by 5.5 %"),
    ("soak", {"failed_requests": 1}, "1 requests failed"),
    ("slow_readers", {"never_readers_released": 58}, "2 connections that are never read"),
    ("slow_readers", {"largest_answer_bytes": 9_000_000}, "9,000,000 bytes"),
    ("slow_readers", {"stop_with_never_readers_s": 32.0}, "SIGTERM took 32.0 s"),
    ("trailers", {"forged_trailers_accepted": 3}, "3 tokens in trailers"),
    ("upgrades", {"upgrades_answered_wrongly": 2}, "2 of 30 requests for an upgrade"),
    ("upgrades", {"bodies_answered_as_requests": 1}, "1 bodies were answered as requests"),
    ("mpo", {"phone_pictures_refused": 1}, "1 of 6 MPO files"),
    ("full_disk", {"workers_that_died": 2}, "2 workers died when the disk was full"),
    ("full_disk", {"killed_worker_replaced_after_s": -1}, "was not replaced"),
    ("full_disk", {"metrics_status": 500}, "/metrics answered 500"),
    ("full_disk", {"answered_without_shared_memory": 0}, "0 of 20 requests"),
    ("full_disk", {"other_requests_failed": 1}, "1 requests of other clients"),
    ("logs", {"killed_worker_replaced_after_s": -1}, "was not replaced"),
    ("logs", {"stop_s": 60.0}, "SIGTERM did not end the server"),
    ("second_server", {"counted_after_one_that_failed": 40}, "and 40 after one that failed"),
    ("second_server", {"counted_at_the_end": 99}, "and 99 after the end"),
    ("second_server", {"second_on_the_same_port_failed": 0}, "on the port of the first"),
    ("second_server", {"second_on_its_own_port_started": 0}, "did not start"),
    ("second_server", {"workers_lost": 2}, "2 workers were lost"),
    ("fuzz", {"crashes": 1}, "1 inputs ended or hung the process"),
    ("fuzz", {"undesigned": 1_234}, "1,234 inputs had an outcome that is not by design"),
    ("fuzz", {"failures_over_sockets": 1}, "1 requests got no answer"),
    ("fuzz", {"memory_growth_percent": 6.0}, "the server's memory grew by 6.0 %"),
    ("fuzz", {"in_process_memory_growth_percent": 6.0}, "the memory in process grew by 6.0 %"),
)


@pytest.mark.parametrize("name", SOUND)
def test_a_promise_that_holds(name: str) -> None:
    judge, figures = SOUND[name]
    assert judge(figures) == []


@pytest.mark.parametrize(("name", "changed", "said"), BROKEN)
def test_a_promise_that_does_not_hold(name: str, changed: Mapping[str, float], said: str) -> None:
    judge, figures = SOUND[name]
    (broken,) = judge({**figures, **changed})
    assert said in broken


@pytest.mark.parametrize("name", ["full_disk", "logs"])
def test_requests_lost_by_the_trials_own_kills_do_not_count(name: str) -> None:
    judge, figures = SOUND[name]
    excused = {"other_requests_failed": 1.0, "lost_with_the_killed_worker": 1.0}
    assert judge({**figures, **excused}) == []
    assert judge({**figures, **excused, "other_requests_failed": 2.0})


def test_memory_is_not_judged_by_few_inputs() -> None:
    judge, figures = SOUND["fuzz"]
    few = {"inputs": 700, "sent_over_sockets": 700, "memory_growth_percent": 50.0}
    assert judge({**figures, **few}) == []


def test_a_refused_request_of_an_ordinary_client_counts_as_long_as_it_would_have_waited() -> None:
    zeros = np.zeros(4)
    done = np.array([0.001, 0.002, 0.001, 0.003])
    sent = Sent(zeros, zeros, done, np.array([200, 200, 503, 200], np.int16))
    assert times_with_failures(sent).tolist() == [1.0, 2.0, 30_000.0, 3.0]
    assert percentile_ms([times_with_failures(sent)], 50) == 2.5
    assert percentile_ms([], 99) == 0.0


def test_only_measured_times_and_memory_are_judged() -> None:
    assert judge_times({"other_requests_failed": 0}) == []
    assert judge_memory({"memory_before_mb": 100, "memory_after_mb": 120}) == []
