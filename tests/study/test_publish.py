"""A study goes to the Hub as a dataset, in one commit, without its models."""

import io

import pandas as pd
import pytest
from fake_hub import FakeHub
from huggingface_hub import HfApi, constants

from modeling_slam.publishing import hub as publishing_hub
from modeling_slam.publishing.hub import PublishError
from modeling_slam.study import load_study, run_study
from modeling_slam.study.publish import publish_study
from modeling_slam.study.store import StudyError

REPO = "org/tiny-study"


@pytest.fixture
def study_dir(study_file, stand_ins, tmp_path):
    run_study(load_study(study_file(baselines=True)), tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(publishing_hub, "PAUSES", (0.01,))
    with FakeHub() as hub:
        yield hub


def test_index_records_scores_and_predictions_are_published_and_models_are_not(study_dir, hub):
    published = publish_study(HfApi(hub.url, token=hub.token), study_dir, REPO, license="cc-by-4.0")
    assert hub.count("POST", "/api/datasets/org/tiny-study/commit/main") == 1
    head = hub.repositories[REPO].head
    assert published.commit == head.oid
    run = "runs/tiny-3L-projector-en-s42"
    expected = {f"{run}/run.json", f"{run}/metrics.json", f"{run}/predictions.jsonl", f"{run}/counts.parquet",
                "index.parquet",
                "study.json", "README.md", "baselines/tiny-en/metrics.json"}  # fmt: skip
    assert expected <= head.files.keys()
    assert not [path for path in head.files if "model" in path or path.endswith(("lock", "log.txt"))]
    index = pd.read_parquet(io.BytesIO(head.files["index.parquet"].content))
    assert len(index) == 2
    card = head.files["README.md"].content.decode()
    assert "license: cc-by-4.0" in card
    assert "| tiny-3L-projector-en-s42 | tiny | 3 | projector | en | 50.00 | 40.00 | 60.00 |" in card


def test_what_the_hub_refuses_is_told_and_nothing_is_half_there(study_dir, hub):
    with pytest.raises(PublishError, match=r"Nothing of this version is visible.*may not write to org"):
        publish_study(HfApi(hub.url, token=hub.read_token), study_dir, REPO)
    hub.fail("POST", "/commit/", "500", times=9)
    with pytest.raises(PublishError, match="Run the same command again later"):
        publish_study(HfApi(hub.url, token=hub.token), study_dir, REPO)
    assert hub.repositories[REPO].head.files.keys() == {".gitattributes"}


def test_a_study_without_a_finished_run_is_not_published(study_file, stand_ins, tmp_path):
    (stand_ins / "failures").write_text("99")
    run_study(load_study(study_file()), tmp_path / "out", max_attempts=1)
    with pytest.raises(StudyError, match="no run is finished"):
        publish_study(HfApi("http://127.0.0.1:9", token="hf_none"), tmp_path / "out", REPO)
