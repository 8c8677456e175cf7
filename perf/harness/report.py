"""Results as files: raw.csv, a line for each run, and summary.md, tables of medians."""

import csv
import statistics
from dataclasses import dataclass, field

from .measure import DEBUG, PROFILE

# Below this the collector's time is too short to hold a whole run against it.
SHORT = 0.3
# More than this many cores busy with something else spoil a number.
QUIET = 0.1
# Within a series, the walk time per object may differ by this factor.
FLAT = 1.25


@dataclass
class Result:
    """Everything measured on one heap."""

    case: object
    dump: object
    core_bytes: int
    runs: dict[int, list] = field(default_factory=dict)
    cold: list = field(default_factory=list)
    peers: list = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def walls(self, threads):
        return [run.child.wall for run in self.runs[threads]]

    def phase(self, threads, name):
        """Median seconds of a phase, 0 if there is none."""
        return statistics.median(run.phases.get(name, 0.0) for run in self.runs[threads])

    def walk(self, threads):
        return statistics.median(run.walk for run in self.runs[threads])

    def private(self, threads):
        """The highest of all runs: a limit on memory holds for each of them."""
        return max(run.private_bytes for run in self.runs[threads])

    def others(self):
        """Cores that other programs used while the measured ones ran."""
        children = [run.child for runs in self.runs.values() for run in runs]
        return sum(child.others for child in children) / sum(child.wall for child in children)

    def collector(self, threads):
        """Median, lowest and highest time of a collection, None if it was not timed with that many threads."""
        return self.dump.collections.get(threads)


@dataclass(frozen=True)
class Verdict:
    """What counts for a case, and whether it is enough."""

    counts: str
    value: float | None
    target: float
    judged: bool

    @property
    def text(self):
        if self.value is None:
            return "?"
        if not self.judged:
            return ""
        return "yes" if self.value <= self.target else "**no**"


def verdict(result, threads):
    """Only the last number of threads is judged."""
    case = result.case
    judged = threads == case.threads[-1]
    if case.goal == "debug":
        return Verdict("seconds", result.phase(threads, DEBUG), case.target, judged)
    collector = result.collector(threads)
    if collector is None:
        return Verdict("run", None, case.target, judged)
    if case.goal == "shape" and collector[0] < SHORT:
        return Verdict("walk", result.walk(threads) / collector[0], case.target, judged)
    return Verdict("run", statistics.median(result.walls(threads)) / collector[0], case.target, judged)


def missed(results):
    """Names of judged cases above their target."""
    for result in results:
        for threads in result.runs:
            v = verdict(result, threads)
            if v.judged and v.value is not None and v.value > v.target:
                yield f"{result.case.name}, --threads {threads}: {v.value:.2f} instead of at most {v.target:g} ({v.counts})"


def seconds(value):
    return f"{value:.3f}"


def spread(values):
    return f"{seconds(statistics.median(values))} ({min(values):.3f} to {max(values):.3f})"


def table(header, rows):
    """A markdown table; nothing without rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cases_table(results):
    rows = []
    for result in results:
        for threads in result.runs:
            collector, v = result.collector(threads), verdict(result, threads)
            private, live = result.private(threads), result.dump.bytes
            rows.append([
                result.case.name,
                threads,
                f"{result.dump.objects / 1e6:.2f} M",
                f"{live / 1e6:.0f}",
                f"{collector[0]:.3f} ({collector[1]:.3f} to {collector[2]:.3f})" if collector else "?",
                spread(result.walls(threads)),
                seconds(result.walk(threads)),
                v.counts,
                f"{v.value:.2f}" if v.value is not None else "?",
                f"{v.target:g}" if v.judged else "",
                v.text,
                f"{private / 2**20:.0f}",
                f"{100 * private / live:.1f}",
                f"{1e9 * result.walk(threads) / result.dump.objects:.0f}",
                "**wrong**" if result.wrong else "right",
            ])
    header = ["case", "threads", "objects", "live MB", "GC s", "whole run s", "walk s", "counts", "ratio", "target", "met",
              "private MiB", "% of live", "walk ns/object", "answers"]
    return table(header, rows)


def speedup_table(results):
    rows = []
    for result in results:
        few, many = min(result.runs), max(result.runs)
        if few == many:
            continue
        walk = result.walk(few) / max(result.walk(many), 1e-9)
        whole = statistics.median(result.walls(few)) / statistics.median(result.walls(many))
        collector = "?"
        if result.collector(few) and result.collector(many):
            collector = f"{result.collector(few)[0] / result.collector(many)[0]:.2f}"
        rows.append([result.case.name, f"{few} to {many}", f"{walk:.2f}", f"{whole:.2f}", collector])
    return table(["case", "threads", "walk", "whole run", "collector"], rows)


def series_table(results):
    rows = []
    for name in dict.fromkeys(r.case.series for r in results if r.case.series):
        members = [r for r in results if r.case.series == name]
        for threads in members[0].runs:
            each = [r.walk(threads) / r.dump.objects * 1e9 for r in members]
            ratio = max(each) / min(each)
            rows.append([
                name,
                threads,
                ", ".join(f"{r.dump.bytes / 1e9:.2f} GB: {ns:.0f}" for r, ns in zip(members, each)),
                f"{ratio:.2f}",
                f"{FLAT:g}",
                "yes" if ratio <= FLAT else "**no**",
            ])
    return table(["series", "threads", "walk ns/object", "highest/lowest", "target", "met"], rows)


def phases_table(results):
    names = list(dict.fromkeys(n for r in results for runs in r.runs.values() for run in runs for n in run.phases))
    rows = []
    for result in results:
        for threads in result.runs:
            whole = statistics.median(result.walls(threads))
            share = 100 * sum(result.phase(threads, name) for name in PROFILE) / whole
            phases = [f"{result.phase(threads, name):.3f}" for name in names]
            rows.append([result.case.name, threads, *phases, f"{share:.1f}"])
    return table(["case", "threads", *[f"{name} s" for name in names], "profile % of run"], rows)


def cold_table(results):
    rows = []
    for result in (r for r in results if r.cold):
        threads = result.cold[0].threads
        runs = [c.run.child.wall for c in result.cold]
        floors = [c.pointers.seconds for c in result.cold]
        ratio = statistics.median(runs) / statistics.median(floors)
        read = statistics.median(c.run.child.read_bytes for c in result.cold)
        whole = [c.whole.seconds for c in result.cold]
        rows.append([
            result.case.name,
            threads,
            spread(runs),
            f"{read / 1e6:.0f}",
            spread(floors),
            f"{result.cold[0].pointers.bytes / 1e6:.0f}",
            spread(whole),
            f"{result.cold[0].whole.bytes / 1e6:.0f}",
            f"{ratio:.2f}",
            "1.2",
            "yes" if ratio <= 1.2 else "**no**",
        ])
    header = ["case", "threads", "cold run s", "it read MB", "pointer pages once s", "MB", "whole core once s", "MB", "run/pointer pages",
              "target", "met"]
    return table(header, rows)


def peers_table(results):
    rows = []
    for result in results:
        ours = statistics.median(result.walls(max(result.runs)))
        for peer in result.peers:
            failed = peer.child.status != 0
            found = f"{100 * peer.found[1] / result.dump.bytes:.1f}" if peer.found else ""
            rows.append([
                result.case.name,
                peer.peer,
                seconds(peer.child.wall) + (f" (status {peer.child.status})" if failed else ""),
                f"{peer.child.cpu:.1f}",
                f"{peer.child.resident_bytes / 2**20:.0f}",
                f"{peer.child.wall / ours:.1f}",
                found,
            ])
    header = ["case", "peer", "s", "CPU s", "resident MiB", "times goref-fast's run", "% of live bytes in its profile"]
    return table(header, rows)


def summary(machine, command, results):
    """summary.md: the machine, then a table for each question."""
    parts = [f"# {machine['title']}\n", "".join(f"* {key}: {value}\n" for key, value in machine["facts"].items())]
    parts.append(f"```sh\n{command}\n```\n")
    wrong = [f"* {r.case.name}: {sentence}\n" for r in results for sentence in dict.fromkeys(r.wrong)]
    busy = [f"{r.case.name} ({r.others():.2f})" for r in results if r.others() > QUIET]
    if wrong:
        parts.append("## Wrong answers\n\n" + "".join(wrong))
    if busy:
        parts.append(f"**The machine was not quiet.** Cores that other programs used meanwhile: {', '.join(busy)}.\n")
    sections = {
        "Against the collector": cases_table(results),
        "More threads": speedup_table(results),
        "More objects": series_table(results),
        "Cold cache": cold_table(results),
        "Peers": peers_table(results),
        "Phases": phases_table(results),
    }
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n".join(parts)


def write_raw(path, results):
    """One line for each run of any program; numbers that do not apply are empty."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["case", "size", "program", "threads", "cache", "run", "wall_s", "cpu_s", "others_cpu_s", "walk_s", "status", "objects", "bytes",
                      "private_bytes", "resident_bytes", "read_bytes", "collector_s", "pointer_pages_s", "whole_core_s"])

        def line(result, program, threads, cache, number, child, run=None, floors=("", "")):
            collector = result.collector(threads) if threads else None
            out.writerow([
                result.case.name, result.case.size, program, threads, cache, number, f"{child.wall:.4f}", f"{child.cpu:.4f}",
                f"{child.others:.2f}", f"{run.walk:.4f}" if run else "", child.status,
                run.stats["live_objects"] if run else "", run.stats["live_bytes"] if run else "",
                run.private_bytes if run else "", child.resident_bytes, child.read_bytes,
                f"{collector[0]:.4f}" if collector else "", *floors,
            ])

        for result in results:
            for threads, runs in result.runs.items():
                for number, run in enumerate(runs):
                    line(result, "goref-fast", threads, "warm", number, run.child, run)
            for number, cold in enumerate(result.cold):
                floors = (f"{cold.pointers.seconds:.4f}", f"{cold.whole.seconds:.4f}")
                line(result, "goref-fast", cold.threads, "cold", number, cold.run.child, cold.run, floors)
            for peer in result.peers:
                line(result, peer.peer, "", "warm", 0, peer.child)
