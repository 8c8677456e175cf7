//! The guard: a process of its own that traces the subject, so that whatever happens to us, the subject goes on.
//!
//! A tracer that dies in the wrong moment leaves a thread with the registers of a system call that it never wanted to make. So
//! the tracer does nothing but trace. We start ourselves again as `goref-fast guard`, in a process group that Ctrl-C does not reach, and talk
//! by lines over two pipes. When ours close, because we are done, failed, panicked or were killed, the guard cleans up and ends.
//!
//! ```text
//! guard: thread TID REGISTERS FLOATING                one line each, registers in hex words
//! guard: snapshot PID STOPPED_NS | held               the memory of PID, or the subject's own, stands still from now on
//! guard: refused MESSAGE <tab> REMEDY                 no snapshot can be made; all goes on
//! guard: error MESSAGE <tab> REMEDY
//! we:    release
//! guard: released STOPPED_NS | left STOPPED_NS | expired STOPPED_NS
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;

use super::proc::{self, Status};
use super::ptrace;
use super::snapshot::{self, Snapshot};
use super::tracee::{Thread, Tracee};
use crate::error::{Context, Error, Result};

/// What a guard is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The process.
    pub pid: u32,
    /// Make a snapshot and let it go; else hold it.
    pub fork: bool,
    /// Whether seccomp filters must be suspended for that.
    pub filtered: bool,
    /// Whether its threads know themselves by other ids than ours (PID namespaces).
    pub nested: bool,
    /// Report floating-point registers too.
    pub floating: bool,
    /// Longest stop.
    pub max_pause: Option<Duration>,
}

impl Order {
    /// As arguments of `goref-fast guard`.
    fn arguments(&self) -> Vec<String> {
        let flag = |on: bool| u8::from(on).to_string();
        let max = self.max_pause.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        let flags = [self.fork, self.filtered, self.nested, self.floating].map(flag);
        [self.pid.to_string()].into_iter().chain(flags).chain([max.to_string()]).collect()
    }

    /// The way back; `None` for what no version of ours writes.
    #[must_use]
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let [pid, fork, filtered, nested, floating, max] = arguments else { return None };
        let flag = |text: &str| text.parse::<u8>().ok().map(|n| n != 0);
        let max: u64 = max.parse().ok()?;
        Some(Self {
            pid: pid.parse().ok()?,
            fork: flag(fork)?,
            filtered: flag(filtered)?,
            nested: flag(nested)?,
            floating: flag(floating)?,
            max_pause: (max > 0).then(|| Duration::from_nanos(max)),
        })
    }
}

/// The guard's whole life.
pub fn serve(order: &Order) {
    // No request to end, no timer and no limit may leave things half done; our end comes with the pipe's.
    let _ = SigSet::all().thread_block();
    ptrace::hurry();
    if let Err((word, e)) = guard(order) {
        say(&format!("{word} {}\t{}\n", one_line(&e.to_string()), one_line(e.remedy_text().unwrap_or(""))));
    }
}

/// Lines go at once. Who does not listen any more is dead, and reading tells that.
fn say(lines: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\t'], " ")
}

fn guard(order: &Order) -> Result<(), (&'static str, Error)> {
    let error = |e: Error| ("error", e);
    let options = if order.fork && order.filtered { ptrace::SUSPEND_SECCOMP } else { 0 };
    // What a killed run of this program left, and nobody else's.
    let left = if order.fork { proc::zombies(order.pid, snapshot::EXIT_SIGNAL) } else { Vec::new() };
    let deadline = order.max_pause.map(|max| Instant::now() + max);
    let stopped = Tracee::stop(order.pid, options, deadline);
    let mut tracee = stopped.map_err(|e| if options == 0 { error(e) } else { ("refused", filtered(order.pid)) })?;
    let threads: Vec<Registers> = tracee.threads.iter().map(|thread| seen(order, thread)).collect();
    if order.fork {
        let snapshot = Snapshot::take(order.pid, &mut tracee, options).map_err(|e| ("refused", e))?;
        // The process runs again before anything is written: who reads it may be slow.
        let stopped = tracee.resume();
        snapshot.strip();
        say(&format!("{}snapshot {} {}\n", lines(&threads), snapshot.pid, stopped.as_nanos()));
        let _ = wait_for_word(None);
        match snapshot.remove(&left) {
            Ok(stopped) => say(&format!("released {}\n", stopped.as_nanos())),
            Err(_) => say("left 0\n"),
        }
    } else {
        say(&format!("{}held\n", lines(&threads)));
        let expired = wait_for_word(order.max_pause.map(|max| tracee.since + max)) == Word::Expired;
        let stopped = tracee.resume();
        say(&format!("{} {}\n", if expired { "expired" } else { "released" }, stopped.as_nanos()));
    }
    Ok(())
}

/// What is known of a stopped thread.
fn seen(order: &Order, thread: &Thread) -> Registers {
    let tid = match order.nested {
        true => Status::read(order.pid, Some(thread.tid)).ok().and_then(|s| s.inner_id()).unwrap_or(thread.tid),
        false => thread.tid,
    };
    let floating = if order.floating { Tracee::registers(thread.tid, ptrace::FLOATING) } else { Vec::new() };
    Registers { tid, general: thread.regs.clone(), floating }
}

fn lines(threads: &[Registers]) -> String {
    threads.iter().map(|t| format!("thread {} {} {}\n", t.tid, hex(&t.general), hex(&t.floating))).collect()
}

/// Why a process with seccomp filters may have to do without a snapshot: a filter may kill it for a call that it never makes itself.
fn filtered(pid: u32) -> Error {
    Error::new(format!("process {pid}: its system calls are filtered by seccomp, and the filters cannot be suspended"))
        .remedy("run goref-fast as root on the host (CAP_SYS_ADMIN), or use --pause copy or --pause whole")
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Word {
    /// We are told to release, or there is nobody any more to tell us.
    Release,
    /// The time is over.
    Expired,
}

/// Waits for one byte or the end of standard input.
fn wait_for_word(deadline: Option<Instant>) -> Word {
    let mut stdin = std::io::stdin().lock();
    loop {
        let timeout = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Word::Expired,
            // Rounded up, so that the last wait is not a loop.
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let ready = {
            let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, timeout)
        };
        if ready.is_ok_and(|n| n > 0) {
            let _ = stdin.read(&mut [0; 1]);
            return Word::Release;
        }
    }
}

fn hex(words: &[u64]) -> String {
    if words.is_empty() {
        return "-".to_owned();
    }
    words.iter().map(|w| format!("{w:016x}")).collect()
}

fn words(hex: &str) -> Option<Vec<u64>> {
    if hex == "-" {
        return Some(Vec::new());
    }
    let chunks = hex.as_bytes().chunks(16).map(|c| std::str::from_utf8(c).ok());
    chunks.map(|c| u64::from_str_radix(c?, 16).ok()).collect()
}

/// Registers of one stopped thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Thread id in the process's own PID namespace.
    pub tid: u32,
    /// `NT_PRSTATUS`, in words.
    pub general: Vec<u64>,
    /// `NT_PRFPREG`, in words; empty unless asked for.
    pub floating: Vec<u64>,
}

/// Why there is no guard at work.
pub(super) enum Refusal {
    /// No snapshot can be made of this process.
    NoSnapshot(Error),
    /// It cannot be attached to at all.
    Failed(Error),
}

/// Our end. Dropping it lets the process go and waits until that is done.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// All threads of the process.
    pub(super) threads: Vec<Registers>,
    /// The process whose memory stands still.
    pub(super) frozen: u32,
    /// How long the process was stopped so far, if it runs again.
    pub(super) stopped: Option<Duration>,
}

/// How it ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Released {
    /// The last stop.
    pub(super) stopped: Duration,
    /// `--max-pause` ended it before we were done.
    pub(super) expired: bool,
    /// A dead child is left.
    pub(super) left: bool,
}

impl Guard {
    /// Starts a guard and waits until the memory stands still.
    pub(super) fn start(order: &Order) -> Result<Self, Refusal> {
        let spawned = Command::new("/proc/self/exe")
            .arg("guard")
            .args(order.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = spawned.context(|| "cannot start the guard process".into()).map_err(Refusal::Failed)?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let from = BufReader::new(from.expect("piped"));
        let mut guard = Self { child, to, from, threads: Vec::new(), frozen: order.pid, stopped: None };
        loop {
            let line = guard.line().map_err(Refusal::Failed)?;
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let told = || {
                let (message, remedy) = rest.split_once('\t').unwrap_or((rest, ""));
                let error = Error::new(message);
                if remedy.is_empty() { error } else { error.remedy(remedy) }
            };
            match word {
                "thread" => {
                    let thread = parse_thread(rest).ok_or_else(|| Refusal::Failed(unknown(&line)))?;
                    guard.threads.push(thread);
                }
                "held" => return Ok(guard),
                "snapshot" => {
                    let numbers =
                        rest.split_once(' ').and_then(|(pid, ns)| Some((pid.parse().ok()?, ns.parse().ok()?)));
                    let (pid, ns) = numbers.ok_or_else(|| Refusal::Failed(unknown(&line)))?;
                    guard.frozen = pid;
                    guard.stopped = Some(Duration::from_nanos(ns));
                    return Ok(guard);
                }
                "refused" => return Err(Refusal::NoSnapshot(told())),
                "error" => return Err(Refusal::Failed(told())),
                _ => return Err(Refusal::Failed(unknown(&line))),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line).context(|| "cannot read from the guard process".into())?;
        if read == 0 {
            return Err(Error::new("the guard process ended; the process goes on")
                .remedy("do not kill `goref-fast guard`; try again"));
        }
        Ok(line.trim_end_matches('\n').to_owned())
    }

    /// Lets the process go.
    pub(super) fn release(mut self) -> Result<Released> {
        if let Some(mut to) = self.to.take() {
            let _ = to.write_all(b"release\n");
        }
        let line = self.line()?;
        let (word, ns) = line.split_once(' ').unwrap_or((&line, ""));
        let stopped = Duration::from_nanos(ns.parse().map_err(|_| unknown(&line))?);
        Ok(Released { stopped, expired: word == "expired", left: word == "left" })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.to.take());
        let _ = self.child.wait();
    }
}

fn unknown(line: &str) -> Error {
    Error::new(format!("the guard process said something unknown: {line:?}"))
}

fn parse_thread(text: &str) -> Option<Registers> {
    let fields: Vec<&str> = text.split(' ').collect();
    let [tid, general, floating] = fields[..] else { return None };
    Some(Registers { tid: tid.parse().ok()?, general: words(general)?, floating: words(floating)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let max_pause = Some(Duration::from_millis(5));
        let order = Order { pid: 7, fork: true, filtered: false, nested: true, floating: true, max_pause };
        assert_eq!(Order::parse(&order.arguments()).as_ref(), Some(&order));
        let order = Order { max_pause: None, fork: false, nested: false, ..order };
        assert_eq!(Order::parse(&order.arguments()).as_ref(), Some(&order));
        assert_eq!(Order::parse(&["x".to_owned()]), None);
        let thread = Registers { tid: 4, general: vec![1, u64::MAX], floating: Vec::new() };
        let said = lines(std::slice::from_ref(&thread));
        assert_eq!(parse_thread(said.strip_prefix("thread ").expect("the word").trim_end()), Some(thread));
        assert_eq!(words("xyz"), None);
        assert_eq!(one_line("a\nb\tc"), "a b c");
    }
}
