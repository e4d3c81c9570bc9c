"""The rules sort the paper's own examples of Table 6, as far as rules can."""

import pytest
from made_study import row, spec_of, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.error_types import error_type, kinds_of_recovered, names_in, recovered_utterances


@pytest.mark.parametrize(
    ("reference", "prediction", "raw", "kind"),
    [
        ("heel interessant", "zeer zeer zeer zeer zeer zeer", "Heel interessant.", "repetition"),
        ("de luchtvaartmaatschappij", "de luchtvaart maatschappij", "De luchtvaartmaatschappij",
         "compound word"),
        ("heaven forbid", "have fun for bit", "Heaven forbid!", "phonetic"),
        ("charlot var hos fru simonin", "chrisel var hos fru sinde", "Charlot var hos Fru Simonin",
         "named entity"),
        ("it is isoelectronic to benzene", "it is said to be a venetian dish",
         "It is isoelectronic to benzene.", "other"),
        ("out of sight out of mind", "at a site at a light", "Out of sight, out of mind.", "other"),
        ("one two", "", "One two", "empty"),
        ("one two", "one two", "One two", ""),
    ],
)  # fmt: skip
def test_the_papers_examples(reference, prediction, raw, kind):
    assert error_type(reference, prediction, raw, "da") == kind


def test_one_wrong_word_in_a_long_sentence_is_judged_by_itself():
    reference = "one two three four five six seven eight nine"
    assert error_type(reference, reference.replace("nine", "two"), reference, "en") == "other"
    assert error_type(reference, reference.replace("nine", "nines"), reference, "en") == "phonetic"


def test_a_repetition_in_the_reference_is_none():
    assert error_type("no no no no", "no no no no no", "No, no, no, no!", "en") != "repetition"


@pytest.mark.parametrize(
    ("text", "language", "names"),
    [
        ("Then Mary met John.", "en", {"mary", "john"}),
        ("Where? In Paris.", "en", {"paris"}),  # a sentence begins at In
        ("I think I'm late", "en", set()),
        ("all lower case", "en", set()),
        ("Der Hund ist da", "de", set()),  # German capitalises every noun
        ('He said "Amsterdam" twice', "en", {"amsterdam"}),
    ],
)
def test_names_are_capitals_inside_a_sentence(text, language, names):
    assert names_in(text, language) == names


def test_table_6_holds_what_lora_repaired_altogether(tmp_path):
    heard = {
        (6, "projector"): ["a b", "c d", "e f"],
        (4, "projector"): ["x x x x x", "c x", "y z"],  # WER 2.5, 0.5 and 1
        (4, "lora"): ["a b", "c d", "e z"],  # the third is not repaired
    }
    runs = [
        (
            spec_of(layers, mode, "en"),
            [row(i, said, texts[i]) for i, said in enumerate(["a b", "c d", "e f"])],
        )
        for (layers, mode), texts in heard.items()
    ]
    recovered = recovered_utterances(StudyResults.load(write_study(tmp_path, runs)))
    assert recovered[["id", "kind"]].values.tolist() == [["en/clip-0000", "repetition"]]
    (counts,) = kinds_of_recovered(recovered).to_dict("records")
    assert counts["repetition"] == 1
    assert counts["named entity"] == 0
