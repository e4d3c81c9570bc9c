"""`train.py --push_to_hub`: what goes to the Hub is a release, at checkpoints and at the end.

transformers' own trainer would push the whole run directory: pickled arguments, the processor without the
model's code, a generic card. It is told of no push. `ReleaseCallback` sends what `python -m
modeling_slam.publishing` sends, with our card: at checkpoints in the background, where a failure is a
warning; at the end checked in a fresh process first.
"""

import contextlib
import logging
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_slam.publishing.arguments import PublishArguments, PushArguments
from modeling_slam.publishing.hub import Published, PublishError, create_repository, open_hub, push
from modeling_slam.publishing.naming import check_name
from modeling_slam.publishing.publish import Prepared, prepare
from modeling_slam.publishing.release import check_bases

logger = logging.getLogger(__name__)
NOT_PUSHED = "A checkpoint was not pushed; training goes on. %s"


def check_destination(arguments: PushArguments, config: Any, language: str | None) -> None:
    """Refuse, before the run, a push that could only fail at its end; the main process makes the repository.

    Raises:
        PublishError: no token, offline, or the token may not write there.
        ValueError: the name contradicts the model, or its base models are directories of this machine.
    """
    if not arguments.push_to_hub:
        return
    repo_id = str(arguments.hub_model_id)
    warning = check_name(repo_id, config, language)
    check_bases(config, "The model to train")
    if PartialState().is_main_process:
        create_repository(open_hub(), repo_id, arguments.hub_private_repo)
        if warning is not None:
            logger.warning("`hub_model_id`: %s", warning)


class ReleaseCallback(TrainerCallback):
    """Pushes releases; the main process does, and only with `push_to_hub`."""

    def __init__(self, arguments: PushArguments):
        self.arguments = arguments
        self.pushes = arguments.push_to_hub and PartialState().is_main_process
        self.hub: Any = open_hub() if self.pushes else None
        self.sending: Future | None = None  # the release of a checkpoint

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_kwargs: Any) -> None:
        """Send the checkpoint that was just saved, unless an earlier one is still on its way."""
        if not self.pushes or self.arguments.hub_strategy == "end":
            return
        busy = self.sending is not None and not self.sending.done()
        if busy and not self.arguments.hub_always_push:
            return
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        # The files are copied now: the checkpoint may be rotated away before they are sent.
        files = contextlib.ExitStack()
        try:
            release = files.enter_context(prepare(self._request(checkpoint), model.parameter_counts()))
        except ValueError as error:
            logger.warning(NOT_PUSHED, error)
            return
        message = f"Training in progress, step {state.global_step}"
        self.sending = self.hub.run_as_future(self._send, release, message, files)
        self.sending.add_done_callback(report_failure)

    def push_result(self, directory: str | Path) -> None:
        """Push what lies in the finished run's directory, and wait until it is there.

        Raises:
            PublishError: it is not there; the message says how to push it without training again.
        """
        if not self.pushes:
            return
        if self.sending is not None and not self.sending.done():
            logger.info("The release of a checkpoint is still on its way to the Hub.")
            self.sending.exception()  # waits; a failure was told
        try:
            with prepare(self._request(Path(directory))) as release:
                published = self._send(release, "End of training", contextlib.ExitStack())
        except ValueError as error:
            raise PublishError(
                f"The model is complete in {directory}, but not published. {error} Then: python -m "
                f"modeling_slam.publishing {directory} --repo_id {self.arguments.hub_model_id}"
            ) from error
        logger.info("Published: %s", published.url)

    def _request(self, directory: Path) -> PublishArguments:
        return PublishArguments(model=str(directory), repo_id=self.arguments.hub_model_id)

    def _send(self, release: Prepared, message: str, files: contextlib.ExitStack) -> Published:
        with files:
            return push(
                self.hub,
                release.directory,
                release.repo_id,
                message,
                private=self.arguments.hub_private_repo,
                revision=self.arguments.hub_revision,
            )


def report_failure(job: Future) -> None:
    """A push that failed during training is told, and training goes on."""
    error = job.exception()
    if error is not None:
        logger.warning(NOT_PUSHED, error)
