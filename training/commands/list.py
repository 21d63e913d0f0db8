"""List the recipes; for named ones, show the source and cost too."""

from dataclasses import asdict

import click

from cifar10.commands import options
from cifar10.commands.command import command as make_command
from cifar10.commands.terminal import print_json, print_table, print_text
from training.commands.options import RecipeName
from training.recipes.catalogue import RECIPES, find_recipe
from training.recipes.schema import Recipe


@make_command(
    __name__,
    __doc__,
    """\
cifar10 list                                    every recipe, one line each
cifar10 list compact simple_cnn                 their source, accuracy and cost in full
cifar10 list --json
""",
)
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...", type=RecipeName())
@options.as_json
def command(recipes: tuple[str, ...], as_json: bool) -> int:
    """Print the recipes."""
    chosen = [find_recipe(name) for name in dict.fromkeys(recipes)] or list(RECIPES)
    if as_json:
        print_json([asdict(recipe) for recipe in chosen])
    elif recipes:
        for recipe in chosen:
            _describe(recipe)
    else:
        print_table(
            ["recipe", "parameters", "test accuracy"],
            [
                [recipe.name, f"{recipe.expected_parameters.total:,}", _accuracy(recipe)]
                for recipe in chosen
            ],
            right=("parameters", "test accuracy"),
        )
    return 0


def _describe(recipe: Recipe) -> None:
    for name, value in (
        ("recipe", recipe.name),
        ("parameters", f"{recipe.expected_parameters.total:,}"),
        ("accuracy", f"{_accuracy(recipe)} expected on the test images"),
        ("source", recipe.source),
        ("cost", recipe.cost),
    ):
        print_text(f"{name:<12} {value}", indent=13)
    print_text("")


def _accuracy(recipe: Recipe) -> str:
    low, high = recipe.expected_test_accuracy
    return f"{low:.0%}–{high:.0%}"
