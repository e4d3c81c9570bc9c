"""The page: what stands where, and what the buttons do.

Everything comes from this machine: the fonts are the reader's own, and Gradio reports nothing to anyone.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import av
import gradio as gr
from av.stream import Disposition

from modeling_slam.app import markup
from modeling_slam.app.recogniser import Recogniser
from modeling_slam.common.files import write_text
from modeling_slam.model.audio_io import AudioError
from modeling_slam.model.sound_files import FORMATS as CONTAINERS
from modeling_slam.transcription.formats import FORMATS
from modeling_slam.transcription.recordings import SUFFIXES

STYLE = Path(__file__).with_name("page.css")
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
FIXED_FONT = ("ui-monospace", "Menlo", "Consolas", "monospace")
CACHE_SECONDS = (600, 3600)  # how often recordings and transcripts are tidied away, and from which age on
MODEL = "model"  # whoever uses it waits for whoever does
NO_RECORDING = "Record something, or choose a file first."


def build(recogniser: Recogniser, title: str) -> gr.Blocks:
    """The page of a model that is named `title`."""
    offered = [name for name, row in FORMATS.items() if recogniser.tells_times or not row.needs_times]
    with gr.Blocks(
        title=f"{title}: speech to text", delete_cache=CACHE_SECONDS, analytics_enabled=False
    ) as page:
        gr.HTML(markup.heading(title, recogniser.language))
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                given = recording_inputs()
                transcribe = gr.Button("Transcribe", variant="primary", elem_id="transcribe")
                names = ", ".join(map(str, recogniser.depths))
                compare = gr.Button(f"Compare depths {names}", visible=bool(names), elem_id="compare")
                if not recogniser.tells_times:
                    gr.HTML(markup.NO_HEAD)
            with gr.Column(scale=3, min_width=300):
                text = gr.HTML(markup.EMPTY, elem_id="transcript")
                player = gr.HTML(elem_id="player", visible=False)
                with gr.Row(elem_id="downloads", visible=False) as downloads:
                    files = [gr.DownloadButton(name, size="sm", min_width=60) for name in offered]
                with gr.Accordion("Subtitles", open=False, visible=False) as subtitles:
                    preview = gr.Textbox(
                        show_label=False, container=False, lines=4, max_lines=14, buttons=["copy"]
                    )
        depths = gr.HTML(elem_id="depths", visible=False)

        @transcribe.click(
            inputs=given,
            outputs=[text, player, downloads, subtitles, preview, *files],
            show_progress_on=text,
            concurrency_id=MODEL,
        )
        def on_transcribe(
            recorded: str | None,
            chosen: str | None,
            progress: Any = gr.Progress(),  # noqa: B008
        ) -> list[Any]:
            return transcribed(recogniser, recorded or chosen, offered, progress)

        @compare.click(inputs=given, outputs=depths, show_progress_on=depths, concurrency_id=MODEL)
        def on_compare(recorded: str | None, chosen: str | None) -> Iterator[Any]:
            yield from compared(recogniser, recorded or chosen)

    return page


def recording_inputs() -> list[gr.components.Component]:
    """A microphone and a file, of which the one that was used last counts."""
    with gr.Tabs():
        with gr.Tab("Record"):
            recorded = gr.Audio(sources=["microphone"], type="filepath", show_label=False, elem_id="record")
        with gr.Tab("File"):
            chosen = gr.File(
                file_types=["audio", "video", *sorted(SUFFIXES)], height=160, elem_id="file",
                label="Sound or video",
            )  # fmt: skip
    recorded.start_recording(lambda: None, outputs=chosen, show_progress="hidden")
    chosen.upload(lambda: None, outputs=recorded, show_progress="hidden")
    return [recorded, chosen]


def transcribed(recogniser: Recogniser, place: str | None, offered: list[str], progress: Any) -> list[Any]:
    """What changes on the page when a recording is transcribed: text, player, files, subtitles."""
    nothing = [gr.update(visible=False)] * 3 + ["", *[gr.update()] * len(offered)]
    if place is None:
        return [markup.problem(NO_RECORDING), *nothing]
    path = Path(place)
    try:
        heard = recogniser.hear(path, lambda share: progress(share, desc="Listening"))
    except AudioError as error:
        return [markup.problem(str(error)), *nothing]
    written = {name: FORMATS[name].write(heard.transcript()) for name in offered}
    directory = Path(mkdtemp(prefix="slam-asr-"))
    for name, content in written.items():
        write_text(directory / f"{path.stem}.{name}", content)
    has_subtitles = bool(heard.words)
    shown = markup.player(
        path, has_picture(path), written.get("vtt") if has_subtitles else None, recogniser.language
    )
    return [
        markup.transcript(heard),
        gr.update(value=shown, visible=True),
        gr.update(visible=bool(heard.text)),
        gr.update(visible=has_subtitles),
        written.get("srt", ""),
        *(str(directory / f"{path.stem}.{name}") for name in offered),
    ]


def compared(recogniser: Recogniser, place: str | None) -> Iterator[Any]:
    """What is heard at each depth, shown as it comes."""
    if place is None:
        yield gr.update(value=markup.problem(NO_RECORDING), visible=True)
        return
    found = []
    yield gr.update(value=markup.comparison(found, recogniser.depths), visible=True)
    try:
        for each in recogniser.compare(Path(place)):
            found.append(each)
            yield gr.update(value=markup.comparison(found, recogniser.depths), visible=True)
    except AudioError as error:
        yield gr.update(value=markup.problem(str(error)), visible=True)


def has_picture(path: Path) -> bool:
    """Whether a recording that could be read is a film; the cover of a song is none."""
    with av.open(path, metadata_errors="replace", options={"format_whitelist": CONTAINERS}) as container:
        cover = Disposition.attached_pic
        return any(not stream.disposition & cover for stream in container.streams.video)
