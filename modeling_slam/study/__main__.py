"""The study from the command line.

python -m modeling_slam.study run studies/demo.yaml --dry_run
python -m modeling_slam.study run studies/demo.yaml --output_dir runs/demo-study --workers 2
python -m modeling_slam.study report runs/demo-study --paper
python -m modeling_slam.study list runs/demo-study
"""

import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

import datasets

from modeling_slam.common.command_line import clear_errors, parse_arguments, print_any_text, program
from modeling_slam.common.shipped import did_you_mean
from modeling_slam.publishing.hub import open_hub
from modeling_slam.study.arguments import (
    ListStudyArguments,
    PublishStudyArguments,
    ReportArguments,
    RunStudyArguments,
)
from modeling_slam.study.engine import run_study
from modeling_slam.study.grid import load_study
from modeling_slam.study.plan import aligned, describe
from modeling_slam.study.publish import files_of, publish_study, render_card
from modeling_slam.study.schedulers import Local, Ray, Scheduler, Slurm, visible_gpus
from modeling_slam.study.store import RunState, StudyStore

PROGRAM = "modeling_slam.study"


def main(argv: list[str] | None = None) -> None:
    print_any_text()
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in COMMANDS:
        asked = bool(argv) and argv[0] in ("-h", "--help")
        hint = did_you_mean(argv[0], COMMANDS) if argv else ""
        error = f"\nerror: expected one of the commands above, got {argv[:1]}.{hint}"
        print(overview() + ("" if asked else error), file=sys.stdout if asked else sys.stderr)
        raise SystemExit(0 if asked else 2)
    command, _ = COMMANDS[argv[0]]
    command(argv[1:])


def run(argv: list[str]) -> None:
    arguments: RunStudyArguments = parse(RunStudyArguments, "run", "study", argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    datasets.disable_progress_bars()  # one bar is enough
    # A scheduler or `kill` asks by SIGTERM what a user asks by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with clear_errors():
        study = load_study(arguments.study, arguments.set)
        if arguments.dry_run:
            print(describe(study))
            return
        directory = arguments.output_dir or f"runs/{study.name}-study"
        try:
            outcome = run_study(
                study,
                directory,
                scheduler(arguments, directory),
                arguments.threads,
                arguments.max_attempts,
                arguments.keep_models,
                arguments.only,
                arguments.cache_features,
                arguments.cache_max_gb,
                arguments.results,
            )
        except KeyboardInterrupt:
            look = f"{program(PROGRAM)} list {directory}"
            print(f"\nStopped. The same command goes on; see {look}", file=sys.stderr)
            raise SystemExit(130) from None
    print(f"{outcome.finished} of {outcome.total} finished in {outcome.directory}")
    if outcome.failures:
        names = ", ".join(failure.name for failure in outcome.failures)
        raise SystemExit(f"error: {len(outcome.failures)} failed: {names}. See log.txt of each.")
    print(f"Next: {program(PROGRAM)} report {directory}")


def scheduler(arguments: RunStudyArguments, directory: str) -> Scheduler:
    workers = arguments.workers or len(visible_gpus()) or 1
    if arguments.scheduler == "ray":
        return Ray(workers, arguments.ray_address)
    if arguments.scheduler == "slurm":
        return Slurm(workers, StudyStore(directory).directory / "slurm", arguments.slurm_parameters)
    return Local(workers)


def list_runs(argv: list[str]) -> None:
    arguments: ListStudyArguments = parse(ListStudyArguments, "list", "study_dir", argv)
    with clear_errors():
        store = StudyStore(arguments.study_dir)
        _, specs = store.read()
        rows = [("run", "state", "attempts", "training s", "evaluation s", "commit")]
        for spec in specs:
            record = store.record(spec)
            state = record or RunState.read(store.run_directory(spec))
            words = "finished" if record else "begun" if state.started else "not begun"
            commit = (record.commit or "") if record else ""
            rows.append(
                (spec.name, words, str(state.attempts), f"{state.train_seconds:.0f}",
                 f"{state.evaluate_seconds:.0f}", commit[:10])
            )  # fmt: skip
        print("\n".join(aligned(rows)))
        done = sum(row[1] == "finished" for row in rows)
        print(f"\n{done} of {len(specs)} runs finished.")


def publish(argv: list[str]) -> None:
    arguments: PublishStudyArguments = parse(PublishStudyArguments, "publish", "study_dir repo_id", argv)
    with clear_errors():
        store = StudyStore(arguments.study_dir)
        if arguments.dry_run:
            print(render_card(store, arguments.repo_id, arguments.license))
            print("\n".join(["Files:", *files_of(store), "Dry run: nothing was sent."]))
            return
        published = publish_study(
            open_hub(), arguments.study_dir, arguments.repo_id, arguments.private, arguments.license
        )
    print(f"Published: {published.url}")


def name_of(command: str) -> str:
    """`slam-asr study report`, or `slam-asr report` if it was started so."""
    start = program(PROGRAM)
    return start if start.endswith(f" {command}") else f"{start} {command}"


def parse(kind: Any, command: str, first: str, argv: list[str]) -> Any:
    """The command's arguments; those named in `first` may stand at the beginning without their flags."""
    names, flags = first.split(), list[str]()
    while names and argv and not argv[0].startswith("-"):
        flags += [f"--{names.pop(0)}", argv[0]]
        argv = argv[1:]
    argv = [*flags, *argv]
    usage = f"{name_of(command)} {first.upper()} [--flag value ...]"
    (arguments,) = parse_arguments(kind, description=COMMANDS[command][1], argv=argv, usage=usage)
    return arguments


def report(argv: list[str]) -> None:
    arguments: ReportArguments = parse(ReportArguments, "report", "study_dir", argv)
    try:
        from modeling_slam.paper.view import paper_view
        from modeling_slam.report.pages import write_report
        from modeling_slam.report.view import View
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"error: the report needs {error.name}, which is not installed: pip install 'slam-asr[study]'"
        ) from error
    with clear_errors():
        view = paper_view(beside=arguments.paper)
        if arguments.chooses_axes:
            view = View(x=arguments.x, lines=arguments.lines)
        directory = write_report(
            arguments.study_dir, arguments.output, view, arguments.clips, arguments.withhold
        )
    print(f"The report is in {directory}: report.html, report.md, errors.html, tables/, plots/")


COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "run": (run, "Run a study file, or go on with it; with --dry_run say what it would run and cost."),
    "report": (report, "Tables, plots and an error browser of a study, finished or not."),
    "publish": (publish, "Put index, predictions and scores of a study on the Hub, as a dataset."),
    "list": (list_runs, "List the runs of a study: which are finished, and what they took."),
}


def overview() -> str:
    lines = [f"  {name:10}{text}" for name, (_, text) in COMMANDS.items()]
    start = program(PROGRAM)
    more = f"{start} COMMAND --help shows the settings of a command."
    return "\n".join([f"usage: {start} COMMAND ...", "", *lines, "", more])


if __name__ == "__main__":
    main()
