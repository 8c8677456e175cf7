//! [`Process`]: everything that stage 1 knows about the dumped process, made from [`Inputs`].
//!
//! Headers and notes of the core, the executable, the load bias, the table of extents, and at last the check that the two files
//! belong together.

use object::elf;

use super::elf::{Header, Segment, bytes_at};
use super::executable::Executable;
use super::extents::{self, BackingFile, Sources};
use super::inputs::{Input, Inputs};
use super::libraries::{self, Library};
use super::memory::MappedCore;
use super::notes::{CoreNotes, Notes};
use super::{FileMapping, Thread, identity};
use crate::architecture::Architecture;
use crate::error::{Error, Result};
use crate::incident::Incidents;

/// The dumped process.
///
/// * `I`: its memory: a core's, unless it is [assembled](Process::assemble) from other parts.
#[derive(Debug)]
pub struct Process<'img, I = MappedCore<'img>> {
    /// The machine that it ran on.
    pub architecture: &'static Architecture,
    /// Its memory.
    pub image: I,
    /// Its threads, in the order of the core (the kernel puts the one that died first).
    pub threads: Vec<Thread>,
    /// Its file mappings, sorted by address.
    pub files: Vec<FileMapping>,
    /// The auxiliary vector: (`AT_*`, value).
    pub auxv: Vec<(u64, u64)>,
    /// The file with the Go runtime: the executable that it ran, the library with Go code of a program in another language, or the
    /// standard library of a program that is linked with `-linkshared`.
    pub executable: Executable<'img>,
    /// The other files with Go code: plugins and shared libraries.
    pub libraries: Vec<Library<'img>>,
    /// Which of `libraries` is the program, if its runtime is in a shared library.
    pub linked_program: Option<usize>,
    /// Address in the process minus link-time address, of `executable`; 0 unless that is position independent.
    pub load_bias: u64,
    /// What was odd about the two files.
    pub incidents: Incidents,
}

impl<'img> Process<'img> {
    /// Reads headers and notes; memory is only touched to check that EXE and CORE belong together.
    ///
    /// # Errors
    /// One of the files is not what it should be, the core lacks its headers or notes, or the files do not belong together.
    pub fn parse(inputs: &'img Inputs) -> Result<Self> {
        let mut incidents = Incidents::default();
        let (core, what) = (inputs.core().data(), inputs.core().what());
        if inputs.core().is_truncated() {
            incidents.count("core.compressed_data_cut_off");
        }
        let header = Header::parse(core, what)?;
        if header.e_type != elf::ET_CORE.0 {
            let swapped = Header::parse(inputs.exe().data(), "").is_ok_and(|h| h.e_type == elf::ET_CORE.0);
            let error = Error::new(format!("{what}: expected a core dump, found {}", header.type_name()));
            return Err(error.remedy(if swapped {
                "give the executable first, then the core dump"
            } else {
                "give the executable that ran, then its core dump (from gcore or from the kernel)"
            }));
        }
        let executable = Executable::parse(inputs.exe().data(), inputs.exe().path())?;
        let architecture = header.architecture;
        if executable.architecture() != architecture {
            let (exe, ran_on, is_for) =
                (executable.path().display(), architecture.name, executable.architecture().name);
            return Err(Error::new(format!(
                "executable {exe} does not belong to {what}: the process ran on {ran_on}, the executable is for {is_for}"
            ))
            .remedy("give the executable that the process ran"));
        }
        let executable = inputs.debug().join(executable, &mut incidents)?;
        let segments = header.segments(core, what)?;
        let notes = read_notes(core, &segments, architecture, what, &mut incidents)?;
        // One of several Go libraries may be chosen by giving it as the executable.
        let chosen = libraries::bias_of_library(&executable, inputs.exe().data(), core, &segments, &notes);
        let load_bias = match chosen {
            Some(load_bias) => load_bias,
            None => identity::load_bias(&executable, &notes, what)?,
        };
        let mut libraries = libraries::find(inputs, &segments, &notes, &mut incidents);
        if chosen.is_some() {
            libraries.retain(|l| l.load_bias != load_bias);
        }
        let mapped = || libraries.iter().map(|l| (&l.executable, l.load_bias));
        let mapped = || std::iter::once((&executable, load_bias)).chain(mapped());
        let backing: Vec<BackingFile<'_>> = mapped()
            .map(|(e, load_bias)| BackingFile { segments: e.segments(), len: e.data().len() as u64, load_bias })
            .collect();
        let sources =
            Sources { core_segments: &segments, core_len: core.len() as u64, backing: &backing, files: &notes.files };
        let extents = extents::build(sources, &mut incidents);
        if extents.filtered {
            return Err(Error::new(format!(
                "{what}: expected the process's private memory, found none of it in the core"
            ))
            .remedy("the dump filter excluded it; write 0x33 to /proc/PID/coredump_filter and dump again"));
        }
        let files = mapped().map(|(e, _)| e.data()).collect();
        let image = MappedCore::new(core, files, extents).with_map(inputs.core().map());
        if chosen.is_none() {
            identity::check(&executable, &image, &notes, load_bias, what, &mut incidents)?;
        }
        let CoreNotes { threads, files, auxv, .. } = notes;
        let loaded = Loaded::of(Library { executable, load_bias }, libraries, auxv)?;
        Ok(Self { architecture, incidents, ..Self::assemble(loaded, image, threads, files) })
    }
}

/// The file with the runtime; `libraries` become the others, among them at which place the program that is linked with that.
///
/// A program in another language that loaded Go: the runtime is that library's. Two of them are two Go programs, of which this is the
/// first.
fn with_runtime<'img>(
    program: Library<'img>,
    libraries: &mut Vec<Library<'img>>,
) -> Result<(Library<'img>, Option<usize>)> {
    if !program.executable.is_go() && !libraries.is_empty() {
        return Ok((libraries.remove(0), None));
    }
    if !program.executable.imports_runtime() {
        return Ok((program, None));
    }
    let Some(at) = libraries.iter().position(|l| l.executable.is_shared_runtime()) else {
        let exe = program.executable.path().display();
        return Err(Error::new(format!(
            "executable {exe}: linked with -linkshared, expected the shared library with Go's runtime (libstd.so), found none"
        ))
        .remedy("put the library where it was in the process, or beside the executable"));
    };
    let runtime = std::mem::replace(&mut libraries[at], program);
    Ok((runtime, Some(at)))
}

/// What a process has loaded: as the fields of [`Process`] with the same names. Of a live one it is known before that is stopped.
#[derive(Debug)]
pub struct Loaded<'img> {
    /// The file with the Go runtime.
    pub executable: Executable<'img>,
    /// Other files with Go code.
    pub libraries: Vec<Library<'img>>,
    /// Which of those is the program.
    pub linked_program: Option<usize>,
    /// Of `executable`.
    pub load_bias: u64,
    /// The auxiliary vector.
    pub auxv: Vec<(u64, u64)>,
}

impl<'img> Loaded<'img> {
    /// * `executable`: the one that the process runs.
    /// * `opened`: what [`open_mapped`](super::open_mapped) found.
    /// * `files`: its file mappings, sorted; `auxv`: its auxiliary vector.
    /// * `what`: names the process in messages.
    ///
    /// # Errors
    /// The executable is not where the auxiliary vector says that it was loaded, or the library with its runtime was not found.
    pub fn new(
        executable: Executable<'img>,
        opened: &'img [(FileMapping, Input)],
        files: Vec<FileMapping>,
        auxv: Vec<(u64, u64)>,
        what: &str,
    ) -> Result<Self> {
        let mut notes = CoreNotes::new(executable.architecture());
        (notes.files, notes.auxv) = (files, auxv);
        let load_bias = identity::load_bias(&executable, &notes, what)?;
        let libraries = opened.iter().filter_map(|(mapping, input)| libraries::load(mapping, input)).collect();
        Self::of(Library { executable, load_bias }, libraries, notes.auxv)
    }

    /// The same of what was found.
    fn of(program: Library<'img>, mut libraries: Vec<Library<'img>>, auxv: Vec<(u64, u64)>) -> Result<Self> {
        let (Library { executable, load_bias }, linked_program) = with_runtime(program, &mut libraries)?;
        Ok(Self { executable, libraries, linked_program, load_bias, auxv })
    }
}

impl<'img, I> Process<'img, I> {
    /// The parts of a process, without incidents.
    ///
    /// * `image`, `threads`, `files` (sorted): as the fields.
    #[must_use]
    pub fn assemble(loaded: Loaded<'img>, image: I, threads: Vec<Thread>, files: Vec<FileMapping>) -> Self {
        let Loaded { executable, libraries, linked_program, load_bias, auxv } = loaded;
        Self {
            architecture: executable.architecture(),
            image,
            threads,
            files,
            auxv,
            executable,
            libraries,
            linked_program,
            load_bias,
            incidents: Incidents::default(),
        }
    }

    /// The program that was started, or the library with Go code of one in another language; and its load bias.
    #[must_use]
    pub fn program(&self) -> (&Executable<'img>, u64) {
        let linked = self.linked_program.and_then(|at| self.libraries.get(at));
        linked.map_or((&self.executable, self.load_bias), |program| (&program.executable, program.load_bias))
    }
}

/// The notes of a core.
pub(super) fn read_notes(
    core: &[u8],
    segments: &[Segment],
    architecture: &'static Architecture,
    what: &str,
    incidents: &mut Incidents,
) -> Result<CoreNotes> {
    let mut notes = CoreNotes::new(architecture);
    for s in segments.iter().filter(|s| s.is_note()) {
        let data = bytes_at(core, s.p_offset, s.p_filesz).ok_or_else(|| {
            Error::new(format!(
                "{what}: {} bytes of notes at file offset {:#x} reach beyond the end of the file at {:#x}",
                s.p_filesz,
                s.p_offset,
                core.len()
            ))
            .remedy("the core is cut off (gdb writes the notes last); copy or dump it again")
        })?;
        notes.read(Notes::new(data, s.p_align), incidents);
    }
    if notes.threads.is_empty() {
        return Err(Error::new(format!("{what}: expected a thread (NT_PRSTATUS) in the notes, found none"))
            .remedy("the core is damaged or was not written by the kernel or gdb; dump it again"));
    }
    Ok(notes)
}
