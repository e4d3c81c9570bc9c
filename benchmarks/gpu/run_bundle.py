"""Runs a command of the benchmark from this folder: `python3 run.py gpu --out figures --minutes 8`.

The wheels beside this file are unpacked once, next to it or where temporary files go. numpy is taken from
this machine if it is there: its torch was made for it. Only Python and torch are needed.
"""

import importlib.util
import os
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OF_THE_MACHINE = ("numpy",)  # taken from here only where the machine has none


def fits(wheel: Path) -> bool:
    """Whether this Python can use the wheel, by its name: pure, for the stable interface, or for it alone."""
    python, abi, _ = wheel.stem.split("-")[-3:]
    major, minor = sys.version_info[:2]
    if abi == "abi3":
        return any(tag.startswith("cp3") and int(tag[3:]) <= minor for tag in python.split("."))
    return "py3" in python.split(".") or f"cp{major}{minor}" in python.split(".")


def unpacked(wheel: Path, place: Path) -> Path:
    target = place / wheel.stem
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=place) as half:
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(Path(half, "whole"))
            Path(half, "whole").rename(target)
    return target


def main() -> None:
    if importlib.util.find_spec("torch") is None:
        raise SystemExit(f"error: {sys.executable} has no torch; use the Python that has it.")
    place = HERE / "unpacked" if os.access(HERE, os.W_OK) else Path(tempfile.gettempdir(), "slam-asr-bundle")
    place.mkdir(exist_ok=True)
    first, last = [str(HERE / "code")], []
    for wheel in sorted((HERE / "wheels").glob("*.whl")):
        if fits(wheel):
            name = wheel.name.partition("-")[0]
            (last if name in OF_THE_MACHINE else first).append(str(unpacked(wheel, place)))
    sys.path[:1] = first
    sys.path += last
    # Sides and loader workers are processes of their own.
    os.environ["PYTHONPATH"] = os.pathsep.join([*first, *filter(None, [os.environ.get("PYTHONPATH")]), *last])
    os.environ |= {"HF_HUB_OFFLINE": "1", "USE_TORCHVISION": "0"}
    from benchmarks.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
