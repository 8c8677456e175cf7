//! The dimensions of the matrix, as data. A new release, experiment, build or kind of core is one line here.
//!
//! Cells are not the product of all dimensions, which would take a day: each build with the toolchain's own experiments, each experiment
//! with and without the optimiser, each kind of core of the default build.

use crate::harness::program::{Machine, Mode, Recipe};
use crate::harness::toolchain::minor;

/// The columns, oldest first. Tests are made for them in `mod.rs`.
pub use crate::harness::toolchain::VERSIONS as RELEASES;

/// The linked fixtures.
pub const FIXTURES: &str = "testdata/programs";

/// Who takes the core.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum CoreKind {
    /// gdb, of the process as it waits.
    Gcore,
    /// The kernel, of a program that is killed; its `coredump_filter`, empty for the system's own.
    Kernel(&'static str),
    /// qemu, of a program for arm64 that is killed.
    Emulator,
}

impl CoreKind {
    /// As the README calls it.
    fn name(self) -> String {
        match self {
            Self::Gcore => "gcore".to_owned(),
            Self::Kernel("") => "kernel".to_owned(),
            Self::Kernel(filter) => format!("kernel with `coredump_filter` {filter}"),
            Self::Emulator => "arm64 under qemu".to_owned(),
        }
    }
}

/// How much of the truth a row must meet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The collector's totals to the byte, and every stated path.
    Paths,
    /// The totals to the byte.
    #[allow(dead_code, reason = "for rows whose names are not all there yet")]
    Totals,
}

/// One row.
#[derive(Copy, Clone, Debug)]
pub struct Row {
    pub recipe: Recipe,
    pub core: CoreKind,
    pub claim: Claim,
    /// Minor releases that can do it, inclusive.
    since: u32,
    until: u32,
    /// Minor releases that are run without `GOREF_MATRIX=full`: the cost in CI is half a minute for each new experiment or compiler
    /// flag (the standard library is compiled anew), a few seconds otherwise.
    always: &'static [u32],
}

impl Row {
    /// As the README calls it; unique.
    pub fn name(&self) -> String {
        let Recipe { mode, experiment, .. } = self.recipe;
        let mut parts = Vec::new();
        if !experiment.is_empty() {
            parts.push(format!("`GOEXPERIMENT={experiment}`"));
        }
        match mode {
            Mode::Default if !parts.is_empty() => {}
            Mode::Default => parts.push("default".to_owned()),
            Mode::NoOpt => parts.push("`-gcflags='all=-N -l'`".to_owned()),
            Mode::Pie => parts.push("`-buildmode=pie`".to_owned()),
            Mode::PlainDwarf => parts.push("`-ldflags=-compressdwarf=false`".to_owned()),
            Mode::Cgo => parts.push("cgo, goroutines in and above C".to_owned()),
            Mode::External => parts.push("`-ldflags=-linkmode=external`".to_owned()),
            Mode::Race => parts.push("`-race`".to_owned()),
            Mode::Asan => parts.push("`-asan`".to_owned()),
            Mode::Msan => parts.push("`-msan`".to_owned()),
            Mode::Untrimmed => parts.push("without `-trimpath`".to_owned()),
            Mode::NoDwarf => parts.push("`-ldflags=-w`".to_owned()),
            Mode::Stripped => parts.push("`-ldflags='-s -w'`".to_owned()),
            Mode::StrippedPie => parts.push("`-ldflags='-s -w' -buildmode=pie`".to_owned()),
            Mode::NoDwarfExternal => parts.push("`-ldflags='-w -linkmode=external'`".to_owned()),
            Mode::StrippedPieExternal => {
                parts.push("`-ldflags='-s -w -linkmode=external' -buildmode=pie`".to_owned());
            }
            Mode::Plugin => parts.push("`-buildmode=plugin`, loaded".to_owned()),
            Mode::CShared => parts.push("`-buildmode=c-shared`, in a C program".to_owned()),
            Mode::CArchive => parts.push("`-buildmode=c-archive`, in a C program".to_owned()),
            Mode::LinkShared => parts.push("`-linkshared` to `-buildmode=shared`".to_owned()),
        }
        format!("{}, {}", parts.join(" "), self.core.name())
    }

    /// The program of this row, a folder of the repository: the linked fixtures, unless it takes more than Go.
    pub fn program(&self) -> &'static str {
        match self.recipe.mode {
            Mode::Cgo => "testdata/programs/cmd/cgo",
            Mode::Plugin => "testdata/programs/cmd/plugin",
            Mode::CShared | Mode::CArchive => "testdata/programs/cmd/hosted",
            _ => FIXTURES,
        }
    }

    /// Whether the toolchain offers this.
    pub fn exists(&self, version: &str) -> bool {
        (self.since..=self.until).contains(&minor(version))
    }

    /// Releases in which it is always run although it does not exist there, or which nobody tests.
    pub fn never_run(&self) -> impl Iterator<Item = u32> {
        let runs = |of: u32| RELEASES.iter().any(|v| minor(v) == of && self.exists(v));
        self.always.iter().copied().filter(move |of| !runs(*of))
    }

    /// Whether it is run without being asked for.
    pub fn always(&self, version: &str) -> bool {
        self.always.contains(&minor(version))
    }
}

/// Builds: mode, since, until, and where they are always run. The first two are the fixtures' own (`fixtures.rs`).
const BUILDS: [(Mode, u32, u32, &[u32]); 19] = [
    (Mode::Default, 0, u32::MAX, &[]),
    (Mode::NoOpt, 0, u32::MAX, &[]),
    (Mode::Untrimmed, 0, u32::MAX, &[]),
    (Mode::PlainDwarf, 0, u32::MAX, &[]),
    (Mode::Pie, 0, u32::MAX, &[26]),
    (Mode::Cgo, 0, u32::MAX, &[]),
    (Mode::External, 0, u32::MAX, &[27]),
    (Mode::Race, 0, u32::MAX, &[]),
    (Mode::Asan, 18, u32::MAX, &[]),
    (Mode::Msan, 0, u32::MAX, &[]),
    (Mode::NoDwarf, 0, u32::MAX, &[25, 27]),
    (Mode::Stripped, 0, u32::MAX, &[24, 26]),
    (Mode::StrippedPie, 0, u32::MAX, &[27]),
    (Mode::NoDwarfExternal, 0, u32::MAX, &[]),
    (Mode::StrippedPieExternal, 0, u32::MAX, &[24]),
    (Mode::Plugin, 0, u32::MAX, &[26]),
    (Mode::CShared, 0, u32::MAX, &[24]),
    (Mode::CArchive, 0, u32::MAX, &[]),
    (Mode::LinkShared, 0, u32::MAX, &[]),
];

/// Who takes the core of a build: gdb, unless it would write out terabytes that the sanitizers reserve.
fn core(mode: Mode) -> CoreKind {
    match mode {
        Mode::Asan | Mode::Msan => CoreKind::Kernel(""),
        _ => CoreKind::Gcore,
    }
}

/// What has names depends on the builds without debug information (`stripped.rs` states some of them).
fn claim(mode: Mode) -> Claim {
    match mode {
        Mode::NoDwarf
        | Mode::Stripped
        | Mode::StrippedPie
        | Mode::NoDwarfExternal
        | Mode::StrippedPieExternal
        | Mode::LinkShared => Claim::Totals,
        _ => Claim::Paths,
    }
}

/// Experiments that change what the runtime's structures or the heap look like: name, since, until, and where they are always run.
const EXPERIMENTS: [(&str, u32, u32, Claim, &[u32]); 11] = [
    ("noallocheaders", 22, 22, Claim::Paths, &[]),
    ("noswissmap", 24, 25, Claim::Paths, &[24]),
    ("nosynchashtriemap", 24, 25, Claim::Paths, &[]),
    ("greenteagc", 25, 25, Claim::Paths, &[]),
    ("nogreenteagc", 26, 27, Claim::Paths, &[27]),
    ("norandomizedheapbase64", 26, 27, Claim::Paths, &[]),
    ("runtimesecret", 26, 27, Claim::Paths, &[]),
    ("runtimefreegc", 26, 27, Claim::Paths, &[]),
    ("nosizespecializedmalloc", 27, 27, Claim::Paths, &[]),
    ("mapsplitgroup", 27, 27, Claim::Paths, &[]),
    ("nodwarf5", 25, 27, Claim::Paths, &[]),
];

/// Kinds of cores beside gdb's, of the default build: since, until, and where they are always run.
const CORES: [(CoreKind, u32, u32, &[u32]); 4] = [
    (CoreKind::Kernel(""), 0, u32::MAX, &[19, 24, 27]),
    (CoreKind::Kernel("0x33"), 0, u32::MAX, &[]),
    (CoreKind::Kernel("0x3f"), 0, u32::MAX, &[]),
    (CoreKind::Kernel("0x23"), 0, u32::MAX, &[]),
];

/// Builds for arm64, which qemu runs and dumps: mode, since, until, and where they are always run.
const ARM64: [(Mode, u32, u32, &[u32]); 7] = [
    (Mode::Default, 0, u32::MAX, &[24, 26, 27]),
    (Mode::NoOpt, 0, u32::MAX, &[26]),
    (Mode::Pie, 0, u32::MAX, &[]),
    (Mode::Cgo, 0, u32::MAX, &[27]),
    (Mode::External, 0, u32::MAX, &[]),
    (Mode::NoDwarf, 0, u32::MAX, &[]),
    (Mode::Stripped, 0, u32::MAX, &[27]),
];

/// All rows, in the order of the table.
pub fn rows() -> Vec<Row> {
    let row = |mode, experiment, core, claim, since, until, always| Row {
        recipe: Recipe {
            mode,
            experiment,
            machine: if core == CoreKind::Emulator { Machine::Arm64 } else { Machine::Host },
        },
        core,
        claim,
        since,
        until,
        always,
    };
    let builds =
        BUILDS.iter().map(|&(mode, since, until, always)| row(mode, "", core(mode), claim(mode), since, until, always));
    let experiments = EXPERIMENTS.iter().flat_map(|&(name, since, until, claim, always)| {
        [(Mode::Default, always), (Mode::NoOpt, &[][..])]
            .map(|(mode, always)| row(mode, name, CoreKind::Gcore, claim, since, until, always))
    });
    let cores = CORES
        .iter()
        .map(|&(core, since, until, always)| row(Mode::Default, "", core, Claim::Paths, since, until, always));
    let arm64 = ARM64
        .iter()
        .map(|&(mode, since, until, always)| row(mode, "", CoreKind::Emulator, claim(mode), since, until, always));
    builds.chain(experiments).chain(cores).chain(arm64).collect()
}
