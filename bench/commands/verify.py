"""Compare the server's class for every test image with the class in process."""

from pathlib import Path

from bench.commands import options
from bench.commands.choices import chosen_dataset, new_recorder, opener, served_models
from bench.commands.output import conclude, progress_bar
from bench.serving.target import Target, verify_models
from cifar10.commands import options as shared
from cifar10.commands.command import command as make_command
from cifar10.environment import models_dir


@make_command(
    __name__,
    __doc__,
    """\
cifar10 bench verify                            starts the service for each model in turn
cifar10 bench verify simple_cnn --url http://server:3000
""",
    options.EXIT_CODES,
)
@shared.models
@options.url
@shared.data
@shared.device
@options.results
@shared.as_json
def command(
    models: tuple[str, ...],
    url: str | None,
    data: str | None,
    device: str,
    results: Path,
    as_json: bool,
) -> int:
    """Verify each model's service."""
    with progress_bar() as progress:
        dataset = chosen_dataset(data, progress)
        recorder = new_recorder(results)
        outcome = verify_models(
            Target(models_dir(), url, device),
            served_models(models, url),
            dataset,
            recorder,
            opener(device),
            progress,
        )
    return conclude(outcome, recorder, as_json=as_json)
