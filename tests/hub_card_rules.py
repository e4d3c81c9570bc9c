"""The Hub's rules for a model card's metadata, as far as its documentation and error messages tell.

The Hub checks each README.md at `/api/validate-yaml` and refuses a commit whose metadata breaks a rule. The
checker itself is not public; these rules follow https://huggingface.co/docs/hub/model-cards and its messages.
Written without the project's code, so that they judge it.
"""

import re
from typing import Any

import yaml

REPO_ID = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")
# Those that models of this kind can have; the Hub knows more.
LICENSES = {
    "apache-2.0", "mit", "openrail", "bsd-3-clause", "gpl-2.0", "gpl-3.0", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "llama3", "gemma", "unknown", "other",
}  # fmt: skip
RELATIONS = {"adapter", "merge", "quantized", "finetune"}


def check_card(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings."""
    block = re.match(r"^\s*---\r?\n([\S\s]*?)\r?\n---[ \t]*(\r?\n|$)", content)
    if block is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {error}"], []
    if not isinstance(data, dict):
        return ["The metadata must be an object"], []
    errors = [*_fields(data), *_model_index(data.get("model-index", []))]
    warnings = [f'"{name}" is empty' for name, value in data.items() if value in ("", [], None)]
    return errors, warnings


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def _fields(data: dict[str, Any]) -> list[str]:
    errors = []
    for name in ("library_name", "pipeline_tag", "license", "license_name", "license_link"):
        if name in data and not isinstance(data[name], str):
            errors.append(f'"{name}" must be a string')
    for name in ("tags", "metrics"):
        if any(not isinstance(value, str) for value in _listed(data.get(name))):
            errors.append(f'"{name}" must be an array of strings')
    for name in ("base_model", "datasets"):
        for index, value in enumerate(_listed(data.get(name))):
            if not isinstance(value, str) or not REPO_ID.fullmatch(value):
                errors.append(f'"{name}[{index}]" with value "{value}" is not valid. Use an id of the Hub.')
    for value in _listed(data.get("language")):
        if not LANGUAGE.fullmatch(str(value)):
            errors.append(f'"language" with value "{value}" is not valid. It must be an ISO 639 code.')
    if data.get("license", "other") not in LICENSES:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    if data.get("license") == "other" and not {"license_name", "license_link"} & data.keys():
        errors.append('"license: other" needs "license_name" or "license_link"')
    if data.get("base_model_relation", "finetune") not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of {sorted(RELATIONS)}')
    if "base_model_relation" in data and not data.get("base_model"):
        errors.append('"base_model_relation" needs "base_model"')
    return errors


def _model_index(index: Any) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for i, model in enumerate(index):
        if not isinstance(model.get("name"), str):
            errors.append(f'"model-index[{i}].name" is required')
        for j, result in enumerate(model.get("results", [])):
            place = f"model-index[{i}].results[{j}]"
            required = [("task", "type"), ("dataset", "type"), ("dataset", "name")]
            for part, name in required:
                if not isinstance(result.get(part, {}).get(name), str):
                    errors.append(f'"{place}.{part}.{name}" is required')
            for k, metric in enumerate(result.get("metrics") or [{}]):
                if not isinstance(metric.get("type"), str):
                    errors.append(f'"{place}.metrics[{k}].type" is required')
                if metric.get("value") is None:
                    errors.append(f'"{place}.metrics[{k}].value" is required')
    return errors
