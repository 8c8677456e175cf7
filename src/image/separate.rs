//! Debug information outside of the executable: the file that the user gives, or the first that belongs to it where debuggers
//! look (by build id, by `.gnu_debuglink`), or what a debuginfod server has, if the user set one.

use std::path::{Path, PathBuf};

use super::Watch;
use super::debuginfod::Debuginfod;
use super::executable::{DebugFile, Executable};
use super::inputs::Input;
use super::sysroot;
use crate::error::{Error, Result};

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

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) input: Option<Input>,
    /// Files that exist and were not taken, and why; servers that have nothing.
    pub(super) refused: Vec<String>,
}

/// Where the executable is: on the disk, and for the process in its sysroot.
pub(super) struct Place<'a> {
    /// The file that was opened.
    pub(super) path: &'a Path,
    /// The sysroot and the path in it.
    pub(super) inside: Option<(&'a Path, &'a Path)>,
}

/// Finds the debug information of `exe`. Executables that have their own are only asked for a file that the user gives.
///
/// # Errors
/// The file that the user gives cannot be opened, has no debug information or belongs to another executable.
pub(super) fn find(
    exe: &Executable<'_>,
    place: &Place<'_>,
    search: &Search,
    tmpdir: Option<&Path>,
    watch: &dyn Watch,
) -> Result<Found> {
    let open = |path: &Path| -> Result<Input> { Input::open(path, "debug file", tmpdir, watch) };
    if let Some(path) = &search.file {
        let input = open(path).map_err(|e| match e.remedy_text() {
            Some(_) => e,
            None => e.remedy("give the file with the executable's debug information"),
        })?;
        let debug = DebugFile::parse(input.data(), path)?;
        let exe_path = exe.path().display();
        exe.check_debug_file(&debug).map_err(|why| {
            Error::new(format!("debug file {} does not belong to executable {exe_path}: {why}", path.display()))
                .remedy("give what objcopy --only-keep-debug made of this very executable before it was stripped")
        })?;
        return Ok(Found { input: Some(input), refused: Vec::new() });
    }
    let mut found = Found::default();
    if exe.has_debug_info() {
        return Ok(found);
    }
    for candidate in candidates(exe, place, search.dir.as_deref().unwrap_or(Path::new(DEBUG_DIR))) {
        // Most places have nothing; that is not worth a word.
        if !candidate.path.is_file() {
            continue;
        }
        match open(&candidate.path).map_err(|e| e.to_string()).and_then(|input| {
            check(exe, &input, candidate.crc)
                .map(|()| input)
                .map_err(|why| format!("{}: {why}", candidate.path.display()))
        }) {
            Ok(input) => {
                found.input = Some(input);
                return Ok(found);
            }
            Err(why) => found.refused.push(why),
        }
    }
    if let (Some(server), Some(id)) = (&search.debuginfod, exe.build_id()) {
        let fetched = server.fetch(id, watch).and_then(|path| {
            let input = open(&path).map_err(|e| e.to_string())?;
            check(exe, &input, None).map_err(|why| format!("{}: {why}", path.display()))?;
            Ok(input)
        });
        match fetched {
            Ok(input) => found.input = Some(input),
            Err(why) => found.refused.push(why),
        }
    }
    Ok(found)
}

struct Candidate {
    path: PathBuf,
    /// What `.gnu_debuglink` says about it.
    crc: Option<u32>,
}

/// Where debuggers look, in their order.
fn candidates(exe: &Executable<'_>, place: &Place<'_>, dir: &Path) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    // In a sysroot: what the process would have found, then what this machine has.
    let mut add = |path: PathBuf, crc: Option<u32>| {
        let inside = place.inside.and_then(|(root, _)| sysroot::resolve(root, &path).ok());
        candidates.extend(inside.into_iter().chain([path]).map(|path| Candidate { path, crc }));
    };
    if let Some([first, rest @ ..]) = exe.build_id().filter(|id| id.len() > 1) {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        add(dir.join(".build-id").join(hex(&[*first])).join(format!("{}.debug", hex(rest))), None);
    }
    if let Some((name, crc)) = exe.debuglink() {
        let absolute = std::fs::canonicalize(place.path).unwrap_or_else(|_| place.path.to_owned());
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        let known = place.inside.and_then(|(_, path)| path.parent()).unwrap_or(folder);
        add(dir.join(known.strip_prefix("/").unwrap_or(known)).join(name), Some(crc));
        let beside = [folder.join(name), folder.join(".debug").join(name)];
        candidates.extend(beside.map(|path| Candidate { path, crc: Some(crc) }));
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
