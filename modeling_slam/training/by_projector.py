"""Settings whose default follows from the projector's type: not every projector can be trained in every way.

    ctc_weight: float | None = by_projector("ctc_weight", "Weight of the CTC head's loss beside the LLM's.")

Such a setting is None until it is settled; one that is given stays as it is, and is refused where it does not
fit. To change a default, change its value in `BY_PROJECTOR`. A setting that joins gets a value in each row.
"""

from dataclasses import field
from typing import Any

# The paper's, which every projector can do: no context, no CTC head.
PAPER: dict[str, Any] = {
    "projector_context": 1,
    "llm_input": "projector",
    "drop_blanks": None,
    "ctc_weight": 0.0,
    "align_epochs": 0.0,
}
ALIGNED = PAPER | {"align_epochs": 6.0, "ctc_weight": 0.1}
# A convolution sees its own context. The tokens of a qformer have no order in time, and so no CTC head.
BY_PROJECTOR: dict[str, dict[str, Any]] = {
    "stack_mlp": ALIGNED | {"projector_context": 7},
    "conv": ALIGNED,
    "qformer": PAPER,
}
USUAL = "stack_mlp"  # the projector whose defaults `--help` shows


def by_projector(name: str, help_text: str, **metadata: Any) -> Any:
    """The field `name` of a dataclass of settings."""
    usual = BY_PROJECTOR[USUAL][name]
    shown = help_text if usual is None else f"{help_text.rstrip('.')} (default: {usual})."
    return field(default=None, metadata={"help": shown, **metadata})


def settle(projector_type: str, *groups: Any) -> None:
    """Give the settings of `groups` that were not given their value for this projector."""
    for name, value in BY_PROJECTOR.get(projector_type, PAPER).items():
        for group in groups:
            if getattr(group, name, value) is None:
                setattr(group, name, value)
