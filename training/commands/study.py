"""Train many recipes and print a table.

A failed recipe is a line of the table, and the exit code is then 3. After an interruption, the same
command continues; finished models are not trained again.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cifar10.commands import options
from cifar10.commands.command import FAILED, INTERRUPTED, OK
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import errors, output, print_json
from cifar10.environment import own_models_dir
from cifar10.environment import weights_dir as default_weights_dir
from cifar10.quiet import import_quietly
from cifar10.store import ModelStore
from training.commands import options as training_options
from training.commands.options import RecipeName, prepare_keras, read_dataset
from training.networks.backbones import WeightsChoice
from training.recipes.catalogue import RECIPES, find_recipe
from training.recipes.schema import Recipe


class _Seeds(click.ParamType[tuple[int, ...]]):
    """List of distinct whole numbers, separated by commas."""

    name = "seeds"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Convert ``"0,1"`` to ``(0, 1)``."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
            self.fail(f"expected whole numbers such as 0,1,2, each once, got {value!r}", param, ctx)
        return tuple(int(part) for part in parts)


@make_command(
    __name__,
    __doc__,
    """\
cifar10 study                                   every recipe
cifar10 study mobilenetv2_frozen mobilenetv2_finetuned --seeds 0,1,2
cifar10 study simple_cnn --smoke --data synthetic
cifar10 study --ray 10.0.0.1:6379 --models-dir /shared/models --ray-cpus 4
""",
)
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...", type=RecipeName())
@options.data
@click.option(
    "--seeds",
    type=_Seeds(),
    default=(0,),
    metavar="N,N...",
    help="Train each recipe with each seed; models of seeds other than 0 are called RECIPE_seedN "
    "(default: 0).",
)
@options.store
@training_options.weights_dir
@training_options.random_weights
@click.option("--smoke", is_flag=True, help="Train the recipes' smoke forms, on few images.")
@options.as_json
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Train on the Ray cluster at ADDRESS (without one: this machine's cores).",
)
@click.option(
    "--ray-cpus",
    type=click.FloatRange(min=0, min_open=True),
    default=1,
    show_default=True,
    help="CPUs of each training on Ray.",
)
@click.option(
    "--ray-gpus",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="GPUs of each training on Ray; 0.5 shares one.",
)
def command(
    recipes: tuple[str, ...],
    data: str | None,
    seeds: tuple[int, ...],
    models_dir: Path | None,
    weights_dir: Path | None,
    random_weights: bool,
    smoke: bool,
    as_json: bool,
    ray: str | None,
    ray_cpus: float,
    ray_gpus: float,
) -> int:
    """Train the recipes."""
    console = errors() if as_json else output()
    store = ModelStore(models_dir or own_models_dir())
    chosen = tuple(find_recipe(name) for name in dict.fromkeys(recipes))
    chosen = chosen or _with_teachers(console, store, smoke=smoke)
    try:
        dataset = read_dataset(console, data)
        prepare_keras()
        import_quietly("keras")
        from training.ray_study import Cluster, run_study_on_ray
        from training.study import run_study
        from training.study_display import study

        on_ray = partial(run_study_on_ray, cluster=Cluster(ray or "", ray_cpus, ray_gpus))
        rows = study(
            console,
            chosen,
            seeds,
            dataset,
            store.root,
            smoke=smoke,
            weights=WeightsChoice(weights_dir or default_weights_dir(), random=random_weights),
            run=run_study if ray is None else on_ray,
        )
    except KeyboardInterrupt:
        errors().print("stopped; the same command continues from the last whole epoch")
        return INTERRUPTED
    if as_json:
        print_json({"models": [asdict(row) for row in rows]})
    return FAILED if any(row.error is not None for row in rows) else OK


def _with_teachers(console: Console, store: ModelStore, *, smoke: bool) -> tuple[Recipe, ...]:
    """Return all recipes except those whose teacher is not exported yet; print the omitted ones."""
    found = []
    for recipe in RECIPES:
        teacher = recipe.distillation.teacher if recipe.distillation else None
        if smoke or teacher is None or teacher in store.names():
            found.append(recipe)
        else:
            console.print(
                f"{recipe.name} is left out: it learns from {teacher}, which is not exported yet. "
                f"Afterwards: cifar10 export {teacher} && cifar10 train {recipe.name}",
                highlight=False,
                soft_wrap=True,
            )
    return tuple(found)
