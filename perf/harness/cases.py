"""Cases: the tables of cases.toml as objects."""

import fnmatch
import tomllib
from dataclasses import dataclass, fields, replace

GOALS = ("run", "shape", "debug")


@dataclass(frozen=True)
class Case:
    """One heap to measure; the fields are those of cases.toml, and whether the targets are meant for this size."""

    name: str
    shape: str
    size: int
    quick: int = 0
    threads: tuple[int, ...] = (1, 2)
    goal: str = "shape"
    target: float = 3.0
    memory: float = 0
    speedup: float = 0
    profile: float = 0
    goref: float = 0
    cold: float = 0
    peers: bool = False
    series: str = ""
    judged: bool = True
    tags: str = ""
    ldflags: str = ""


def load(path):
    """All cases of a file, checked."""
    document = tomllib.loads(path.read_text())
    known = {field.name for field in fields(Case)}
    cases = []
    for table in document.get("case", []):
        table = {**document.get("defaults", {}), **table}
        unknown = set(table) - known
        if unknown:
            raise SystemExit(f"{path}: case {table.get('name')}: unknown keys {', '.join(sorted(unknown))}")
        case = Case(**{**table, "threads": tuple(table.get("threads", (1, 2)))})
        if case.goal not in GOALS:
            raise SystemExit(f"{path}: case {case.name}: goal is one of {', '.join(GOALS)}")
        cases.append(case)
    return cases


def select(cases, patterns, quick, threads):
    """The cases that the patterns name (all of them without a pattern), with the sizes and threads that are wanted."""
    for pattern in patterns:
        if not any(fnmatch.fnmatch(case.name, pattern) for case in cases):
            raise SystemExit(f"no case {pattern}: one of {', '.join(case.name for case in cases)}")
    chosen = [c for c in cases if not patterns or any(fnmatch.fnmatch(c.name, p) for p in patterns)]
    if quick:
        chosen = [replace(c, size=c.quick, judged=False) for c in chosen if c.quick]
    if threads:
        chosen = [replace(c, threads=threads) for c in chosen]
    return chosen
