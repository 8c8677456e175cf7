//! The other files of the process that hold Go code: plugins, shared libraries, and the library that carries Go into a program
//! of another language. They are found by the names in NT_FILE, at the same place or beside EXE.
//!
//! Cores lack what was mapped from a file and never written: function tables, pointer masks and type descriptors of such a module
//! are only in its file. A file counts if the first page that the process had of it, which both kinds of core hold, is the file's: it
//! has the sizes of all segments and, as a rule, the build ids.

use std::path::{Path, PathBuf};

use super::FileMapping;
use super::elf::{PAGE_SIZE, Segment, bytes_at};
use super::executable::Executable;
use super::inputs::{Input, Inputs};
use super::notes::CoreNotes;
use super::sysroot;
use crate::address::Addr;
use crate::incident::Incidents;

const AT_ENTRY: u64 = 9;

/// Files that are looked at: no program loads as many.
const MAX_FILES: usize = 4096;

/// Not files of a program, whatever they claim to be.
const NO_FILES: [&str; 3] = ["/dev/", "/proc/", "/sys/"];

/// One such file.
#[derive(Debug)]
pub struct Library<'img> {
    /// Its contents.
    pub executable: Executable<'img>,
    /// Address in the process minus link-time address.
    pub load_bias: u64,
}

/// Finds and opens them; in the order of their addresses.
///
/// * `segments`: the core's program headers.
pub(super) fn find<'img>(
    inputs: &'img Inputs,
    segments: &[Segment],
    notes: &CoreNotes,
    incidents: &mut Incidents,
) -> Vec<Library<'img>> {
    let starts = starts(&notes.files, notes.aux(AT_ENTRY));
    let opened = inputs.libraries(|| starts.iter().map(|f| open(f, inputs, segments, incidents)).collect());
    let libraries = starts.iter().zip(opened).filter_map(|(f, input)| load(f, input.as_ref()?));
    libraries.collect()
}

/// Where `exe` was loaded if it is no program but a library with Go code that the process had: its first page is the one in the core.
/// `None` if it is not, or if nothing tells the program from its libraries.
pub(super) fn bias_of_library(
    exe: &Executable<'_>,
    data: &[u8],
    core: &[u8],
    segments: &[Segment],
    notes: &CoreNotes,
) -> Option<u64> {
    let first = first_address(exe).filter(|_| exe.is_go())?;
    let starts = starts(&notes.files, Some(notes.aux(AT_ENTRY)?));
    // Copies of one library differ in their names.
    let named = |f: &&&FileMapping| f.live_path().rsplit('/').next() == Some(&*exe.file_name());
    let same = |f: &&&FileMapping| {
        let page = dumped_page(core, segments, f).filter(|page| page.len() as u64 == PAGE_SIZE);
        page.is_some_and(|page| bytes_at(data, 0, PAGE_SIZE) == Some(page))
    };
    let mapping = starts.iter().filter(named).find(same)?;
    Some(mapping.range.start.0.wrapping_sub(first))
}

/// Mappings of the beginnings of files, but for that of the program that starts at `entry`.
pub(super) fn starts(files: &[FileMapping], entry: Option<u64>) -> Vec<&FileMapping> {
    let main = files.iter().find(|f| entry.is_some_and(|e| f.range.contains(Addr(e)))).map(|f| &f.path);
    files
        .iter()
        // An empty mapping has no page that could be compared.
        .filter(|f| f.range.len > 0 && f.offset == 0 && Some(&f.path) != main && f.path.starts_with('/'))
        .filter(|f| !NO_FILES.iter().any(|prefix| f.path.starts_with(prefix)))
        .take(MAX_FILES)
        .collect()
}

/// The library that was mapped there from this file.
pub(super) fn load<'img>(mapping: &FileMapping, input: &'img Input) -> Option<Library<'img>> {
    let executable = Executable::parse(input.data(), input.path()).ok()?;
    let load_bias = mapping.range.start.0.wrapping_sub(first_address(&executable)?);
    Some(Library { executable, load_bias })
}

/// Opens the files with Go code that a live process has mapped, besides its executable.
///
/// * `files`: its file mappings; `auxv`: its auxiliary vector.
/// * `places`: paths that a mapping's file may be found by.
/// * `first_page`: fills the buffer from the start of a mapping; false if that cannot be read.
pub fn open_mapped(
    files: &[FileMapping],
    auxv: &[(u64, u64)],
    places: impl Fn(&FileMapping) -> Vec<PathBuf>,
    first_page: impl Fn(&FileMapping, &mut [u8]) -> bool,
) -> Vec<(FileMapping, Input)> {
    let open = |f: &FileMapping| {
        places(f).into_iter().find_map(|path| {
            let input = Input::open_library(&path).ok()?.known_as(Path::new(f.live_path()));
            let executable = Executable::parse(input.data(), input.path()).ok()?;
            if !executable.is_go() || first_address(&executable).is_none() {
                return None;
            }
            let mut page = vec![0; f.range.len.min(PAGE_SIZE) as usize];
            let same = first_page(f, &mut page) && bytes_at(input.data(), 0, page.len() as u64) == Some(&page);
            same.then_some(input)
        })
    };
    let entry = auxv.iter().find(|(kind, _)| *kind == AT_ENTRY).map(|(_, value)| *value);
    starts(files, entry).into_iter().filter_map(|f| Some((f.clone(), open(f)?))).collect()
}

/// The file of `mapping`, if it holds Go code and is the one that the process had.
fn open(mapping: &FileMapping, inputs: &Inputs, segments: &[Segment], incidents: &mut Incidents) -> Option<Input> {
    let mut other_build = false;
    for path in places(mapping, inputs) {
        // Most files have no Go code in them: what cannot be opened or parsed is looked for elsewhere, without a word.
        let Ok(input) = Input::open_library(&path) else { continue };
        let Ok(executable) = Executable::parse(input.data(), &path) else { continue };
        if !executable.is_go() || first_address(&executable).is_none() {
            continue;
        }
        match dumped_page(inputs.core().data(), segments, mapping) {
            Some(page) if bytes_at(input.data(), 0, page.len() as u64) != Some(page) => {
                other_build = true;
                continue;
            }
            Some(_) => {}
            None => incidents.count("core.library_not_verified"),
        }
        return Some(input);
    }
    if other_build {
        incidents.count("core.library_of_another_build");
    }
    None
}

/// Where the file may be: where it was, or beside EXE. Of a sysroot, nothing outside.
fn places(mapping: &FileMapping, inputs: &Inputs) -> Vec<PathBuf> {
    let path = Path::new(mapping.live_path());
    if let Some(root) = inputs.root() {
        return sysroot::resolve(root, path).into_iter().collect();
    }
    let beside = path.file_name().map(|name| inputs.exe().path().parent().unwrap_or(Path::new("")).join(name));
    let mut places = vec![path.to_owned()];
    places.extend(beside.filter(|p| p != path));
    places
}

/// The address that the start of the file was linked to.
fn first_address(executable: &Executable<'_>) -> Option<u64> {
    let first = executable.segments().iter().find(|s| s.is_load())?;
    (first.p_offset == 0).then_some(first.p_vaddr - first.p_vaddr % PAGE_SIZE)
}

/// The first page of `mapping`, if the core holds it.
fn dumped_page<'a>(core: &'a [u8], segments: &[Segment], mapping: &FileMapping) -> Option<&'a [u8]> {
    let start = mapping.range.start.0;
    let holds = |s: &&Segment| s.is_load() && s.p_vaddr <= start && start - s.p_vaddr < s.p_filesz;
    let segment = segments.iter().find(holds)?;
    let skip = start - segment.p_vaddr;
    let len = (segment.p_filesz - skip).min(PAGE_SIZE).min(mapping.range.len);
    bytes_at(core, segment.p_offset.checked_add(skip)?, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::AddrRange;

    fn mapping(start: u64, len: u64, path: &str) -> FileMapping {
        FileMapping { range: AddrRange { start: Addr(start), len }, offset: 0, path: path.into() }
    }

    #[test]
    fn only_mapped_files_are_looked_at() {
        let files = [
            mapping(0x1000, 0x1000, "/app"),
            mapping(0x5000, 0x1000, "/lib/a.so"),
            mapping(0x7000, 0, "/lib/empty.so"),
            mapping(0x8000, 0x1000, "/dev/zero"),
            mapping(0x9000, 0x1000, "[vdso]"),
        ];
        let paths: Vec<&str> = starts(&files, Some(0x1800)).iter().map(|f| &*f.path).collect();
        assert_eq!(paths, ["/lib/a.so"]);
    }

    /// A core may name any file: none is unpacked.
    #[test]
    fn archives_are_not_unpacked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let gzip = [0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        std::fs::write(file.path(), gzip).unwrap();
        assert_eq!(Input::open_library(file.path()).unwrap().data(), gzip);
    }
}
