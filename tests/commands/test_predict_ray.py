"""Many images on two Ray nodes, of which one dies: every file once, and the run continues."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench.load.bodies import encode_png
from cifar10.commands.main import main
from cifar10.on_ray.scoring import OtherResultsError, score
from cifar10.store import ModelStore
from tests.ray_nodes import nodes

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra `ray`")
pytestmark = pytest.mark.filterwarnings("ignore")
"""Ray's own warnings are not ours to answer."""

IMAGES = int(os.environ.get("RAY_TEST_IMAGES", "1500"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    some = [encode_png(one) for one in chance.integers(0, 256, (100, 32, 32, 3), np.uint8)]
    for number in range(IMAGES):
        (folder / f"{number:06d}.png").write_bytes(some[number % 100])
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def answers(out: Path) -> list[dict[str, object]]:
    return pq.read_table(out).to_pylist()


def test_every_file_is_scored_once_although_a_node_dies(
    pictures: Path, tiny_store: Path, tmp_path: Path
):
    store = ModelStore(tiny_store)
    files = sorted(pictures.iterdir())
    out = tmp_path / "answers.parquet"
    seen: list[int] = []
    with nodes() as cluster:

        def show(done: int, total: int) -> None:
            seen.append(done)
            if len(seen) == 2:  # a chunk is done, the others are not
                cluster.kill_one()

        found = score(
            files, store, "tiny_a", out, address=cluster.address, device="cpu", progress=show
        )
        assert (found.files, found.unreadable, found.found_before) == (IMAGES + 1, 1, 0)
        assert seen == sorted(seen)
        assert seen[-1] == IMAGES + 1
        rows = answers(out)
        assert Counter(row["image"] for row in rows) == Counter(map(str, files))
        by_name = {Path(str(row["image"])).name: row for row in rows}
        assert by_name["broken.png"]["label"] is None
        assert by_name["broken.png"]["error"]
        assert by_name["000000.png"]["label"] == by_name["000100.png"]["label"]

        (lost,) = sorted(out.glob("part-*.parquet"))[1:2]
        lost.unlink()
        again = score(files, store, "tiny_a", out, address=cluster.address, device="cpu")
        assert again.found_before == IMAGES + 1 - 256
        assert sorted(map(str, answers(out))) == sorted(map(str, rows))


def test_results_of_other_files_are_not_mixed(pictures: Path, tiny_store: Path, tmp_path: Path):
    store = ModelStore(tiny_store)
    out = tmp_path / "answers.parquet"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OtherResultsError, match="choose another --out"):
        score(sorted(pictures.iterdir()), store, "tiny_a", out, address="local")


def test_ray_and_out_belong_together(pictures: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", str(pictures), "--ray"]) != 0
    assert "--ray and --out" in capsys.readouterr().err
