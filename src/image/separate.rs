//! Debug information outside of the executable: the file that the user gives, or the first that belongs to it where debuggers
//! look (by build id, by `.gnu_debuglink`), or what a debuginfod server has, if the user set one.

use std::path::{Path, PathBuf};

use super::Watch;
use super::debuginfod::Debuginfod;
use super::executable::{DebugFile, Executable};
use super::inputs::Input;
use super::sysroot;
use crate::error::{Error, Result};
use crate::incident::Incidents;

/// Where systems keep debug information.
const DEBUG_DIR: &str = "/usr/lib/debug";

/// Where debug information is looked for.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The file itself: nothing else is looked at.
    pub file: Option<PathBuf>,
    /// The folder with `.build-id/` and the copied tree of folders; `/usr/lib/debug` by default.
    pub dir: Option<PathBuf>,
    /// A server to ask at last.
    pub debuginfod: Option<Debuginfod>,
}

/// Where the debug information of an executable is, if not in that itself.
#[derive(Debug, Default)]
pub struct Separate {
    input: Option<Input>,
    /// Files that exist and were not taken, and why; servers that have nothing.
    refused: Vec<String>,
}

impl Separate {
    /// Finds the debug information of `exe`. Executables that have their own are only asked for a file that the user gives.
    ///
    /// * `inside`: the sysroot that `exe` is in, and its path for the process.
    ///
    /// # Errors
    /// The file that the user gives cannot be opened, has no debug information or belongs to another executable.
    pub fn find(
        exe: &Executable<'_>,
        inside: Option<(&Path, &Path)>,
        search: &Search,
        tmpdir: Option<&Path>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let open = |path: &Path| -> Result<Input> { Input::open(path, "debug file", tmpdir, watch) };
        if let Some(path) = &search.file {
            return Ok(Self { input: Some(given(exe, path, open(path))?), refused: Vec::new() });
        }
        let mut found = Self::default();
        if exe.has_debug_info() {
            return Ok(found);
        }
        let take = |path: &Path, crc: Option<u32>| {
            let input = open(path).map_err(|e| e.to_string())?;
            check(exe, &input, crc).map_err(|why| format!("{}: {why}", path.display()))?;
            Ok(input)
        };
        for candidate in candidates(exe, inside, search.dir.as_deref().unwrap_or(Path::new(DEBUG_DIR))) {
            // Most places have nothing; that is not worth a word.
            if !candidate.path.is_file() {
                continue;
            }
            match take(&candidate.path, candidate.crc) {
                Ok(input) => return Ok(Self { input: Some(input), ..found }),
                Err(why) => found.refused.push(why),
            }
        }
        if let (Some(server), Some(id)) = (&search.debuginfod, build_id(exe)) {
            match server.fetch(id, watch).and_then(|path| take(&path, None)) {
                Ok(input) => found.input = Some(input),
                Err(why) => found.refused.push(why),
            }
        }
        Ok(found)
    }

    /// The executable with what was found.
    ///
    /// # Errors
    /// The file changed meanwhile.
    pub fn join<'img>(&'img self, exe: Executable<'img>, incidents: &mut Incidents) -> Result<Executable<'img>> {
        let exe = exe.with_refused_debug_files(self.refused.clone());
        let Some(input) = &self.input else { return Ok(exe) };
        let debug = DebugFile::parse(input.data(), input.path())?;
        if exe.check_debug_file(&debug) != Ok(true) {
            incidents.count("debug_file.without_build_id");
        }
        Ok(exe.with_debug_file(debug))
    }

    /// The file, if there is one.
    pub(super) fn input(&self) -> Option<&Input> {
        self.input.as_ref()
    }
}

/// The file that the user gave.
fn given(exe: &Executable<'_>, path: &Path, opened: Result<Input>) -> Result<Input> {
    let input = opened.map_err(|e| match e.remedy_text() {
        Some(_) => e,
        None => e.remedy("give the file with the executable's debug information"),
    })?;
    let debug = DebugFile::parse(input.data(), path)?;
    exe.check_debug_file(&debug).map_err(|why| {
        let exe = exe.path().display();
        Error::new(format!("debug file {} does not belong to executable {exe}: {why}", path.display()))
            .remedy("give what objcopy --only-keep-debug made of this very executable before it was stripped")
    })?;
    Ok(input)
}

/// Bytes of a build id that is believed: other clients of debuginfod have the same limit. It becomes the name of a folder.
const BUILD_ID_LEN: std::ops::RangeInclusive<usize> = 2..=64;

fn build_id<'img>(exe: &Executable<'img>) -> Option<&'img [u8]> {
    exe.build_id().filter(|id| BUILD_ID_LEN.contains(&id.len()))
}

struct Candidate {
    path: PathBuf,
    /// What `.gnu_debuglink` says about it.
    crc: Option<u32>,
}

/// Where debuggers look, in their order.
fn candidates(exe: &Executable<'_>, inside: Option<(&Path, &Path)>, dir: &Path) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    // In a sysroot: what the process would have found, then what this machine has.
    let mut add = |path: PathBuf, crc: Option<u32>| {
        let in_root = inside.and_then(|(root, _)| sysroot::resolve(root, &path).ok());
        candidates.extend(in_root.into_iter().chain([path]).map(|path| Candidate { path, crc }));
    };
    if let Some([first, rest @ ..]) = build_id(exe) {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        add(dir.join(".build-id").join(hex(&[*first])).join(format!("{}.debug", hex(rest))), None);
    }
    if let Some((name, crc)) = exe.debuglink() {
        let absolute = std::fs::canonicalize(exe.path()).unwrap_or_else(|_| exe.path().to_owned());
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        let known = inside.and_then(|(_, path)| path.parent()).unwrap_or(folder);
        add(dir.join(known.strip_prefix("/").unwrap_or(known)).join(name), Some(crc));
        let beside = [Path::new(name).to_owned(), Path::new(".debug").join(name)];
        candidates.extend(beside.iter().filter_map(|name| {
            let path = match inside {
                // Links lead nowhere else.
                Some((root, path)) => sysroot::resolve(root, &path.parent()?.join(name)).ok()?,
                None => folder.join(name),
            };
            Some(Candidate { path, crc: Some(crc) })
        }));
    }
    candidates
}

/// Whether `input` has the debug information of `exe`, or why not.
fn check(exe: &Executable<'_>, input: &Input, crc: Option<u32>) -> Result<(), String> {
    if let Some(expected) = crc {
        let mut sum = flate2::Crc::new();
        sum.update(input.data());
        if sum.sum() != expected {
            return Err(format!("checksum (.gnu_debuglink): expected {expected:08x}, found {:08x}", sum.sum()));
        }
    }
    let debug = DebugFile::parse(input.data(), input.path()).map_err(|e| e.to_string())?;
    exe.check_debug_file(&debug).map(|_| ())
}
