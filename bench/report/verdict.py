"""The report's first sentences: which model is best, and how certain that is."""

from collections.abc import Sequence
from typing import Final

from bench.report.efficiency import FLOORS
from bench.report.formats import accuracy_with_interval, count, millions, percent, significant
from bench.report.recommend import reaches_a_floor
from bench.rows.seeds import one_of_each
from bench.rows.selection import ModelResult

FLOOR_MLPERF_TINY: Final = FLOORS[-1][0]
"""MLPerf Tiny's accuracy floor for image classification on CIFAR-10."""

_CARD_TOLERANCE: Final = 0.001
"""Accuracy may differ from the card's by one image in a thousand: near ties that two runtimes
break differently."""


def verdict(results: Sequence[ModelResult]) -> list[str]:
    """Sentences in Markdown, the most important first.

    Args:
        results: as :func:`bench.rows.selection.select` orders them.
    """
    sentences = []
    released = [result for result in results if result.released]
    right = [result for result in one_of_each(released) if result.accuracy is not None]
    if right:
        sentences += _accuracy_sentences(right)
        sentences += _cost_sentences(right)
    elif results and not released:
        sentences.append("**No file of `models/` has been measured on this machine.**")
    else:
        sentences.append("**No model has a measured accuracy here**, so none can be recommended.")
    for result in results:
        sentences += _warnings(result)
    others = list(dict.fromkeys(result.model for result in results if not result.released))
    if others:
        sentences.append(
            f"{len(others)} models below are not the files in `models/` (an earlier export, or not "
            "released): they are marked in the table and come after those that are."
        )
    if len({result.dataset for result in right}) > 1:
        sentences.append(
            "**The accuracies are of different images** (see the column *Test images*): compare "
            "only those of the same."
        )
    return sentences


def _accuracy_sentences(right: Sequence[ModelResult]) -> list[str]:
    best = right[0]
    if best.accuracy is None or best.dataset is None:
        return []
    top1 = best.accuracy.top1
    sentences = [
        f"**Most accurate: `{best.model}`**, {accuracy_with_interval(top1)} % of "
        f"{count(top1.count)} test images (95 % Wilson interval; images: {best.dataset.variant})."
    ]
    rivals = sorted(
        {
            f"`{other.model}` (p = {significant(test.p_value, 2)})"
            for other in right
            if other.model != best.model
            and (test := best.against(other)) is not None
            and not test.is_real
        }
    )
    if rivals:
        sentences.append(
            f"Its lead over {', '.join(rivals)} is within the error of {count(top1.count)} images "
            "(McNemar's test on the same images)."
        )
    if top1.accuracy < FLOOR_MLPERF_TINY:
        sentences.append(
            f"No model here reaches {percent(FLOOR_MLPERF_TINY, 0)} %, the floor that MLPerf Tiny "
            "sets for CIFAR-10."
        )
    return sentences


def _cost_sentences(right: Sequence[ModelResult]) -> list[str]:
    sentences = []
    enough = [result for result in right if reaches_a_floor(result)]
    among = f" that reaches {percent(FLOOR_MLPERF_TINY, 0)} %" if enough else ""
    right = enough or right
    timed = [(ms, result) for result in right if (ms := result.typical_latency_ms) is not None]
    if timed:
        typical, fastest = min(timed, key=lambda pair: pair[0])
        p50, p99 = (significant(fastest.latency_ms(percent)) for percent in (50, 99))
        which = f"the mean, p50 {p50} ms" if fastest.exits_early else "p50"
        sentences.append(
            f"Fastest{among}: `{fastest.model}`, {significant(typical)} ms for one image in "
            f"process ({which}; p99 {p99} ms)."
        )
    sized = [(result.cost.size_bytes, result) for result in right if result.cost is not None]
    if len(sized) > 1:
        size, smallest = min(sized, key=lambda pair: pair[0])
        sentences.append(f"Smallest{among}: `{smallest.model}`, {millions(size)} MB.")
    loaded = [(result.load.request_rate, result) for result in right if result.load is not None]
    if loaded:
        rate, served = max(loaded, key=lambda pair: pair[0])
        limit = (
            "; the load generator was the limit, so the server can do more"
            if served.load and served.load.generator_was_limit
            else ""
        )
        users = served.load.users if served.load else 0
        sentences.append(
            f"Most requests over HTTP{among}: `{served.model}`, {count(rate)} a second "
            f"({users} users, closed loop{limit})."
        )
    return sentences


def _warnings(result: ModelResult) -> list[str]:
    found = [f"**`{result.model}` {failure.reason}**" for failure in result.failures]
    accuracy = result.accuracy
    if (
        accuracy is not None
        and accuracy.card_accuracy is not None
        and abs(accuracy.top1.accuracy - accuracy.card_accuracy) > _CARD_TOLERANCE
    ):
        found.append(
            f"**`{result.model}` does not reach its card here**: "
            f"{percent(accuracy.top1.accuracy)} % measured, "
            f"{percent(accuracy.card_accuracy)} % on the card, on the same images."
        )
    if result.verify is not None:
        check = result.verify
        if check.is_verified:
            found.append(
                f"End to end: all {count(check.images)} test images through the server of "
                f"`{result.model}` get the class that they get in process."
            )
        else:
            found.append(
                f"**The server of `{result.model}` differs**: {count(check.same_top1)} of "
                f"{count(check.images)} images get the class that they get in process; "
                f"{count(check.server_correct)} are right through the server, "
                f"{count(check.in_process_correct)} in process"
                + (
                    ""
                    if check.card_correct is None
                    else f", {count(check.card_correct)} on the card"
                )
                + "."
            )
    return found
