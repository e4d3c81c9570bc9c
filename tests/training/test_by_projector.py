"""Defaults that follow from the projector's type."""

import pytest

from modeling_slam.model.projectors import PROJECTORS
from modeling_slam.training import by_projector
from modeling_slam.training.alignment import AlignmentArguments, wants_head
from modeling_slam.training.arguments import LoraArguments, ModelArguments, RunArguments
from modeling_slam.training.assembly import build_config
from modeling_slam.training.by_projector import BY_PROJECTOR, PAPER, settle

OTHERS = {
    "projector_context": 7,
    "llm_input": "gated",
    "drop_blanks": 0.95,
    "ctc_weight": 0.3,
    "align_epochs": 6.0,
}


@pytest.fixture
def run_args(tmp_path) -> RunArguments:
    return RunArguments(output_dir=str(tmp_path), use_cpu=True)


def test_every_projector_has_a_default_of_each_of_these_settings():
    assert set(BY_PROJECTOR) == set(PROJECTORS)
    assert all(set(row) == set(PAPER) == set(OTHERS) for row in BY_PROJECTOR.values())


@pytest.mark.parametrize("projector", PROJECTORS)
def test_the_defaults_of_every_projector_make_a_model(world, run_args, projector):
    model = ModelArguments(encoder=str(world.encoder), llm=str(world.llm), projector_type=projector)
    align = AlignmentArguments()
    settle(projector, align, run_args)
    assert None not in (model.projector_context, model.llm_input, align.align_epochs, run_args.ctc_weight)
    wants_head(build_config(model, LoraArguments()), align, run_args)


def test_what_is_given_stays_and_what_is_not_is_the_projectors(run_args, monkeypatch):
    monkeypatch.setitem(by_projector.BY_PROJECTOR, "stack_mlp", OTHERS)
    model, align = ModelArguments(), AlignmentArguments()
    settle(model.projector_type, align, run_args)
    settled = vars(model) | vars(align) | vars(run_args)
    assert {name: settled[name] for name in OTHERS} == OTHERS
    given = ModelArguments(projector_context=1, llm_input="projector", drop_blanks=1.0)
    assert (given.projector_context, given.llm_input, given.drop_blanks) == (1, "projector", 1.0)
    qformer = ModelArguments(projector_type="qformer")
    assert (qformer.projector_context, qformer.llm_input, qformer.drop_blanks) == (1, "projector", None)


def test_drop_blanks_1_leaves_nothing_out_and_needs_no_head(world, run_args):
    model = ModelArguments(
        encoder=str(world.encoder), llm=str(world.llm), drop_blanks=1.0, llm_input="projector"
    )
    config = build_config(model, LoraArguments())
    assert config.drop_blanks is None
    assert not wants_head(config, AlignmentArguments(align_epochs=0.0), run_args)


def test_an_alignment_of_changed_clips_needs_the_stage(world, run_args):
    model = ModelArguments(encoder=str(world.encoder), llm=str(world.llm), llm_input="projector")
    align = AlignmentArguments(align_epochs=0.0, align_augmented=True)
    with pytest.raises(ValueError, match=r"`--align_augmented`.* needs `--align_epochs`"):
        wants_head(build_config(model, LoraArguments()), align, run_args)
