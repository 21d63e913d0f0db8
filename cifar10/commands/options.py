"""Options and arguments shared by the commands of several stages."""

from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from cifar10.environment import models_dir

DATA_HELP: Final = (
    "An image folder (yours: a folder for each class), a tar or zip of one, an .npz, "
    "cifar-10-batches-py, or 'synthetic' (default: CIFAR10_DATA, else the official archive that "
    "`cifar10 data` fetched)."
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

data = click.option("--data", metavar="PATH", help=DATA_HELP)

data_name = click.option(
    "--data-name",
    metavar="NAME",
    help="Name of a data set of your own (default: that of its folder).",
)

device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to run on; an error if cuda is requested but would not actually be used.",
)

store = click.option(
    "--models-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The model store (default: CIFAR10_MODELS, else models/).",
)


class ModelName(click.ParamType[str]):
    """Parameter type for a model's name, completed from the names in the store."""

    name = "model"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Accept any name; the store checks whether it exists."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names in the store that start with ``incomplete``."""
        from cifar10.store import ModelStore

        names = ModelStore(models_dir()).names()
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


models = click.argument("models", nargs=-1, metavar="[MODEL]...", type=ModelName())
