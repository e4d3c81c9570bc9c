"""`python -m benchmarks bundle --out DIR`: a folder that runs `benchmarks gpu` where there is no network.

    python3 DIR/run.py gpu --out figures --minutes 8     # there: Python and torch are all it needs

It holds this project's code and wheels of what that needs beyond torch and what torch brings. The wheels are
packed from what is installed here, so nothing is fetched and the releases are those that were tested. What is
compiled for one Python alone is fetched for `--pythons`, by pip.
"""

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.sides import COMMIT_FILE, REPOSITORY, commit
from modeling_slam.common.command_line import clear_errors, parse_arguments

DESCRIPTION = "A folder that runs the GPU benchmark on a machine that has Python and torch but no network."
USAGE = "python -m benchmarks bundle --out DIR [--pythons 3.12 3.13]"
RUN = Path(__file__).with_name("run_bundle.py")
MOST_MB = 40
# What the benchmark imports and torch does not bring; torch has filelock, fsspec, jinja2, typing_extensions.
PACKAGES = (
    "transformers", "huggingface_hub", "tokenizers", "safetensors", "peft", "accelerate", "regex", "PyYAML",
    "packaging", "psutil", "tqdm", "httpx2", "httpcore2", "anyio", "h11", "idna", "sniffio", "truststore",
    "numpy",
)  # fmt: skip


@dataclass
class BundleArguments:
    """Where the bundle goes, and for which Pythons."""

    out: str = field(metadata={"help": "Directory of the bundle; it must not exist."})
    pythons: list[str] = field(
        default_factory=list,
        metadata={"help": "Further versions of Python (3.12), whose wheels pip fetches; without numpy."},
    )

    def __post_init__(self):
        if Path(self.out).exists():
            raise ValueError(f"`out` must not exist, {self.out} does.")


def main(argv: list[str] | None = None) -> None:
    [arguments] = parse_arguments(BundleArguments, description=DESCRIPTION, argv=argv, usage=USAGE)
    with clear_errors():
        print(make(Path(arguments.out), arguments.pythons))


def make(out: Path, pythons: list[str]) -> str:
    """Write the bundle, whole or not at all; what to do with it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as directory:
        made = Path(directory, "bundle")
        (made / "wheels").mkdir(parents=True)
        compiled = [name for name in PACKAGES if pack(name, made / "wheels")]
        for python in pythons:
            fetch([name for name in compiled if name != "numpy"], python, made / "wheels")
        for package in ("modeling_slam", "benchmarks"):
            copy_code(REPOSITORY / package, made / "code" / package)
        (made / "code" / COMMIT_FILE).write_text(f"{commit(REPOSITORY)}\n", encoding="utf-8")
        shutil.copy(RUN, made / "run.py")
        megabytes = sum(file.stat().st_size for file in made.rglob("*") if file.is_file()) / 1e6
        if megabytes > MOST_MB:
            raise ValueError(
                f"The bundle has {megabytes:.1f} MB, more than {MOST_MB}: give fewer `--pythons`."
            )
        made.rename(out)
    versions = " ".join([f"{sys.version_info.major}.{sys.version_info.minor}", *pythons])
    return (
        f"{out}: {megabytes:.1f} MB, for Python {versions} on {sys.platform}. There, with torch:\n"
        f"    python3 {out.name}/run.py gpu --out figures --minutes 8"
    )


def copy_code(source: Path, target: Path) -> None:
    """Python files and type marks; the demo's speech and models stay here."""
    for file in source.rglob("*.py"):
        if "assets" not in file.parts:
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)


def pack(name: str, wheels: Path) -> bool:
    """Write an installed package as the wheel that it came from; whether it is for this Python alone.

    Raises:
        ValueError: it is not installed.
    """
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(f"{name} is not installed here, and the bundle needs it.") from error
    tags = [
        line.removeprefix("Tag: ")
        for line in (package.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag: ")
    ]
    stem = f"{name.replace('-', '_')}-{package.version}"
    python, abi, platform = (
        ".".join(dict.fromkeys(part)) for part in zip(*(t.split("-") for t in tags), strict=True)
    )
    with zipfile.ZipFile(
        wheels / f"{stem}-{python}-{abi}-{platform}.whl", "w", zipfile.ZIP_DEFLATED
    ) as wheel:
        for file in package.files or []:
            if ".." not in file.parts and file.suffix != ".pyc" and not is_test(file.parts):
                wheel.write(str(file.locate()), str(file))
    return abi not in ("none", "abi3")


def is_test(parts: tuple[str, ...]) -> bool:
    """numpy's wheel brings its tests, a tenth of it."""
    return parts[0] == "numpy" and "tests" in parts


def fetch(names: list[str], python: str, wheels: Path) -> None:
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in names]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--python-version", python, "--dest", str(wheels), *pinned),
        ],
        check=True,
    )
