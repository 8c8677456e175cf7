"""What was measured against what is wanted."""

import statistics
from dataclasses import dataclass, field

from .measure import DEBUG, PROFILE

# Below this the collector's time is too short to hold a whole run against it.
SHORT = 0.3
# Within a series, the walk time per object may differ by this factor.
FLAT = 1.25


@dataclass
class Result:
    """Everything measured on one heap."""

    case: object
    dump: object
    exe_bytes: int
    runs: dict[int, list] = field(default_factory=dict)
    cold: list = field(default_factory=list)
    peers: list = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def walls(self, threads):
        return [run.child.wall for run in self.runs[threads]]

    def wall(self, threads):
        return statistics.median(self.walls(threads))

    def phase(self, threads, *names):
        """Median seconds of the sum of some phases."""
        return statistics.median(sum(run.phases.get(name, 0.0) for name in names) for run in self.runs[threads])

    def walk(self, threads):
        return statistics.median(run.walk for run in self.runs[threads])

    def walk_per_object(self, threads):
        """Nanoseconds."""
        return 1e9 * self.walk(threads) / self.dump.objects

    def speedup(self):
        """Of the walk, by the last number of threads."""
        return self.walk(self.few) / max(self.walk(self.many), 1e-9)

    def private(self, threads):
        """The highest of all runs: a limit on memory holds for each of them."""
        return max(run.private_bytes for run in self.runs[threads])

    def private_percent(self, threads):
        return 100 * self.private(threads) / self.dump.bytes

    def profile_percent(self, threads):
        return 100 * self.phase(threads, *PROFILE) / self.wall(threads)

    def cold_ratio(self):
        """The cold run against reading the pointer pages once."""
        runs = statistics.median(c.run.child.wall for c in self.cold)
        return runs / statistics.median(c.pointers.seconds for c in self.cold)

    def collector(self, threads):
        """Median, lowest and highest time of a collection, None if it was not timed with that many threads."""
        return self.dump.collections.get(threads)

    def others(self):
        """Cores that other programs used while the measured ones ran."""
        children = [run.child for runs in self.runs.values() for run in runs]
        return sum(child.others for child in children) / sum(child.wall for child in children)

    @property
    def few(self):
        return self.case.threads[0]

    @property
    def many(self):
        return self.case.threads[-1]


def against_collector(result, threads):
    """What counts for the case ("run" or "walk"), and how many times the collector's time it took; (.., None) without one."""
    collector = result.collector(threads)
    if collector is None:
        return "run", None
    if result.case.goal == "shape" and collector[0] < SHORT:
        return "walk", result.walk(threads) / collector[0]
    return "run", result.wall(threads) / collector[0]


@dataclass(frozen=True)
class Target:
    """One wish and what came of it."""

    what: str
    case: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self):
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def wish(self):
        return f"at {'least' if self.at_least else 'most'} {self.limit:g}"


def of_case(result):
    """The targets of one case that were measured."""
    case, few, many = result.case, result.few, result.many
    threads = f"{many} thread{'s' if many > 1 else ''}"
    if case.goal == "debug":
        if case.target:
            size = f"{result.exe_bytes / 1e6:.0f} MB"
            yield Target(f"debug information of {size}, seconds, {threads}", case.name, result.phase(many, DEBUG), case.target)
    elif case.target:
        counts, ratio = against_collector(result, many)
        if ratio is not None:
            whole = "whole run" if counts == "run" else "walk"
            yield Target(f"{whole} against the collector, {threads}", case.name, ratio, case.target)
    if case.speedup and few != many:
        yield Target(f"walk with {few} against {threads}", case.name, result.speedup(), case.speedup, at_least=True)
    if case.memory:
        yield Target("private memory, % of live bytes", case.name, max(map(result.private_percent, result.runs)), case.memory)
    if case.profile:
        yield Target("aggregating and writing the profile, % of the run", case.name, result.profile_percent(many), case.profile)
    for peer in result.peers:
        if peer.peer == "goref" and case.goref and peer.child.status == 0:
            yield Target("goref's time against the whole run", case.name, peer.child.wall / result.wall(many), case.goref, at_least=True)
    if case.cold and result.cold:
        yield Target("cold run against reading the pointer pages once", case.name, result.cold_ratio(), case.cold)


def series(results):
    """Series -> its members, in their order."""
    names = dict.fromkeys(r.case.series for r in results if r.case.series)
    return {name: [r for r in results if r.case.series == name] for name in names}


def all_of(results):
    """All targets that were measured, in the order of the cases; series last."""
    for result in results:
        if result.case.judged:
            yield from of_case(result)
    for name, members in series(results).items():
        if len(members) < 2 or not all(member.case.judged for member in members):
            continue
        for threads in members[0].runs:
            each = [member.walk_per_object(threads) for member in members]
            what = f"walk time per object, highest against lowest, {threads} thread{'s' if threads > 1 else ''}"
            yield Target(what, f"series {name}", max(each) / min(each), FLAT)
