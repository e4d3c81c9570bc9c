"""`load_speech`, or `load_for_run` in scripts: any sources in, a checked `Dataset` and its report out."""

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import datasets
from datasets import config
from datasets.arrow_writer import ArrowWriter
from filelock import BaseFileLock, FileLock, Timeout

from modeling_slam.common.files import naming_what_has_no_room
from modeling_slam.data.arguments import DataArguments
from modeling_slam.data.clips import Clip, DataError, Source
from modeling_slam.data.joining import Role, as_one, open_parts, reports_of
from modeling_slam.data.report import DataReport, Drop
from modeling_slam.data.selection import KeptClip, Limits, select_clips
from modeling_slam.data.text import normalize_text
from modeling_slam.model.audio_io import AudioError

# Written as a plain struct and only then called audio: encoding through `datasets.Audio` needs torchcodec.
FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        "text": datasets.Value("string"),
        "raw_text": datasets.Value("string"),
        "duration": datasets.Value("float64"),
        "speaker": datasets.Value("string"),
        "language": datasets.Value("string"),
        "dataset": datasets.Value("string"),
    }
)
PREFIX, IN_USE = (
    "slam_asr_",
    "in_use.lock",
)  # copies of clips in HF's cache; held by the process that reads them
FEW_CLIPS = 10  # So many unreadable ones stop no run, whatever their share.
ROWS_PER_BATCH = 100  # Audio bytes of a batch are held in memory, and Arrow wants them below 2 GB.


def load_speech(arguments: DataArguments, split: Role) -> tuple[datasets.Dataset, DataReport]:
    """Read, check and select the clips of one split; several datasets are read as one.

    The dataset has the columns `id`, `audio` (undecoded `{"bytes", "path"}`), `text` (normalised by the rules
    of the clip's language), `raw_text`, `duration` (seconds of the decoded audio), `speaker`, `language` and,
    where several were read, `dataset`: the name that ids begin with.

    Raises:
        DataError: a source or its split cannot be read, or no clip of it.
    """
    dataset, report = _load(arguments, split)
    _check_clips_are_left(report)
    return dataset, report


def load_for_run(
    arguments: DataArguments, split: Role, directory: str | os.PathLike | None
) -> tuple[datasets.Dataset, DataReport]:
    """`load_speech` for a script, which a corpus that mostly cannot be read does not start.

    The report goes to `data_<split>.json` in `directory`, also if the run is refused; None writes nothing.

    Raises:
        DataError: as by `load_speech`, or the audio of more than ten clips cannot be read, and of more than
            `max_dropped` of those that were looked at, of all datasets or of one.
    """
    dataset, report = _load(arguments, split)
    if directory is not None:
        report.save(Path(directory, f"data_{split}.json"))
    _check_clips_are_left(report)
    for one in (report, *report.parts):
        looked_at = one.kept_clips + len(one.dropped)
        if one.unread_clips > max(FEW_CLIPS, arguments.max_dropped * looked_at):
            of_one = "" if one is report else f" of {one.source}"
            written = "" if directory is None else f" {Path(directory, f'data_{split}.json')} names each."
            raise DataError(
                f"The audio of {one.unread_clips:,} of {looked_at:,} clips{of_one} cannot be read, more than "
                f"--max_dropped {arguments.max_dropped:g} allows.{written}\n{report.summary()}"
            )
    return dataset, report


def _check_clips_are_left(report: DataReport) -> None:
    """Refuse data without clips to use, or one of several datasets of which all clips were dropped."""
    if not report.kept_clips:
        raise DataError(f"No clip is left to use.\n{report.summary()}")
    for part in report.parts:
        if not part.kept_clips and len(part.dropped) == part.read_clips:
            raise DataError(
                f"No clip of {part.source} is left to use; leave it out of `dataset`, or mend it.\n"
                f"{report.summary()}"
            )


def _load(arguments: DataArguments, split: Role) -> tuple[datasets.Dataset, DataReport]:
    with naming_what_has_no_room(f"{config.HF_DATASETS_CACHE} (HF_DATASETS_CACHE names another place)"):
        parts = open_parts(arguments, split)
    source = as_one(parts, getattr(arguments, f"{split}_split"))
    report = DataReport(
        " + ".join(arguments.dataset), source.kind, str(source.split), source.language, note=source.note
    )
    limits = Limits(
        min_seconds=arguments.min_seconds,
        max_seconds=arguments.max_seconds,
        max_hours=arguments.max_train_hours if split == "train" else None,
        max_clips={"validation": arguments.max_validation_clips, "test": arguments.max_test_clips}.get(split),
        seed=arguments.subset_seed,
    )
    report.subset = _describe_subset(limits, source)

    def normalize(clip: Clip) -> str:
        return normalize_text(clip.text, clip.language or source.language)

    dataset = _write(select_clips(source, limits, normalize, report), source, report)
    if len(parts) == 1:
        dataset = dataset.remove_columns("dataset")
    report.parts = reports_of(parts, report, dataset)
    return dataset, report


def _describe_subset(limits: Limits, source: Source) -> str | None:
    if not limits.is_subset:
        return None
    amount = f"{limits.max_clips:,} clips" if limits.max_hours is None else f"{limits.max_hours:g} hours"
    choice = "the first of the stream" if source.streaming else f"random by seed {limits.seed}"
    return f"at most {amount}, {choice}"


def _write(kept: Iterable[KeptClip], source: Source, report: DataReport) -> datasets.Dataset:
    """Put the kept clips on disk as they come: neither a stream nor a corpus has to fit into memory."""
    path = str(_temporary_folder(Path(config.HF_DATASETS_CACHE)) / "clips.arrow")
    with (
        naming_what_has_no_room(f"{path} (a copy of the clips; HF_DATASETS_CACHE names another place)"),
        ArrowWriter(path=path, features=FEATURES, writer_batch_size=ROWS_PER_BATCH) as writer,
    ):
        for kept_clip in kept:
            try:
                audio = source.read_audio(kept_clip.clip)
            except AudioError as error:  # an address that answered when the clip was checked
                report.take_back(Drop(kept_clip.clip.id, error.reason, str(error)), kept_clip.seconds)
                continue
            writer.write(
                {
                    "id": kept_clip.clip.id,
                    "audio": audio,
                    "text": kept_clip.text,
                    "raw_text": kept_clip.clip.text,
                    "duration": kept_clip.seconds,
                    "speaker": kept_clip.clip.speaker,
                    "language": kept_clip.clip.language or source.language,
                    "dataset": kept_clip.clip.dataset,
                }
            )
        writer.finalize()
    return datasets.Dataset.from_file(path).cast_column("audio", datasets.Audio(decode=False))


def _temporary_folder(cache: Path) -> Path:
    """A folder of this process, removed at its end, or by the next process if it could not do so itself."""
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{PREFIX}lock"):
        for left in cache.glob(f"{PREFIX}*/{IN_USE}"):
            with contextlib.suppress(Timeout), FileLock(left, timeout=0):
                shutil.rmtree(left.parent, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=cache))
        lock = FileLock(folder / IN_USE)
        lock.acquire()
    atexit.register(_remove, folder, lock)
    return folder


def _remove(folder: Path, lock: BaseFileLock) -> None:
    lock.release()  # first, or Windows would keep the file
    shutil.rmtree(folder, ignore_errors=True)
