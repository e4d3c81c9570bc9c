"""Recordings of any kind and length to text, subtitles, tables or JSON.

    slam-asr transcribe runs/nl-medium interviews/ film.mp4 --format txt,srt,json

Stopped, the same command goes on. A recording that cannot be read is listed at the end and stops no other.
"""

import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modeling_slam.common.command_line import clear_errors, parse_arguments, program
from modeling_slam.common.files import DiskFullError, check_writable, locked, read_json, write_text
from modeling_slam.common.stopping import ends_in_one_line
from modeling_slam.data.hotwords import read_hotwords
from modeling_slam.evaluation.own_run import language_of_run
from modeling_slam.evaluation.settings import check_checkpoint, checkpoint_fingerprint, text_style_of
from modeling_slam.model.processing_slam import SlamAsrProcessor, in_language
from modeling_slam.transcription.arguments import TranscribeArguments
from modeling_slam.transcription.formats import FORMATS
from modeling_slam.transcription.hearing import Task, hear, load
from modeling_slam.transcription.journal import Heard, Journal, stamp
from modeling_slam.transcription.recordings import Recording, find_recordings, stated_seconds
from modeling_slam.transcription.spreading import hear_spread

DESCRIPTION = (
    "Text, subtitles, a table or JSON of recordings: files or folders, audio or video, of any length. "
    "Stopped, the same command goes on."
)
LOCK, LOCK_SECONDS = ".transcripts.lock", 1.0
BAR = "{percentage:3.0f} %|{bar}| {desc}[{elapsed}<{remaining}]"


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    first = next((place for place, word in enumerate(argv) if word.startswith("-")), len(argv))
    words, flags = argv[:first], argv[first:]
    places = [*(["--model", words[0]] if words else []), *(["--files", *words[1:]] if words[1:] else [])]
    usage = f"{program('modeling_slam.transcription')} MODEL FILES_OR_FOLDERS ... [--flag value ...]"
    (arguments,) = parse_arguments(
        TranscribeArguments, description=DESCRIPTION, argv=[*places, *flags], usage=usage
    )
    with ends_in_one_line(lambda: "The same command goes on where it stopped."), clear_errors():
        outcome = transcribe(arguments)
    print(outcome.summary(arguments.output_dir))
    if outcome.failures:
        raise SystemExit(1)


@dataclass
class Outcome:
    """What came of a call."""

    finished: int = 0  # heard by this call
    skipped: int = 0  # heard before
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0
    failures: list[Heard] = field(default_factory=list)

    def add_failure(self, heard: Heard) -> None:
        if heard.error is not None:
            tqdm.write(f"not transcribed: {heard.error}", file=sys.stderr)
            self.failures.append(heard)

    def summary(self, output_dir: str) -> str:
        lines = []
        if self.audio_seconds:
            factor = self.wall_seconds / self.audio_seconds
            lines.append(
                f"{counted(self.finished)}, {span(self.audio_seconds)} of sound, in "
                f"{span(self.wall_seconds)}: real-time factor {factor:.3f}."
            )
        if self.skipped:
            lines.append(f"{self.skipped} had been transcribed before.")
        lines.append(f"Transcripts are in {output_dir}.")
        if self.failures:
            lines.append(f"{len(self.failures)} could not be transcribed:")
            lines += [f"  {failure.error}" for failure in self.failures]
        return "\n".join(lines)


def counted(number: int) -> str:
    return "1 recording" if number == 1 else f"{number} recordings"


def span(seconds: float) -> str:
    """3725 -> 1 h 02 min; 65 -> 1 min 05 s; 4.2 -> 4.2 s"""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def transcribe(arguments: TranscribeArguments) -> Outcome:
    """Hear what was not heard yet, write all files.

    Raises:
        ValueError: a setting does not fit the model, or a place cannot be read or written.
    """
    recordings = find_recordings(arguments.files, arguments.recursive)
    directory = Path(arguments.output_dir)
    check_writable(directory, "output_dir")
    task = task_of(arguments)
    settings = dict(task.settings)
    outcome = Outcome()
    busy = (
        f"Another `transcribe` is writing to `--output_dir` {directory}. Wait for its end, or name another "
        "directory."
    )
    with locked(directory / LOCK, LOCK_SECONDS, busy):
        journal = Journal(directory)
        check_names(recordings, journal, directory)
        left = []
        for recording in recordings:
            heard = journal.lines.get(recording.name)
            if heard is not None and heard.holds_for(recording, settings):
                heard = written(heard, outdated(heard, arguments.formats, directory), directory)
                outcome.skipped += heard.error is None
                outcome.add_failure(heard)
            else:
                left.append(recording)
        if left:
            journal.begin()
            for heard in with_progress(task, left, arguments, outcome):
                journal.add(heard)
                if heard.error is None:
                    heard = written(heard, arguments.formats, directory)
                outcome.finished += heard.error is None
                outcome.audio_seconds += heard.seconds
                outcome.add_failure(heard)
    return outcome


def task_of(arguments: TranscribeArguments) -> Task:
    """The model's configuration is read and the settings checked against it; no weight is loaded."""
    config_path = check_checkpoint(arguments.model, "none", ctc_weight=arguments.ctc_weight)
    config = read_json(config_path)
    tells_times = bool(config.get("ctc_vocab_size"))
    without = [name for name in arguments.formats if FORMATS[name].needs_times and not tells_times]
    if without:
        raise ValueError(
            f"`--format {','.join(without)}` needs the times of words, which a CTC head tells, and "
            f"{arguments.model} has none: train one with `--align_epochs`, or write txt or json."
        )
    language = arguments.language or language_of_run(arguments.model)
    processor = SlamAsrProcessor.from_pretrained(arguments.model)
    in_language(processor.instruction, language)
    settings = {
        "checkpoint": checkpoint_fingerprint(config_path), "language": language,
        "num_beams": arguments.num_beams, "ctc_weight": arguments.ctc_weight, "dtype": arguments.dtype,
        "times": tells_times,
    }  # fmt: skip
    if arguments.hotwords is not None:
        words = read_hotwords(arguments.hotwords, processor, text_style_of(config), language)
        settings["hotwords"] = "\n".join(words)  # one value, that a journal gives back as it was
    return Task(arguments.model, arguments.dtype, arguments.batch_size, tuple(settings.items()), tells_times)


def file_of(heard: Heard, name: str, directory: Path) -> Path:
    return directory / f"{heard.name}.{name}"


def check_names(recordings: Iterable[Recording], journal: Journal, directory: Path) -> None:
    """Refuse to write over the transcript of a recording from elsewhere that has the same name.

    It gets no name of its own, as the same call must find its files again, whatever was transcribed before.
    A recording that has only moved is none from elsewhere.
    """
    for recording in recordings:
        heard = journal.lines.get(recording.name)
        if heard is None or not heard.is_elsewhere(recording):
            continue
        files = [path for name in FORMATS if (path := file_of(heard, name, directory)).exists()]
        if files:
            raise ValueError(
                f"{files[0]} is of {heard.file}, and {recording.path} would be written over it. Name another "
                "directory (`--output_dir`), or the folder that holds both recordings, with `--recursive`."
            )


def outdated(heard: Heard, formats: Iterable[str], directory: Path) -> list[str]:
    """Formats whose file is missing, or older than what was heard: a newer one may be corrected by hand."""
    states = {name: stamp(file_of(heard, name, directory)) for name in formats}
    return [name for name, state in states.items() if not state or state[1] < heard.at * 1e9]


def written(heard: Heard, formats: Iterable[str], directory: Path) -> Heard:
    """Write its files; where one cannot be, as its name is too long, what comes back says so."""
    for name in formats:
        path = file_of(heard, name, directory)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, FORMATS[name].write(heard.transcript()))
        except DiskFullError:
            raise
        except OSError as error:
            what = f"{heard.file}: heard, and {path} cannot be written ({error.strerror})."
            return dataclasses.replace(heard, error=what)
    return heard


def with_progress(
    task: Task, recordings: list[Recording], arguments: TranscribeArguments, outcome: Outcome
) -> Iterator[Heard]:
    """What is heard, under a bar of the seconds of sound; the time that it takes goes to `outcome`."""
    stated = {recording.name: stated_seconds(recording.path) for recording in recordings}
    is_spread = arguments.ray is not None or (arguments.num_processes or 1) > 1
    pipe: Any = None if is_spread else load(task)
    begun = time.monotonic()
    with tqdm(total=sum(stated.values()), bar_format=BAR) as bar:
        if pipe is not None:
            pipe.on_seconds = bar.update
            found = hear(pipe, task, recordings)
        else:
            pairs = [(recording, stated[recording.name]) for recording in recordings]
            found = hear_spread(task, pairs, arguments.num_processes, arguments.ray)
        for number, heard in enumerate(found, 1):
            new = heard.seconds if pipe is None else 0.0
            # Rounding must not leave less than what is done, of which tqdm would warn.
            bar.total = max(bar.total + heard.seconds - stated[heard.name], bar.n + new)
            bar.update(new)
            bar.set_description_str(f"{number} of {len(recordings)} recordings ")
            yield heard
            outcome.wall_seconds = time.monotonic() - begun
