"""Published trainings as named settings, and the one call that runs them."""

from snn.recipes.data import RECIPE_DATA, RecipeData, load_recipe_data
from snn.recipes.recipe import COMPAT, LOSSES, RECIPES, DelayRecipe
from snn.recipes.run import RecipeResult, run_recipe

__all__ = [
    "COMPAT",
    "LOSSES",
    "RECIPES",
    "RECIPE_DATA",
    "DelayRecipe",
    "RecipeData",
    "RecipeResult",
    "load_recipe_data",
    "run_recipe",
]
