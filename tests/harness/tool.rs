//! Runs the program under test, in a folder of its own.

use super::pprof::Profile;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// One finished run of `goref-fast core` or `attach`.
pub struct Ran {
    pub output: Output,
    pub profile: PathBuf,
    _dir: tempfile::TempDir,
}

impl Ran {
    /// Exit status; fails if a signal ended it.
    pub fn code(&self) -> i32 {
        self.output
            .status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal: {}\n{}", self.output.status, self.stderr()))
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The written file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.profile)
            .unwrap_or_else(|e| panic!("read {}: {e}\n{}", self.profile.display(), self.stderr()))
    }

    /// The decoded profile.
    pub fn decode(&self) -> Profile {
        Profile::read(&self.profile)
    }
}

/// Longest run that is not a hang, in the unoptimised build of the tests.
const LIMIT: Duration = Duration::from_secs(240);

/// `goref-fast core EXE CORE -o grf.out ARGS`.
pub fn core(exe: &Path, core: &Path, args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let profile = dir.path().join("grf.out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_goref-fast"));
    command.arg("core").arg(exe).arg(core).arg("-o").arg(&profile).args(args).current_dir(dir.path());
    Ran { output: output(&mut command), profile, _dir: dir }
}

/// Like [`core`], with limits on private memory and time: a run that exceeds the first is ended by a signal.
pub fn core_limited(exe: &Path, core: &Path, args: &[&str], kib: u64, limit: Duration) -> Ran {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let profile = dir.path().join("grf.out");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -d {kib} && ulimit -c 0 && exec \"$0\" \"$@\""));
    command.arg(env!("CARGO_BIN_EXE_goref-fast")).arg("core").arg(exe).arg(core).arg("-o").arg(&profile).args(args);
    Ran { output: output_within(command.current_dir(dir.path()), limit), profile, _dir: dir }
}

/// `goref-fast attach PID -o grf.out ARGS`.
pub fn attach(pid: u32, args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let profile = dir.path().join("grf.out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_goref-fast"));
    command.args(["attach", &pid.to_string(), "-o"]).arg(&profile).args(args).current_dir(dir.path());
    Ran { output: output(&mut command), profile, _dir: dir }
}

/// Like [`core`], and the run must succeed.
pub fn core_ok(exe: &Path, core_file: &Path, args: &[&str]) -> Ran {
    let ran = core(exe, core_file, args);
    assert_eq!(
        ran.code(),
        0,
        "goref-fast core {} {} {args:?}\n{}{}",
        exe.display(),
        core_file.display(),
        ran.stdout(),
        ran.stderr()
    );
    ran
}

/// The program with any arguments.
pub fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary folder");
    output(Command::new(env!("CARGO_BIN_EXE_goref-fast")).args(args).current_dir(dir.path()))
}

/// `Command::output` with an end to waiting.
fn output(command: &mut Command) -> Output {
    output_within(command, LIMIT)
}

fn output_within(command: &mut Command, limit: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let readers = [std::thread::spawn(move || read_all(&mut out)), std::thread::spawn(move || read_all(&mut err))];
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let [stdout, stderr] = readers.map(|r| r.join().expect("a reader"));
    Output { status, stdout, stderr }
}

fn read_all(from: &mut impl std::io::Read) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = from.read_to_end(&mut all);
    all
}
