"""Results as files: raw.csv, a line for each run, and summary.md, tables of medians."""

import csv
import statistics

from . import targets
from .measure import DEBUG

# More than this many cores busy with something else spoil a number.
QUIET = 0.1


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(header, rows):
    """A markdown table; nothing without rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def every_run(results):
    """(result, number of threads) of all that was measured."""
    return [(result, threads) for result in results for threads in result.runs]


def targets_table(results):
    rows = [[t.what, t.case, f"{t.value:.2f}", t.wish, "yes" if t.met else "**no**"] for t in targets.all_of(results)]
    return table(["what", "case", "measured", "target", "met"], rows)


def cases_table(results):
    rows = []
    for result, threads in every_run(results):
        if result.case.goal == "debug":
            continue
        collector, (counts, ratio) = result.collector(threads), targets.against_collector(result, threads)
        rows.append([
            result.case.name,
            threads,
            f"{result.dump.objects / 1e6:.2f}",
            f"{result.dump.bytes / 1e6:.0f}",
            f"{collector[0]:.3f} ({collector[1]:.3f} to {collector[2]:.3f})" if collector else "?",
            spread(result.walls(threads)),
            f"{result.walk(threads):.3f}",
            counts,
            f"{ratio:.2f}" if ratio is not None else "?",
            f"{result.case.target:g}" if result.case.target and result.case.judged and threads == result.many else "",
            f"{result.private(threads) / 2**20:.0f}",
            f"{result.private_percent(threads):.1f}",
            f"{result.walk_per_object(threads):.0f}",
            "**wrong**" if result.wrong else "right",
        ])
    header = ["case", "threads", "M objects", "live MB", "GC s", "whole run s", "walk s", "counts", "ratio", "target", "private MiB",
              "% of live", "walk ns/object", "answers"]
    return table(header, rows)


def speedup_table(results):
    rows = []
    for result in (r for r in results if r.few != r.many and r.case.goal != "debug"):
        few, many = result.collector(result.few), result.collector(result.many)
        rows.append([
            result.case.name,
            f"{result.few} to {result.many}",
            f"{result.speedup():.2f}",
            f"{result.wall(result.few) / result.wall(result.many):.2f}",
            f"{few[0] / many[0]:.2f}" if few and many else "?",
        ])
    return table(["case", "threads", "walk", "whole run", "collector"], rows)


def series_table(results):
    rows = []
    for name, members in targets.series(results).items():
        for threads in members[0].runs:
            each = [f"{m.walk_per_object(threads):.0f} ({m.dump.bytes / 1e9:.2f} GB)" for m in members]
            rows.append([name, threads, ", ".join(each)])
    return table(["series", "threads", "walk ns/object (live)"], rows)


def debug_table(results):
    rows = []
    for result, threads in every_run([r for r in results if r.case.goal == "debug"]):
        phase = [run.phases.get(DEBUG, 0.0) for run in result.runs[threads]]
        rows.append([result.case.name, threads, f"{result.exe_bytes / 1e6:.1f}", spread(phase), spread(result.walls(threads))])
    return table(["case", "threads", "executable MB", "debug information s", "whole run s"], rows)


def cold_table(results):
    rows = []
    for result in (r for r in results if r.cold):
        rows.append([
            result.case.name,
            result.cold[0].threads,
            spread([c.run.child.wall for c in result.cold]),
            f"{statistics.median(c.run.child.read_bytes for c in result.cold) / 1e6:.0f}",
            spread([c.pointers.seconds for c in result.cold]),
            f"{result.cold[0].pointers.bytes / 1e6:.0f}",
            spread([c.whole.seconds for c in result.cold]),
            f"{result.cold[0].whole.bytes / 1e6:.0f}",
            f"{result.cold_ratio():.2f}",
        ])
    header = ["case", "threads", "cold run s", "it read MB", "pointer pages once s", "MB", "whole core once s", "MB",
              "run against pointer pages"]
    return table(header, rows)


def peers_table(results):
    rows = []
    for result in results:
        ours = result.wall(result.many)
        for peer in result.peers:
            failed = f" (status {peer.child.status})" if peer.child.status != 0 else ""
            rows.append([
                result.case.name,
                peer.peer,
                f"{peer.child.wall:.2f}{failed}",
                f"{peer.child.cpu:.1f}",
                f"{peer.child.resident_bytes / 2**20:.0f}",
                f"{peer.child.wall / ours:.1f}",
                f"{100 * peer.found[1] / result.dump.bytes:.1f}" if peer.found else "",
            ])
    header = ["case", "peer", "s", "CPU s", "resident MiB", "times goref-fast's run", "% of live bytes in its profile"]
    return table(header, rows)


def phases_table(results):
    names = list(dict.fromkeys(n for result, threads in every_run(results) for run in result.runs[threads] for n in run.phases))
    rows = []
    for result, threads in every_run(results):
        phases = [f"{result.phase(threads, name):.3f}" for name in names]
        rows.append([result.case.name, threads, *phases, f"{result.profile_percent(threads):.1f}"])
    return table(["case", "threads", *[f"{name} s" for name in names], "profile % of run"], rows)


def summary(machine, command, results):
    """summary.md: the machine, then a table for each question."""
    parts = [f"# {machine['title']}\n", "".join(f"* {key}: {value}\n" for key, value in machine["facts"].items())]
    parts.append(f"```sh\n{command}\n```\n")
    wrong = [f"* {r.case.name}: {sentence}\n" for r in results for sentence in dict.fromkeys(r.wrong)]
    if wrong:
        parts.append("## Wrong answers\n\n" + "".join(wrong))
    busy = [f"{r.case.name} ({r.others():.2f})" for r in results if r.others() > QUIET]
    if busy:
        parts.append(f"**The machine was not quiet.** Cores that other programs used meanwhile: {', '.join(busy)}.\n")
    sections = {
        "Targets": targets_table(results),
        "Against the collector": cases_table(results),
        "More threads": speedup_table(results),
        "More objects": series_table(results),
        "Debug information": debug_table(results),
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
        out.writerow(["case", "size", "program", "threads", "cache", "run", "wall_s", "cpu_s", "others_cpu_s", "walk_s", "status",
                      "objects", "bytes", "private_bytes", "resident_bytes", "read_bytes", "collector_s", "pointer_pages_s",
                      "whole_core_s"])

        def line(result, program, threads, cache, number, child, run=None, floors=("", "")):
            collector = result.collector(threads) if threads else None
            of_run = [run.stats["live_objects"], run.stats["live_bytes"], run.private_bytes] if run else ["", "", ""]
            out.writerow([
                result.case.name, result.case.size, program, threads, cache, number, f"{child.wall:.4f}", f"{child.cpu:.4f}",
                f"{child.others:.2f}", f"{run.walk:.4f}" if run else "", child.status, *of_run, child.resident_bytes,
                child.read_bytes, f"{collector[0]:.4f}" if collector else "", *floors,
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
