//! Where results go: a file that is replaced only by a complete one, a pipe or device, or standard output.
//!
//! A regular file is written under a temporary name in the same folder and renamed at the end, so a failed or interrupted run
//! leaves the old file as it was. What is no regular file (`/dev/null`, a named pipe) must not be replaced and is written to.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Context, Error, Result};

/// A place to write one result to, checked before the long work begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `-`, or a path that is standard output itself such as `/dev/stdout`.
    Stdout,
    /// Something that is written to in place.
    InPlace(PathBuf),
    /// A regular file, present or not.
    Replace {
        /// The file; symbolic links are resolved.
        path: PathBuf,
        /// Permission bits of the old file, kept for the new one.
        mode: Option<u32>,
    },
}

impl Destination {
    /// Finds out what `path` is and that it can be written.
    ///
    /// # Errors
    /// A folder that is missing or not writable, a path that is a folder.
    pub fn prepare(path: &Path) -> Result<Self> {
        let shown = path.display();
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let old = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Error::new(format!("cannot write {shown}: it is a folder")).remedy("name a file: -o FILE"));
            }
            Ok(metadata) if is_special(&metadata) => {
                let stdout = std::fs::metadata("/proc/self/fd/1").is_ok_and(|out| same_file(&out, &metadata));
                return Ok(if stdout { Self::Stdout } else { Self::InPlace(path.to_owned()) });
            }
            Ok(metadata) => Some(metadata),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(cannot_write(path, e)),
        };
        let path = match &old {
            // Replace what a link points to, not the link.
            Some(_) => path.canonicalize().map_err(|e| cannot_write(path, e))?,
            None => path.to_owned(),
        };
        temporary(&path)?;
        Ok(Self::Replace { path, mode: old.map(|m| m.mode() & 0o777) })
    }

    /// Lets `write` produce the content and puts it in place.
    ///
    /// # Errors
    /// Whatever the file system reports; a reader that closed the pipe early is no error.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        match self {
            Self::Stdout => {
                let done = buffered(io::stdout().lock(), write).map(drop);
                ignore_broken_pipe(done).context(|| "cannot write to standard output".into())
            }
            Self::InPlace(path) => {
                let file = OpenOptions::new().write(true).open(path);
                let done = file.and_then(|file| buffered(file, write).map(drop));
                ignore_broken_pipe(done).map_err(|e| cannot_write(path, e))
            }
            Self::Replace { path, mode } => {
                let file = temporary(path)?;
                let file = buffered(file, write).map_err(|e| cannot_write(path, e))?;
                if let Some(mode) = mode {
                    let kept = file.as_file().set_permissions(Permissions::from_mode(*mode));
                    kept.map_err(|e| cannot_write(path, e))?;
                }
                file.persist(path).map_err(|e| cannot_write(path, e.error))?;
                Ok(())
            }
        }
    }

    /// As [`Destination::write`], for content that needs a file with holes: no pipe, not standard output.
    ///
    /// # Errors
    /// As [`Destination::write`]; the place is no regular file.
    pub fn write_file(&self, write: impl FnOnce(File) -> io::Result<()>) -> Result<()> {
        let Self::Replace { path, mode } = self else {
            return Err(Error::new("cannot write the core: expected a regular file").remedy("name a file: -o FILE"));
        };
        let file = temporary(path)?;
        let written = file.as_file().try_clone().and_then(write);
        written.map_err(|e| cannot_write(path, e))?;
        if let Some(mode) = mode {
            let kept = file.as_file().set_permissions(Permissions::from_mode(*mode));
            kept.map_err(|e| cannot_write(path, e))?;
        }
        file.persist(path).map_err(|e| cannot_write(path, e.error))?;
        Ok(())
    }

    /// The path to show, `None` for standard output.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::InPlace(path) | Self::Replace { path, .. } => Some(path),
        }
    }
}

/// Runs `write` on a buffer before `inner` and returns `inner` after everything went out.
fn buffered<W: Write>(inner: W, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<W> {
    let mut out = BufWriter::with_capacity(256 << 10, inner);
    write(&mut out)?;
    out.into_inner().map_err(|e| e.into_error())
}

/// A broken pipe is success: the reader has seen all it wanted.
pub fn ignore_broken_pipe(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A temporary file beside `path`, gone when dropped.
fn temporary(path: &Path) -> Result<NamedTempFile<File>> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Asked for its own sake: the error of the temporary file would name that one.
    std::fs::metadata(folder).map_err(|e| cannot_write(path, e))?;
    // The mode of an ordinary new file; the process's umask takes bits away.
    let builder =
        tempfile::Builder::new().prefix(".goref-fast-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    builder.map_err(|e| cannot_write(path, e))
}

fn cannot_write(path: &Path, e: io::Error) -> Error {
    Error::new(format!("cannot write {}", path.display()))
        .cause(e)
        .remedy("choose a file in a writable folder with enough space: -o FILE")
}

fn is_special(metadata: &Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()
}

/// True if both describe one file, whatever its names.
#[must_use]
pub fn same_file(a: &Metadata, b: &Metadata) -> bool {
    a.dev() == b.dev() && a.ino() == b.ino()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_only_by_a_complete_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("grf.out");
        std::fs::write(&path, "old").expect("write");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("mode");
        let destination = Destination::prepare(&path).expect("prepare");
        let failed = destination.write(|out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk on fire"))
        });
        let message = failed.expect_err("fails").to_string();
        assert!(message.contains("cannot write") && message.contains("disk on fire"), "{message}");
        assert_eq!(std::fs::read_to_string(&path).expect("old"), "old");
        destination.write(|out| out.write_all(b"new")).expect("write");
        assert_eq!(std::fs::read_to_string(&path).expect("new"), "new");
        assert_eq!(std::fs::metadata(&path).expect("metadata").mode() & 0o777, 0o640);
        assert_eq!(names(folder.path()), ["grf.out"]);
    }

    #[test]
    fn keeps_a_symbolic_link() {
        let folder = tempfile::tempdir().expect("folder");
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::write(&real, "old").expect("write");
        std::os::unix::fs::symlink(&real, &link).expect("link");
        Destination::prepare(&link).expect("prepare").write(|out| out.write_all(b"new")).expect("write");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&real).expect("real"), "new");
    }

    #[test]
    fn devices_are_written_not_replaced() {
        let null = Destination::prepare(Path::new("/dev/null")).expect("prepare");
        null.write(|out| out.write_all(b"gone")).expect("write");
        assert!(std::fs::metadata("/dev/null").expect("metadata").file_type().is_char_device());
        assert_eq!(Destination::prepare(Path::new("-")).expect("stdout"), Destination::Stdout);
    }

    #[test]
    fn bad_places_are_found_before_the_work() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(Destination::prepare(folder.path()).expect_err("folder").to_string().contains("it is a folder"));
        let missing = Destination::prepare(&folder.path().join("no/such/file")).expect_err("missing folder");
        assert!(missing.remedy_text().is_some_and(|r| r.contains("-o FILE")));
    }
}
