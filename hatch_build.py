"""Scripts, recipes and studies travel in the wheel; an editable installation finds them in its clone."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = ("train.py", "eval.py", "recipes", "studies")


class Ship(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"] |= {name: f"modeling_slam/shipped/{name}" for name in SHIPPED}
