"""Mozilla Data Collective: `mdc:<dataset id>` fetches a Common Voice release and reads it as an archive.

Needs the optional package (`pip install "slam-asr[mdc]"`), a key in MDC_API_KEY, and the dataset's terms
accepted on its page. The client keeps the archive under MDC_DOWNLOAD_PATH and resumes broken downloads.

Source: https://github.com/Mozilla-Data-Collective/datacollective-python
"""

import os

from modeling_slam.data.arguments import OneDataset
from modeling_slam.data.clips import DataError, Source
from modeling_slam.data.sources.common_voice import open_release

PREFIX = "mdc:"
DESCRIPTION = "mdc:<dataset id> at the Mozilla Data Collective"


def recognises(dataset: str) -> bool:
    return dataset.startswith(PREFIX)


def open_source(dataset: str, arguments: OneDataset, split: str) -> Source:
    dataset_id = dataset.removeprefix(PREFIX)
    if not dataset_id:
        raise DataError("`dataset` is 'mdc:' without an id; copy the id from the dataset's page.")
    try:
        import datacollective  # Optional. Importing it also reads a .env file, which may hold the key.
    except ImportError as error:
        raise DataError(
            f'{dataset} needs the package datacollective: `pip install "slam-asr[mdc]"`.'
        ) from error
    if not os.environ.get("MDC_API_KEY"):
        raise DataError(
            f"{dataset} needs your key: create one at "
            "https://mozilladatacollective.com and set it as MDC_API_KEY in the environment."
        )
    archive = datacollective.download_dataset(dataset_id)
    return open_release(archive, arguments, split)
