#!/usr/bin/env python3
"""Measures how long attach stops a process, from inside: the largest gap that a ticker of 100 microseconds sees.

    perf/pause.py GOREF_FAST BUSY [MIB ...]

BUSY is testdata/busy, built. On an idle heap of each size, in turns, so that all see the same machine: nothing, a fork() that the process makes
itself, each way to stop, and an analysis of a core of the process (of gcore, which stops it once).
Printed are medians and largest gaps, what the tool itself says, how long the analysis took (all phases but the stops; the model is read while `copy`
and `whole` hold the process), and medians of two ratios within a turn: the stop of a snapshot by the process's own fork, and the analysis by that
of the core. The default is 100 1000 4000: give it three times the largest in memory, once in the temporary folder (TMPDIR), and ten minutes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


class Busy:
    def __init__(self, exe, mib):
        env = dict(os.environ, GOMAXPROCS="2")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([exe, str(mib), "idle"], stdin=pipe, stdout=pipe, text=True, env=env)
        assert self.process.stdout.readline() == "RUNNING\n"
        time.sleep(1)
        self.gap()

    def ask(self, word):
        """Milliseconds."""
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        answer, number, _ = self.process.stdout.readline().split()
        assert answer == word
        return int(number) / 1000

    def gap(self):
        """The largest since the last time."""
        return self.ask("GAP")

    def fork(self):
        """How long the kernel needs to copy its page tables."""
        return self.ask("FORK")

    def resident(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024

    def end(self):
        out, _ = self.process.communicate("\n")
        assert "faults=0 " in out and self.process.returncode == 7, (out, self.process.returncode)


def analysis(stats):
    """Seconds of all phases but stops."""
    return sum(s for phase, s in stats["phase_seconds"].items() if phase not in ("stop", "release"))


def run(command, folder):
    """Stats of one run."""
    stats = os.path.join(folder, "stats.json")
    subprocess.run([*command, "-q", "-o", "/dev/null", "--stats", stats], check=True)
    return json.load(open(stats))


def attach(tool, pid, pause, folder):
    stats = run([tool, "attach", str(pid), "--pause", pause], folder)
    return [1000 * stop["seconds"] for stop in stats["pause"]["stops"]], analysis(stats)


def gcore(pid, folder):
    core = os.path.join(folder, "core")
    command = ["gdb", "-nx", "-batch", "-p", str(pid), "-ex", f"generate-core-file {core}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return core


PAUSES = ["fork", "copy", "whole"]


def turn(tool, exe, busy, core, folder):
    """Gaps, stops and seconds of analysis, by the way to stop."""
    busy.gap()
    time.sleep(1)
    gaps, stops, took = {"nothing": busy.gap(), "its own fork": busy.fork()}, {}, {}
    for pause in PAUSES:
        # What the last one freed may still be on its way.
        time.sleep(1)
        busy.gap()
        stops[pause], took[pause] = attach(tool, busy.process.pid, pause, folder)
        gaps[pause] = busy.gap()
    took["core"] = analysis(run([tool, "core", exe, core], folder))
    return gaps, stops, took


def main():
    tool, exe = sys.argv[1:3]
    sizes = [int(a) for a in sys.argv[3:]] or [100, 1000, 4000]
    print("| heap | how | gap seen inside, median (largest) ms | stops as reported, median (largest first) ms | by its own fork "
          "| analysis, median s | by the core's |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for mib in sizes:
            busy = Busy(exe, mib)
            size = f"{busy.resident():.0f} MiB"
            busy.gap()
            core = gcore(busy.process.pid, folder)
            by_gcore = busy.gap()
            # The first fork marks each page as shared: it does not count.
            busy.fork()
            turns = [turn(tool, exe, busy, core, folder) for _ in range(11)]
            busy.end()
            os.remove(core)

            def median(select):
                return statistics.median(select(*turn) for turn in turns)

            for how in ["nothing", "its own fork", *PAUSES]:
                gap = f"{median(lambda g, s, t: g[how]):.1f} ({max(g[how] for g, _, _ in turns):.1f})"
                stops = ratio = seconds = by_core = ""
                if how in PAUSES:
                    first = max(s[how][0] for _, s, _ in turns)
                    last = "".join(f" + {median(lambda g, s, t: s[how][i]):.1f}" for i in range(1, len(turns[0][1][how])))
                    stops = f"{median(lambda g, s, t: s[how][0]):.1f}{last} ({first:.1f})"
                    seconds = f"{median(lambda g, s, t: t[how]):.2f}"
                    by_core = f"{median(lambda g, s, t: t[how] / t['core']):.2f}"
                if how == "fork":
                    ratio = f"{median(lambda g, s, t: s[how][0] / g['its own fork']):.2f}"
                print(f"| {size} | {how} | {gap} | {stops} | {ratio} | {seconds} | {by_core} |", flush=True)
            print(f"| {size} | gcore, once | {by_gcore:.1f} | | | {median(lambda g, s, t: t['core']):.2f} | |", flush=True)


if __name__ == "__main__":
    main()
