//! EXE given as a directory: the root file system of the dumped process, or a copy of the part that matters. The executable is found
//! in it by the path that the core names.
//!
//! That path is hostile, and so are the symbolic links inside the directory: everything is resolved as the process would have seen
//! it, with the directory as `/`. Nothing outside of it is ever opened.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::elf::{Header, Segment, bytes_at};
use super::notes::CoreNotes;
use super::process::read_notes;
use crate::error::{Error, Result};
use crate::incident::Incidents;

const AT_ENTRY: u64 = 9;
const AT_EXECFN: u64 = 31;

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;

/// No longer path can be opened (`PATH_MAX`).
const MAX_PATH: u64 = 4096;

/// Finds the executable of the process in `root`.
///
/// * `core`: the core dump; `what`: names it in messages.
/// * Returns the path to open and the path that the process knew.
pub(super) fn executable_in(root: &Path, core: &[u8], what: &str) -> Result<(PathBuf, PathBuf)> {
    let header = Header::parse(core, what)?;
    let segments = header.segments(core, what)?;
    let notes = read_notes(core, &segments, header.architecture, what, &mut Incidents::default())?;
    let inside = root.display();
    let names = names(&notes, core, &segments);
    let mut tried = Vec::new();
    for name in &names {
        match resolve(root, name) {
            Ok(path) if path.is_file() => return Ok((path, name.clone())),
            Ok(_) => tried.push(format!("{}: no regular file", name.display())),
            Err(e) => tried.push(format!("{}: {e}", name.display())),
        }
    }
    let error = if tried.is_empty() {
        Error::new(format!(
            "{what}: expected the path of the executable (NT_FILE, AT_EXECFN), to find it in directory {inside}; found none"
        ))
    } else {
        Error::new(format!(
            "directory {inside}: expected the executable of {what} inside, found none ({})",
            tried.join("; ")
        ))
    };
    Err(error.remedy("give the executable that ran as a file, or the directory that was / for the process"))
}

/// Paths of the executable as the core gives them, best first.
fn names(notes: &CoreNotes, core: &[u8], segments: &[Segment]) -> Vec<PathBuf> {
    let entry = notes.aux(AT_ENTRY);
    let mapped = notes.files.iter().find(|f| entry.is_some_and(|e| f.range.contains(crate::address::Addr(e))));
    let mapped = mapped.map(|f| PathBuf::from(f.live_path()));
    let started = notes.aux(AT_EXECFN).and_then(|at| string_in(core, segments, at)).map(PathBuf::from);
    let mut names: Vec<PathBuf> = Vec::new();
    // A relative name is relative to a working folder that nobody knows any more; the root is a good guess.
    for name in [mapped, started].into_iter().flatten().filter(|n| !n.as_os_str().is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The zero-terminated string at `addr` of the process, from the core alone.
fn string_in(core: &[u8], segments: &[Segment], addr: u64) -> Option<OsString> {
    let holds = |s: &&Segment| s.is_load() && s.p_vaddr <= addr && addr - s.p_vaddr < s.p_filesz;
    let segment = segments.iter().find(holds)?;
    let skip = addr - segment.p_vaddr;
    let len = (segment.p_filesz - skip).min(MAX_PATH);
    let offset = segment.p_offset.checked_add(skip)?;
    let len = len.min((core.len() as u64).checked_sub(offset)?);
    let bytes = bytes_at(core, offset, len)?;
    let end = bytes.iter().position(|b| *b == 0)?;
    Some(OsString::from_vec(bytes[..end].to_vec()))
}

/// Follows `path` with `root` as `/`; the result has neither symbolic links nor `..` behind `root`.
///
/// # Errors
/// A component does not exist or cannot be read, or there are too many links.
pub(super) fn resolve(root: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let mut resolved: Vec<OsString> = Vec::new();
    // What is still to be followed, last component first.
    let mut pending: Vec<Option<OsString>> = Vec::new();
    let push = |pending: &mut Vec<Option<OsString>>, path: &Path| {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => pending.push(Some(name.to_owned())),
                Component::ParentDir => pending.push(None),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    };
    push(&mut pending, path);
    let mut links = 0;
    while let Some(component) = pending.pop() {
        let Some(name) = component else {
            resolved.pop();
            continue;
        };
        let at = root.join(resolved.iter().collect::<PathBuf>()).join(&name);
        if std::fs::symlink_metadata(&at)?.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(std::io::Error::other("too many symbolic links"));
            }
            let target = std::fs::read_link(&at)?;
            if target.is_absolute() {
                resolved.clear();
            }
            push(&mut pending, &target);
        } else {
            resolved.push(name);
        }
    }
    Ok(root.join(resolved.iter().collect::<PathBuf>()))
}
