"""Completion of commands, flags and choices in a shell: a script that holds all words, so Tab is instant.

What could be asked at each Tab would import torch first. The script is printed anew after an update.
"""

import contextlib
import io
import shlex
from collections.abc import Callable, Mapping

from modeling_slam.common.command_line import LIST_FLAGS
from modeling_slam.common.shipped import shipped_names

ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
BASH = """\
# Completion of slam-asr for {shell}: put it where the shell finds it, such as
#   slam-asr completion bash > ~/.local/share/bash-completion/completions/slam-asr
_slam_asr() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    local command=${{COMP_WORDS[1]}} words=
    case "$command" in {with_parts}) [ "$COMP_CWORD" -gt 2 ] && command="$command ${{COMP_WORDS[2]}}" ;; esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} completion --help --version"
    elif [ "${{word:0:1}}" != - ]; then
        case "$command $before" in
{choices}
        esac
    fi
    if [ -z "$words" ]; then
        case "$command" in
{flags}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _slam_asr slam-asr"""


def script(shell: str, commands: Mapping[str, tuple[Callable[[list[str]], None], list[str]]]) -> str:
    """The script for bash or zsh.

    Args:
        commands: `train`, `study run`, ... -> the function that runs it, and what comes before its flags.
    """
    flags = {name: list_flags(main, before) for name, (main, before) in commands.items()}
    parts: dict[str, list[str]] = {}
    for name in commands:
        command, *part = name.split()
        parts.setdefault(command, []).extend(part)
    # What may follow a word, which is a flag or the last one of a command.
    following = {f"{name} {flag}": choices for name, known in flags.items() for flag, *choices in known}
    following |= {f"{command} {command}": names for command, names in parts.items()}
    following |= dict.fromkeys(("train train", "probe probe"), shipped_names("recipe"))
    following["study run run"] = shipped_names("study")
    text = BASH.format(
        shell=shell,
        commands=" ".join(parts),
        with_parts="|".join(name for name, own in parts.items() if own),
        choices="\n".join(case(key, words) for key, words in following.items() if words),
        flags="\n".join(
            case(name, [*(flag for flag, *_ in known), "--help", "--help_all"])
            for name, known in flags.items()
        ),
    )
    return (ZSH if shell == "zsh" else "") + text


def case(key: str, words: list[str]) -> str:
    return f"        {shlex.quote(key)}) words={shlex.quote(' '.join(words))} ;;"


def list_flags(main: Callable[[list[str]], None], before: list[str]) -> list[list[str]]:
    """Each flag of a command, followed by its choices."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*before, LIST_FLAGS])
    return [line.split() for line in printed.getvalue().splitlines()]
