"""Runs that had not converged: by their WER, by their validations, or else by their training loss."""

import json
import shutil

import pytest
from made_study import make_study, row, spec_of, write_study

from modeling_slam.analysis import StudyResults
from modeling_slam.analysis.convergence import last_fall, not_converged


def log(**values: list[float]) -> list[dict]:
    """Each name's values at even steps up to 100."""
    return [
        {"step": 100 * (place + 1) / len(of_name), name: value}
        for name, of_name in values.items()
        for place, value in enumerate(of_name)
    ]


@pytest.mark.parametrize(
    ("history", "watched"),
    [
        (log(eval_wer=[0.9, 0.6, 0.5, 0.45, 0.3]), "validation WER"),
        (log(eval_wer=[0.9, 0.4, 0.31, 0.3, 0.29]), None),  # by less than a tenth
        (log(eval_wer=[0.9, 0.4, 0.02, 0.015, 0.01]), None),  # by less than a point
        (log(eval_wer=[0.9, 0.2, 0.2, 0.3, 0.25]), None),  # the best was earlier
        (log(eval_wer=[0.9, 0.2, 0.2, 0.2, 0.2], loss=[5.0, 4, 3, 2, 1] * 4), None),  # validations decide
        (log(eval_wer=[0.4], loss=[9.0] * 12 + [3.0] * 4 + [2.0] * 4), "training loss"),
        (log(loss=[9.0] * 12 + [3.0] * 4 + [2.0] * 4), "training loss"),
        (log(loss=[9.0] * 12 + [3.0] * 4 + [2.7] * 4), None),  # by less than a fifth
        (log(loss=[9.0, 3.0, 2.0]), None),  # too few to tell
        ([], None),
    ],
)
def test_the_last_fifth_of_the_steps_tells(history, watched):
    assert last_fall(history).get("watched") == watched


def test_a_fall_says_from_where_to_where():
    assert last_fall(log(eval_wer=[0.9, 0.6, 0.5, 0.45, 0.3])) == {
        "watched": "validation WER", "before": 0.45, "after": 0.3,
    }  # fmt: skip


@pytest.mark.parametrize("place", ["trainer_state.json", "model/trainer_state.json"])
def test_a_study_names_its_runs_that_had_not_converged(tmp_path, place):
    study = make_study(tmp_path, languages=["en"], utterances=20)
    state = study / "runs" / "base-6L-lora-en-s42" / place
    state.parent.mkdir(exist_ok=True)
    state.write_text(json.dumps({"log_history": log(eval_wer=[0.9, 0.6, 0.5, 0.45, 0.3])}))
    rows = [row(number, "one two", "six nine") for number in range(20)]
    write_study(tmp_path / "other", [(spec_of(6, "projector", "en") | {"name": "lost"}, rows)])
    shutil.copytree(tmp_path / "other" / "runs" / "lost", study / "runs" / "lost")
    found = not_converged(StudyResults.load(study)).set_index("name")
    assert dict(found["watched"]) == {"lost": "plateau", "base-6L-lora-en-s42": "validation WER"}
    assert found.loc["lost", "after"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '{"log_history"', '{"log_history": null}', '{"log_history": [{"loss": 3}, 7]}',
        '{"log_history": [{"step": 10, "eval_wer": 0.9}, {"step": 100, "eval_wer": null}]}',
        '{"log_history": [{"step": 10, "eval_wer": 0.9}, {"step": 100, "eval_wer": NaN}]}',
    ],
)  # fmt: skip
def test_a_damaged_log_leaves_the_wer_to_decide(tmp_path, text):
    study = make_study(tmp_path, languages=["en"], utterances=20)
    (study / "runs" / "base-6L-lora-en-s42" / "trainer_state.json").write_text(text)
    assert not_converged(StudyResults.load(study)).empty
