"""What kind of error is this? Sorted by stated rules instead of by eye.

Each wrong transcript gets the first of `RULES` that holds:

1. empty: nothing was written.
2. repetition: a word or phrase stands four or more times in a row, and not so in the reference.
3. compound word: only the spaces differ ("luchtvaart maatschappijen" for "luchtvaartmaatschappijen").
4. named entity: names are at least a third of the reference words that are wrong. A name is a word that the
   original reference, inside a sentence, writes with a capital (so text without capitals has none, and
   languages that capitalise all nouns are left out).
5. phonetic: the words that differ are spelled alike: at most 40 % of their letters are wrong, spaces aside
   ("have fun for bit" for "heaven forbid").
6. other: idioms, world knowledge, drift of meaning and everything else that takes a reader to tell.

Rules look at letters, not at sounds or sense: read the examples before you quote the shares. To add a kind,
add its rule.
"""

# ruff: noqa: RUF001 (quotation marks are the subject here)

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jiwer
import pandas as pd

from modeling_slam.analysis.frames import BY, By, X, beside_mode
from modeling_slam.analysis.results import CURVE, StudyResults
from modeling_slam.analysis.tables import compared_runs
from modeling_slam.analysis.utterances import same_utterances
from modeling_slam.data import normalize_text
from modeling_slam.evaluation.loops import has_repeats
from modeling_slam.evaluation.metrics import count_character_errors

SEVERE_WER = 0.8  # of a transcript that LoRA recovers
NAME_SHARE = 1 / 3
PHONETIC_CER = 0.4
CAPITALISE_NOUNS = frozenset({"de", "lb", "nds"})
NEVER_NAMES = frozenset({"i", "i'm", "i'll", "i've", "i'd"})
END_OF_SENTENCE = re.compile(r"[.!?:…][\"'”’»)]*$")


@dataclass(frozen=True)
class WrongTranscript:
    """One utterance that a run got wrong: texts as scored, and the reference as the dataset wrote it."""

    reference: str
    prediction: str
    raw_reference: str
    language: str | None

    @cached_property
    def differing_words(self) -> tuple[list[str], list[str]]:
        """Reference words that were substituted or deleted, and what was written instead or besides."""
        (chunks,) = jiwer.process_words([self.reference], [self.prediction]).alignments
        reference, hypothesis = self.reference.split(), self.prediction.split()
        differing = [chunk for chunk in chunks if chunk.type != "equal"]
        return (
            [word for chunk in differing for word in reference[chunk.ref_start_idx : chunk.ref_end_idx]],
            [word for chunk in differing for word in hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]],
        )


def is_repetition(wrong: WrongTranscript) -> bool:
    return has_repeats(wrong.prediction.split()) and not has_repeats(wrong.reference.split())


def is_compound(wrong: WrongTranscript) -> bool:
    return without_spaces(wrong.reference) == without_spaces(wrong.prediction)


def is_named_entity(wrong: WrongTranscript) -> bool:
    names = names_in(wrong.raw_reference, wrong.language)
    missed, _written = wrong.differing_words
    missed_names = [word for word in missed if word in names]
    return bool(missed_names) and len(missed_names) >= NAME_SHARE * len(missed)


def is_phonetic(wrong: WrongTranscript) -> bool:
    missed, written = ("".join(words) for words in wrong.differing_words)
    return count_character_errors([missed], [written]).rate <= PHONETIC_CER


RULES: dict[str, Callable[[WrongTranscript], bool]] = {
    "empty": lambda wrong: not wrong.prediction,
    "repetition": is_repetition,
    "compound word": is_compound,
    "named entity": is_named_entity,
    "phonetic": is_phonetic,
    "other": lambda wrong: True,
}


def error_type(reference: str, prediction: str, raw_reference: str, language: str | None) -> str:
    """The kind of a wrong transcript; an empty string for a right one."""
    if reference == prediction:
        return ""
    wrong = WrongTranscript(reference, prediction, raw_reference, language)
    return next(name for name, holds in RULES.items() if holds(wrong))


def without_spaces(text: str) -> str:
    return text.replace(" ", "")


def names_in(raw_text: str, language: str | None) -> set[str]:
    """Words, as scored, that `raw_text` capitalises where no sentence begins."""
    if language in CAPITALISE_NOUNS:
        return set()
    names, begins = set(), True
    for token in raw_text.split():
        letters = token.lstrip("\"'“‘«(¿¡-")
        if not begins and letters[:1].isupper():
            names.update(normalize_text(token, language).split())
        begins = bool(END_OF_SENTENCE.search(token))
    return names - NEVER_NAMES


def kinds_of(frame: pd.DataFrame) -> list[str]:
    """The kind of each utterance: as its counts say, or by the rules from its texts."""
    if "kind" in frame:
        return list(frame["kind"])
    texts = (frame[name] for name in ("reference", "prediction", "raw_reference", "language"))
    return [error_type(*of_clip) for of_clip in zip(*texts, strict=True)]


def recovered_utterances(study: StudyResults, x: str = X, by: By = BY) -> pd.DataFrame:
    """Utterances with WER > 0.8 after the shallowest cut that LoRA makes perfect, by kind.

    Their texts are None where only counts were kept.
    """
    rows = []
    for key, names in compared_runs(study.runs, x, by):
        pruned = study.utterances(names["pruned"])
        with_lora = same_utterances(pruned, study.utterances(names["pruned_lora"]))
        pruned = pruned.assign(kind=kinds_of(pruned))
        for clip, row in pruned[(pruned["wer"] > SEVERE_WER) & (with_lora["errors"] == 0)].iterrows():
            lora = with_lora.loc[clip, "prediction"]
            text = {"reference": row["reference"], "pruned": row["prediction"], "pruned_lora": lora}
            rows.append(
                {
                    **key,
                    "dataset": row["dataset"],
                    "id": clip,
                    "kind": row["kind"],
                    **text,
                    "runs": [names["pruned"], names["pruned_lora"]],
                }
            )
    columns = [
        *CURVE,
        *beside_mode(by),
        x,
        "seed",
        "dataset",
        "id",
        "kind",
        "reference",
        "pruned",
        "pruned_lora",
        "runs",
    ]
    return pd.DataFrame(rows, columns=columns)


def kinds_of_recovered(recovered: pd.DataFrame) -> pd.DataFrame:
    """How many recovered utterances are of each kind, one row an encoder and language."""
    counts = pd.crosstab([recovered["encoder_name"], recovered["language"]], recovered["kind"])
    return counts.reindex(columns=list(RULES), fill_value=0).reset_index().rename_axis(columns=None)
