"""Several datasets read as one: `--dataset A B`.

A clip's id and its speaker get the name of its dataset in front, so that equal ones stay apart, and it keeps
the language of its dataset. Selection then sees one source: limits and the seed of a subset apply to all
clips together.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from modeling_slam.data.arguments import DataArguments, OneDataset
from modeling_slam.data.clips import Clip, DataError, Source
from modeling_slam.data.report import DataReport, Drop
from modeling_slam.data.shares import Role, open_split


@dataclass
class Part:
    """One of the datasets of a run, under the name that its ids get, with what it gave."""

    name: str
    source: Source
    report: DataReport

    @property
    def language(self) -> str | None:
        return self.source.language

    def clips(self) -> Iterator[Clip | Drop]:
        """Its clips as those of the whole; their locator is the source with its own clip."""
        for clip in self.source.clips:
            self.report.read_clips += 1
            if isinstance(clip, Drop):
                yield dataclasses.replace(clip, id=f"{self.name}/{clip.id}")
                continue
            speaker = None if clip.speaker is None else f"{self.name}/{clip.speaker}"
            yield dataclasses.replace(
                clip,
                id=f"{self.name}/{clip.id}",
                speaker=speaker,
                locator=(self.source, clip),
                dataset=self.name,
                language=self.language,
            )


def open_parts(arguments: DataArguments, role: Role) -> list[Part]:
    """The split of each dataset that the arguments name for a role.

    One that states no language is in that of the others, if they have one.

    Raises:
        DataError: one cannot be opened or is named twice, or has no known language beside others of several.
    """
    parts = []
    for name, one in zip(names_of(arguments.each), arguments.each, strict=True):
        source = open_split(one, arguments, role)
        report = DataReport(one.dataset, source.kind, str(source.split), source.language, note=source.note)
        parts.append(Part(name, source, report))
    languages = list(dict.fromkeys(part.language for part in parts if part.language))
    for part in parts:
        if part.language or not languages:
            continue
        if len(languages) > 1:
            raise DataError(
                f"`dataset` names sets in {' and '.join(languages)}, and {part.report.source} states no "
                "language. Give --language one for each, in their order."
            )
        part.source.language = part.report.language = languages[0]
    return parts


def names_of(each: Sequence[OneDataset]) -> list[str]:
    """The last part of each path or Hub id, and as many of those before it as tell all apart.

    Where one is read in several configurations or languages, these stand behind it.

    Raises:
        DataError: one stands there twice.
    """
    words = []
    keys = [key_of(one) for one in each]
    for one, key in zip(each, keys, strict=True):
        if keys.count(key) > 1:
            raise DataError(
                f"`dataset` names {one.dataset} twice; each dataset is read once, or once in each of several "
                "configurations (--dataset_config) or languages (--language), with one for each."
            )
        own = [word for word in Path(one.dataset).parts if word not in ("/", "..")] or [one.dataset]
        others = [other for other in keys if other[0] == key[0]]
        if len(others) > 1:
            configurations_differ = len({other[1] for other in others}) == len(others)
            own[-1] = "-".join([own[-1], *filter(None, key[1:2] if configurations_differ else key[1:])])
        words.append(own)
    for count in range(1, max(map(len, words)) + 1):
        names = ["/".join(word[-count:]) for word in words]
        if len(set(names)) == len(names):
            return names
    names = ", ".join(one.dataset for one in each)
    raise DataError(f"`dataset` names {names}, whose names do not differ; rename one of them.")


def key_of(one: OneDataset) -> tuple[str, str | None, str | None]:
    """What makes it another dataset than the others: its place, configuration and language."""
    return os.path.realpath(Path(one.dataset).expanduser()), one.dataset_config, one.language


def as_one(parts: Sequence[Part], split: str) -> Source:
    """The clips of all parts; streams take turns, so that a limit cuts off none of them. One is as it is."""
    if len(parts) == 1:
        return parts[0].source
    sources = [part.source for part in parts]
    streaming = any(source.streaming for source in sources)
    clips = [part.clips() for part in parts]
    return Source(
        kind=f"{len(parts)} datasets",
        split=sources[0].split if len({source.split for source in sources}) == 1 else split,
        language=sources[0].language if len({source.language for source in sources}) == 1 else None,
        clips=in_turn(clips) if streaming else itertools.chain.from_iterable(clips),
        read_audio=read_audio,
        streaming=streaming,
    )


def read_audio(clip: Clip) -> dict[str, Any]:
    source, own = clip.locator
    return source.read_audio(own)


def in_turn(streams: Sequence[Iterator[Clip | Drop]]) -> Iterator[Clip | Drop]:
    for clips in itertools.zip_longest(*streams):
        yield from (clip for clip in clips if clip is not None)


def reports_of(parts: Sequence[Part], whole: DataReport, kept: datasets.Dataset) -> list[DataReport]:
    """What each part gave, of the report on all of them and the clips kept; none where there is one part."""
    if len(parts) == 1:
        return []
    # The longest first: the name of one dataset may begin with another's.
    owners = sorted(parts, key=lambda part: -len(part.name))

    def report_of(clip_id: str) -> DataReport:
        return next(part.report for part in owners if clip_id.startswith(f"{part.name}/"))

    for clip_id, seconds in zip(kept["id"], kept["duration"], strict=True):
        report_of(clip_id).kept_clips += 1
        report_of(clip_id).kept_seconds += seconds
    for drop in whole.dropped:
        report_of(drop.id).dropped.append(drop)
    return [part.report for part in parts]
