"""Compare the server's class for every test image with the class in process."""

from bench.commands import options
from bench.commands.choices import Choices, measuring, served_models
from bench.commands.output import conclude
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
@measuring()
def command(choices: Choices, models: tuple[str, ...], url: str | None) -> int:
    """Verify each model's service."""
    names, target = served_models(models, url), Target(models_dir(), url, choices.device)
    with choices.setup(names) as setup:
        outcome = verify_models(setup, target, names)
    return conclude(outcome, setup.recorder, as_json=choices.as_json)
