//! [`Opened`]: what the files of a live process tell, read before it is made to stand still.

use std::path::Path;

use super::debug_information;
use crate::error::{Error, Result};
use crate::image::executable::Executable;
use crate::image::{FileMapping, Input, Loaded, Process, Search, Separate, check_same_program};
use crate::incident::Incidents;
use crate::live::{Frozen, LiveImage, Subject};
use crate::model::dwarf::DebugInfo;
use crate::progress::Progress;
use crate::timing::Phases;

/// The files of a process.
pub(super) struct Opened {
    running: Input,
    given: Option<Input>,
    separate: Separate,
    libraries: Vec<(FileMapping, Input)>,
    files: Vec<FileMapping>,
    auxv: Vec<(u64, u64)>,
    what: String,
}

/// What they say.
pub(super) struct Program<'img> {
    loaded: Loaded<'img>,
    pub(super) debug: DebugInfo<'img>,
    incidents: Incidents,
}

impl Opened {
    /// Opens them.
    ///
    /// * `exe`: another file of the same program; none if empty.
    ///
    /// # Errors
    /// They cannot be read, `exe` is another program, or the process is gone.
    pub(super) fn open(
        subject: &Subject,
        exe: &Path,
        search: &Search,
        tmpdir: Option<&Path>,
        progress: &Progress,
    ) -> Result<Self> {
        progress.phase("opening the executable");
        let what = format!("process {}", subject.pid);
        // The file that it runs, wherever that is now.
        let running = Input::executable(&subject.exe, tmpdir, progress)?.known_as(&subject.exe_path);
        let given = match exe.as_os_str().is_empty() {
            true => None,
            false => Some(Input::executable(exe, tmpdir, progress)?),
        };
        let exe = given.as_ref().unwrap_or(&running);
        let executable = Executable::parse(exe.data(), exe.path())?;
        if given.is_some() {
            check_same_program(&executable, &Executable::parse(running.data(), running.path())?, &what)?;
        }
        let separate = Separate::find(&executable, None, search, tmpdir, progress)?;
        let (files, auxv) = (subject.files()?, subject.auxv()?);
        let libraries = subject.libraries(&files, &auxv);
        Ok(Self { running, given, separate, libraries, files, auxv, what })
    }

    fn exe(&self) -> &Input {
        self.given.as_ref().unwrap_or(&self.running)
    }

    /// Reads what only they tell.
    ///
    /// # Errors
    /// They are no Go program, or their debug information is damaged.
    pub(super) fn program(&self, progress: &Progress, phases: &mut Phases) -> Result<Program<'_>> {
        let mut incidents = Incidents::default();
        let executable = Executable::parse(self.exe().data(), self.exe().path())?;
        let executable = self.separate.join(executable, &mut incidents)?;
        let loaded = Loaded::new(executable, &self.libraries, self.files.clone(), self.auxv.clone(), &self.what)?;
        let libraries = loaded.libraries.iter();
        let libraries: Vec<_> =
            libraries.map(|l| (&l.executable, l.load_bias.wrapping_sub(loaded.load_bias))).collect();
        let debug = debug_information(&loaded.executable, &libraries, progress, phases)?;
        Ok(Program { loaded, debug, incidents })
    }

    /// As [`crate::image::Inputs::verify_unchanged`].
    ///
    /// # Errors
    /// A file changed while it was read.
    pub(super) fn verify_unchanged(&self) -> Result<()> {
        self.libraries.iter().map(|(_, library)| library).chain([self.exe()]).try_for_each(Input::verify_unchanged)
    }

    /// The process, whose memory stands still by now.
    ///
    /// # Errors
    /// It executed something between the look at its files and the stop, or runs 32-bit code.
    pub(super) fn process<'img>(
        &self,
        program: Program<'img>,
        subject: &Subject,
        frozen: &Frozen,
    ) -> Result<(Process<'img, LiveImage>, DebugInfo<'img>)> {
        let Program { loaded, debug, mut incidents } = program;
        if frozen.auxv()? != self.auxv {
            return Err(Error::new(format!("{}: executed its program anew while goref-fast looked at it", self.what))
                .remedy("try again"));
        }
        let files = frozen.files();
        // Go never unloads what it has loaded.
        let known =
            |f: &&FileMapping| self.files.iter().any(|old| old.range.start == f.range.start && old.path == f.path);
        let new: Vec<FileMapping> = files.iter().filter(|f| !known(f)).cloned().collect();
        incidents.add("process.library_loaded_meanwhile", subject.libraries(&new, &self.auxv).len() as u64);
        let mut process = Process::assemble(loaded, frozen.image(), frozen.threads()?, files);
        process.incidents.merge(&incidents);
        Ok((process, debug))
    }
}
