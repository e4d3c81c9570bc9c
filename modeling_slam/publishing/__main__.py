"""Publish a checkpoint on the Hugging Face Hub.

    python -m modeling_slam.publishing runs/nl-medium --repo_id me/slam-medium-22L-lora-nl \\
        --metrics results/nl-medium results/whisper-medium --license apache-2.0 --tag v1.0 --dry_run

`--dry_run` shows everything that would be sent and sends nothing.
"""

import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import get_token

from modeling_slam.common.command_line import clear_errors, parse_arguments, program
from modeling_slam.publishing.arguments import PublishArguments
from modeling_slam.publishing.hub import open_hub, push
from modeling_slam.publishing.publish import prepare
from modeling_slam.publishing.release import CARD, describe_release, list_release, refuse_secrets
from modeling_slam.publishing.space import SPACE, stage_space

DESCRIPTION = "Check a checkpoint, write its model card and push both to the Hugging Face Hub in one commit."


def main(argv: list[str] | None = None) -> None:
    usage = f"{program('modeling_slam.publishing')} MODEL_DIR [--flag value ...]"
    (arguments,) = parse_arguments(
        PublishArguments, description=DESCRIPTION, argv=argv, usage=usage, first="model"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    with clear_errors():
        hub = None if arguments.dry_run else open_hub()
        with prepare(arguments) as release, TemporaryDirectory(prefix="slam-space-") as space:
            print(f"{release.repo_id}, {arguments.format} format:")
            print(describe_release(release.files, release.left_out))
            for transcript in release.check.transcripts if release.check else []:
                print(f"Transcribed in a fresh process: {transcript!r}")
            for warning in release.warnings:
                print(f"Note: {warning}")
            if arguments.card is not None:
                shutil.copyfile(release.directory / CARD, arguments.card)
                print(f"The card is in {arguments.card}.")
            if arguments.space is not None:
                stage_space(
                    Path(space), Path(arguments.model), release.repo_id, arguments.language, arguments.license
                )
                refuse_secrets(Path(space), get_token())
                print(f"{arguments.space}, the Space of its page:")
                print(describe_release(list_release(Path(space)), []))
            if hub is None:
                print("Dry run: nothing was sent.")
                return
            message = f"Publish {arguments.tag or 'checkpoint'} ({arguments.format})"
            published = push(
                hub,
                release.directory,
                release.repo_id,
                message=message,
                private=arguments.private,
                tag=arguments.tag,
                collection=arguments.collection,
            )
            print(f"Published: {published.url}")
            print(f'Load it with revision="{published.commit}".')
            if arguments.space is not None:
                message = f"Page of {release.repo_id}"
                page = push(hub, Path(space), arguments.space, message, arguments.private, kind=SPACE)
                print(f"Its page: {page.url}")


if __name__ == "__main__":
    main()
