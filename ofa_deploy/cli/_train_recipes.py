"""Recipes as ``ofa-deploy train --recipes`` tells them: all in short, or one in full."""

from typing import TYPE_CHECKING

from ofa_deploy.cli._output import OutputFormat, emit, say
from ofa_deploy.cli._settings import list_settings

if TYPE_CHECKING:
    from ofa_deploy.train import Recipe

__all__ = ["list_recipes", "show_recipe"]

_ABOUT = {
    "deps": "subnets join the half-trained largest, on a ramp",
    "progressive": "once-for-all: the largest, then kernels, depths, widths",
    "bignas": "all sizes from the first step",
    "compofa": "progressive; depth fixes width, so subnets are few",
    "alphanet": "bignas with an adaptive divergence",
}


def list_recipes() -> None:
    """Epochs by method and data, and what the recipes for some data have in common."""
    from ofa_deploy.train import get_recipe, recipe_names

    parts = [name.partition("-")[::2] for name in recipe_names()]
    methods, data = (list(dict.fromkeys(each)) for each in zip(*parts, strict=True))
    emit(
        [
            {
                "method": method,
                **{each: _epochs(get_recipe(f"{method}-{each}")) for each in data},
                "what it is": _ABOUT[method],
            }
            for method in methods
        ],
        OutputFormat.table,
        title="epochs of each recipe METHOD-DATA, such as deps-glyphs",
    )
    emit(
        [_of_data(each, get_recipe(f"{methods[0]}-{each}")) for each in data],
        OutputFormat.table,
        title="what the recipes for some data have in common",
    )
    say("one in full: ofa-deploy train --recipes deps-glyphs")


def _epochs(recipe: "Recipe") -> int:
    from ofa_deploy.space import get_space
    from ofa_deploy.train import plan_for

    return plan_for(recipe.config, get_space(recipe.space), 1).steps


def _of_data(name: str, recipe: "Recipe") -> dict[str, object]:
    return {
        "data": name,
        "images": recipe.data or "--data DIR",
        "space": recipe.space,
        "batch": recipe.config.batch,
        "images_a_step": recipe.images_a_step,
        "lr": recipe.config.lr,
        "augment": recipe.config.augment,
    }


def show_recipe(name: str) -> None:
    """The phases of one, and all its settings.

    Raises:
        UnknownNameError: listing the nearest names.
    """
    from ofa_deploy.space import get_space
    from ofa_deploy.train import get_recipe, plan_for

    recipe = get_recipe(name)
    phases = plan_for(recipe.config, get_space(recipe.space), 1).phases
    about = _of_data(name.partition("-")[2], recipe)
    emit([about], OutputFormat.table, title=f"{name}: {_ABOUT[name.partition('-')[0]]}")
    emit(
        [
            {"phase": each.name, "epochs": each.steps, "first": ", ".join(each.start)}
            for each in phases
        ],
        OutputFormat.table,
        title="phases",
    )
    list_settings(recipe.config)
