"""A study as a dataset on the Hub: index, specifications, scores and predictions of all runs, no models.

One commit, so a version appears whole or not at all. Files name base models and data as the study file does.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from huggingface_hub import CommitOperationAdd, DatasetCard, DatasetCardData, HfApi

from modeling_slam.analysis.results import INDEX_FILE, STUDY_FILE
from modeling_slam.publishing.evidence import codes_of
from modeling_slam.publishing.hub import LOST, Published, PublishError, advice, cause_of, retried
from modeling_slam.study.store import StudyError, StudyStore

OF_AN_EVALUATION = ("metrics.json", "predictions.jsonl", "predictions.settings.json", "counts.parquet")
FILES = (
    STUDY_FILE, INDEX_FILE, "runs/*/run.json",
    *(f"{place}/{name}" for place in ("runs/*", "runs/*/ctc", "baselines/*") for name in OF_AN_EVALUATION),
)  # fmt: skip
CARD = "README.md"
COLUMNS = {
    "name": "run", "encoder_name": "encoder", "keep_layers": "layers", "mode": "trained",
    "language": "language", "wer": "WER %", "wer_low": "from", "wer_high": "to",
}  # fmt: skip


def files_of(store: StudyStore) -> list[str]:
    """What is published, as paths below the study's directory."""
    found = [path for pattern in FILES for path in sorted(store.directory.glob(pattern))]
    return [path.relative_to(store.directory).as_posix() for path in found]


def render_card(store: StudyStore, repo_id: str, license: str | None) -> str:
    """The dataset card, from the index.

    Raises:
        StudyError: no run is finished.
    """
    name, specs = store.read()
    if not (store.directory / INDEX_FILE).is_file():
        raise StudyError(f"{store.directory} has no {INDEX_FILE}: no run is finished. Run the study first.")
    index = pd.read_parquet(store.directory / INDEX_FILE)
    finished = set(index["name"])
    told = [spec.eval_flags.get("language", spec.language) for spec in specs if spec.name in finished]
    data = DatasetCardData(
        language=sorted({code for language in told for code in codes_of(language)}),
        license=license,
        pretty_name=f"slam-asr study {name}",
        task_categories=["automatic-speech-recognition"],
        tags=["slam-asr", "speech", "encoder-pruning", "predictions"],
        configs=[{"config_name": "runs", "data_files": INDEX_FILE}],
    )
    text = f"""---
{data.to_yaml()}
---

# slam-asr study {name}

Speech recognition with pruned Whisper encoders, a trained projector and an LLM: {len(index)} of {len(specs)}
runs, each with its specification (`runs/NAME/run.json`), scores (`metrics.json`) and transcripts
(`predictions.jsonl`). `{INDEX_FILE}` has one row a run:

```python
from datasets import load_dataset

runs = load_dataset("{repo_id}", "runs", split="train").to_pandas()
```

Word error rates on the test sets, with 95 % intervals over utterances:

{table(index)}
"""
    return str(DatasetCard(text))


def table(index: pd.DataFrame) -> str:
    rows = [COLUMNS.values(), ["---"] * len(COLUMNS)]
    for row in index.sort_values("name").to_dict("records"):
        rows.append([f"{100 * row[key]:.2f}" if key.startswith("wer") else str(row[key]) for key in COLUMNS])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def publish_study(
    api: HfApi, study_dir: str | Path, repo_id: str, private: bool = False, license: str | None = None
) -> Published:
    """Send the study in one commit, creating the dataset if need be.

    Raises:
        StudyError: there is nothing to publish. PublishError: the Hub refused; the message says what to do.
    """
    store = StudyStore(study_dir)
    card = render_card(store, repo_id, license)
    operations = [CommitOperationAdd(path, store.directory / path) for path in files_of(store)]
    operations.append(CommitOperationAdd(CARD, card.encode()))
    try:
        return send(api, operations, repo_id, private)
    except Exception as error:
        reason = cause_of(error)
        if not isinstance(reason, (OSError, ValueError, *LOST)):  # OSError: all answers of the Hub
            raise
        message = f"Nothing of this version is visible at datasets/{repo_id}. {advice(reason, repo_id)}"
        raise PublishError(message) from error


def send(api: HfApi, operations: Sequence[CommitOperationAdd], repo_id: str, private: bool) -> Published:
    kind = "dataset"
    retried(lambda: api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True))
    message = f"Publish {len(operations)} files of a study"
    info = retried(
        lambda: api.create_commit(repo_id, list(operations), commit_message=message, repo_type=kind)
    )
    return Published(repo_id, info.oid, f"{api.endpoint}/datasets/{repo_id}/tree/{info.oid}")
