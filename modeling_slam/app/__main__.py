"""A page in the browser: speak or choose a recording, read what was said and how sure the model is.

slam-asr app runs/nl-medium
"""

import threading
from pathlib import Path

import gradio as gr

from modeling_slam.app.arguments import AppArguments
from modeling_slam.app.page import FIXED_FONT, FONT, STYLE, build
from modeling_slam.app.recogniser import Recogniser
from modeling_slam.common.command_line import clear_errors, parse_arguments, program
from modeling_slam.common.stopping import ends_in_one_line

DESCRIPTION = (
    "A page with a microphone, files, transcripts by confidence, and subtitles. Nothing leaves the machine."
)


def main(argv: list[str] | None = None) -> None:
    usage = f"{program('modeling_slam.app')} MODEL [--flag value ...]"
    (arguments,) = parse_arguments(
        AppArguments, description=DESCRIPTION, argv=argv, usage=usage, first="model"
    )
    with ends_in_one_line(lambda: "The page is closed."), clear_errors():
        page = open_page(arguments)
        try:
            threading.Event().wait()
        finally:
            page.close()


def open_page(arguments: AppArguments) -> gr.Blocks:
    """Load the model and open its page, which stays until it is closed.

    Raises:
        ValueError: a setting does not fit the model. OSError: the port is taken.
    """
    place = Path(arguments.model)
    page = build(Recogniser(arguments), place.resolve().name if place.is_dir() else arguments.model)
    page.queue()
    _, url, _ = page.launch(
        server_name=arguments.host,
        server_port=arguments.port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        theme=gr.themes.Soft(font=FONT, font_mono=FIXED_FONT),
        css_paths=STYLE,
        footer_links=[],
    )
    print(f"The page is at {url} until Ctrl-C.", flush=True)
    return page


if __name__ == "__main__":
    main()
