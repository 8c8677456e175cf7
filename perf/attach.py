#!/usr/bin/env python3
"""Compares the analysis of a running process with that of its core, for heaps of different shapes.

    perf/attach.py TOOL[,TOOL...] GEN SHAPE:SIZE...

GEN is perf/gen, built. Of each heap a core is taken (of gcore); then all tools take turns, each once with the core and once with the process, which
stands still anyway. Printed are medians of all phases but the stops, in seconds, and the median of the ratios within a turn.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from pause import attach, analysis, gcore, run

TURNS = 7


def main():
    tools, exe = sys.argv[1].split(","), sys.argv[2]
    print("| heap | tool | fork, s | core, s | by the core's |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for heap in sys.argv[3:]:
            shape, size = heap.split(":")
            pipe = subprocess.PIPE
            process = subprocess.Popen([exe, "-shape", shape, "-size", size], stdin=pipe, stdout=pipe, text=True)
            while process.stdout.readline() != "WAIT\n":
                assert process.poll() is None, heap
            core = gcore(process.pid, folder)
            forked, cored = {t: [] for t in tools}, {t: [] for t in tools}
            for _ in range(TURNS):
                for tool in tools:
                    # What the last one freed may still be on its way.
                    time.sleep(1)
                    cored[tool].append(analysis(run([tool, "core", exe, core], folder)))
                    time.sleep(1)
                    forked[tool].append(attach(tool, process.pid, "fork", folder)[1])
            out, _ = process.communicate("\n")
            assert out.startswith("OK "), out
            os.remove(core)
            for tool in tools:
                ratio = statistics.median(f / c for f, c in zip(forked[tool], cored[tool]))
                medians = f"{statistics.median(forked[tool]):.3f} | {statistics.median(cored[tool]):.3f}"
                print(f"| {shape}, {size} | {os.path.basename(tool)} | {medians} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
