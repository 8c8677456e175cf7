"""Runs: goref-fast on a dump with its answers checked, and its peers."""

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import pprof
from .cores import limit_memory

# Phases of --stats that are the walk.
WALK = "walk"
DEBUG = "debug information"
PROFILE = ("select stacks", "write profile")


@dataclass(frozen=True)
class Child:
    """What the kernel says about a finished process."""

    wall: float
    cpu: float
    # CPU seconds of everything else on the machine meanwhile, and those that its host took away.
    others: float
    status: int
    read_bytes: int
    resident_bytes: int
    stderr: str


def busy_seconds():
    """CPU seconds of all programs since boot: all of /proc/stat's first line but idle, iowait and guests (counted as user)."""
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def run(command, memory_gib, timeout, cwd=None):
    """Runs a command to its end, or to its death after `timeout` seconds (status -9)."""
    with tempfile.TemporaryFile() as errors:
        busy = busy_seconds()
        start = time.monotonic()
        child = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=limit_memory(memory_gib),
        )
        killer = threading.Timer(timeout, os.kill, (child.pid, signal.SIGKILL))
        killer.start()
        # Not Popen.wait: only wait4 tells what this child used.
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        busy = busy_seconds() - busy
        killer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    cpu = usage.ru_utime + usage.ru_stime
    return Child(
        wall=wall,
        cpu=cpu,
        others=max(busy - cpu, 0.0),
        status=child.returncode,
        read_bytes=usage.ru_inblock * 512,
        resident_bytes=usage.ru_maxrss * 1024,
        stderr=text,
    )


@dataclass(frozen=True)
class Run:
    """One measured run of goref-fast."""

    threads: int
    child: Child
    phases: dict[str, float]
    private_bytes: int
    stats: dict

    @property
    def walk(self):
        return sum(seconds for name, seconds in self.phases.items() if name.startswith(WALK))


@dataclass
class Checked:
    """What every run on one dump must agree with: the collector's totals and the first profile's bytes."""

    dump: object
    digest: str = ""
    wrong: list[str] = field(default_factory=list)

    def check(self, profile, stats, child, threads):
        def complain(sentence):
            self.wrong.append(f"--threads {threads}: {sentence}")

        if child.status != 0:
            complain(f"status {child.status}: {'; '.join(stats.get('partial', [])) or child.stderr.strip()}")
        expected = (self.dump.objects, self.dump.bytes)
        told = (stats["live_objects"], stats["live_bytes"])
        if told != expected:
            complain(f"{told} objects and bytes live, the collector counts {expected}")
        if not stats["totals"]["balanced"]:
            complain("the books do not balance")
        digest = hashlib.sha256(profile.read_bytes()).hexdigest()
        if digest == self.digest:
            return
        total = pprof.totals(profile)
        if total != expected:
            complain(f"the profile adds up to {total} objects and bytes, the collector counts {expected}")
        if self.digest:
            complain(f"another profile than before: sha256 {digest} instead of {self.digest}")
        self.digest = self.digest or digest


class Tool:
    """The goref-fast binary."""

    def __init__(self, path, scratch, memory_gib, timeout):
        self.path, self.scratch, self.memory_gib, self.timeout = path, scratch, memory_gib, timeout
        scratch.mkdir(parents=True, exist_ok=True)

    def run(self, checked, threads):
        """One run, its answers checked."""
        dump = checked.dump
        stats, profile = self.scratch / "stats.json", self.scratch / "grf.out"
        for old in (stats, profile):
            old.unlink(missing_ok=True)
        # The core is mapped as a whole.
        limit = self.memory_gib + dump.core.stat().st_size / 2**30
        options = ["-o", profile, "--threads", threads, "--stats", stats, "--quiet"]
        child = run([self.path, "core", dump.exe, dump.core, *options], limit, self.timeout)
        if not stats.exists() or not profile.exists():
            raise SystemExit(f"{self.path} on {dump.core}: status {child.status}: {child.stderr}")
        told = json.loads(stats.read_text())
        checked.check(profile, told, child, threads)
        return Run(threads, child, told["phase_seconds"], told["peak_private_bytes"] or 0, told)


@dataclass(frozen=True)
class PeerRun:
    """One run of another program on the same core."""

    peer: str
    child: Child
    # Objects and bytes that its profile adds up to, if it writes one.
    found: tuple[int, int] | None


# Peer -> its environment variable, and what it is asked for.
PEERS = {
    "goref": ("GOREF_PEER_GRF", lambda exe, core, out: ["core", exe, core, "-o", out]),
    "viewcore breakdown": ("GOREF_PEER_VIEWCORE", lambda exe, core, out: [core, "--exe", exe, "breakdown"]),
}


def peers():
    """The peers that the environment names: (name, path, arguments)."""
    for name, (variable, arguments) in PEERS.items():
        if path := os.environ.get(variable):
            yield name, Path(path).resolve(), arguments


def run_peers(dump, scratch, memory_gib, timeout):
    """Each peer once, with a warm cache: the difference is in multiples, not in percent."""
    runs = []
    for name, path, arguments in peers():
        out = scratch / "peer.out"
        out.unlink(missing_ok=True)
        child = run([path, *arguments(dump.exe.resolve(), dump.core.resolve(), out)], memory_gib, timeout, scratch)
        found = None
        if child.status == 0 and out.exists():
            found = pprof.totals(out)
        runs.append(PeerRun(name, child, found))
    return runs
