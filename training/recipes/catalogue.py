"""All recipes, in one table.

To add one, add it to :data:`RECIPES`; the tests then build it and check its parameters.
"""

from typing import Final

from cifar10.errors import RecipeError
from cifar10.suggestions import did_you_mean
from training.recipes.ablation import ABLATION_RECIPES
from training.recipes.own import COMPACT, MOBILENETV2_HEAD, SIMPLE_CNN, WHITENED_CNN
from training.recipes.schema import Recipe
from training.recipes.study import STUDY_RECIPES

RECIPES: Final[tuple[Recipe, ...]] = (
    SIMPLE_CNN,
    COMPACT,
    WHITENED_CNN,
    MOBILENETV2_HEAD,
    *STUDY_RECIPES,
    *ABLATION_RECIPES,
)
"""All there are; the order is the one they are listed in."""


def find_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Raises:
        RecipeError: there is none; the message lists those there are.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    names = [recipe.name for recipe in RECIPES]
    message = f"no recipe {name!r}; there are: {', '.join(names)}.{did_you_mean(name, names)}"
    raise RecipeError(message)
