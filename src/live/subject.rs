//! [`Subject`]: a running process that can be attached to, or the reason why not, with a remedy.
//!
//! Everything is asked of `/proc`; nothing here disturbs the process.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::machine;
use super::proc::{self, Mapping, Status};
use super::reader::Reader;
use crate::error::{Error, Result};
use crate::image::{FileMapping, Input, open_mapped};

/// Bit of CAP_SYS_PTRACE in `CapEff`.
const CAP_SYS_PTRACE: u32 = 19;

/// `SECCOMP_MODE_FILTER` and what comes with it.
const NO_SECCOMP: u64 = 0;

/// How often we look, and how long we wait in between, before a first thread that ended alone is taken to stay that way.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A process that may be attached to.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its id, as we see it.
    pub pid: u32,
    /// Its id in its own PID namespace.
    pub inner_pid: u32,
    /// Its executable's path, as it was when it started; without ` (deleted)`.
    pub exe_path: PathBuf,
    /// The same file, also if it was deleted or lies in another container.
    pub exe: PathBuf,
    /// Memory of its own in RAM, bytes: what a copy of it costs at most.
    pub private_bytes: u64,
    /// Whether seccomp filters decide about its system calls.
    pub filtered: bool,
    /// Whether it is stopped by job control.
    pub stopped: bool,
    /// When it started, in ticks since the boot.
    pub(super) start: u64,
    /// Device and inode of its executable.
    pub(super) program: (u64, u64),
}

impl Subject {
    /// Says that it ended, if it did.
    ///
    /// # Errors
    /// It ended: what was read of it lately is not its memory.
    pub fn check_alive(&self) -> Result<()> {
        if is_alive(self.pid) {
            return Ok(());
        }
        Err(Error::new(format!("process {}: ended while it was read", self.pid))
            .remedy("analyze the core of a crash, or attach earlier; --pause fork takes the shortest time"))
    }

    /// Says that `frozen`, the process itself or a snapshot of it, is not what was inspected: it ended and its id was used again, or
    /// it executes another program now.
    ///
    /// # Errors
    /// As said.
    pub(super) fn check_same(&self, frozen: u32) -> Result<()> {
        let pid = self.pid;
        let other = |what: &str| {
            Err(Error::new(format!("process {pid}: {what} while goref-fast looked at it"))
                .remedy("check the id with ps, and try again"))
        };
        if proc::stat(pid).is_some_and(|stat| stat.start != self.start) {
            return other("ended, and another one got its id,");
        }
        let program = program(&PathBuf::from(format!("/proc/{frozen}/exe")));
        if program.map_err(|e| denied_or(e, pid, &Status::default()))? != self.program {
            return other("began to execute another program");
        }
        Ok(())
    }

    /// Looks at process `pid`.
    ///
    /// # Errors
    /// It is gone, dead, a thread, a kernel thread, a 32-bit program, traced by another, or not ours to look at.
    pub fn inspect(pid: u32) -> Result<Self> {
        let what = format!("process {pid}");
        let (status, alone) = settled(pid).map_err(|e| gone_or(e, pid))?;
        if let Some(tgid) = status.number("Tgid").filter(|tgid| *tgid != u64::from(pid)) {
            return Err(Error::new(format!("{what}: expected a process, found a thread of process {tgid}"))
                .remedy(format!("attach to {tgid}")));
        }
        if pid == std::process::id() {
            return Err(Error::new(format!("{what}: this is goref-fast itself")).remedy("give the id of a Go program"));
        }
        let name = status.text("Name").to_owned();
        match status.state() {
            'Z' if !alone => {
                return Err(Error::new(format!("{what} ({name}): its first thread has ended, others have not"))
                    .remedy("take a core with gcore, or have it crash with kill -ABRT"));
            }
            'Z' => {
                let parent = status.number("PPid").unwrap_or(0);
                return Err(Error::new(format!("{what} ({name}): is dead; process {parent} has not waited for it"))
                    .remedy("nothing of its memory is left; a crash leaves a core with ulimit -c unlimited and GOTRACEBACK=crash"));
            }
            'X' | 'x' => return Err(gone(pid)),
            _ => {}
        }
        if status.number("CoreDumping") == Some(1) {
            return Err(Error::new(format!("{what} ({name}): crashed, and the kernel is writing its core"))
                .remedy("wait for that, and analyze it: goref-fast core EXE CORE"));
        }
        // A kernel thread has no memory of its own; nor has one that is just ending, which newer kernels tell apart.
        if status.number("Kthread") == Some(0) && status.text("VmSize").is_empty() {
            return Err(gone(pid));
        }
        if status.number("Kthread") == Some(1) || status.text("VmSize").is_empty() {
            return Err(Error::new(format!("{what} ({name}): is a thread of the kernel"))
                .remedy("give the id of a Go program: pgrep, ps"));
        }
        if let Some(tracer) = status.number("TracerPid").filter(|tracer| *tracer != 0) {
            let tracer_name = u32::try_from(tracer).ok().and_then(|t| Status::read(t, None).ok());
            let tracer_name = tracer_name.map_or(String::new(), |s| format!(" ({})", s.text("Name")));
            return Err(Error::new(format!("{what} ({name}): process {tracer}{tracer_name} traces it already"))
                .remedy("a process has one tracer at a time: end the debugger, strace or profiler that holds it"));
        }
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        let link = fs::read_link(&exe).map_err(|e| denied_or(e, pid, &status))?;
        check_machine(&exe, &what, pid, &status)?;
        let program = program(&exe).map_err(|e| denied_or(e, pid, &status))?;
        // The whole right to trace is asked for by this file.
        fs::File::open(format!("/proc/{pid}/mem")).map_err(|e| denied_or(e, pid, &status))?;
        let link = link.to_string_lossy();
        let kib = |key: &str| status.number(key).unwrap_or(0).saturating_mul(1024);
        // A thread may have filters of its own.
        let filtered = |status: &Status| status.number("Seccomp").unwrap_or(NO_SECCOMP) != NO_SECCOMP;
        let any_filtered = || {
            proc::threads(pid)
                .is_ok_and(|all| all.iter().any(|t| Status::read(pid, Some(*t)).is_ok_and(|s| filtered(&s))))
        };
        Ok(Self {
            pid,
            inner_pid: status.inner_id().unwrap_or(pid),
            exe_path: PathBuf::from(link.strip_suffix(" (deleted)").unwrap_or(&link)),
            exe,
            private_bytes: kib("RssAnon").saturating_add(kib("VmSwap")),
            filtered: filtered(&status) || any_filtered(),
            stopped: status.state() == 'T',
            start: proc::stat(pid).ok_or_else(|| gone(pid))?.start,
            program,
        })
    }

    /// Its file mappings now, as a core has them.
    ///
    /// # Errors
    /// It is gone, or not ours to look at.
    pub fn files(&self) -> Result<Vec<FileMapping>> {
        Ok(mappings(self.pid)?.iter().filter_map(Mapping::file).collect())
    }

    /// Its auxiliary vector.
    ///
    /// # Errors
    /// As [`Subject::files`].
    pub fn auxv(&self) -> Result<Vec<(u64, u64)>> {
        proc::auxv(self.pid).map_err(|e| denied_or(e, self.pid, &Status::default()))
    }

    /// Opens the files with Go code in `files`, besides its executable: plugins and shared libraries, also if they were deleted or lie in
    /// another container.
    ///
    /// * `auxv`: its auxiliary vector.
    #[must_use]
    pub fn libraries(&self, files: &[FileMapping], auxv: &[(u64, u64)]) -> Vec<(FileMapping, Input)> {
        let places = |f: &FileMapping| proc::paths(self.pid, f.range, &f.path).to_vec();
        // The first page decides whether it is the file.
        open_mapped(files, auxv, places, |f, page| Reader::new(self.pid).exact(f.range.start.0, page))
    }
}

/// The state of a process, and whether its first thread is the only one. Another thread that executes a program ends all others first, and then
/// takes the first one's place: what is seen in between passes.
fn settled(pid: u32) -> io::Result<(Status, bool)> {
    let mut looks = 1;
    loop {
        // In this order: who is alone does not take another's place afterwards, so if it is dead, it stays dead.
        let alone = proc::threads(pid).is_ok_and(|tids| tids.len() == 1);
        let status = Status::read(pid, None)?;
        if status.state() != 'Z' || alone || looks == LOOKS {
            return Ok((status, alone));
        }
        sleep(BETWEEN_LOOKS);
        looks += 1;
    }
}

/// Device and inode of the file behind a link in `/proc`.
fn program(exe: &PathBuf) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(exe)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Mappings of any process that we may trace, in address order.
pub(super) fn mappings(pid: u32) -> Result<Vec<Mapping>> {
    proc::mappings(pid).map_err(|e| denied_or(e, pid, &Status::default()))
}

/// The executable's header: 64 bits, and the machine that we run on, whose registers we know.
fn check_machine(exe: &PathBuf, what: &str, pid: u32, status: &Status) -> Result<()> {
    use std::io::Read;
    let mut header = [0u8; 20];
    let read = fs::File::open(exe).and_then(|mut file| file.read_exact(&mut header));
    read.map_err(|e| denied_or(e, pid, status))?;
    let machine = u16::from_le_bytes([header[18], header[19]]);
    if !header.starts_with(b"\x7fELF") || header[4] != 2 {
        return Err(Error::new(format!("{what}: expected a 64-bit program, found a 32-bit one"))
            .remedy("only 64-bit Go programs can be read"));
    }
    if machine != machine::ARCHITECTURE.e_machine {
        return Err(Error::new(format!(
            "{what}: expected a program for this machine, found one for ELF machine {machine}"
        ))
        .remedy("an emulator runs it; take a core inside the emulated system"));
    }
    Ok(())
}

/// Whether the process still has memory: what is read of one that was killed meanwhile is missing pages, or zeros.
fn is_alive(pid: u32) -> bool {
    // A killed process that is traced has no memory long before it is a zombie.
    let alive = |status: Status| !matches!(status.state(), 'Z' | 'X' | 'x') && !status.text("VmSize").is_empty();
    Status::read(pid, None).is_ok_and(alive)
}

fn gone(pid: u32) -> Error {
    if fs::metadata("/proc/self/status").is_err() {
        return Error::new(format!("process {pid}: cannot be looked at: /proc is not there"))
            .remedy("mount it (mount -t proc proc /proc), or run goref-fast on the host");
    }
    // Without a signal, this only asks whether there is such a process.
    let known = i32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| kill(Pid::from_raw(pid), None));
    let hides = || fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains("hidepid="));
    if matches!(known, Some(Ok(()) | Err(Errno::EPERM))) && hides() {
        return Error::new(format!("process {pid}: exists, but /proc does not show it to us (hidepid)"))
            .remedy("run goref-fast as the user of that process or as root (sudo)");
    }
    Error::new(format!("process {pid}: there is no such process (any more)"))
        .remedy("check the id with ps; ids inside a container are not those outside of it")
}

/// The process ended while we looked, or something else is wrong.
fn gone_or(e: io::Error, pid: u32) -> Error {
    match e.kind() {
        // ESRCH: it ended between opening and reading.
        ErrorKind::NotFound => gone(pid),
        _ if e.raw_os_error() == Some(3) => gone(pid),
        _ => Error::new(format!("process {pid}: cannot read /proc/{pid}")).cause(e),
    }
}

/// Why we may not look at it, as far as the system tells.
pub(super) fn denied_or(e: io::Error, pid: u32, status: &Status) -> Error {
    if e.kind() != ErrorKind::PermissionDenied {
        return gone_or(e, pid);
    }
    denied(pid, status)
}

/// The refusal that fits best: other user, Yama, container.
pub(super) fn denied(pid: u32, status: &Status) -> Error {
    let own = Status::read(std::process::id(), None).unwrap_or_default();
    let capable = u64::from_str_radix(own.text("CapEff"), 16).is_ok_and(|caps| caps >> CAP_SYS_PTRACE & 1 == 1);
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    let scope = scope.as_deref().map_or("0", str::trim);
    explain(pid, capable, scope, (own.number("Uid"), status.number("Uid")), own.number("Seccomp").unwrap_or(0) != 0)
}

/// * `users`: ours and the process's.
fn explain(pid: u32, capable: bool, scope: &str, users: (Option<u64>, Option<u64>), filtered: bool) -> Error {
    let error = |why: &str| Error::new(format!("process {pid}: the system does not allow to trace it: {why}"));
    if scope == "3" {
        return error("kernel.yama.ptrace_scope is 3, which forbids tracing until the next boot")
            .remedy("take a core instead: a crash by kill -ABRT leaves one (ulimit -c unlimited)");
    }
    if capable {
        return error(if filtered {
            "we have CAP_SYS_PTRACE, but a seccomp filter or security module of our container is in the way"
        } else {
            "we have CAP_SYS_PTRACE, but a security module (SELinux, AppArmor), or the user namespace of the process, is in the way"
        })
        .remedy("run goref-fast on the host, outside of the container, as root");
    }
    if let (Some(ours), Some(theirs)) = users
        && ours != theirs
    {
        return error(&format!("it belongs to user {theirs}, we are user {ours}"))
            .remedy("run goref-fast as that user or as root (sudo)");
    }
    if scope == "1" || scope == "2" {
        return error(&format!("kernel.yama.ptrace_scope is {scope}, which asks for the capability CAP_SYS_PTRACE"))
            .remedy("run goref-fast as root (sudo), or with `--cap-add=SYS_PTRACE` in a container, or set kernel.yama.ptrace_scope to 0");
    }
    error("CAP_SYS_PTRACE is missing, and the process is not dumpable or has other capabilities").remedy(
        "run goref-fast as root (sudo); in a container, give it the capability: docker run --cap-add=SYS_PTRACE, or \
         securityContext.capabilities.add: [SYS_PTRACE]",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pid: u32) -> (String, String) {
        let e = Subject::inspect(pid).expect_err("refused");
        (e.to_string(), e.remedy_text().expect("a remedy").to_owned())
    }

    #[test]
    fn what_is_no_process_is_refused() {
        let (message, _) = refusal(std::process::id());
        assert!(message.contains("goref-fast itself"), "{message}");
        // Above pid_max of every Linux.
        let (message, remedy) = refusal(1 << 30);
        assert!(message.contains("no such process") && remedy.contains("container"), "{message}: {remedy}");
        // kthreadd, except in a PID namespace of its own.
        if fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
            let (message, _) = refusal(2);
            assert!(message.contains("thread of the kernel"), "{message}");
        }
    }

    #[test]
    fn a_thread_and_a_zombie_are_refused() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        let own = std::process::id();
        let tid = proc::threads(own).expect("threads").into_iter().find(|t| *t != own).expect("a second thread");
        let (message, remedy) = refusal(tid);
        assert!(message.contains("a thread of process") && remedy.contains(&own.to_string()), "{message}: {remedy}");
        drop(sender);
        let _ = thread.join();

        let mut child = std::process::Command::new("true").spawn().expect("true");
        while proc::stat(child.id()).is_some_and(|s| s.state != 'Z') {
            std::thread::yield_now();
        }
        let (message, _) = refusal(child.id());
        assert!(message.contains("is dead"), "{message}");
        child.wait().expect("wait");
    }

    #[test]
    fn another_process_is_not_taken_for_the_same() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        // It is ourselves until it executes.
        let own = program(&PathBuf::from("/proc/self/exe")).expect("own");
        while program(&PathBuf::from(format!("/proc/{}/exe", child.id()))).is_ok_and(|p| p == own) {
            std::thread::yield_now();
        }
        let subject = Subject::inspect(child.id()).expect("a process");
        assert!(subject.check_same(child.id()).is_ok());
        let message = |subject: &Subject| subject.check_same(child.id()).expect_err("another").to_string();
        let reused = Subject { start: subject.start + 1, ..subject.clone() };
        assert!(message(&reused).contains("got its id"), "{}", message(&reused));
        let executed = Subject { program: own, ..subject };
        assert!(message(&executed).contains("another program"), "{}", message(&executed));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    #[test]
    fn refusals_name_their_remedy() {
        let text = |capable, scope, users, filtered| {
            let e = explain(7, capable, scope, users, filtered);
            format!("{e}: {}", e.remedy_text().expect("a remedy"))
        };
        assert!(text(false, "0", (Some(1), Some(2)), false).contains("user 2"));
        assert!(text(false, "1", (Some(1), Some(1)), false).contains("ptrace_scope is 1"));
        assert!(text(true, "3", (Some(0), Some(0)), false).contains("core"));
        assert!(text(true, "1", (Some(0), Some(0)), true).contains("seccomp"));
        assert!(text(false, "0", (Some(0), Some(0)), true).contains("--cap-add=SYS_PTRACE"));
    }
}
