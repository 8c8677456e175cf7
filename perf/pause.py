#!/usr/bin/env python3
"""Measures how long attach stops a process, from inside: the largest gap that a ticker of 100 microseconds sees.

    perf/pause.py GOREF_FAST BUSY [MIB ...]

BUSY is testdata/busy, built. Each way to stop is tried five times on an idle heap of each size (and gcore once); printed are the median and
the largest gap, what the tool itself says, and the gap of as long a time without it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 5


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


def attach(tool, pid, pause, folder):
    stats = os.path.join(folder, "stats.json")
    command = [tool, "attach", str(pid), "--pause", pause, "-q", "-o", "/dev/null", "--stats", stats]
    subprocess.run(command, check=True)
    return [1000 * stop["seconds"] for stop in json.load(open(stats))["pause"]["stops"]]


def gcore(pid, folder):
    core = os.path.join(folder, "core")
    command = ["gdb", "-nx", "-batch", "-p", str(pid), "-ex", f"generate-core-file {core}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.remove(core)


def main():
    tool, exe = sys.argv[1:3]
    sizes = [int(a) for a in sys.argv[3:]] or [100, 1000]
    print("| heap | how | gap seen inside, median (largest) ms | stops as reported, median ms |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for mib in sizes:
            busy = Busy(exe, mib)
            size = f"{busy.resident():.0f} MiB"
            gaps = []
            for _ in range(ROUNDS):
                time.sleep(1)
                gaps.append(busy.gap())
            print(f"| {size} | nothing | {statistics.median(gaps):.1f} ({max(gaps):.1f}) | |", flush=True)
            for pause in ["fork", "copy", "whole"]:
                gaps, said = [], []
                for _ in range(ROUNDS):
                    busy.gap()
                    said.append(attach(tool, busy.process.pid, pause, folder))
                    gaps.append(busy.gap())
                stops = " + ".join(f"{statistics.median(stop):.1f}" for stop in zip(*said))
                print(f"| {size} | {pause} | {statistics.median(gaps):.1f} ({max(gaps):.1f}) | {stops} |", flush=True)
            busy.gap()
            gcore(busy.process.pid, folder)
            print(f"| {size} | gcore, once | {busy.gap():.1f} | |", flush=True)
            busy.end()


if __name__ == "__main__":
    main()
