"""Mutation testing of the CPU kernels: seeds one fault at a time and sees which test notices.

    python benchmarks/mutants.py --out benchmarks/results/mutants.md [--only NAME_PART]

Each mutant replaces one piece of text that occurs exactly once in its file. The changed file is compiled into a CPU
module of one level, in a copy of the package that tests then import in place of the installed one; a mutant that the
tests let pass is given to the sanitizer driver. Needs a checkout, g++, pybind11 and what the tests need. A crash, a
hang (120 s) and memory beyond 12 GB are kills too.
"""

from __future__ import annotations

import argparse
import platform
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pybind11

from mutant_list import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent
ISA = "v3" if platform.machine() in ("x86_64", "AMD64") else "base"
FLAGS = [
    *[
        "-std=c++20",
        "-O1",
        "-fopenmp",
        "-fPIC",
        "-fvisibility=hidden",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
    ],
    *([f"-march=x86-64-{ISA}"] if ISA != "base" else []),
    f"-DTERCET_MODULE=_cpu_{ISA}",
    f"-I{pybind11.get_include()}",
    f"-I{sysconfig.get_paths()['include']}",
]
SANITIZE = ["-std=c++20", "-O1", "-g", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# The tests that have to notice, by the start of the file's name.
TESTS = {
    "traversal": ["tests/ops/test_traversal.py"],
    "entity_sets": ["tests/ops/test_entity_sets.py", "tests/graph/test_entity_sets.py"],
    "graph_build": ["tests/graph/test_knowledge_graph.py", "tests/graph/test_checks.py", "tests/graph/test_storage.py"],
    "row_sort": ["tests/graph/test_knowledge_graph.py"],
    "names": ["tests/graph/test_names.py", "tests/graph/test_readers.py", "tests/graph/test_storage.py"],
    "ranking": ["tests/ops/test_ranking.py"],
    "exact": ["tests/ops/test_ranking.py"],
    "simd": ["tests/ops/test_translation.py"],
    "translation.": ["tests/ops/test_translation.py"],
    "translation_tile": ["tests/ops/test_translation.py"],
    "translation_": ["tests/ops/test_translation_training.py"],
    "gating": ["tests/ops/test_gating.py"],
    "rows": ["tests/ops/test_gating.py"],
    "streaming": ["tests/nn/test_streaming.py"],
    "annotators": ["tests/ops/test_annotators.py"],
    "elementary": ["tests/ops/test_translation_training.py"],
}
# The copy comes first and the editable install's finder goes; examples are the same in each run and are not shrunk.
RUN = """
import os, sys
sys.meta_path = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
sys.path.insert(0, sys.argv[1])
from hypothesis import Phase, settings
settings.register_profile("mutants", max_examples=60, deadline=None, derandomize=True, database=None,
                          phases=[Phase.explicit, Phase.generate])
os.environ["HYPOTHESIS_PROFILE"] = "mutants"
import pytest
options = ["-x", "-v", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
sys.exit(pytest.main([*options, *sys.argv[2:]]))
"""


@dataclass
class Verdict:
    """What became of a mutant; killer is empty where it survived."""

    mutant: Mutant
    killer: str
    seconds: float


class Workshop:
    """A copy of the sources and of the package, and the objects of module and driver as they are without a mutant."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.csrc = folder, folder / "csrc"
        for part in ("csrc", "cuda", "tests/cpp"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copytree(
            ROOT / "python" / "tercet", folder / "package" / "tercet", ignore=shutil.ignore_patterns("*.so")
        )
        self.sources = sorted(path.name for path in self.csrc.glob("*.cpp"))
        self.module = {name: self.compile(name, FLAGS) for name in self.sources}
        self.driver = {name: self.compile(name, SANITIZE) for name in self.sources if not name.startswith("bind")}
        for check in (folder / "tests" / "cpp").glob("*.cpp"):
            self.driver[check.name] = self.compile(f"../tests/cpp/{check.name}", SANITIZE)

    def compile(self, name: str, flags: list[str], suffix: str = "") -> Path:
        """The object of csrc/`name`."""
        target = self.folder / f"{'driver' if flags is SANITIZE else 'module'}_{Path(name).name}{suffix}.o"
        subprocess.run(["g++", *flags, f"-I{self.csrc}", "-c", self.csrc / name, "-o", target], check=True)
        return target

    def link(self, objects: dict[str, Path], flags: list[str], changed: list[str], target: Path) -> None:
        """Link `objects` with the changed sources compiled anew."""
        objects = {**objects, **{name: self.compile(name, flags, ".changed") for name in changed if name in objects}}
        target.unlink(missing_ok=True)
        shared = [] if flags is SANITIZE else ["-shared"]
        subprocess.run(["g++", *flags, *shared, *objects.values(), "-o", target], check=True)

    def build(self, changed: list[str]) -> None:
        """The module of the package's copy."""
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        self.link(self.module, FLAGS, changed, self.folder / "package" / "tercet" / "ops" / f"_cpu_{ISA}{suffix}")

    def dependents(self, file: str) -> list[str]:
        """The sources to compile when `file` changes: those that include it, through other headers too."""
        found, new = {file}, {file}
        while new:
            includes = [f'#include "{name}"' for name in new]
            texts = {path.name: path.read_text(encoding="utf-8") for path in self.csrc.iterdir()}
            new = {name for name, text in texts.items() if any(line in text for line in includes)} - found
            found |= new
        return [name for name in self.sources if name in found]

    def run_tests(self, tests: list[str]) -> str:
        """The test that fails first, or nothing."""
        command = [sys.executable, "-X", "faulthandler", "-c", RUN, self.folder / "package", *tests]
        ended, output = _run(command)
        failed = re.search(r"^FAILED (\S+?)(?:\[| - |$)", output, re.M)
        if failed:
            return failed[1]
        if ended == 0:
            return ""
        started = re.findall(r"^(tests/\S+::\w+)", output, re.M)
        what = "hang" if ended is None else "crash" if ended < 0 else f"exit {ended}"
        return f"{started[-1] if started else 'start'} ({what})"

    def run_sanitizers(self, changed: list[str]) -> str:
        """The kernel family whose check fails in the sanitizer driver, or nothing."""
        driver = self.folder / "driver"
        self.link(self.driver, SANITIZE, changed, driver)
        ended, output = _run([driver, "60"], limit_memory=False)
        checked = re.findall(r"^(\w+): seeds", output, re.M)
        return "" if ended == 0 else f"sanitizer driver: {checked[-1] if checked else 'start'}"


def _run(command: list[object], limit_memory: bool = True) -> tuple[int | None, str]:
    """(exit status or None where it hung, output)."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if limit_memory:
            resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))

    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=ROOT, timeout=120, preexec_fn=limit, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        return None, output.decode(errors="replace") if isinstance(output, bytes) else output
    return done.returncode, done.stdout


def judge(shop: Workshop, mutant: Mutant) -> Verdict:
    """Build the mutant, test it, put the source back."""
    start, source = time.monotonic(), shop.csrc / mutant.file
    text = source.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(
            f"{mutant.name}: its text occurs {text.count(mutant.old)} times in csrc/{mutant.file}, not once"
        )
    source.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        changed = shop.dependents(mutant.file)
        shop.build(changed)
        killer = shop.run_tests(tests_of(mutant.file)) or shop.run_sanitizers(changed)
    finally:
        source.write_text(text, encoding="utf-8")
    return Verdict(mutant, killer, time.monotonic() - start)


def tests_of(file: str) -> list[str]:
    return next(tests for stem, tests in TESTS.items() if file.startswith(stem))


def table(verdicts: list[Verdict]) -> str:
    survivors = sum(not verdict.killer for verdict in verdicts)
    lines = [
        "# Mutants of the CPU kernels",
        "",
        f"{len(verdicts)} mutants, {len(verdicts) - survivors} killed, {survivors} survived."
        " Command: `python benchmarks/mutants.py --out benchmarks/results/mutants.md`.",
        "A mutant that changes only what is read outside an array (prefetching, room) is for the sanitizers to see.",
        "",
        "| mutant | file | killed by |",
        "|---|---|---|",
    ]
    for verdict in verdicts:
        killer = f"`{verdict.killer}`" if verdict.killer else "**survived**"
        lines.append(f"| {verdict.mutant.name} | csrc/{verdict.mutant.file} | {killer} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="where the table goes")
    parser.add_argument("--only", default="", help="mutants with this in `file: name`")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.only in f"{mutant.file}: {mutant.name}"]
    with tempfile.TemporaryDirectory() as folder:
        shop, verdicts = Workshop(Path(folder)), []
        shop.build([])
        for tests in {tuple(tests_of(mutant.file)): None for mutant in chosen}:
            broken = shop.run_tests(list(tests))
            if broken:
                raise SystemExit(f"without any mutant: {broken} fails")
        if broken := shop.run_sanitizers([]):
            raise SystemExit(f"without any mutant: {broken} fails")
        for mutant in chosen:
            verdicts.append(judge(shop, mutant))
            last = verdicts[-1]
            print(f"{last.seconds:4.0f} s  {last.killer or 'SURVIVED':60}  {mutant.file}: {mutant.name}", flush=True)
    if arguments.out:
        partial = arguments.out.with_name(arguments.out.name + ".part")
        partial.write_text(table(verdicts), encoding="utf-8")
        partial.replace(arguments.out)
    sys.exit(any(not verdict.killer for verdict in verdicts))


if __name__ == "__main__":
    main()
