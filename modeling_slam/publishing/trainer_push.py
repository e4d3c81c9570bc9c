"""`train.py --push_to_hub`: what goes to the Hub is a release, at checkpoints and at the end.

transformers' own trainer pushes the whole run directory: pickled arguments, the processor without the model's
code, a generic card. Here each push holds what `python -m modeling_slam.publishing` sends, with our card. At
checkpoints it happens in the background and a failure is a warning; at the end it is checked in a fresh
process first.
"""

import contextlib
import logging
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from accelerate import PartialState
from huggingface_hub import HfApi
from transformers import Seq2SeqTrainer
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from modeling_slam.publishing.arguments import PublishArguments
from modeling_slam.publishing.hub import Published, PublishError, create_repository, open_hub, push
from modeling_slam.publishing.naming import check_name
from modeling_slam.publishing.publish import Prepared, prepare
from modeling_slam.publishing.release import check_bases

logger = logging.getLogger(__name__)
NOT_PUSHED = "A checkpoint was not pushed; training goes on. %s"


def check_destination(run_args: Any, config: Any, language: str | None) -> None:
    """Refuse, before the run, a push that could only fail at its end; the main process makes the repository.

    Raises:
        PublishError: no token, offline, or the token may not write there.
        ValueError: the name contradicts the model, or its base models are directories of this machine.
    """
    warning = check_name(run_args.hub_model_id, config, language)
    check_bases(config, "The model to train")
    if PartialState().is_main_process:
        create_repository(open_hub(), run_args.hub_model_id, bool(run_args.hub_private_repo))
        if warning is not None:
            logger.warning("`hub_model_id`: %s", warning)


class ReleasingTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer that pushes releases."""

    hub: HfApi

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        # `check_destination` has made the repository.
        if not self.is_world_process_zero():
            return
        self.hub = open_hub()
        self.hub_model_id = self.args.hub_model_id
        self.push_in_progress = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # Pushing is left to `push_to_hub`, when the run's other files are written too.
        super().save_model(output_dir, _internal_call=True)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not self.args.hub_always_push:
            return
        counts = self.accelerator.unwrap_model(self.model).parameter_counts()
        # The files are copied now: the checkpoint may be rotated away before they are sent.
        files = contextlib.ExitStack()
        arguments = PublishArguments(model=checkpoint_folder, repo_id=self.hub_model_id)
        try:
            release = files.enter_context(prepare(arguments, counts))
        except ValueError as error:
            logger.warning(NOT_PUSHED, error)
            return
        message = f"Training in progress, step {self.state.global_step}"
        job = self.hub.run_as_future(self._send, release, message, files)
        job.add_done_callback(report_failure)
        self.push_in_progress = PushInProgress([job])  # ty: ignore[invalid-argument-type]

    def _send(self, release: Prepared, message: str, files: contextlib.ExitStack) -> Published:
        with files:
            return push(
                self.hub,
                release.directory,
                release.repo_id,
                message,
                private=bool(self.args.hub_private_repo),
                revision=self.args.hub_revision,
            )

    def push_to_hub(  # ty: ignore[incompatible-method-override] (settings decide, not arguments)
        self, commit_message: str | None = "End of training", **_kwargs: Any
    ) -> Any:
        """Push what lies in the run's directory, and wait until it is there.

        Raises:
            PublishError: it is not there; the message says how to push it without training again.
        """
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        directory = Path(self.args.output_dir or "")
        try:
            with prepare(PublishArguments(model=str(directory), repo_id=self.hub_model_id)) as release:
                published = self._send(release, commit_message or "End of training", contextlib.ExitStack())
        except ValueError as error:
            raise PublishError(
                f"The model is complete in {directory}, but not published. {error} Then: python -m "
                f"modeling_slam.publishing {directory} --repo_id {self.hub_model_id}"
            ) from error
        logger.info("Published: %s", published.url)
        return published


def report_failure(job: Future) -> None:
    """A push that failed during training is told, and training goes on."""
    error = job.exception()
    if error is not None:
        logger.warning(NOT_PUSHED, error)
