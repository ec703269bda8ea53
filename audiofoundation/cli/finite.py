"""Numbers on the command line are finite: `nan` and `inf` are floats to Python, but no amount of anything."""

import math
from collections.abc import Callable
from functools import wraps

import typer


def require_finite(app: typer.Typer) -> None:
    """Have every command of the application, and of its groups, refuse other numbers as wrong usage."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _checked(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            require_finite(group.typer_instance)


def _checked(callback: Callable[..., None]) -> Callable[..., None]:
    @wraps(callback)
    def run(**options: object) -> None:
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):
                option = "--" + name.replace("_", "-")
                raise typer.BadParameter(f"{value:g} is not a finite number.", param_hint=option)
        callback(**options)

    return run
