"""A study spans the axes of the table, and a run's name, flags and row of the index say where it stands."""

import pandas as pd
import pytest
from tiny_world import PLAIN

from modeling_slam.analysis import StudyResults
from modeling_slam.study import load_study, run_study
from modeling_slam.study.axes import AXES, FURTHER

HOURS = "max_train_hours=[1, 2.5, 10]"


def test_hours_of_training_speech_are_an_axis(study_file):
    study = load_study(study_file(), [HOURS])
    assert [spec.name for spec in study.specs] == [
        f"tiny-{depth}L-projector-en-{hours}h-s42" for depth in (3, 1) for hours in ("1", "2.5", "10")
    ]
    for spec, run in zip(study.specs, study.runs, strict=True):
        assert spec.axes == {"max_train_hours": spec.train_flags["max_train_hours"]}
        assert run.data.max_train_hours == spec.axes["max_train_hours"]  # the estimate of cost follows
    assert {spec.axes["max_train_hours"] for spec in study.specs} == {1, 2.5, 10}
    assert study.axes == {"max_train_hours": "hours of training speech"}


def test_a_run_is_told_its_hours_and_the_index_has_them(study_file, stand_ins, tmp_path):
    run_study(load_study(study_file(), ["max_train_hours=[1, 5]"]), tmp_path / "out")
    log = (tmp_path / "out" / "runs" / "tiny-1L-projector-en-5h-s42" / "log.txt").read_text()
    assert "--max_train_hours 5" in log.splitlines()[0]
    index = pd.read_parquet(tmp_path / "out" / "index.parquet")
    assert sorted(index["max_train_hours"]) == [1, 1, 5, 5]
    results = StudyResults.load(tmp_path / "out")
    assert results.axes == {"max_train_hours": "hours of training speech"}
    assert results.runs["max_train_hours"].tolist() == [1, 5, 1, 5]


def test_a_value_is_what_train_py_reads_of_it(study_file):
    (spec, _) = load_study(study_file(), ["max_train_hours=[5e-1]"]).specs  # a word to YAML
    assert spec.name == "tiny-3L-projector-en-0.5h-s42"
    assert spec.axes == {"max_train_hours": 0.5}


def test_a_study_without_further_axes_keeps_its_names_and_its_recipes_hours(study_file, world, tmp_path):
    (tmp_path / "recipe.yaml").write_text("max_train_hours: 3\n")
    path = study_file(recipe=str(tmp_path / "recipe.yaml"))
    plain = load_study(path)
    assert [spec.name for spec in plain.specs] == ["tiny-3L-projector-en-s42", "tiny-1L-projector-en-s42"]
    assert {spec.train_flags["max_train_hours"] for spec in plain.specs} == {3}
    spanned = load_study(path, ["max_train_hours=[1]"])  # an axis replaces what the recipe says of it
    assert {spec.train_flags["max_train_hours"] for spec in spanned.specs} == {1}


VARIANTS = "variant={plain: {}, wide: {projector_stack: 2, learning_rate: 0.5}}"


def test_a_variant_changes_what_recipe_and_study_say(study_file):
    path = study_file(train={**PLAIN, "learning_rate": 0.25, "projector_stack": 3})
    study = load_study(path, [VARIANTS, "encoders.tiny.keep_layers=[3]"])
    flags = {spec.name: spec.train_flags for spec in study.specs}
    assert list(flags) == ["tiny-3L-projector-en-plain-s42", "tiny-3L-projector-en-wide-s42"]
    plain, wide = flags.values()
    assert (plain["projector_stack"], plain["learning_rate"]) == (3, 0.25)
    assert (wide["projector_stack"], wide["learning_rate"]) == (2, 0.5)
    assert [run.config.projector_stack for run in study.runs] == [3, 2]
    assert [spec.axes for spec in study.specs] == [{"variant": "plain"}, {"variant": "wide"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["variant={deep: {keep_layers: 2}}"], "`variant` deep sets keep_layers, which the study itself"),
        (["variant={wide: {projector_stacks: 2}}"], "unrecognized arguments: --projector_stacks"),
        (["variant={}"], "`variant` must name at least one"),
        (["variant=[wide]"], "`variant` must be names, each with the flags that it changes; got ['wide']"),
        (["variant={wide: 2}"], "`variant` must be names, each with the flags that it changes"),
        (["max_train_hours=5"], "`max_train_hours` must name at least one, each once; got 5"),
        (["max_train_hours=[]"], "`max_train_hours` must name at least one"),
        (["max_train_hours=[1, null]"], "`max_train_hours` must name at least one"),
        (["max_train_hours=[1, 1]"], "`max_train_hours` must name at least one, each once"),
        (["max_train_hours=[1, 1.0000001]"], "Two runs would be called tiny-1L-projector-en-1h-s42"),
        (["max_train_hours=[many]"], "invalid float value: 'many'"),
        (["max_train_hours=[0]"], "`max_train_hours` must be above 0"),
        (["max_train_hour=[1]"], "there is no setting `max_train_hour`. Did you mean `max_train_hours`?"),
        (["axes={}"], "there is no setting `axes`"),
        ([HOURS, "train.max_train_hours=3"], "sets max_train_hours, which the study itself gives"),
    ],
)
def test_what_is_wrong_with_an_axis_is_named(study_file, changes, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared below)
        load_study(study_file(), changes)
    assert message in str(raised.value)


def test_every_axis_says_what_it_is():
    assert all(axis.title and "{" in axis.label for axis in AXES.values())
    assert set(FURTHER) < set(AXES)
