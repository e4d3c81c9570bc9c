"""The console command: `slam-asr COMMAND ...`, which is also `python -m slam_asr COMMAND ...`.

    accelerate launch -m slam_asr train nl-medium --dataset my-speech

Every command is the code of a script or module that can be started by itself as well. Nothing of the package
is imported before a command is known, as torch takes seconds. To add a command: a row in `COMMANDS`.
"""

import difflib
import importlib
import re
import signal
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PACKAGE = HERE / "modeling_slam"
EXTRAS = {"matplotlib": "plots", "tabulate": "study", "gradio": "app"}
EXTRAS |= {"fastapi": "serve", "uvicorn": "serve", "prometheus_client": "serve"}


class Command(NamedTuple):
    module: str  # whose `main` takes the arguments
    arguments: str
    help: str
    before: tuple[str, ...] = ()  # comes before the arguments
    parts: tuple[str, ...] = ()  # commands of its own


STUDY = "modeling_slam.study.__main__"
PARTS = ("run", "list", "report", "publish")
COMMANDS = {
    "train": Command("train", "[RECIPE]", "Train a model: recipe in, checkpoint out."),
    "eval": Command("eval", "--model MODEL", "Error rates of a checkpoint on a dataset."),
    "transcribe": Command("modeling_slam.transcription.__main__", "MODEL FILES...",
                          "Text and subtitles of recordings."),
    "serve": Command("modeling_slam.serving.__main__", "MODEL", "The same over HTTP, as OpenAI's API."),
    "app": Command("modeling_slam.app.__main__", "MODEL", "A page with microphone, files, subtitles."),
    "plan": Command("modeling_slam.plan.__main__", "[RECIPE]", "Memory, disk and time of a training."),
    "probe": Command("modeling_slam.training.depth_probe", "[RECIPE]",
                     "How many encoder layers a language needs."),
    "study": Command(STUDY, "COMMAND", "Grids of runs: run, list, report, publish.", parts=PARTS),
    "report": Command(STUDY, "STUDY_DIR", "Tables and plots of a study.", before=("report",)),
    "publish": Command("modeling_slam.publishing.__main__", "MODEL",
                       "Check a checkpoint, push it to the Hub."),
    "demo": Command("modeling_slam.demo.quickstart", "", "Train and evaluate on embedded speech, offline."),
}  # fmt: skip
USAGE = "\n".join(
    [
        "usage: slam-asr COMMAND ...",
        "",
        *(f"  {f'{name} {row.arguments}':28}{row.help}" for name, row in COMMANDS.items()),
        "",
        f"  {'completion bash|zsh':28}Print what makes the shell complete commands and flags.",
        "",
        "`slam-asr COMMAND --help` shows what is set most, `--help_all` everything. A recipe or",
        "study is a YAML file or the name of one of this project, such as nl-medium.",
    ]
)


def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    name, *rest = argv or [""]
    if name in ("-h", "--help", "help"):
        print(USAGE)
    elif name == "--version":
        print(f"slam-asr {version()}")
    elif name == "completion":
        complete(rest)
    elif name in COMMANDS:
        run(name, rest)
    else:
        near = difflib.get_close_matches(name, [*COMMANDS, "completion"], 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        what = f"there is no command {name!r}.{hint}" if name else "expected a command."
        print(f"{USAGE}\n\nslam-asr: error: {what}", file=sys.stderr)
        raise SystemExit(2)


def version() -> str:
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.*)"$', text, flags=re.MULTILINE)[0]


def run(name: str, arguments: list[str]) -> None:
    command = COMMANDS[name]
    sys.argv = [f"slam-asr {name}", *arguments]  # as which usage and errors name the program
    load(name).main([*command.before, *arguments])


def load(name: str):
    """The module of a command; Ctrl-C meanwhile shows no traceback of imports."""
    home = PACKAGE / "shipped" if (PACKAGE / "shipped").is_dir() else HERE  # of train.py and eval.py
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return importlib.import_module(COMMANDS[name].module)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise SystemExit(
            f"error: `slam-asr {name}` needs {error.name}, which is not installed: "
            f"pip install 'slam-asr[{EXTRAS[error.name]}]'"
        ) from error
    finally:
        signal.signal(signal.SIGINT, before)


def complete(arguments: list[str]) -> None:
    if arguments not in (["bash"], ["zsh"]):
        given = " ".join(arguments) or "none"
        print(f"usage: slam-asr completion bash|zsh\nerror: expected a shell, got {given}.", file=sys.stderr)
        raise SystemExit(2)
    from modeling_slam.common.completion import script

    words = {}
    for name, command in COMMANDS.items():
        for part in command.parts or ("",):
            words[f"{name} {part}".strip()] = (load(name).main, [*command.before, *filter(None, [part])])
    print(script(arguments[0], words))


if __name__ == "__main__":
    main()
