//! Builds the Go programs, cached by a hash of their sources, the toolchain's version, the mode and the experiment.

use super::toolchain::{Toolchain, minor};
use super::{cache, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Build mode.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As `go build` does it.
    Default,
    /// `-N -l` for all packages: no optimisation, no inlining.
    NoOpt,
    /// Position-independent: no address is as linked.
    Pie,
    /// Debug information as it is, not compressed.
    PlainDwarf,
    /// With C code, linked by the C toolchain.
    Cgo,
    /// Linked by the C toolchain although nothing but the runtime's own C code asks for it.
    External,
    /// With the race detector, which has its own allocation sizes and maps terabytes of shadow memory.
    Race,
    /// With the address sanitizer: objects have red zones behind them and are larger.
    Asan,
    /// With the memory sanitizer, which takes clang.
    Msan,
    /// With the paths of the build machine in it.
    Untrimmed,
    /// Without debug information.
    NoDwarf,
    /// Without debug information and symbols.
    Stripped,
    /// The same, position-independent.
    StrippedPie,
    /// Without Go's debug information, linked by the C toolchain, which leaves that of C.
    NoDwarfExternal,
    /// Position-independent, linked by the C toolchain and stripped, as distributions do it.
    StrippedPieExternal,
    /// With a plugin, `ext.so`, beside it.
    Plugin,
    /// A C program that loads Go as a shared library, `libgo.so`.
    CShared,
    /// A C program that contains Go.
    CArchive,
    /// Linked with the standard library as a shared one (`-linkshared`), which takes the debug information away.
    LinkShared,
}

impl Mode {
    /// As written in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::NoOpt => "noopt",
            Self::Pie => "pie",
            Self::PlainDwarf => "plaindwarf",
            Self::Cgo => "cgo",
            Self::External => "external",
            Self::Race => "race",
            Self::Asan => "asan",
            Self::Msan => "msan",
            Self::Untrimmed => "untrimmed",
            Self::NoDwarf => "nodwarf",
            Self::Stripped => "stripped",
            Self::StrippedPie => "strippedpie",
            Self::NoDwarfExternal => "nodwarfexternal",
            Self::StrippedPieExternal => "strippedpieexternal",
            Self::Plugin => "plugin",
            Self::CShared => "cshared",
            Self::CArchive => "carchive",
            Self::LinkShared => "linkshared",
        }
    }

    /// As written in expectations: what differs between modes are variables, and those depend on the compiler alone.
    pub fn compiled(self) -> &'static str {
        match self {
            Self::NoOpt => "noopt",
            _ => "default",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Default | Self::Cgo | Self::Plugin => &["-trimpath"],
            Self::NoOpt => &["-trimpath", "-gcflags=all=-N -l"],
            Self::Pie => &["-trimpath", "-buildmode=pie"],
            Self::PlainDwarf => &["-trimpath", "-ldflags=-compressdwarf=false"],
            Self::External => &["-trimpath", "-ldflags=-linkmode=external"],
            Self::Race => &["-trimpath", "-race"],
            Self::Asan => &["-trimpath", "-asan"],
            Self::Msan => &["-trimpath", "-msan"],
            Self::Untrimmed => &[],
            Self::NoDwarf => &["-trimpath", "-ldflags=-w"],
            Self::Stripped => &["-trimpath", "-ldflags=-s -w"],
            Self::StrippedPie => &["-trimpath", "-ldflags=-s -w", "-buildmode=pie"],
            Self::NoDwarfExternal => &["-trimpath", "-ldflags=-w -linkmode=external"],
            Self::StrippedPieExternal => &["-trimpath", "-ldflags=-s -w -linkmode=external", "-buildmode=pie"],
            Self::CShared => &["-trimpath", "-buildmode=c-shared"],
            Self::CArchive => &["-trimpath", "-buildmode=c-archive"],
            Self::LinkShared => &["-trimpath", "-linkshared"],
        }
    }

    /// Whether the program takes a dynamic loader.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Self::Pie | Self::StrippedPie) || self.needs_cgo()
    }

    /// Whether it takes a C compiler.
    pub fn needs_cgo(self) -> bool {
        matches!(
            self,
            Self::Cgo
                | Self::External
                | Self::Race
                | Self::NoDwarfExternal
                | Self::StrippedPieExternal
                | Self::Asan
                | Self::Msan
                | Self::Plugin
                | Self::CShared
                | Self::CArchive
                | Self::LinkShared
        )
    }

    /// The C compiler that it takes, and a line of C that this one must be able to compile with the options.
    pub fn compiler(self) -> (&'static str, &'static [&'static str], &'static str) {
        match self {
            Self::Asan => ("gcc", &["-fsanitize=address"], "#include <sanitizer/asan_interface.h>\n"),
            Self::Msan => ("clang", &["-fsanitize=memory"], "#include <sanitizer/msan_interface.h>\n"),
            _ => ("gcc", &[], ""),
        }
    }
}

/// The C compiler for arm64 (Debian's package `gcc-aarch64-linux-gnu`).
pub const CROSS_COMPILER: &str = "aarch64-linux-gnu-gcc";

/// Whether programs are only built, by cross compilers, for a machine that has none: `GOREF_BUILD_ONLY=arm64` (see `tests/arm64/run`).
pub fn build_only() -> bool {
    std::env::var("GOREF_BUILD_ONLY").is_ok_and(|machine| machine == "arm64")
}

/// Whether programs that are for "this" machine are for arm64.
fn for_arm64() -> bool {
    cfg!(target_arch = "aarch64") || build_only()
}

/// The machine that a program is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Machine {
    /// This one.
    Host,
    /// linux/arm64: cross-compiled, run by `qemu-aarch64`.
    Arm64,
}

/// All that a build depends on beside its sources and the toolchain.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub mode: Mode,
    /// `GOEXPERIMENT`; empty for the toolchain's own choice.
    pub experiment: &'static str,
    pub machine: Machine,
}

impl Recipe {
    /// As written in file names.
    pub fn name(self) -> String {
        let dash = if self.experiment.is_empty() { "" } else { "-" };
        let machine = if self.machine == Machine::Arm64 { "-arm64" } else { "" };
        format!("{}{dash}{}{machine}", self.mode.name(), self.experiment)
    }

    /// Whether `name` is the name of its mode or its experiment.
    pub fn is(self, name: &str) -> bool {
        name == self.mode.name() || name == self.experiment
    }
}

impl From<Mode> for Recipe {
    fn from(mode: Mode) -> Self {
        Self { mode, experiment: "", machine: Machine::Host }
    }
}

static BUILDING: Mutex<()> = Mutex::new(());

/// A built program.
#[derive(Debug)]
pub struct Program {
    pub exe: PathBuf,
    /// The folder that belongs to this build alone.
    pub dir: PathBuf,
}

impl Program {
    /// Builds the main package in `source` (a folder of the repository). A build error is a failure, not a skip.
    pub fn build(toolchain: &Toolchain, source: &str, recipe: impl Into<Recipe>) -> Self {
        Self::build_with(toolchain, source, recipe, &[])
    }

    /// The same with more arguments to `go build`.
    pub fn build_with(toolchain: &Toolchain, source: &str, recipe: impl Into<Recipe>, args: &[&str]) -> Self {
        let recipe = recipe.into();
        let mut hash = Fnv::default();
        args.iter().for_each(|arg| hash.add(arg.as_bytes()));
        // perf/gen uses the truth package of the fixtures.
        for folder in ["testdata/programs", source] {
            hash_sources(&root().join(folder), &mut hash);
        }
        let name = format!("{}-{}-{}-{:016x}", source.replace('/', "-"), toolchain.version, recipe.name(), hash.0);
        let dir = cache(if for_arm64() { "programs-arm64" } else { "programs" }).join(name);
        let exe = dir.join("exe");
        // Tests run side by side and some want the same program: the second one finds it built.
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        if !exe.exists() {
            fs::create_dir_all(&dir).unwrap();
            let with_library;
            let toolchain = if recipe.mode == Mode::LinkShared {
                with_library = toolchain.with_shared_library();
                &with_library
            } else {
                toolchain
            };
            let partial = dir.join(format!("exe.{}", std::process::id()));
            let run = |command: &mut Command| {
                let output = command.current_dir(root().join(source)).output().expect("run it");
                assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            };
            let go = |flags: &[&str], to: &Path, package: &str| {
                let mut go = toolchain.go();
                if recipe.mode == Mode::Msan {
                    go.env("CC", recipe.mode.compiler().0);
                }
                go.arg("build").args(recipe.mode.flags()).args(args).args(flags);
                if minor(&toolchain.version) >= 18 {
                    go.arg("-buildvcs=false");
                }
                if recipe.mode.needs_cgo() {
                    go.env("CGO_ENABLED", "1");
                }
                if !recipe.experiment.is_empty() {
                    go.env("GOEXPERIMENT", recipe.experiment);
                }
                if recipe.machine == Machine::Arm64 || for_arm64() {
                    go.env("GOARCH", "arm64").env("CC", CROSS_COMPILER);
                }
                run(go.arg("-o").arg(to).arg(package));
            };
            // The header that cgo writes for C lies beside the library.
            let host = || {
                let mut gcc = Command::new(if for_arm64() { CROSS_COMPILER } else { "gcc" });
                gcc.arg("-I").arg(&dir).arg("-o").arg(&partial).arg("host/host.c");
                gcc
            };
            match recipe.mode {
                Mode::CShared => {
                    go(&[], &dir.join("libgo.so"), ".");
                    run(host().arg("-L").arg(&dir).args(["-lgo", "-Wl,-rpath,$ORIGIN"]));
                }
                Mode::CArchive => {
                    go(&[], &dir.join("libgo.a"), ".");
                    run(host().arg(dir.join("libgo.a")).args(["-lpthread", "-lresolv"]));
                }
                Mode::Plugin => {
                    go(&["-buildmode=plugin"], &dir.join("ext.so"), "./ext");
                    go(&[], &partial, ".");
                }
                _ => go(&[], &partial, "."),
            }
            fs::rename(partial, &exe).unwrap();
        }
        Self { exe, dir }
    }
}

/// FNV-1a: stable over releases of Rust, unlike the standard hasher.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn hash_sources(dir: &Path, hash: &mut Fnv) {
    for file in sources(dir) {
        hash.add(file.strip_prefix(root()).unwrap().as_os_str().as_encoded_bytes());
        hash.add(&fs::read(&file).unwrap());
    }
}

/// All Go sources below `dir`, sorted.
pub fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|x| x == "go" || x == "mod" || x == "c") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
