"""Arguments of `python -m modeling_slam.publishing`: which checkpoint goes where, with which results."""

import re
from dataclasses import dataclass, field
from typing import Literal

from modeling_slam.common.hub_ids import check_repo_id


@dataclass
class PublishArguments:
    """What is published, where, and what its card says"""

    model: str = field(metadata={"help": "Checkpoint directory; may be given first, without its flag."})
    repo_id: str | None = field(
        default=None, metadata={"help": "owner/name on the Hub; slam-{size}-{N}L{-lora}-{lang} by custom."}
    )
    metrics: list[str] = field(
        default_factory=list,
        metadata={"help": "Result directories of eval.py for this checkpoint, and of its Whisper baselines."},
    )
    format: Literal["lean", "full"] = field(
        default="lean",
        metadata={"help": "lean: what was trained, base models by id and revision. full: all weights."},
    )
    merge_lora: bool = field(
        default=False, metadata={"help": "Full format only: add LoRA to the base weights."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Check, render the card and list the files; send nothing."}
    )
    private: bool = field(
        default=False, metadata={"help": "Create the repository for its owner's eyes only."}
    )
    tag: str | None = field(default=None, metadata={"help": "Name of this version, such as v1.0."})
    collection: str | None = field(
        default=None,
        metadata={
            "help": "Slug of a collection (owner/title-id) or title of one of the owner's; made if new."
        },
    )
    language: str | None = field(
        default=None, metadata={"help": "ISO code such as nl; that of the training run if not given."}
    )
    license: str | None = field(
        default=None,
        metadata={"help": "Licence of the weights, such as apache-2.0; mind those of base models and data."},
    )
    datasets: list[str] = field(
        default_factory=list, metadata={"help": "Hub ids of the training data, for the card's metadata."}
    )
    base_models: list[str] = field(
        default_factory=list,
        metadata={"help": "Full format only: Hub ids of base models that the run took from a directory."},
    )
    eval_task: str | None = field(
        default=None,
        metadata={"help": "Task id of a Hub benchmark dataset that was evaluated; writes .eval_results."},
    )
    clip: str | None = field(
        default=None,
        metadata={"help": "Audio file to transcribe in the check; a generated one if not given."},
    )
    card: str | None = field(default=None, metadata={"help": "Also write the rendered card to this file."})
    space: str | None = field(
        default=None, metadata={"help": "owner/name of a Space: the model's page, pushed after the model."}
    )

    def __post_init__(self):
        if self.space is not None:
            check_repo_id(self.space, "space")
        if self.merge_lora and self.format != "full":
            raise ValueError("`merge_lora` changes the base weights, so it needs `--format full`.")
        if self.base_models and self.format != "full":
            raise ValueError(
                "`base_models` are in a lean checkpoint's config; name them with `--format full`."
            )
        if self.repo_id is not None:
            check_repo_id(self.repo_id)
        if self.tag is not None and not re.fullmatch(r"[\w][\w.+-]*", self.tag):
            raise ValueError(f"`tag` must be a name such as v1.0, got {self.tag!r}.")
        if self.language is not None and not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9-]+)?", self.language):
            raise ValueError(f"`language` must be an ISO code such as da or nl, got {self.language!r}.")


@dataclass
class PushArguments:
    """Publishing while training; see docs/publishing.md"""

    push_to_hub: bool = field(
        default=False, metadata={"help": "Publish the model on the Hub, with its card."}
    )
    hub_model_id: str | None = field(
        default=None, metadata={"help": "owner/name on the Hub, such as me/slam-medium-22L-lora-nl."}
    )
    hub_strategy: Literal["every_save", "end"] = field(
        default="every_save", metadata={"help": "When to push: at checkpoints too, or at the end."}
    )
    hub_private_repo: bool = field(
        default=False, metadata={"help": "Create the repository for its owner's eyes only."}
    )
    hub_revision: str | None = field(default=None, metadata={"help": "Branch to push to."})
    hub_always_push: bool = field(
        default=False, metadata={"help": "Push a checkpoint although an earlier one is still on its way."}
    )

    def __post_init__(self):
        if self.push_to_hub and self.hub_model_id is None:
            raise ValueError("`push_to_hub` needs `hub_model_id`: owner/name on the Hub.")
        if self.hub_strategy not in ("every_save", "end"):
            raise ValueError(
                f"`hub_strategy` must be every_save or end, got {self.hub_strategy}: whole checkpoints hold "
                "pickled optimizer state, which is not published."
            )
