"""Hotwords in an evaluation: which are told for each clip, and what came of them.

Recall says how many of the told words that are said were written; the parroting rate, how many of those that
are not said were written nevertheless. A model that writes whatever it is told has both at 1.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import datasets

from modeling_slam.data.hotwords import MAX_SAID, HotwordDraws, occurrences, read_hotwords
from modeling_slam.data.text import in_style, normalize_text
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.predictions import Prediction
from modeling_slam.model.configuration_slam import TextStyle
from modeling_slam.model.processing_slam import SlamAsrProcessor

HOTWORDS = "hotwords"  # column of the clips that are decoded, field of predictions, section of metrics.json
Drawn = Literal["oracle", "mixed", "distractors"]


def with_hotwords(
    dataset: datasets.Dataset,
    arguments: EvaluationArguments,
    processor: SlamAsrProcessor,
    style: TextStyle,
) -> datasets.Dataset:
    """The clips with the column `HOTWORDS`, if `--hotwords` is given.

    Raises:
        ValueError: the model cannot be told any, or the file cannot be read.
    """
    if arguments.hotwords is None:
        return dataset
    if arguments.hotwords in get_args(Drawn):
        texts = in_style(dataset, style)["text"][:]
        reserved = processor.tokenizer.get_added_vocab()
        draws = HotwordDraws(texts, dataset["language"][:], arguments.hotword_count, reserved=reserved)
        said = 0 if arguments.hotwords == "distractors" else min(MAX_SAID, arguments.hotword_count)
        total = said if arguments.hotwords == "oracle" else arguments.hotword_count
        told = [draws.drawn(draws.generator(row), row, text, said, total) for row, text in enumerate(texts)]
        processor.checked_hotwords(next(filter(None, told), None))
    else:
        languages = dataset["language"][:]
        words = {
            language: read_hotwords(arguments.hotwords, processor, style, language)
            for language in set(languages)
        }
        told = [words[language] for language in languages]
    features = datasets.Features({HOTWORDS: datasets.List(datasets.Value("string"))})
    return datasets.concatenate_datasets(
        [dataset, datasets.Dataset.from_dict({HOTWORDS: told}, features=features)], axis=1
    )


def hotword_scores(rows: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """The section `hotwords` of metrics.json; empty where none were told.

    `said` and `recall`: told words in the references, each time they are said, and the share of them in the
    prediction of the same clip. `not_said` and `parroting`: told words that are not in the clip's reference,
    and the share of them in its prediction.
    """
    said = written = absent = parroted = 0
    for row in rows:
        reference, prediction = row.reference.split(), row.prediction.split()
        for word in row.hotwords or ():
            phrase = normalize_text(word, row.language).split()
            count, found = occurrences(phrase, reference), occurrences(phrase, prediction)
            said, written = said + count, written + min(count, found)
            absent, parroted = absent + (not count), parroted + bool(found and not count)
    if all(row.hotwords is None for row in rows):
        return {}
    return {
        HOTWORDS: {
            "said": said,
            "recall": written / max(said, 1),
            "not_said": absent,
            "parroting": parroted / max(absent, 1),
        }
    }


def summary_of(metrics: dict[str, Any]) -> list[str]:
    """Its line of the summary."""
    if HOTWORDS not in metrics:
        return []
    told = metrics[HOTWORDS]
    return [
        f"hotwords: {100 * told['recall']:.2f} % of {told['said']:,} said were written, "
        f"{100 * told['parroting']:.2f} % of {told['not_said']:,} not said were parroted"
    ]
