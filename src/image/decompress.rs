//! Compressed inputs: recognised by magic, unpacked into an unlinked sparse temporary file that is then mapped like any other.
//!
//! Cores are mostly zero pages (a gdb core holds all reserved address space), so zero blocks become holes of the temporary file:
//! it takes about the space of the memory that the process really used.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};

/// A compression format.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Zstd,
}

impl Format {
    /// Recognises the format by the first bytes of the file.
    pub(crate) fn detect(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
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

/// Unpacks `input` into a new unlinked file in `tmpdir` (default: the system's directory for temporary files).
///
/// * `what`: names the input in messages.
pub(crate) fn unpack(input: &File, format: Format, what: &str, tmpdir: Option<&Path>) -> Result<Unpacked> {
    let default_dir = std::env::temp_dir();
    let dir = tmpdir.unwrap_or(&default_dir);
    let output = tempfile::tempfile_in(dir).map_err(|e| {
        Error::new(format!("{what}: cannot create a temporary file in {} to decompress it", dir.display()))
            .cause(e)
            .remedy("set TMPDIR to a writable directory with enough space")
    })?;
    let failed = |e: Failure| match e {
        Failure::Read(e) => Error::new(format!("{what}: {} data is damaged", format.name())).cause(e),
        Failure::Write(e) => Error::new(format!("{what}: cannot write its decompressed data into {}", dir.display()))
            .cause(e)
            .remedy("set TMPDIR to a directory with enough space, or decompress the file yourself"),
    };
    let truncated = match format {
        Format::Gzip => copy_sparse(flate2::read::MultiGzDecoder::new(input), &output),
        Format::Zstd => zstd_decoder(input).map_err(Failure::Read).and_then(|decoder| copy_sparse(decoder, &output)),
    };
    let truncated = truncated.map_err(failed)?;
    Ok(Unpacked { file: output, truncated })
}

fn zstd_decoder(input: &File) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

#[derive(Debug)]
enum Failure {
    Read(io::Error),
    Write(io::Error),
}

/// Copies all of `from`, leaving holes for zero blocks. True if `from` ended too early.
fn copy_sparse(mut from: impl Read, to: &File) -> Result<bool, Failure> {
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    loop {
        let (filled, end) = fill(&mut from, &mut buffer);
        write_blocks(&buffer[..filled], to, offset).map_err(Failure::Write)?;
        offset += filled as u64;
        match end {
            None => {}
            Some(Ok(())) => {
                to.set_len(offset).map_err(Failure::Write)?;
                return Ok(false);
            }
            Some(Err(e)) if e.kind() == ErrorKind::UnexpectedEof => {
                to.set_len(offset).map_err(Failure::Write)?;
                return Ok(true);
            }
            Some(Err(e)) => return Err(Failure::Read(e)),
        }
    }
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

/// Writes each maximal run of non-zero blocks.
fn write_blocks(bytes: &[u8], to: &File, offset: u64) -> io::Result<()> {
    let mut run_start = 0;
    let mut position = 0;
    for block in bytes.chunks(BLOCK) {
        if is_zero(block) {
            to.write_all_at(&bytes[run_start..position], offset + run_start as u64)?;
            run_start = position + block.len();
        }
        position += block.len();
    }
    to.write_all_at(&bytes[run_start..], offset + run_start as u64)
}

/// No early exit inside a chunk, so that it compiles to vector operations.
fn is_zero(block: &[u8]) -> bool {
    block.chunks(256).all(|chunk| chunk.iter().fold(0, |or, b| or | b) == 0)
}
