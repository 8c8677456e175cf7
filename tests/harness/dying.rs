//! Cores of programs that die: the kernel writes the core (no file-backed pages), or gdb at the fatal signal where the kernel cannot,
//! or qemu that of a program for arm64.

use super::corefile::Run;
use super::program::{Machine, Program};
use super::{Outcome, Skip, sparse};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Who writes the core.
#[derive(Copy, Clone, Debug)]
pub enum Writer {
    Kernel,
    Debugger,
    /// `qemu-aarch64` of the package `qemu-user`.
    Emulator,
}

impl Writer {
    /// What the program must be built for.
    pub fn machine(self) -> Machine {
        match self {
            Self::Kernel | Self::Debugger => Machine::Host,
            Self::Emulator => Machine::Arm64,
        }
    }

    /// The kernel, if it will write a core into the working folder.
    pub fn preferred() -> Self {
        match kernel_writes_cores() {
            Ok(()) => Self::Kernel,
            Err(reason) => {
                eprintln!("cores by gdb and not by the kernel: {reason}");
                Self::Debugger
            }
        }
    }
}

/// How a program is run and dies.
#[derive(Default)]
pub struct Death<'a> {
    pub args: &'a [&'a str],
    /// `GOMAXPROCS`.
    pub procs: u32,
    /// `GODEBUG`.
    pub godebug: &'a str,
    /// What the kernel leaves out (core(5)); the default of the system if empty.
    pub filter: &'a str,
    /// The largest core that the kernel writes, in blocks of 512 bytes.
    pub limit: Option<u64>,
    /// A first SIGABRT comes from outside of the runtime, which raises it again when it is done.
    pub second_abort: bool,
    /// A signal that is sent to it when it has said `WAIT`; `None`: it dies of its own accord.
    pub signal: Option<&'static str>,
    /// Where gdb stops it before it dies (for [`Writer::Debugger`] alone).
    pub stop: Option<Stop>,
}

/// A place in the code where gdb stops a program.
#[derive(Copy, Clone, Debug)]
pub struct Stop {
    /// The function, at whose entry it stops; with a `*` in front at its first instruction.
    pub function: &'static str,
    /// How many times it goes on from there first.
    pub ignore: u32,
    /// From when on that is counted: the first time that it enters this function.
    pub from: &'static str,
    /// What gdb does then.
    pub then: &'static [&'static str],
}

impl Stop {
    /// The first entry into a function after the program told its truth, if it did so by package os.
    pub const ENTRY: Self = Self { function: "", ignore: 0, from: "os.(*File).Write", then: &[] };
}

/// The core of `program` that dies as `death` says, cached beside the executable, and its line of truth.
pub fn take(program: &Program, death: &Death<'_>, writer: Writer) -> Outcome<(PathBuf, String)> {
    let limit = death.limit.map_or(String::new(), |limit| format!("-{limit}"));
    let stop = death.stop.map_or(String::new(), |stop| {
        let word = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
        let then: String = stop.then.iter().map(|command| format!("-{}", word(command))).collect();
        format!("-{}-{}{then}", word(stop.function), stop.ignore)
    });
    let name = format!("core-{}-{writer:?}{}{limit}{stop}", death.args.join("-"), death.filter).to_lowercase();
    let core = program.dir.join(name);
    let line = take_to(&core, program, death, writer)?;
    Ok((core, line))
}

/// The same into the file `core` of the program's folder, unless that exists. Returns the line of truth, which is kept beside it.
pub fn take_to(core: &Path, program: &Program, death: &Death<'_>, writer: Writer) -> Outcome<String> {
    static TAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let truth_file = core.with_extension("truth");
    if !core.exists() || !truth_file.exists() {
        let dir = tempfile::tempdir_in(&program.dir).expect("a temporary folder");
        let line = match writer {
            Writer::Kernel => by_kernel(&program.exe, death, dir.path())?,
            Writer::Debugger => by_debugger(&program.exe, death, dir.path())?,
            Writer::Emulator => by_emulator(&program.exe, death, dir.path())?,
        };
        // Where the kernel writes cores, too, there is one of qemu itself beside that of the program.
        let of_program = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !matches!(writer, Writer::Emulator) || name.starts_with("qemu_")
        };
        let written = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).find(of_program);
        let written = written.ok_or_else(|| Skip(format!("{writer:?} wrote no core of {}", program.exe.display())))?;
        // A run that is ended here leaves a core without truth, which is taken again.
        let _ = fs::remove_file(&truth_file);
        sparse::copy(&mut File::open(written).unwrap(), core).unwrap();
        fs::write(&truth_file, line).unwrap();
    }
    Ok(fs::read_to_string(truth_file).unwrap())
}

/// `Err` says why the kernel will not write a core into the working folder.
pub fn kernel_writes_cores() -> Result<(), String> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim().is_empty() || pattern.starts_with('|') || pattern.contains('/') {
        return Err(format!("/proc/sys/kernel/core_pattern is {:?}", pattern.trim()));
    }
    let limit = Command::new("sh").args(["-c", "ulimit -H -c"]).output().map_err(|e| format!("sh: {e}"))?;
    match String::from_utf8_lossy(&limit.stdout).trim() {
        "unlimited" => Ok(()),
        limit => Err(format!("the hard limit on cores is {limit}")),
    }
}

fn environment(command: &mut Command, dir: &Path, death: &Death<'_>) {
    command
        .current_dir(dir)
        .env("GOTRACEBACK", "crash")
        .env("GOMAXPROCS", death.procs.to_string())
        .env("GODEBUG", death.godebug)
        // Sanitizers leave no cores otherwise.
        .env("ASAN_OPTIONS", "disable_coredump=0")
        .env("MSAN_OPTIONS", "disable_coredump=0")
        .env_remove("GOGC");
}

/// Lets it die; returns its line of truth.
fn by_kernel(exe: &Path, death: &Death<'_>, dir: &Path) -> Outcome<String> {
    let mut command = Command::new("sh");
    let limit = death.limit.map_or("unlimited".to_owned(), |blocks| blocks.to_string());
    let filter = match death.filter {
        "" => String::new(),
        filter => format!("echo {filter} > /proc/self/coredump_filter && "),
    };
    command.arg("-c").arg(format!("ulimit -c {limit} && {filter}exec \"$0\" \"$@\"")).arg(exe).args(death.args);
    environment(&mut command, dir, death);
    tell_and_die(Run::spawn(&mut command)?, death)
}

/// Its line of truth; then it is killed, if it does not die of its own accord.
fn tell_and_die(mut run: Run, death: &Death<'_>) -> Outcome<String> {
    let line = run.line("TRUTH");
    // The end of its input would release it, and waiting for it closes that.
    let _input = run.child.stdin.take();
    if let Some(signal) = death.signal {
        run.line("WAIT");
        let pid = run.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().map_err(|e| Skip(format!("kill: {e}")))?;
        assert!(sent.success(), "kill -s {signal} {pid}: {sent}");
    }
    let status = run.child.wait().expect("wait");
    assert!(status.signal().is_some(), "{:?} should die of a signal: {status}", death.args);
    Ok(line)
}

/// Runs it under gdb, which lets the runtime have all signals and stops at the SIGABRT that the dying runtime raises: the first,
/// unless that was the beginning.
fn by_debugger(exe: &Path, death: &Death<'_>, dir: &Path) -> Outcome<String> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", "handle all nostop noprint pass", "-ex", "handle SIGABRT stop"]);
    match death.stop {
        None => drop(gdb.args(["-ex", "run"])),
        Some(stop) => {
            gdb.args(["-ex", &format!("tbreak '{}'", stop.from), "-ex", "run"]);
            let (star, function) = stop.function.strip_prefix('*').map_or(("", stop.function), |f| ("*", f));
            gdb.args(["-ex", &format!("break {star}'{function}'"), "-ex", &format!("ignore 2 {}", stop.ignore)]);
            gdb.args(["-ex", "continue"]);
            gdb.args(stop.then.iter().flat_map(|command| ["-ex", command]));
        }
    }
    if death.second_abort {
        gdb.args(["-ex", "continue"]);
    }
    gdb.args(["-ex", "generate-core-file core", "-ex", "kill", "--args"]).arg(exe).args(death.args);
    environment(&mut gdb, dir, death);
    let output = gdb.stdin(Stdio::null()).output().map_err(|e| Skip(format!("gdb: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|l| l.find("TRUTH ").map(|at| l[at..].to_owned()));
    // Its line may be on the way yet.
    let line = line.or_else(|| death.stop.map(|_| String::new()));
    line.ok_or_else(|| Skip(format!("gdb: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Runs it under qemu, which writes the core when the program dies of a signal: all threads (their ids are the host's) and memory,
/// but neither NT_FILE nor what begins with an ELF header.
fn by_emulator(exe: &Path, death: &Death<'_>, dir: &Path) -> Outcome<String> {
    emulator()?;
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited && exec qemu-aarch64 \"$0\" \"$@\""]).arg(exe).args(death.args);
    environment(&mut command, dir, death);
    tell_and_die(Run::spawn(command.env("QEMU_LD_PREFIX", LIBRARIES))?, death)
}

/// Where Debian has the dynamic loader and libraries of arm64 (package `libc6-arm64-cross`).
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// Whether qemu can run programs that are linked dynamically.
pub fn loader() -> Outcome<()> {
    let path = format!("{LIBRARIES}/lib/ld-linux-aarch64.so.1");
    if Path::new(&path).exists() { Ok(()) } else { Err(Skip(format!("no {path}"))) }
}

/// Whether there is qemu for arm64.
fn emulator() -> Outcome<()> {
    let output =
        Command::new("qemu-aarch64").arg("--version").output().map_err(|e| Skip(format!("qemu-aarch64: {e}")))?;
    if output.status.success() { Ok(()) } else { Err(Skip(format!("qemu-aarch64: {}", output.status))) }
}
