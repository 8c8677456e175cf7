//! How a process is made to stand still: [`Choice`], from what it is and what the machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Subject;
use crate::error::{Error, Result};

/// How long all threads of a process stand still.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Until the process has made a copy-on-write snapshot of itself.
    Fork,
    /// Until what the analysis needs is copied.
    Copy,
    /// As long as the analysis takes.
    Whole,
}

impl Pause {
    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Copy => "copy",
            Self::Whole => "whole",
        }
    }
}

/// A way and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How.
    pub pause: Pause,
    /// Why.
    pub why: String,
}

/// The kernel's copy of page tables, for 4 KiB pages (perf/notes/0007).
const FORK_PER_GIB: Duration = Duration::from_millis(30);

/// Of its private memory, what a busy process may write while a snapshot is read, before it is paid for twice.
const WRITTEN_PART: u64 = 4;

const GIB: f64 = (1u64 << 30) as f64;

impl Choice {
    /// * `wanted`: what the user asked for.
    pub(super) fn make(subject: &Subject, wanted: Option<Pause>) -> Self {
        Self::decide(subject, wanted, available(subject.pid))
    }

    /// * `available`: bytes that may still be allocated on behalf of the process; `None` if unknown.
    fn decide(subject: &Subject, wanted: Option<Pause>, available: Option<u64>) -> Self {
        if let Some(pause) = wanted {
            return Self { pause, why: "as asked for".into() };
        }
        if subject.stopped {
            return Self { pause: Pause::Whole, why: "it is stopped by a signal anyway".into() };
        }
        let needed = subject.private_bytes / WRITTEN_PART;
        if let Some(available) = available.filter(|a| *a < needed) {
            let why = format!("{available} bytes of memory are left, a snapshot may cost {needed} and more");
            return Self { pause: Pause::Whole, why };
        }
        Self { pause: Pause::Fork, why: "a snapshot is possible".into() }
    }

    /// What is left when no snapshot can be made.
    ///
    /// * `space`: bytes of address space that a copy would take, if what is needed could be copied before it is used.
    pub(super) fn instead(&self, subject: &Subject, refused: &Error, space: Option<u64>) -> Self {
        let room = space.is_some_and(|space| space <= window_length(Pause::Copy))
            && available(subject.pid).is_some_and(|a| a > subject.private_bytes + subject.private_bytes / WRITTEN_PART);
        Self { pause: if room { Pause::Copy } else { Pause::Whole }, why: refused.to_string() }
    }

    /// Refuses what cannot be kept, before anything is stopped.
    pub(super) fn check(&self, subject: &Subject, max_pause: Option<Duration>) -> Result<()> {
        let expected = FORK_PER_GIB.mul_f64(subject.private_bytes as f64 / GIB);
        match max_pause.filter(|max| self.pause == Pause::Fork && *max < expected) {
            Some(max) => Err(Error::new(format!(
                "process {}: a snapshot of {} bytes of private memory takes about {} ms, --max-pause is {} ms",
                subject.pid,
                subject.private_bytes,
                expected.as_millis(),
                max.as_millis()
            ))
            .remedy("give a longer --max-pause; there is no shorter way")),
            None => Ok(()),
        }
    }
}

/// A part of the memory that is left: we keep no more than that of a process's memory, unless it must be copied. Then we keep that
/// much for ourselves.
const WINDOW_PART: u64 = 4;

/// As much as a small machine can give, and what is taken if nobody says what is left.
const LEAST_WINDOW: u64 = 64 << 20;

/// Bytes that may be kept of a process's memory, so that they are not read again.
pub(super) fn window_budget() -> u64 {
    (available(std::process::id()).unwrap_or(0) / WINDOW_PART).max(LEAST_WINDOW)
}

/// The longest reservation that leaves others, and us, room: bytes of address space. Only limits that count what is reserved as if it were
/// used make it shorter: those of our own process, and a machine that promises no more than it has.
pub(super) fn window_length(pause: Pause) -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (limits, status) = (read("/proc/self/limits"), read("/proc/self/status"));
    let strict = read("/proc/sys/vm/overcommit_memory").trim() == "2";
    let meminfo = if strict { read("/proc/meminfo") } else { String::new() };
    let left = reservable(&limits, &status, &meminfo);
    let part = left / WINDOW_PART;
    if pause == Pause::Copy { left - part } else { part }
}

/// Bytes that may still be reserved.
///
/// * `limits`, `status`: of `/proc/PID`.
/// * `meminfo`: empty unless the machine keeps its promises (`vm.overcommit_memory` 2).
fn reservable(limits: &str, status: &str, meminfo: &str) -> u64 {
    let kib = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map(|kib| kib.saturating_mul(1024))
    };
    // "unlimited" is no number.
    let limit = |name: &str| -> Option<u64> {
        limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let rooms = [
        (limit("Max address space"), kib(status, "VmSize:")),
        (limit("Max data size"), kib(status, "VmData:")),
        (kib(meminfo, "CommitLimit:"), kib(meminfo, "Committed_AS:")),
    ];
    let left = rooms.into_iter().filter_map(|(most, used)| Some(most?.saturating_sub(used.unwrap_or(0))));
    left.min().unwrap_or(u64::MAX)
}

/// What the machine, and the cgroups of `pid`, still have.
fn available(pid: u32) -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = kib.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024);
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Some(room(Path::new("/sys/fs/cgroup"), &groups).map_or(machine, |room| room.min(machine)))
}

/// Names of a cgroup's files, and of what its clean pages of files are called in `memory.stat`: those are given up before anything fails.
struct Files {
    max: &'static str,
    current: &'static str,
    inactive: &'static str,
}

const SECOND: Files = Files { max: "memory.max", current: "memory.current", inactive: "inactive_file " };
const FIRST: Files =
    Files { max: "memory.limit_in_bytes", current: "memory.usage_in_bytes", inactive: "total_inactive_file " };

/// The smallest room in the cgroups of a process, of both versions.
///
/// * `root`: where they are mounted.
/// * `groups`: `/proc/PID/cgroup`, lines of number, controllers, and path.
fn room(root: &Path, groups: &str) -> Option<u64> {
    let rooms = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        match controllers {
            "" => room_in(root, group, &SECOND),
            _ if controllers.split(',').any(|c| c == "memory") => room_in(&root.join("memory"), group, &FIRST),
            _ => None,
        }
    });
    rooms.min()
}

/// The smallest room below the limit of a cgroup and those above it.
fn room_in(root: &Path, group: &str, files: &Files) -> Option<u64> {
    let mut at: PathBuf = root.join(group.trim_start_matches('/'));
    let mut least = None;
    while at.starts_with(root) {
        let number = |name: &str| fs::read_to_string(at.join(name)).ok()?.trim().parse::<u64>().ok();
        if let (Some(max), Some(current)) = (number(files.max), number(files.current)) {
            let stat = fs::read_to_string(at.join("memory.stat")).unwrap_or_default();
            let inactive = stat.lines().find_map(|l| l.strip_prefix(files.inactive)?.parse().ok()).unwrap_or(0);
            let room = max.saturating_sub(current.saturating_sub(inactive));
            least = Some(least.map_or(room, |least: u64| least.min(room)));
        }
        if !at.pop() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(private_bytes: u64, stopped: bool) -> Subject {
        Subject {
            pid: 1,
            inner_pid: 1,
            exe_path: PathBuf::new(),
            exe: PathBuf::new(),
            private_bytes,
            filtered: false,
            stopped,
            start: 0,
            program: (0, 0),
        }
    }

    #[test]
    fn a_snapshot_unless_it_costs_too_much() {
        let pause =
            |private, stopped, wanted, available| Choice::decide(&subject(private, stopped), wanted, available).pause;
        assert_eq!(pause(8 << 30, false, None, Some(16 << 30)), Pause::Fork);
        assert_eq!(pause(8 << 30, false, None, None), Pause::Fork);
        assert_eq!(pause(8 << 30, false, None, Some(1 << 30)), Pause::Whole);
        assert_eq!(pause(8 << 30, true, None, Some(16 << 30)), Pause::Whole);
        assert_eq!(pause(8 << 30, true, Some(Pause::Copy), Some(1)), Pause::Copy);
    }

    #[test]
    fn a_copy_instead_only_where_it_can_be_reserved() {
        let refused = Error::new("no");
        let instead = |private, space| {
            let choice = Choice::decide(&subject(private, false), None, None);
            choice.instead(&subject(private, false), &refused, space)
        };
        assert_eq!(instead(4096, Some(4096)), Choice { pause: Pause::Copy, why: "no".into() });
        assert_eq!(instead(4096, None).pause, Pause::Whole, "of no use");
        assert_eq!(instead(4096, Some(u64::MAX)).pause, Pause::Whole, "no address space");
        assert_eq!(instead(1 << 60, Some(4096)).pause, Pause::Whole, "no memory");
        assert!(window_length(Pause::Whole) <= window_length(Pause::Copy) / 2);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let check = |private, pause, max| {
            let choice = Choice { pause, why: String::new() };
            choice.check(&subject(private, false), Some(Duration::from_millis(max))).is_ok()
        };
        assert!(check(1 << 30, Pause::Fork, 30) && !check(4 << 30, Pause::Fork, 30));
        assert!(check(4 << 30, Pause::Whole, 30));
    }

    #[test]
    fn limits_of_ours_shorten_reservations() {
        let status = "Name:\tgoref-fast\nVmSize:\t  1000 kB\nVmData:\t   100 kB\n";
        let limits = |space: &str, data: &str| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax data size  {data}  unlimited  bytes\nMax address space  {space}  unlimited  bytes\n"
            )
        };
        let none = limits("unlimited", "unlimited");
        assert_eq!(reservable(&none, status, ""), u64::MAX);
        assert_eq!(reservable(&limits("2048000", "unlimited"), status, ""), 1_024_000);
        assert_eq!(reservable(&limits("2048000", "204800"), status, ""), 102_400);
        assert_eq!(reservable(&limits("5", "unlimited"), status, ""), 0, "over it already");
        let meminfo = "MemTotal: 9 kB\nCommitLimit:      900 kB\nCommitted_AS:     400 kB\n";
        assert_eq!(reservable(&none, status, meminfo), 500 << 10);
        let own = fs::read_to_string("/proc/self/limits").expect("limits");
        assert!(own.contains("Max address space") && own.contains("Max data size"), "{own}");
    }

    #[test]
    fn the_tightest_cgroup_counts() {
        let root = tempfile::tempdir().expect("folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            fs::write(path, text).expect("write");
        };
        write("a/memory.max", "1000\n");
        write("a/memory.current", "900\n");
        write("a/memory.stat", "anon 1\ninactive_file 200\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "50\n");
        let room = |groups| room(root.path(), groups);
        assert_eq!(room("0::/a/b\n"), Some(300));
        assert_eq!(room("0::/c\n"), None);
        // The first version has a folder for each controller.
        write("memory/x:y/memory.limit_in_bytes", "700\n");
        write("memory/x:y/memory.usage_in_bytes", "600\n");
        write("memory/x:y/memory.stat", "inactive_file 90\ntotal_inactive_file 100\n");
        assert_eq!(room("5:cpu,cpuacct:/a/b\n4:hugetlb,memory:/x:y\n0::/\n"), Some(200));
        assert_eq!(room("4:memory:/x:y\n0::/a\n"), Some(200));
        assert_eq!(room("5:cpu:/x:y\n"), None);
    }
}
