"""Evaluate a checkpoint: decode a dataset, write predictions.jsonl and metrics.json, print the scores.

    python eval.py --model runs/danish --output_dir results/danish
    python eval.py --model runs/danish --dataset other/da --language da --output_dir results/other
    python eval.py --model openai/whisper-base --baseline whisper --num_beams 1 --dataset ... --output_dir ...

Stop it at any time: the same command continues where it stopped. `accelerate launch` shares the clips out.
"""

import os
import shlex
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of the imports that Ctrl-C meets

import torch
from accelerate import PartialState

from modeling_slam.common.command_line import clear_errors, parse_arguments
from modeling_slam.common.files import check_writable, read_json, write_json
from modeling_slam.common.quantization import check_quantization
from modeling_slam.common.stopping import ends_in_one_line
from modeling_slam.data import DataArguments, load_for_run
from modeling_slam.data.collator import check_clip_lengths, check_lengths
from modeling_slam.evaluation.arguments import EvaluationArguments
from modeling_slam.evaluation.decoding import CtcRecogniser, SlamRecogniser, decode
from modeling_slam.evaluation.hotwords import with_hotwords
from modeling_slam.evaluation.own_run import flags_of_run
from modeling_slam.evaluation.predictions import OF_THE_CLIP, PredictionStore
from modeling_slam.evaluation.report import package_versions, score, summary
from modeling_slam.evaluation.settings import check_checkpoint, decoding_settings, text_style_of
from modeling_slam.evaluation.whisper_baseline import WhisperRecogniser, check_baseline
from modeling_slam.evaluation.whisper_rules import fetch_spellings
from modeling_slam.model.processing_slam import SlamAsrProcessor
from modeling_slam.paper.table1 import beside_paper

USUAL = {
    "model", "output_dir", "split", "baseline", "decoder", "text_style", "num_beams", "ctc_weight",
    "batch_size", "dataset", "language", "audio_column", "text_column", "max_test_clips",
}  # fmt: skip
DESCRIPTION = (
    "Decode a dataset with a checkpoint; write predictions.jsonl and metrics.json; print the scores."
)


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    with clear_errors():
        of_the_run = flags_of_run(argv)
    arguments, data = parse_arguments(
        EvaluationArguments, DataArguments, description=DESCRIPTION, argv=[*of_the_run, *argv], usual=USUAL
    )
    if of_the_run and os.environ.get("RANK", "0") == "0":
        print(f"As the model's run has it: {shlex.join(of_the_run)}")
    with ends_in_one_line(lambda: "The same command goes on where it stopped."), clear_errors((OSError,)):
        evaluate(arguments, data)


def evaluate(arguments: EvaluationArguments, data: DataArguments) -> None:
    state = PartialState(cpu=not torch.accelerator.is_available())
    device = state.device or torch.device("cpu")
    dtype = arguments.torch_dtype(device)

    # Everything that can be wrong is found before a weight is loaded.
    with clear_errors():
        check_writable(arguments.output_dir, "output_dir")
        check_quantization(arguments.quantization, device)
        config_path = check_checkpoint(
            arguments.model, arguments.baseline, arguments.decoder, arguments.ctc_weight
        )
        config = read_json(config_path)
        text_style = arguments.text_style or text_style_of(config)
        with state.local_main_process_first():  # one process of a machine unpacks an archive for all
            directory = arguments.output_dir if state.is_main_process else None
            dataset, data_report = load_for_run(data, arguments.split, directory)
        if arguments.baseline == "whisper":
            check_clip_lengths(dataset)
        else:
            processor = SlamAsrProcessor.from_pretrained(arguments.model)
            check_lengths(dataset, processor)
            dataset = with_hotwords(dataset, arguments, processor, text_style_of(config))
        settings = decoding_settings(arguments, data, config_path, dataset, str(dtype).removeprefix("torch."))
        language = check_baseline(arguments, dataset) if arguments.baseline == "whisper" else None
        store = PredictionStore(arguments.output_dir)
        with state.main_process_first():
            (store.start if state.is_main_process else store.check_settings)(settings)
            store.check(dataset.select_columns(["id", *OF_THE_CLIP.values()]).to_list())
    state.print(data_report.summary() + beside_paper(data_report))

    with clear_errors():
        if arguments.baseline == "whisper":
            recogniser = WhisperRecogniser(arguments, device, language)
        else:
            recogniser = {"llm": SlamRecogniser, "ctc": CtcRecogniser}[arguments.decoder](arguments, device)
    batches = (arguments.batch_size, arguments.num_workers, arguments.batch_seconds)
    decode(recogniser, dataset, store, state, *batches)

    if state.is_main_process:
        fetch_spellings(config.get("audio_model_id", arguments.model), dataset["language"])
        with clear_errors((RuntimeError,)):
            predictions = store.finish(expected=len(dataset))
        metrics = {
            **score(predictions, arguments.token_limit, arguments.batch_mean_size, text_style),
            "parameters": recogniser.parameter_counts(),
            "settings": {
                **settings,
                "text_style": text_style,
                "processes": state.num_processes,
                "batch_size": arguments.batch_size,
                "batch_seconds": arguments.batch_seconds,
            },
            "versions": package_versions(),
            "data": data_report.to_dict(),
        }
        write_json(store.directory / "metrics.json", metrics)
        print(summary(metrics, predictions))
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
