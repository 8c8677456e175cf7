//! Cores with their truth: runs a program to its `WAIT`, lets gdb take the core, releases it and keeps the core only if
//! nothing was allocated meanwhile.

use super::program::{Program, Recipe, build_only};
use super::{Outcome, Skip, sparse};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What the collector counted as live when the core was taken.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    pub bytes: u64,
    pub objects: u64,
}

/// A dump ready to be read.
#[derive(Debug)]
pub struct CoreFile {
    pub exe: PathBuf,
    pub core: PathBuf,
    pub truth: Truth,
}

/// How often a core is retaken because the runtime allocated something of its own (a thread, mostly) between the truth and
/// the check.
const ATTEMPTS: usize = 8;

/// Objects that the runtime's own caches (sudogs, defer records) may gain or lose by further collections.
const AGEING: u64 = 16;

impl CoreFile {
    /// The core of `program` run with `args`; cached beside the executable.
    pub fn take(program: &Program, args: &[&str]) -> Outcome<Self> {
        Self::take_ageing(program, args, AGEING)
    }

    /// The same.
    ///
    /// * `ageing`: by how many objects later collections may differ from the last one before the core: what that one kept and nobody
    ///   holds (objects are born marked while it marks), or what caches hand out.
    fn take_ageing(program: &Program, args: &[&str], ageing: u64) -> Outcome<Self> {
        // Two programs at once would disturb each other's settling; and a test may want the core that another is taking.
        static TAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let name: String = args.concat().chars().filter(char::is_ascii_alphanumeric).collect();
        let core = program.dir.join(format!("core{name}"));
        let truth_file = program.dir.join(format!("truth{name}"));
        if let Some(truth) = fs::read_to_string(&truth_file).ok().as_deref().and_then(|line| parse_truth(line, "TRUTH"))
            && core.exists()
        {
            return Ok(Self { exe: program.exe.clone(), core, truth });
        }
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let mut run = Run::start(program, args)?;
            let truth_line = run.line("TRUTH");
            let truth = parse_truth(&truth_line, "TRUTH").expect("numbers after TRUTH");
            run.line("WAIT");
            let raw = program.dir.join(format!("core{name}.gdb"));
            let taken = gcore(run.child.id(), &raw);
            let checks = run.release();
            taken?;
            let same = checks.first().and_then(|l| parse_truth(l, "OK"));
            let again = checks.get(1).and_then(|l| parse_truth(l, "AGAIN"));
            let steady = same == Some(truth) && again.is_some_and(|a| a.objects.abs_diff(truth.objects) <= ageing);
            if steady {
                let partial = program.dir.join(format!("core{name}.partial"));
                let copied = File::open(&raw).and_then(|mut from| sparse::copy(&mut from, &partial));
                let _ = fs::remove_file(&raw);
                copied.unwrap_or_else(|e| panic!("copy {}: {e}", raw.display()));
                fs::rename(&partial, &core).unwrap();
                fs::write(&truth_file, &truth_line).unwrap();
                return Ok(Self { exe: program.exe.clone(), core, truth });
            }
            let _ = fs::remove_file(&raw);
            last = format!("{truth:?}, then {checks:?}");
        }
        panic!("{}: the heap never held still: {last}", program.exe.display());
    }
}

/// A program on its way to the truth.
pub struct Run {
    pub child: Child,
    lines: Receiver<String>,
}

impl Run {
    /// Starts it with two processors.
    pub fn start(program: &Program, args: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(&program.exe);
        command.args(args).current_dir(&program.dir).env("GOMAXPROCS", "2").env_remove("GODEBUG").env_remove("GOGC");
        Self::spawn(&mut command)
    }

    /// Starts `command` and collects its lines.
    pub fn spawn(command: &mut Command) -> Outcome<Self> {
        if build_only() {
            return Err(Skip(format!("not run: {command:?}")));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| Skip(format!("{command:?}: {e}")))?;
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line that starts with `word`.
    pub fn line(&mut self, word: &str) -> String {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(180)) {
                Ok(line) if line.starts_with(word) => return line,
                // What a program complains of belongs to the test's output.
                Ok(line) if line.starts_with("FAULT") => eprintln!("{line}"),
                Ok(_) => {}
                Err(e) => {
                    let _ = self.child.kill();
                    panic!("waiting for {word}: {e}, {:?}", self.child.wait());
                }
            }
        }
    }

    /// Lets it go on and returns its last lines.
    pub fn release(mut self) -> Vec<String> {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let lines = self.lines.iter().collect();
        let _ = self.child.wait();
        lines
    }
}

/// Parses `WORD heapalloc=N objects=N`.
pub fn parse_truth(line: &str, word: &str) -> Option<Truth> {
    let mut parts = line.trim().strip_prefix(word)?.split_whitespace();
    let bytes = parts.next()?.strip_prefix("heapalloc=")?.parse().ok()?;
    let objects = parts.next()?.strip_prefix("objects=")?.parse().ok()?;
    Some(Truth { bytes, objects })
}

/// Has gdb write the core of a running process.
pub fn gcore(pid: u32, to: &Path) -> Outcome<()> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-p", &pid.to_string(), "-ex"]).arg(format!("generate-core-file {}", to.display()));
    // One that a run left behind that was ended is of another process.
    let _ = fs::remove_file(to);
    let output = gdb.stdin(Stdio::null()).output().map_err(|e| Skip(format!("gdb: {e}")))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if to.exists() && text.contains("Saved corefile") {
        return Ok(());
    }
    Err(Skip(format!("gdb wrote no core: {}", text.lines().last().unwrap_or_default())))
}

/// The core of a program of the repository, everything on the way included.
pub fn core_of(version: &str, source: &str, recipe: impl Into<Recipe>, args: &[&str]) -> Outcome<Arc<CoreFile>> {
    let toolchain = super::toolchain::Toolchain::get(version)?;
    let program = Program::build(&toolchain, source, recipe);
    CoreFile::take(&program, args).map(Arc::new)
}

/// The same of a program whose live objects no collection changes.
pub fn steady_core_of(version: &str, source: &str, recipe: impl Into<Recipe>, args: &[&str]) -> Outcome<Arc<CoreFile>> {
    let toolchain = super::toolchain::Toolchain::get(version)?;
    let program = Program::build(&toolchain, source, recipe);
    CoreFile::take_ageing(&program, args, 0).map(Arc::new)
}
