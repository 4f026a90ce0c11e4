"""Cases, each in its own process, measured in rounds, and a table of their ratios.

A case does its preparation and returns the step to measure. Every case of every round gets a fresh
process, because settings of our runtime (above all the C allocator) hold for a whole process and
must not help the baselines. A round runs all cases in turn, every other round backwards, so that a
noisy machine affects all alike. Ratios are taken within a round; the table shows their median over
the rounds and their range. CPU seconds are shown next to the wall clock, because they depend less
on other programs. Nothing is asserted.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("XCEPTION_FEATURES_GB", "0")  # compute features in every round

# The measured step; returns the number of items, or several numbers: `items`, and `wall` and `cpu`
# if it knows them better.
Step = Callable[[], Any]

_PACKAGES = (
    *("torch", "torchvision", "pytorch-ignite", "pretrainedmodels", "pillow", "numpy"),
    *("timm", "onnxruntime", "openvino"),
)
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


@dataclass(frozen=True)
class Case:
    """One way to do the work.

    Attributes:
        name: Name in the table.
        prepare: Does the part that is not measured, and returns the step that is.
        group: Cases of one group do the same work; ratios are taken within it.
        baseline: Title of a column of ratios to this case.
        skip: Why it cannot run here.
        whole: Measure the whole process: start, imports, preparation and the step.
    """

    name: str
    prepare: Callable[[], Step]
    group: str = ""
    baseline: str | None = None
    skip: str | None = None
    whole: bool = False


@dataclass(frozen=True)
class Result:
    """A case and, by round, wall and CPU seconds, peak memory and the result of its step."""

    case: Case
    rounds: list[dict[str, Any]]

    def per_item(self, what: str) -> list[float]:
        """Return `wall` or `cpu` seconds per item, by round."""
        return [measured[what] / measured["items"] for measured in self.rounds]


Report = Callable[[list[Result], Namespace], dict[str, Any]]


def run(
    doc: str,
    cases: Callable[[Namespace], list[Case]],
    *,
    arguments: Callable[[ArgumentParser], None] | None = None,
    setup: Callable[[Namespace], str] | None = None,
    warm_up: bool = True,
    unit: str = "image",
    report: Report | None = None,
    with_baselines: bool = True,
) -> None:
    """Run the command line of a benchmark.

    Args:
        doc: The module's docstring; its first line is the title.
        cases: Creates the cases from the options.
        arguments: Adds the benchmark's own options.
        setup: Creates what all cases share in `options.scratch`, once; returns a note about it.
        warm_up: Run each step once before it is measured.
        unit: Name of an item.
        report: Prints the results and returns additional entries for the JSON.
        with_baselines: Whether `--only` also runs the baselines of the cases that it selects.
    """
    options = _parse(doc, arguments)
    made = cases(options)
    if options.case is not None:
        _be_a_case(made, options, setup, warm_up)
        return
    with tempfile.TemporaryDirectory(prefix="xception-benchmark-") as folder:
        scratch = options.scratch or Path(folder)
        scratch.mkdir(parents=True, exist_ok=True)
        about = _about(doc)
        if setup is not None:
            about |= _start("setup", scratch, 0)
        print(f"{about['title']}\n{describe(about)}")
        results = _measure(made, options, scratch, with_baselines=with_baselines)
        about["load_after"] = os.getloadavg()[0]
        extra = (report or _ratio_report(unit))(results, options)
        if options.json:
            rows = [{**_name(r.case), "rounds": r.rounds} for r in results]
            options.json.write_text(json.dumps({**about, "cases": rows, **extra}, indent=1) + "\n")


def _parse(doc: str, arguments: Callable[[ArgumentParser], None] | None) -> Namespace:
    parser = ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT",
        help="cases whose name holds this, and the baselines that a ratio needs",
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--image-size", type=int, default=299, help="(default: %(default)s)")
    parser.add_argument("--scratch", type=Path, help="a new folder: keep photos and runs in it")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # a number, or `setup`, to run in here
    parser.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    if arguments is not None:
        arguments(parser)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be 1 or more")
    return options


# The process of a case


def _be_a_case(
    cases: list[Case],
    options: Namespace,
    setup: Callable[[Namespace], str] | None,
    warm_up: bool,
) -> None:
    if options.case == "setup":
        print(json.dumps({"note": setup(options) if setup else ""}))
        return
    step = cases[int(options.case)].prepare()
    if warm_up:
        step()
    before, began = cpu_seconds(), time.perf_counter()
    returned = step()
    wall, after = time.perf_counter() - began, cpu_seconds()
    measured = {
        "wall": wall,
        "cpu": after - before,
        "process_cpu": after,
        "peak_mb": _peak_mb(),
        **(returned if isinstance(returned, dict) else {"items": returned}),
    }
    print(f"\n{json.dumps(measured)}")  # the last line, after any output of libraries


def cpu_seconds() -> float:
    """Return user plus system time of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_mb() -> float:
    """Return the largest resident set of this process or any finished child."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(usage.ru_maxrss for usage in used) * unit / 1e6


# The parent process


def _measure(
    cases: list[Case], options: Namespace, scratch: Path, *, with_baselines: bool
) -> list[Result]:
    results = []
    wanted = [case for case in cases if options.only in f"{case.group}: {case.name}"]
    groups = {case.group for case in wanted} if with_baselines else set()
    for case in cases:
        if case not in wanted and not (case.baseline and case.group in groups):
            continue
        if case.skip is None:
            results.append(Result(case, []))
        else:
            print(f"left out: {case.name} ({case.skip})")
    for number in range(options.repeats):
        for result in results if number % 2 == 0 else reversed(results):
            began = time.perf_counter()
            measured = _start(str(cases.index(result.case)), scratch, number)
            elapsed = time.perf_counter() - began
            if result.case.whole:
                measured |= {"wall": elapsed, "cpu": measured["process_cpu"]}
            result.rounds.append(measured)
            what = ": ".join(filter(None, _name(result.case).values()))
            print(f"{number + 1} of {options.repeats}: {what}, {elapsed:.0f} s", file=sys.stderr)
    return results


def _start(case: str, scratch: Path, number: int) -> dict[str, Any]:
    own = [f"--case={case}", f"--scratch={scratch}", f"--round={number}"]
    done = subprocess.run([sys.executable, *sys.argv, *own], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{done.stderr}\ncase {case} failed (exit {done.returncode})")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# For cases


def missing(*modules: str) -> str | None:
    """Return a note if one of these modules is not installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def command(*arguments: str | Path, items: int = 1) -> Step:
    """Return a step that runs Python with these arguments, and fails if Python does."""

    def step() -> int:
        line = [sys.executable, *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{line}\n{done.stderr}")
        return items

    return step


# The report


def _ratio_report(unit: str) -> Report:
    def report(results: list[Result], _: Namespace) -> dict[str, Any]:
        return {"ratios": report_ratios(results, unit)}

    return report


def report_ratios(results: Sequence[Result], unit: str) -> list[dict[str, Any]]:
    """Print a table per group: times per item, peak memory, and how many times faster it is."""
    found = []
    for group in dict.fromkeys(result.case.group for result in results):
        members = [result for result in results if result.case.group == group]
        baselines = [result for result in members if result.case.baseline]
        rows = []
        for result in members:
            row = {
                group or "case": result.case.name,
                f"ms per {unit}": _digits(1000 * median(result.per_item("wall"))),
                "CPU ms": _digits(1000 * median(result.per_item("cpu"))),
                "peak MB": f"{median(m['peak_mb'] for m in result.rounds):.0f}",
            }
            for baseline in baselines:
                ratios = {what: _ratios(result, baseline, what) for what in ("wall", "cpu")}
                row[f"times as fast as {baseline.case.baseline}"] = _spread(ratios["wall"])
                row.setdefault("by CPU", _digits(median(ratios["cpu"])))  # to the first baseline
                found.append({**_name(result.case), "to": baseline.case.baseline, **ratios})
            rows.append(row)
        print_table(rows)
    return found


def _ratios(result: Result, baseline: Result, what: str) -> list[float]:
    pairs = zip(result.per_item(what), baseline.per_item(what), strict=True)
    return [theirs / ours for ours, theirs in pairs]


def _spread(ratios: list[float]) -> str:
    middle = _digits(median(ratios))
    if len(ratios) == 1:
        return middle
    return f"{middle} ({_digits(min(ratios))} to {_digits(max(ratios))})"


def _digits(value: float) -> str:
    """Format three digits: a noisy machine does not justify more."""
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}"


def _name(case: Case) -> dict[str, str]:
    return {"group": case.group, "case": case.name}


def print_table(rows: Sequence[dict[str, str]]) -> None:
    """Print rows as a Markdown table that is also aligned as text."""
    header = list(rows[0])
    lines = [header, *([row[name] for name in header] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    print()
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        print(f"| {' | '.join(cells)} |")


def _about(doc: str) -> dict[str, Any]:
    return {
        "title": doc.splitlines()[0],
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": _machine(),
        "environment": {n: v for n, v in os.environ.items() if n.startswith(("OMP_", "MKL_"))},
        "versions": {"python": platform.python_version()} | _versions(),
        "load_before": os.getloadavg()[0],
        "note": "",
    }


def _versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
    return {name: installed[name] for name in _PACKAGES if name in installed}


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": facts.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "flags": [flag for flag in _CPU_FLAGS if flag in flags],
        "memory_gb": round(pages / 1e9, 1),
        "system": platform.platform(),
    }


def describe(about: dict[str, Any]) -> str:
    """Describe the machine in two lines."""
    machine = about["machine"]
    environment = "".join(f", {name}={value}" for name, value in about["environment"].items())
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    note = f"\n{about['note']}" if about["note"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['flags'])}; "
        f"load {about['load_before']:.1f}{environment}\n{versions}{note}"
    )
