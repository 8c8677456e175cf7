#!/usr/bin/env python3
"""Measures how long attach stops a process, from inside: the largest gap that a ticker of 100 microseconds sees.

    perf/pause.py GOREF_FAST BUSY [MIB ...]

BUSY is testdata/busy, built. Each way to stop is tried five times (three times from 2000 MiB on) on an idle heap of each size, and gcore once;
printed are the median and the largest gap, what the tool itself says, the gap of as long a time without it, a plain fork() of a
process with as much memory and nothing else to do, and how long the analysis took (the median of all phases but the stops), beside that of a core of the same heap. The default is 100 1000 4000: give it twice the
largest in memory and in the temporary folder (TMPDIR), and about five minutes.
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

    def gap(self):
        """Milliseconds; starts anew."""
        self.process.stdin.write("GAP\n")
        self.process.stdin.flush()
        word, number, _ = self.process.stdout.readline().split()
        assert word == "GAP"
        return int(number) / 1000

    def resident(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024

    def end(self):
        out, _ = self.process.communicate("\n")
        assert "faults=0 " in out and self.process.returncode == 7, (out, self.process.returncode)


PLAIN_FORK = """
import mmap, os, sys, time
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(memory), 4096):
    memory[at] = 1
for _ in range(int(sys.argv[2])):
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(0)
    print(1000 * (time.monotonic() - start))
    os.waitpid(child, 0)
"""


def plain_forks(mib, rounds):
    """Milliseconds each: what the kernel itself needs."""
    command = [sys.executable, "-c", PLAIN_FORK, str(int(mib)), str(rounds)]
    return [float(ms) for ms in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()]


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


def main():
    tool, exe = sys.argv[1:3]
    sizes = [int(a) for a in sys.argv[3:]] or [100, 1000, 4000]
    print("| heap | how | gap seen inside, median (largest) ms | stops as reported, median ms | analysis, median s |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for mib in sizes:
            rounds = 5 if mib < 2000 else 3
            busy = Busy(exe, mib)
            size = f"{busy.resident():.0f} MiB"
            gaps = []
            for _ in range(rounds):
                time.sleep(1)
                gaps.append(busy.gap())
            print(f"| {size} | nothing | {statistics.median(gaps):.1f} ({max(gaps):.1f}) | | |", flush=True)
            forks = plain_forks(busy.resident(), rounds)
            print(f"| {size} | a plain fork of as much | {statistics.median(forks):.1f} ({max(forks):.1f}) | | |", flush=True)
            for pause in ["fork", "copy", "whole"]:
                gaps, said, took = [], [], []
                for _ in range(rounds):
                    busy.gap()
                    stops, seconds = attach(tool, busy.process.pid, pause, folder)
                    gaps.append(busy.gap())
                    said.append(stops)
                    took.append(seconds)
                stops = " + ".join(f"{statistics.median(stop):.1f}" for stop in zip(*said))
                gap = f"{statistics.median(gaps):.1f} ({max(gaps):.1f})"
                print(f"| {size} | {pause} | {gap} | {stops} | {statistics.median(took):.2f} |", flush=True)
            busy.gap()
            core = gcore(busy.process.pid, folder)
            gap = busy.gap()
            busy.end()
            took = [analysis(run([tool, "core", exe, core], folder)) for _ in range(rounds)]
            os.remove(core)
            print(f"| {size} | gcore, once | {gap:.1f} | | {statistics.median(took):.2f} |", flush=True)


if __name__ == "__main__":
    main()
