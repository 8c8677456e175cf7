//! Compressed inputs: recognised by magic, unpacked into an unlinked sparse temporary file that is then mapped like any other.
//!
//! Cores are mostly zero pages (a gdb core holds all reserved address space), so zero blocks become holes of the temporary file:
//! it takes about the space of the memory that the process really used. How much that is nobody knows before, so the free space
//! is looked at while writing.

mod lz4;
mod xz;

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Watch;
use crate::error::{Error, Result};

/// A compression format.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Lz4,
    Xz,
    Zstd,
}

impl Format {
    /// Recognises the format by the first bytes of the file.
    pub(crate) fn detect(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Some(Self::Gzip),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// All frames, members or streams of `input` as one stream of bytes. Data that ends early gives `UnexpectedEof`, after
    /// everything that came before.
    fn decoder<'a>(self, input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(input)),
            Self::Lz4 => Box::new(lz4::Frames::new(BufReader::with_capacity(BUFFER, input))),
            Self::Xz => {
                let threads = u32::try_from(rayon::current_num_threads()).unwrap_or(1);
                Box::new(xz::Streams::new(BufReader::with_capacity(BUFFER, input), threads))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        })
    }
}

/// What was unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) file: File,
    /// The compressed data ended early: `file` holds what came before.
    pub(crate) truncated: bool,
}

/// Granularity of holes: the page size of every file system that has them.
const BLOCK: usize = 4096;

/// Bytes unpacked between writes; a multiple of [`BLOCK`]. Large enough to make the number of system calls irrelevant.
const BUFFER: usize = 1 << 20;

/// The largest window that zstd can write (`--long=31`); its decoder refuses more than 27 unless told.
const ZSTD_WINDOW_LOG_MAX: u32 = 31;

/// Bytes of the file system that are left free: a full one would harm others, not only this run.
pub(super) const RESERVE: u64 = 64 << 20;

/// Bytes written between looks at the free space; less than [`RESERVE`].
pub(super) const LOOK_EVERY: u64 = 16 << 20;

/// Unpacks `input` into a new unlinked file in `tmpdir` (default: the system's directory for temporary files).
///
/// * `what`: names the input in messages.
pub(crate) fn unpack(
    input: &File,
    format: Format,
    what: &str,
    tmpdir: Option<&Path>,
    watch: &dyn Watch,
) -> Result<Unpacked> {
    let default_dir = std::env::temp_dir();
    let dir = tmpdir.unwrap_or(&default_dir);
    let output = tempfile::tempfile_in(dir).map_err(|e| {
        Error::new(format!("{what}: cannot create a temporary file in {} to decompress it", dir.display()))
            .cause(e)
            .remedy("give a writable directory with enough space with --tmpdir or TMPDIR")
    })?;
    watch.begin("decompressing", input.metadata().map_or(0, |m| m.len()));
    let truncated = format
        .decoder(Watched { input, watch })
        .map_err(Failure::Read)
        .and_then(|decoder| copy_sparse(decoder, &output, RESERVE))
        .map_err(|failure| {
            let room = "give a directory with enough space with --tmpdir or TMPDIR, or decompress the file yourself";
            match failure {
                Failure::Read(e) => Error::new(format!("{what}: {} data is damaged", format.name())).cause(e),
                Failure::Write(e) => {
                    Error::new(format!("{what}: cannot write its decompressed data into {}", dir.display()))
                        .cause(e)
                        .remedy(room)
                }
                Failure::NoRoom { written, free } => Error::new(format!(
                    "{what}: its decompressed data does not fit into {}: {written} bytes are written and more come, {free} are \
                     left there, of which {RESERVE} stay free",
                    dir.display()
                ))
                .remedy(room),
            }
        })?;
    Ok(Unpacked { file: output, truncated })
}

/// Tells how much of the compressed file was read.
struct Watched<'a> {
    input: &'a File,
    watch: &'a dyn Watch,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        self.watch.advance(n as u64);
        Ok(n)
    }
}

/// Why data could not be unpacked.
#[derive(Debug)]
pub(super) enum Failure {
    Read(io::Error),
    Write(io::Error),
    /// Bytes written without holes, and bytes that are left.
    NoRoom {
        written: u64,
        free: u64,
    },
}

/// Copies all of `from`, leaving holes for zero blocks. True if `from` ended too early.
///
/// * `reserve`: bytes of the file system that stay free.
pub(super) fn copy_sparse(mut from: impl Read, to: &File, reserve: u64) -> Result<bool, Failure> {
    let mut buffer = vec![0; BUFFER];
    let (mut offset, mut written, mut next_look) = (0, 0, 0);
    loop {
        let (filled, end) = fill(&mut from, &mut buffer);
        written += write_blocks(&buffer[..filled], to, offset).map_err(Failure::Write)?;
        if written > next_look {
            next_look = written + LOOK_EVERY;
            let free = free_space(to);
            if free < reserve {
                return Err(Failure::NoRoom { written, free });
            }
        }
        offset += filled as u64;
        let truncated = match end {
            None => continue,
            Some(Ok(())) => false,
            Some(Err(e)) if e.kind() == ErrorKind::UnexpectedEof => true,
            Some(Err(e)) => return Err(Failure::Read(e)),
        };
        to.set_len(offset).map_err(Failure::Write)?;
        return Ok(truncated);
    }
}

/// Bytes that the file system of `file` has left; all, if nobody can tell.
pub(super) fn free_space(file: &File) -> u64 {
    rustix::fs::fstatvfs(file).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Fills `buffer` as far as possible; `Some` if the source ended, well or badly.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> (usize, Option<io::Result<()>>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => return (filled, Some(Ok(()))),
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return (filled, Some(Err(e))),
        }
    }
    (filled, None)
}

/// Writes each maximal run of non-zero blocks; returns how many bytes these were.
fn write_blocks(bytes: &[u8], to: &File, offset: u64) -> io::Result<u64> {
    let mut written = 0;
    let mut write = |from: usize, end: usize| {
        written += (end - from) as u64;
        to.write_all_at(&bytes[from..end], offset + from as u64)
    };
    let mut run_start = 0;
    let mut position = 0;
    for block in bytes.chunks(BLOCK) {
        if is_zero(block) {
            write(run_start, position)?;
            run_start = position + block.len();
        }
        position += block.len();
    }
    write(run_start, bytes.len())?;
    Ok(written)
}

/// No early exit inside a chunk, so that it compiles to vector operations.
fn is_zero(block: &[u8]) -> bool {
    block.chunks(256).all(|chunk| chunk.iter().fold(0, |or, b| or | b) == 0)
}
