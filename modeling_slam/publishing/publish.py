"""Publishing, step by step: gather the files, check them, describe them, list them, push them.

`prepare` sends nothing; what it returns is what `push` sends. The command line and `train.py --push_to_hub`
use both.
"""

import contextlib
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from modeling_slam.publishing.arguments import PublishArguments
from modeling_slam.publishing.card import eval_results_file, render_card
from modeling_slam.publishing.check import CheckResult, check_in_fresh_process
from modeling_slam.publishing.evidence import gather
from modeling_slam.publishing.naming import check_name, name_parts
from modeling_slam.publishing.release import (
    CARD,
    EVAL_RESULTS,
    PublishedFile,
    list_release,
    read_config,
    refuse_secrets,
    stage,
)


@dataclass(frozen=True)
class Prepared:
    """A release on this disk, ready to be pushed."""

    directory: Path
    repo_id: str
    files: list[PublishedFile]
    left_out: list[str]
    warnings: list[str]
    check: CheckResult | None


@contextlib.contextmanager
def prepare(arguments: PublishArguments, parameters: dict[str, int] | None = None) -> Generator[Prepared]:
    """The release of a checkpoint in a directory that lives as long as the block.

    With `parameters` (a model's `parameter_counts()`) the files are those that this process has just saved,
    and the check in a fresh process is left out.

    Raises:
        ValueError: the checkpoint, the name or the results are not fit to be published; nothing was sent.
    """
    source = Path(arguments.model)
    config = read_config(source)
    full = arguments.format == "full"
    with tempfile.TemporaryDirectory(prefix="slam-release-") as scratch:
        directory = Path(scratch)
        # What is cheap to find wrong comes before anything is loaded.
        early = gather(source, config, arguments.metrics, parameters or {})
        language = arguments.language or early.language
        repo_id, warnings = choose_name(arguments, config, language)
        left_out = stage(source, directory, full, arguments.merge_lora)
        check = None
        if parameters is None:
            check = check_in_fresh_process(directory, arguments.clip)
            if full:
                compare_with_source(source, check, arguments.clip)
            if not check.batch_invariant:
                warnings.append(
                    "Two clips in one batch were not transcribed as each alone; the card says so."
                )
        evidence = gather(source, config, arguments.metrics, check.parameters if check else parameters or {})
        evidence.check = check
        card = render_card(
            evidence,
            repo_id,
            full=full,
            merged=arguments.merge_lora,
            license=arguments.license,
            datasets=arguments.datasets,
            base_models=arguments.base_models,
            language=language,
            revision=arguments.tag,
        )
        card.save(directory / CARD)
        if arguments.eval_task is not None:
            (directory / EVAL_RESULTS).mkdir()
            text = eval_results_file(evidence, arguments.eval_task)
            (directory / EVAL_RESULTS / "wer.yaml").write_text(text, encoding="utf-8")
        refuse_secrets(directory, get_token())
        if not evidence.results:
            warnings.append("Without `--metrics` the card says that nothing was measured.")
        if arguments.license is None:
            warnings.append("Without `--license` the card names none.")
        yield Prepared(directory, repo_id, list_release(directory), left_out, warnings, check)


def choose_name(arguments: PublishArguments, config: Any, language: str | None) -> tuple[str, list[str]]:
    """The repository's id and what is odd about it."""
    proposed = name_parts(config, language)
    if arguments.repo_id is None:
        if not arguments.dry_run:
            raise ValueError(f"`repo_id` is missing: owner/{proposed} would say what the checkpoint is.")
        return f"owner/{proposed}", [f"No `--repo_id`; this shows owner/{proposed}."]
    warning = check_name(arguments.repo_id, config, language)
    return arguments.repo_id, [warning] if warning else []


def compare_with_source(source: Path, check: CheckResult, clip: str | None) -> None:
    """Raise ValueError if the full checkpoint does not write what the one it was made from writes."""
    before = check_in_fresh_process(source, clip)
    if before.transcripts != check.transcripts:
        raise ValueError(
            f"The full checkpoint writes {check.transcripts}, the one it was made from "
            f"{before.transcripts}; nothing was sent. If LoRA was merged, rounding may be the reason: "
            "publish it without `--merge_lora`."
        )
