//! Copies files without their zeros: gdb writes more than a gigabyte of them for an idle Go program.

use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::path::Path;

/// Copies all of `from` to `to`; blocks of zeros become holes.
pub fn copy(from: &mut impl Read, to: &Path) -> Result<()> {
    let mut out = File::create(to)?;
    let mut block = vec![0u8; 64 << 10];
    let mut length = 0u64;
    loop {
        let mut n = 0;
        while n < block.len() {
            match from.read(&mut block[n..])? {
                0 => break,
                got => n += got,
            }
        }
        if n == 0 {
            break;
        }
        if block[..n].iter().all(|&b| b == 0) {
            out.seek(SeekFrom::Current(i64::try_from(n).expect("a small block")))?;
        } else {
            out.write_all(&block[..n])?;
        }
        length += n as u64;
    }
    out.set_len(length)
}
