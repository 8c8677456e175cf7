//! EXE, CORE and debug file as bytes: found, opened, decompressed if needed, mapped. Everything later borrows from here.

use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use super::decompress::{self, Format};
use super::executable::Executable;
use super::map::FileMap;
use super::separate::{Search, Separate};
use super::{Unwatched, Watch, sysroot};
use crate::error::{Context, Error, Result};

/// What is opened, and how.
#[derive(Copy, Clone)]
pub struct Request<'a> {
    /// The executable, or a directory that was `/` for the process.
    pub exe: &'a Path,
    /// The core dump.
    pub core: &'a Path,
    /// Where compressed files are unpacked; default: `TMPDIR`, or `/tmp`.
    pub tmpdir: Option<&'a Path>,
    /// Where debug information is looked for.
    pub search: &'a Search,
    /// Who is told how it goes on.
    pub watch: &'a dyn Watch,
}

/// Owns the file mappings of EXE, CORE, and a file with the debug information of EXE.
#[derive(Debug)]
pub struct Inputs {
    exe: Input,
    core: Input,
    debug: Separate,
    /// The sysroot.
    root: Option<PathBuf>,
    /// Files that the core names, opened while it is parsed.
    libraries: OnceLock<Vec<Option<Input>>>,
}

impl Inputs {
    /// Opens and maps both files, and looks for debug information where it usually is.
    ///
    /// * `tmpdir`: as in [`Request`].
    ///
    /// # Errors
    /// As [`Inputs::open_all`].
    pub fn open(exe: &Path, core: &Path, tmpdir: Option<&Path>) -> Result<Self> {
        Self::open_all(&Request { exe, core, tmpdir, search: &Search::default(), watch: &Unwatched })
    }

    /// Opens and maps all files. Compressed ones (gzip, lz4, xz, zstd) are recognised by their magic and unpacked into an unlinked
    /// temporary file first.
    ///
    /// # Errors
    /// A file cannot be opened, mapped or unpacked, is empty, or is no regular file; the executable is not in the directory; the
    /// debug file that was asked for does not belong to the executable. Other contents are not looked at here.
    pub fn open_all(request: &Request<'_>) -> Result<Self> {
        let Request { exe, core, tmpdir, search, watch } = *request;
        let open_exe = |path: &Path| Input::executable(path, tmpdir, watch);
        let open_core = || Input::open(core, "core dump", tmpdir, watch);
        let (exe, core, known) = if exe.is_dir() {
            let core = open_core()?;
            let (path, known) = sysroot::executable_in(exe, core.data(), core.what())?;
            (open_exe(&path)?, core, Some((exe, known)))
        } else {
            (open_exe(exe)?, open_core()?, None)
        };
        // What is wrong with an executable that cannot be parsed is said when it is needed.
        let debug = match Executable::parse(exe.data(), exe.path()) {
            Ok(parsed) => {
                let inside = known.as_ref().map(|(root, path)| (*root, &**path));
                Separate::find(&parsed, inside, search, tmpdir, watch)?
            }
            Err(_) => Separate::default(),
        };
        let root = known.map(|(root, _)| root.to_owned());
        Ok(Self { exe, core, debug, root, libraries: OnceLock::new() })
    }

    /// The executable.
    #[must_use]
    pub fn exe(&self) -> &Input {
        &self.exe
    }

    /// The core dump.
    #[must_use]
    pub fn core(&self) -> &Input {
        &self.core
    }

    /// Where the debug information of the executable is, if not in that itself.
    #[must_use]
    pub fn debug(&self) -> &Separate {
        &self.debug
    }

    /// The directory that was `/` for the process, if EXE is one.
    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Other files of the process, kept as long as these inputs; `open` is called once.
    pub(super) fn libraries(&self, open: impl FnOnce() -> Vec<Option<Input>>) -> &[Option<Input>] {
        self.libraries.get_or_init(open)
    }

    /// Checks that no file changed its length or modification time since it was opened: a core still being written or
    /// rewritten under a mapping gives wrong bytes without any error.
    ///
    /// # Errors
    /// Names the file that changed.
    pub fn verify_unchanged(&self) -> Result<()> {
        let libraries = self.libraries.get().into_iter().flatten().flatten();
        libraries.chain(self.debug.input()).chain([&self.exe, &self.core]).try_for_each(Input::verify_unchanged)
    }
}

/// One input file.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    what: String,
    map: FileMap,
    /// The compressed data of this input ended early.
    truncated: bool,
    /// The file as the user named it (before decompression), kept open for [`Inputs::verify_unchanged`].
    file: File,
    opened: Stamp,
}

/// Length and modification time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    mtime: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), mtime: metadata.modified().ok() }
    }
}

impl Input {
    /// Opens and maps an executable alone; the compressed data must be whole.
    ///
    /// # Errors
    /// As [`Inputs::open`].
    pub fn executable(path: &Path, tmpdir: Option<&Path>, watch: &dyn Watch) -> Result<Self> {
        let exe = Self::open(path, "executable", tmpdir, watch)?;
        if exe.truncated { Err(ends_early(&exe.what)) } else { Ok(exe) }
    }

    /// The same, named in messages and profiles as `path`: what it was opened by says little.
    #[must_use]
    pub fn known_as(self, path: &Path) -> Self {
        Self { path: path.to_owned(), what: format!("executable {}", path.display()), ..self }
    }

    pub(super) fn open(path: &Path, role: &str, tmpdir: Option<&Path>, watch: &dyn Watch) -> Result<Self> {
        Self::open_as(path, role, Format::detect, tmpdir, watch)
    }

    fn open_as(
        path: &Path,
        role: &str,
        detect: impl Fn(&[u8]) -> Option<Format>,
        tmpdir: Option<&Path>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let what = format!("{role} {}", path.display());
        // Looked at before opening: opening a pipe would wait for its writer.
        let kind = std::fs::metadata(path).context(|| format!("{what}: cannot open"))?;
        if !kind.is_file() {
            let found = if kind.is_dir() { "a directory" } else { "a pipe or device" };
            return Err(Error::new(format!("{what}: expected a regular file, found {found}"))
                .remedy("give the executable and the core dump as files"));
        }
        let file = File::open(path).context(|| format!("{what}: cannot open"))?;
        let opened = Stamp::of(&file.metadata().context(|| format!("{what}: cannot read the file size"))?);
        let mut magic = [0; 6];
        let known = file.read_at(&mut magic, 0).context(|| format!("{what}: cannot read"))?;
        let (map, truncated) = match detect(&magic[..known]) {
            Some(format) => {
                let unpacked = decompress::unpack(&file, format, &what, tmpdir, watch)?;
                if unpacked.truncated && unpacked.file.metadata().is_ok_and(|m| m.len() == 0) {
                    return Err(ends_early(&what));
                }
                (FileMap::new(&unpacked.file, &what)?, unpacked.truncated)
            }
            None => (FileMap::new(&file, &what)?, false),
        };
        Ok(Self { path: path.to_owned(), what, map, truncated, file, opened })
    }

    /// Opens a file that a core names, as it is: no process maps compressed code, and a forged core may name any archive of this
    /// machine.
    pub(super) fn open_library(path: &Path) -> Result<Self> {
        Self::open_as(path, "shared library", |_| None, None, &Unwatched)
    }

    /// The (decompressed) bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.map
    }

    /// The mapping, for advice to the kernel.
    #[must_use]
    pub fn map(&self) -> &FileMap {
        &self.map
    }

    /// The path as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Role and path, for messages.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Whether compressed data ended early.
    pub(crate) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// As [`Inputs::verify_unchanged`], of this file.
    ///
    /// # Errors
    /// It changed.
    pub fn verify_unchanged(&self) -> Result<()> {
        let metadata = self.file.metadata().context(|| format!("{}: cannot read the file size", self.what))?;
        let now = Stamp::of(&metadata);
        if now.len != self.opened.len {
            let (before, after) = (self.opened.len, now.len);
            return Err(changed(&self.what, &format!("its length was {before} bytes, now it is {after}")));
        }
        if now.mtime != self.opened.mtime {
            return Err(changed(&self.what, "its modification time is new"));
        }
        Ok(())
    }
}

fn ends_early(what: &str) -> Error {
    Error::new(format!("{what}: the compressed data ends early")).remedy("copy the file again")
}

fn changed(what: &str, how: &str) -> Error {
    Error::new(format!("{what}: the file changed while it was read: {how}"))
        .remedy("wait until the dump is completely written, then run again")
}
