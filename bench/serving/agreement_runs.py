"""``python -m bench agree``, one model after the other, each on a server of its own."""

from collections.abc import Sequence

from bench.measure.in_process import RunOutcome
from bench.measure.progress import Progress
from bench.peers.ceiling import measure_ceilings
from bench.rows.files import Recorder
from bench.serving.agreement import AgreementPlan, agrees, measure_agreement
from bench.serving.load import Served
from bench.serving.process import Server
from bench.serving.target import Target, each_served, reference_to
from cifar10.dataset import Dataset

STAGE = "agreement"


def agree_on_models(
    target: Target,
    names: Sequence[str | None],
    dataset: Dataset,
    recorder: Recorder,
    plan: AgreementPlan,
    progress: Progress,
) -> RunOutcome:
    """Compare the generators and the server's metrics on each model, and record it.

    Raises:
        BenchError: a row could not be written, or a generator does not run at all.
    """
    ceilings = measure_ceilings(dataset.test.images, progress=progress)

    def measure(url: str, server: Server | None, served: Served, name: str | None) -> bool:
        measurement = measure_agreement(
            url,
            dataset.test.images,
            plan,
            model=name,
            device=served.device,
            ceilings=ceilings,
            check=server.check_alive if server is not None else lambda: None,
            progress=progress,
        )
        recorder.add(served.model, served.digest, reference_to(dataset), measurement)
        return agrees(measurement)

    return each_served(target, names, dataset, recorder, STAGE, measure)
