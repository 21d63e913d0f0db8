"""Tests of the comparison of servers: rounds, rows and report, and one small real peer."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.load.bodies import encode_jpeg
from bench.peers import environments
from bench.peers.catalogue import CATALOGUE, FOLDER, Peer
from bench.peers.environments import PeerUnavailableError, programs_of, version_of
from bench.peers.measuring import PeerPlan, Subject, measure_peer, title_of
from bench.peers.questions import (
    Answer,
    Base64Image,
    FormImage,
    RawImage,
    V2Base64Image,
    V2Pixels,
    check_same,
)
from bench.peers.rounds import choose_peers, done_in, measure_rounds
from bench.report.build import (
    PEERS_BEGIN,
    PEERS_END,
    PEERS_FILE,
    prepare,
    stale_files,
    write_report,
)
from bench.report.peer_rounds import comparisons
from bench.report.sections.peers import peers
from bench.rows.files import Recorder, read_results, read_rows
from bench.rows.kinds.service import PeerFailureMeasurement, PeerMeasurement
from bench.serving.cores import Cores, choose_cores
from bench.session.resume import newest_session
from cifar10.errors import BenchError
from cifar10.images import decode_image
from cifar10.labels import LABELS
from cifar10.predictor import Predictor, PredictorOptions
from cifar10.store import ONNX_FILE, ModelStore
from tests.bench.conftest import MACHINE, REFERENCE, accuracy, add_all, cost, peer, text_of

PLAN = PeerPlan(rounds=3)
CORES = Cores(0, 1)
DIGEST = "a" * 64


def subject() -> Subject:
    return Subject("good", Path(), Path(), [b"jpeg"], np.zeros((1, 10), np.float32))


def a_peer(name: str, folder: str | None = None) -> Peer:
    return Peer(name, name, "peer", ("true",), "/", RawImage(), "its own", folder)


def rounds(recorder: Recorder, peers: list[Peer], measure, **more):
    return measure_rounds(
        peers, subject(), DIGEST, REFERENCE, recorder, PLAN,
        measure=measure, prepare=more.pop("prepare", lambda folder: None), cores=CORES, **more,
    )  # fmt: skip


def test_all_peers_run_in_every_round_and_every_second_round_is_reversed(
    recorder: Recorder,
) -> None:
    order = []

    def measure(one, _, __, number, ___) -> PeerMeasurement:
        order.append((number, one.name))
        return peer(one.name, round_number=number)

    outcome = rounds(recorder, [a_peer("a"), a_peer("b")], measure)
    assert order == [(1, "a"), (1, "b"), (2, "b"), (2, "a"), (3, "a"), (3, "b")]
    assert (outcome.measured, outcome.failed) == (["a", "b"], {})
    assert len(read_rows(recorder.folder / "peer.jsonl")) == 6


def test_a_peer_that_does_not_run_is_a_row_that_says_why(recorder: Recorder) -> None:
    tried = []

    def measure(one, _, __, number, ___) -> PeerMeasurement:
        tried.append(one.name)
        if one.name == "bad":
            message = f"no such file {Path.home()}/secret/place"
            raise BenchError(message)
        return peer(one.name, round_number=number)

    outcome = rounds(recorder, [a_peer("bad"), a_peer("good")], measure)
    assert tried.count("bad") == 1
    assert tried.count("good") == PLAN.rounds
    assert list(outcome.failed) == ["bad"]
    (row,) = read_rows(recorder.folder / "peer_failure.jsonl")
    assert row.measurement == PeerFailureMeasurement(
        "bad", "bad", "BenchError", "no such file ~/secret/place"
    )


def test_a_peer_that_failed_in_one_round_is_measured_in_the_next(recorder: Recorder) -> None:
    def measure(one, _, __, number, ___) -> PeerMeasurement:
        if number == 2:
            message = "not this time"
            raise BenchError(message)
        return peer(one.name, round_number=number)

    outcome = rounds(recorder, [a_peer("flaky")], measure)
    assert outcome.measured == ["flaky"]
    assert "flaky" in outcome.failed
    found = read_rows(recorder.folder / "peer.jsonl")
    assert [row.measurement.round for row in found] == [1, 3]


def test_a_peer_that_cannot_be_installed_is_never_started(recorder: Recorder) -> None:
    def prepare(folder: str) -> None:
        message = f"{folder} has no wheels"
        raise PeerUnavailableError(message)

    outcome = rounds(
        recorder, [a_peer("x", "ray")], lambda *_: pytest.fail("started"), prepare=prepare
    )
    assert outcome.failed == {"x": "failed at peers: ray has no wheels"}


def test_an_interrupted_session_is_resumed(recorder: Recorder) -> None:
    def until_second_round(one, _, __, number, ___) -> PeerMeasurement:
        if (number, one.name) == (2, "a"):
            raise KeyboardInterrupt
        return peer(one.name, round_number=number)

    first = Recorder(recorder.folder.parent, MACHINE, {}, run_id="peers-1")
    peers = [a_peer("a"), a_peer("b")]
    assert rounds(first, peers, until_second_round).interrupted
    rows = read_results(first.folder.parent)[0].rows
    session = newest_session("peers", rows, quick=False, digest=DIGEST)
    done = done_in(session.rows)
    assert (session.run_id, done) == ("peers-1", {("a", 1), ("b", 1), ("b", 2)})
    tried = []

    def measure(one, _, __, number, ___) -> PeerMeasurement:
        tried.append((one.name, number))
        return peer(one.name, round_number=number)

    rounds(first, peers, measure, done=done)
    assert tried == [("a", 2), ("a", 3), ("b", 3)]


def test_a_session_of_another_file_is_not_resumed(recorder: Recorder) -> None:
    row = Recorder(recorder.folder.parent, MACHINE, {}, run_id="peers-1").add(
        "good", "b" * 64, None, peer("a")
    )
    with pytest.raises(BenchError, match="start one: cifar10 bench peers"):
        newest_session("peers", [row], quick=False, digest=DIGEST)


def test_ratios_are_of_the_same_round(recorder: Recorder) -> None:
    ours = [
        peer("ours", requests=count, round_number=number, role="ours", server="This service")
        for number, count in enumerate((8_000, 4_000, 12_000), start=1)
    ]
    others = [
        peer("other", requests=count, round_number=number)
        for number, count in enumerate((2_000, 2_000), start=1)
    ]
    add_all(recorder, "good", DIGEST, *ours, *others)
    (found,) = comparisons(prepare(read_results(recorder.folder.parent), Path())[0])
    ratio = found.ratio("ours", "other", lambda one: one.request_rate)
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high, ratio.rounds) == (3.0, 2.0, 4.0, 2)
    rate = found.spread("ours", lambda one: one.request_rate)
    assert rate is not None
    assert (rate.median, rate.low, rate.high) == (2_000, 1_000, 3_000)


def test_the_newest_full_session_is_used_before_a_quick_one(recorder: Recorder) -> None:
    results = recorder.folder.parent
    for run_id, quick, requests in (("one", False, 400), ("two", False, 800), ("three", True, 4)):
        written = Recorder(results, MACHINE, {}, quick=quick, run_id=run_id)
        written.add("good", DIGEST, None, peer("other", requests))
    (found,) = comparisons(prepare(read_results(results), results)[0])
    assert found.first("other").requests == 800


@pytest.fixture
def compared(recorder: Recorder) -> Recorder:
    ours = peer(
        "ours", 12_000, role="ours", decoder="ours", server="This service",
        half_load_p99_ms=2.5, common_rate_p99_ms=1.5, ready_seconds=2.4,
    )  # fmt: skip
    same = {"decoder": "none", "sends": "pixels"}
    add_all(
        recorder, "good", DIGEST, cost(), accuracy(9_000), ours, peer(),
        replace(ours, name="ours_v2", server="This service, v2", requests=20_000, **same),
        peer("triton", 5_000, **same),
        replace(peer("hello"), role="start only", requests=0, seconds=0.0),
        replace(peer("ceiling", 40_000), role="ceiling"),
        PeerFailureMeasurement("ray", "Ray Serve 9", "PeerUnavailableError", "no wheels"),
    )  # fmt: skip
    return recorder


def test_the_report_shows_the_comparison(compared: Recorder) -> None:
    results = compared.folder.parent
    (shown,) = prepare(read_results(results), results)
    text = text_of(peers, shown.results, shown.models)
    assert (
        "| Other 1.0 | its own | 1,000 (1,000–1,000) | 3.00× (3.00–3.00) | 1,000 (1,000–1,000) |"
        in text
    )
    assert "this service serves 4.00× (4.00–4.00) the requests of Triton 1.0" in text
    assert "p99 at half of each server's own rate: 2.50 ms here, 3.00 ms for the best" in text
    assert "p99 at 200 requests/s: 1.50 ms here, 2.00 ms for the best of the others" in text
    assert "Hello 1.0 (no model, no picture) is ready after 2.00" in text
    assert "this service's rate is 30% of that" in text
    assert "Ray Serve 9 could not be measured: PeerUnavailableError: no wheels" in text
    assert "failed at" not in text  # of the model: a peer's failure is not the model's


def test_ratios_are_written_between_the_readme_s_markers(compared: Recorder) -> None:
    results = compared.folder.parent
    output = results.parent
    readme = output / PEERS_FILE
    readme.parent.mkdir()
    readme.write_text(f"a\n{PEERS_BEGIN}\nold\n{PEERS_END}\nz\n")
    reports = prepare(read_results(results), results)
    write_report(reports, results, output)
    text = readme.read_text()
    assert "| Other 1.0 | its own | 1,000 (1,000–1,000) | 3.00× (3.00–3.00) |" in text
    assert "old" not in text
    assert text.endswith(f"{PEERS_END}\nz\n")
    assert stale_files(reports, results, output) == []
    readme.write_text(text.replace("3.00×", "9.00×"))
    assert stale_files(reports, results, output) == [readme]


JPEG = encode_jpeg(np.arange(3_072, dtype=np.uint8).reshape(32, 32, 3))


@pytest.mark.parametrize("form", [RawImage(), FormImage(), Base64Image()])
def test_answers_in_json(form: RawImage) -> None:
    body = json.dumps({"label": "cat", "probabilities": [0.1] * 10}).encode()
    answer = form.read(body, {})
    assert answer.label == "cat"
    assert answer.probabilities.tolist() == [0.1] * 10


def test_our_answer_has_all_ten_probabilities() -> None:
    top_k = [{"class_id": k, "probability": k / 45} for k in reversed(range(10))]
    answer = RawImage().read(json.dumps({"label": "truck", "top_k": top_k}).encode(), {})
    assert answer.probabilities.tolist() == [k / 45 for k in range(10)]


def test_answers_over_v2() -> None:
    values = np.linspace(0, 1, 10, dtype=np.float32)
    header = b'{"outputs":[]}'
    binary = {"inference-header-content-length": str(len(header))}
    in_json = json.dumps({"outputs": [{"data": values.tolist()}]}).encode()
    for answer in (
        V2Pixels().read(header + values.tobytes(), binary),
        V2Pixels().read(in_json, {}),
        V2Base64Image().read(in_json, {}),
    ):
        assert answer.label == LABELS[9]
        assert np.allclose(answer.probabilities, values)


def test_each_body_of_a_form_follows_the_same_headers() -> None:
    form = V2Pixels()
    header = int(form.question.headers["Inference-Header-Content-Length"])
    body = form.body(JPEG)
    assert json.loads(body[:header])["inputs"][0]["shape"] == [1, 32, 32, 3]
    assert body[header:] == decode_image(JPEG).tobytes()


def test_a_server_with_a_different_answer_is_refused() -> None:
    expected = np.full(10, 0.1, np.float32)
    near = Answer(LABELS[0], np.full(10, 0.1))
    check_same(near, expected, 1e-4, "x")
    for wrong in (
        Answer(LABELS[1], near.probabilities),
        Answer(LABELS[0], near.probabilities + 0.01),
        Answer(LABELS[0], np.full(10, np.nan)),
        Answer(LABELS[0], np.full(9, 0.1)),
    ):
        with pytest.raises(BenchError, match="x "):
            check_same(wrong, expected, 1e-4, "x")


@pytest.mark.parametrize("one", CATALOGUE, ids=lambda one: one.name)
def test_every_peer_in_the_catalogue_has_its_files(one: Peer) -> None:
    assert title_of(one)
    if one.folder is None:
        return
    folder = FOLDER / one.folder
    assert (folder / "server.py").is_file()
    lines = (folder / "requirements.txt").read_text().split()
    assert all(line.count("==") == 1 and "/" not in line for line in lines)
    assert one.package is not None
    assert version_of(one.folder, one.package) in title_of(one)


def test_all_models_run_with_the_same_runtime() -> None:
    folders = {one.folder for one in CATALOGUE if one.folder and one.role == "peer"}
    assert len({version_of(folder, "onnxruntime") for folder in folders}) == 1


def test_peers_are_chosen_by_name() -> None:
    assert [one.name for one in choose_peers(["triton", "ours"])] == ["ours", "triton"]
    with pytest.raises(BenchError, match="there is no peer 'nginx'"):
        choose_peers(["nginx"])


def test_an_environment_is_made_once_and_again_when_the_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins, made = tmp_path / "pins", []
    (pins / "x").mkdir(parents=True)
    (pins / "x" / "requirements.txt").write_text("a==1\n")
    monkeypatch.setattr(environments, "FOLDER", pins)

    def run(command) -> None:
        made.append(command)
        (tmp_path / "root" / "x" / "bin").mkdir(parents=True, exist_ok=True)

    for _ in range(2):
        assert programs_of("x", root=tmp_path / "root", run=run) == tmp_path / "root" / "x" / "bin"
    assert len(made) == 2  # the environment, and what is in it
    (pins / "x" / "requirements.txt").write_text("a==2\n")
    programs_of("x", root=tmp_path / "root", run=run)
    assert len(made) == 4


def test_environment_errors_do_not_contain_host_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "requirements.txt").write_text("a==1\n")
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    says = "import sys; sys.exit('no a at https://packages.example/simple')"
    monkeypatch.setattr(environments, "_commands", lambda *_: [[sys.executable, "-c", says]])
    with pytest.raises(PeerUnavailableError, match=r"no a at \(address\)$"):
        programs_of("x", root=tmp_path / "root")


def real_subject(store: ModelStore) -> Subject:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    jpegs = [encode_jpeg(image) for image in images]
    predictor = Predictor(store.load("tiny_a").onnx, PredictorOptions(device="cpu"))
    expected = predictor.predict(np.stack([decode_image(jpeg) for jpeg in jpegs]))
    return Subject("tiny_a", store.root, store.folder("tiny_a") / ONNX_FILE, jpegs, expected)


def tiny_peer(*options: str) -> Peer:
    command = (sys.executable, "-m", "tests.bench.fake_server", "{port}", *options)
    return Peer("tiny", "Tiny", "ours", command, "/classify?top_k=10", RawImage(), "ours")


def cores() -> Cores:
    try:
        return choose_cores()
    except BenchError as error:
        pytest.skip(str(error))


SHORT = PeerPlan(1, 2, 0.1, 0.5, 0.1, 0.3, 0.1, checked_images=4)


def test_a_real_server_is_measured_from_start_to_end(tiny_store: Path) -> None:
    found = measure_peer(tiny_peer(), real_subject(ModelStore(tiny_store)), SHORT, 1, cores())
    assert found.requests > 0
    assert found.failed_requests == 0
    assert found.half_load_rate_per_s == pytest.approx(found.requests / found.seconds / 2, abs=0.1)
    assert found.ready_seconds > 0
    assert found.resident_bytes > 10_000_000
    assert found.cpu_us_per_request is not None
    assert found.half_load_p99_ms is not None


def test_a_server_with_another_answer_is_not_measured(tiny_store: Path) -> None:
    asked = real_subject(ModelStore(tiny_store))
    with pytest.raises(BenchError, match="Tiny does not give the same answer"):
        measure_peer(tiny_peer("--wrong-every", "2"), asked, SHORT, 1, cores())


def test_a_server_that_dies_under_load_is_reported(tiny_store: Path) -> None:
    asked = real_subject(ModelStore(tiny_store))
    with pytest.raises(BenchError, match=r"(?s)stopped by itself.*planned death"):
        measure_peer(tiny_peer("--die-after", "20"), asked, SHORT, 1, cores())
