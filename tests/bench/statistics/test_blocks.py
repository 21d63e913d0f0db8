"""Tests of the block bootstrap: resampled statistics are those of the joined blocks."""

import numpy as np
import pytest

from bench.statistics import blocks
from bench.statistics.blocks import Statistic, blocks_of


@pytest.mark.parametrize("statistic", [None, 0, 50, 90, 100])
@pytest.mark.parametrize(("samples", "count"), [(1, 1), (7, 3), (53, 12), (400, 40)])
def test_a_resample_has_the_statistic_of_its_joined_blocks(
    monkeypatch: pytest.MonkeyPatch, samples: int, count: int, statistic: Statistic
) -> None:
    monkeypatch.setattr(blocks, "_DRAWN_AT_ONCE", 1_000)  # so that it is done in several parts
    generator = np.random.default_rng(samples)
    run = blocks_of(np.round(generator.normal(10, 1, samples), 1), count)
    draws = generator.integers(len(run), size=(30, len(run)))
    joined = [np.concatenate([run[index] for index in draw]) for draw in draws]
    expected = [
        one.mean() if statistic is None else np.percentile(one, statistic) for one in joined
    ]
    assert blocks._of_draws(run, statistic, draws) == pytest.approx(expected, rel=1e-12)
