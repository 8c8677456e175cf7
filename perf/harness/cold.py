"""Cold runs: the core out of the page cache, and how long the disk needs to read once what must be read.

Every measurement starts with none of the core's pages in memory (EXE stays cached). Beside the run stand two floors, each one
reader that reads in file order, a megabyte at most at a time, and lets the kernel read ahead:

* pointers: the pages of the core that hold an allocated object of a span with pointers, or such a span's pointer bitmap
  (perf/pages.rs lists them): what any walk of the heap must see. Objects without pointers are counted, not read.
* whole: all of the core except holes.

What is measured is this machine's disk as the kernel sees it: the host of a virtual machine may keep pages of its own.
"""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass

CHUNK = 1 << 20


@dataclass(frozen=True)
class Floor:
    """Seconds and bytes of reading something once."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Cold:
    """One round of cold measurements."""

    threads: int
    run: object
    pointers: Floor
    whole: Floor


def evict(path):
    """Drops a file's pages; complains if some stay."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    if shutil.which("fincore"):
        told = subprocess.run(["fincore", "-b", "-n", "-o", "RES", path], text=True, capture_output=True)
        left = int(told.stdout.strip() or 0)
        if left > 16 << 20:
            raise SystemExit(f"{path}: {left} bytes stay in the page cache; does another process map the file?")


def read_ranges(path, ranges):
    """Reads ranges (offset, length) in their order."""
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    total = 0
    fd = os.open(path, os.O_RDONLY)
    try:
        start = time.monotonic()
        for offset, length in ranges:
            while length > 0:
                got = os.preadv(fd, [view[: min(length, CHUNK)]], offset)
                if got <= 0:
                    break
                offset, length, total = offset + got, length - got, total + got
        return Floor(time.monotonic() - start, total)
    finally:
        os.close(fd)


def data_ranges(path):
    """What of a file is not a hole."""
    ranges, at = [], 0
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            at = os.lseek(fd, start, os.SEEK_HOLE)
            ranges.append((start, at - start))
    finally:
        os.close(fd)
    return ranges


def pointer_ranges(pages, dump):
    """The ranges that perf/pages.rs lists."""
    told = subprocess.run([pages, dump.exe, dump.core], text=True, capture_output=True)
    if told.returncode != 0:
        raise SystemExit(f"{pages}: {told.stderr}")
    return [tuple(map(int, line.split())) for line in told.stdout.splitlines()]


def measure(tool, pages, checked, threads, repeat):
    """`repeat` rounds: run, floor of pointers, floor of the whole core, each from a cold cache."""
    core = checked.dump.core
    pointers, whole = pointer_ranges(pages, checked.dump), data_ranges(core)
    rounds = []
    for _ in range(repeat):
        evict(core)
        run = tool.run(checked, threads)
        evict(core)
        of_pointers = read_ranges(core, pointers)
        evict(core)
        of_whole = read_ranges(core, whole)
        rounds.append(Cold(threads, run, of_pointers, of_whole))
    evict(core)
    return rounds
