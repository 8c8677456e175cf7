//! EXE and CORE as bytes: opened, decompressed if needed, mapped. Everything later borrows from here.

use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use super::decompress::{self, Format};
use super::map::FileMap;
use crate::error::{Context, Error, Result};

/// Owns the file mappings of EXE and CORE.
#[derive(Debug)]
pub struct Inputs {
    exe: Input,
    core: Input,
    /// Files that the core names, opened while it is parsed.
    libraries: OnceLock<Vec<Option<Input>>>,
}

impl Inputs {
    /// Opens and maps both files. Files packed with gzip or zstd are recognised by their magic and unpacked into an unlinked
    /// temporary file first.
    ///
    /// * `tmpdir`: where such a file goes; default: `TMPDIR`, or `/tmp`.
    ///
    /// # Errors
    /// A file cannot be opened, mapped or unpacked, is empty, or is no regular file. Contents are not looked at here.
    pub fn open(exe: &Path, core: &Path, tmpdir: Option<&Path>) -> Result<Self> {
        let exe = Input::executable(exe, tmpdir)?;
        let core = Input::open(core, "core dump", tmpdir)?;
        Ok(Self { exe, core, libraries: OnceLock::new() })
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
        self.exe.verify_unchanged()?;
        self.libraries.get().into_iter().flatten().flatten().try_for_each(Input::verify_unchanged)?;
        self.core.verify_unchanged()
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
    pub fn executable(path: &Path, tmpdir: Option<&Path>) -> Result<Self> {
        let exe = Self::open(path, "executable", tmpdir)?;
        if exe.truncated {
            return Err(
                Error::new(format!("{}: the compressed data ends early", exe.what)).remedy("copy the file again")
            );
        }
        Ok(exe)
    }

    /// The same, named in messages and profiles as `path`: what it was opened by says little.
    #[must_use]
    pub fn known_as(self, path: &Path) -> Self {
        Self { path: path.to_owned(), what: format!("executable {}", path.display()), ..self }
    }

    fn open(path: &Path, role: &str, tmpdir: Option<&Path>) -> Result<Self> {
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
        let mut magic = [0; 4];
        let known = file.read_at(&mut magic, 0).context(|| format!("{what}: cannot read"))?;
        let (map, truncated) = match Format::detect(&magic[..known]) {
            Some(format) => {
                let unpacked = decompress::unpack(&file, format, &what, tmpdir)?;
                (FileMap::new(&unpacked.file, &what)?, unpacked.truncated)
            }
            None => (FileMap::new(&file, &what)?, false),
        };
        Ok(Self { path: path.to_owned(), what, map, truncated, file, opened })
    }

    /// Opens a file that a core names.
    pub(super) fn open_library(path: &Path) -> Result<Self> {
        Self::open(path, "shared library", None)
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

fn changed(what: &str, how: &str) -> Error {
    Error::new(format!("{what}: the file changed while it was read: {how}"))
        .remedy("wait until the dump is completely written, then run again")
}
