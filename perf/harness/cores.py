"""Cores of generated heaps: perf/gen is built, run, dumped, and released."""

import filecmp
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ATTEMPTS = 5


@dataclass(frozen=True)
class Dump:
    """A core with what the collector says about it."""

    exe: Path
    core: Path
    objects: int
    bytes: int
    # GOMAXPROCS -> (median, min, max) seconds of a forced collection
    collections: dict[int, tuple[float, float, float]]


def limit_memory(gib):
    """For preexec_fn: the child cannot take more address space than that, whatever its bugs."""

    def apply():
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30),) * 2)

    return apply


def build_generator(go, source, cache, case):
    """The executable for a case; the go command caches what it can."""
    cache.mkdir(parents=True, exist_ok=True)
    variant = hashlib.sha256(f"{case.tags}|{case.ldflags}".encode()).hexdigest()[:8] if case.tags or case.ldflags else "plain"
    exe = cache / f"gen-{variant}"
    env = dict(os.environ, GOTOOLCHAIN="local", CGO_ENABLED="0", GOFLAGS="-mod=mod", GOPROXY="off", GOWORK="off")
    command = [go, "build", "-trimpath", "-buildvcs=false", "-tags", case.tags, "-ldflags", case.ldflags, "-o", str(exe), "."]
    built = subprocess.run(command, cwd=source, env=env, text=True, capture_output=True)
    if built.returncode != 0:
        raise SystemExit(f"perf/gen does not build: {built.stderr}")
    return exe


def take(exe, folder, case, memory_gib):
    """Runs the generator and dumps it into `folder`, unless that was done before; again if the heap did not hold still."""
    if (folder / "truth.txt").exists() and filecmp.cmp(exe, folder / "exe", shallow=False):
        return read(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.txt").unlink(missing_ok=True)
    shutil.copy2(exe, folder / "exe")
    for _ in range(ATTEMPTS):
        truth = dump_once(folder, case, memory_gib)
        if re.search(r"^OK ", truth, re.MULTILINE):
            (folder / "truth.txt").write_text(truth)
            return read(folder)
        print("the heap changed while the core was taken, again", file=sys.stderr)
    raise SystemExit(f"{case.name}: the heap never held still")


def dump_once(folder, case, memory_gib):
    command = [folder / "exe", "-shape", case.shape, "-size", str(case.size), "-procs", ",".join(map(str, case.threads))]
    core = folder / "core"
    core.unlink(missing_ok=True)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ, GOMAXPROCS=str(max(case.threads))),
        preexec_fn=limit_memory(memory_gib),
    ) as program:
        lines = []
        for line in program.stdout:
            lines.append(line)
            if line.startswith("WAIT"):
                break
        else:
            raise SystemExit(f"{case.name}: the generator ended early, status {program.wait()}: {''.join(lines)}")
        gdb = ["gdb", "-nx", "-batch", "-p", str(program.pid), "-ex", f"generate-core-file {core}"]
        dumped = subprocess.run(gdb, stdin=subprocess.DEVNULL, text=True, capture_output=True)
        rest, _ = program.communicate("\n")
    if not core.exists():
        raise SystemExit(f"{case.name}: gdb wrote no core: {dumped.stderr}")
    if shutil.which("fallocate"):
        # gdb writes address space that was never touched as zeros; a kernel's core has holes there.
        subprocess.run(["fallocate", "--dig-holes", str(core)], check=False)
    return "".join(lines) + rest


def read(folder):
    """The dump of a folder that has exe, core and truth.txt."""
    text = (folder / "truth.txt").read_text()
    truth = re.search(r"^TRUTH heapalloc=(\d+) objects=(\d+)", text, re.MULTILINE)
    if truth is None:
        raise SystemExit(f"{folder}/truth.txt has no line TRUTH")
    collections = {}
    for line in re.findall(r"^GCTIME (.*)", text, re.MULTILINE):
        numbers = dict(re.findall(r"(\w+)=(\d+)", line))
        median = int(numbers["median_ns"]) / 1e9
        bounds = (int(numbers.get(key, numbers["median_ns"])) / 1e9 for key in ("min_ns", "max_ns"))
        collections[int(numbers["procs"])] = (median, *bounds)
    return Dump(folder / "exe", folder / "core", int(truth[2]), int(truth[1]), collections)
