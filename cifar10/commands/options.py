"""Options and arguments that commands of several stages share."""

from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from cifar10.environment import models_dir

DATA_HELP: Final = (
    "An image folder, a tar or zip of one, an .npz, cifar-10-batches-py, or 'synthetic' "
    "(default: CIFAR10_DATA, else the official archive that `cifar10 data` fetched)."
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")

data = click.option("--data", metavar="PATH", help=DATA_HELP)

device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where models run; cuda that would not really execute is an error.",
)

store = click.option(
    "--models-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The model store (default: CIFAR10_MODELS, else models/).",
)


class ModelName(click.ParamType[str]):
    """The name of a model; completed from those in the store."""

    name = "model"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Any name passes: the store says which there are."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The models of the store that begin so."""
        from cifar10.store import ModelStore

        names = ModelStore(models_dir()).names()
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


models = click.argument("models", nargs=-1, metavar="[MODEL]...", type=ModelName())
