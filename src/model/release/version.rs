//! Which Go built the executable: `.go.buildinfo`, which the linker writes into every program, stripped or not. Older shared libraries
//! (`-buildmode=shared`) lack it; their symbols lead to the runtime's own variable.

use crate::address::Addr;
use crate::image::Image;
use crate::image::executable::{Executable, Symbol};

/// The section's first bytes; byte 14 is the size of a pointer, byte 15 has flags.
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Flag: the strings follow the header. Before Go 1.18 the header has the addresses of two string variables.
const INLINE: u8 = 2;
/// Bytes of the header.
const HEADER: u64 = 32;
/// No version is longer, whatever experiments it lists.
const MAX_LEN: u64 = 1024;

/// A Go release, with what was switched on or off against its defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoVersion {
    /// As the runtime spells it: `go1.26.6`, `go1.25.5 X:greenteagc`.
    pub text: String,
    /// 26 for every Go 1.26.
    pub minor: u32,
    /// `GOEXPERIMENT`s that differ from the release's defaults.
    pub experiments: Vec<String>,
}

impl GoVersion {
    /// Parses `runtime.buildVersion`. None if it is no release of Go 1: nobody knows what a development version looks like inside.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("go1.")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let minor = rest[..digits].parse().ok()?;
        let experiments = rest.split_once("X:").map_or("", |(_, list)| list);
        let experiments = experiments.split([',', ' ']).filter(|x| !x.is_empty()).map(str::to_owned).collect();
        Some(Self { text: text.to_owned(), minor, experiments })
    }

    /// Reads the version of the program at load bias `bias`.
    pub(super) fn read(exe: &Executable<'_>, image: &dyn Image, bias: u64) -> Option<Self> {
        let Some(section) = exe.section(".go.buildinfo") else {
            let named = |(name, _): &(&[u8], Symbol)| *name == b"runtime.buildVersion";
            let (_, variable) = exe.symbols().chain(exe.exports()).find(named)?;
            return Self::read_variable(Addr(variable.address.wrapping_add(bias)), image);
        };
        let header = section.data();
        if !header.starts_with(MAGIC) {
            return None;
        }
        let start = Addr(section.address.wrapping_add(bias));
        if header.get(15)? & INLINE == 0 {
            // In the process's memory these addresses are relocated.
            return Self::read_variable(Addr(image.read_u64(start.add(16)).ok()?), image);
        }
        let (len, used) = uvarint(header.get(HEADER as usize..)?)?;
        Self::read_text(start.add(HEADER + used), len, image)
    }

    /// Reads it from a variable of type string.
    fn read_variable(variable: Addr, image: &dyn Image) -> Option<Self> {
        Self::read_text(Addr(image.read_u64(variable).ok()?), image.read_u64(variable.add(8)).ok()?, image)
    }

    fn read_text(text: Addr, len: u64, image: &dyn Image) -> Option<Self> {
        let mut bytes = vec![0; usize::try_from(len).ok().filter(|&len| len as u64 <= MAX_LEN)?];
        image.read(text, &mut bytes).ok()?;
        Self::parse(&String::from_utf8(bytes).ok()?)
    }
}

/// A varint as `encoding/binary` writes it, and how many bytes it took.
fn uvarint(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i as u64 + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let parse = |text: &str| GoVersion::parse(text).map(|v| (v.minor, v.experiments.join(",")));
        assert_eq!(parse("go1.26.6"), Some((26, String::new())));
        assert_eq!(parse("go1.27"), Some((27, String::new())));
        assert_eq!(parse("go1.27rc1"), Some((27, String::new())));
        assert_eq!(parse("go1.25.5 X:greenteagc,nodwarf5"), Some((25, "greenteagc,nodwarf5".into())));
        assert_eq!(parse("go1.27.3-X:nogreenteagc"), Some((27, "nogreenteagc".into())));
        assert_eq!(parse("devel go1.28-0123456"), None);
        assert_eq!(parse("go2.1"), None);
        assert_eq!(parse("go1."), None);
        assert_eq!(parse("go1.99999999999"), None);
    }

    #[test]
    fn varints() {
        assert_eq!(uvarint(&[5]), Some((5, 1)));
        assert_eq!(uvarint(&[0x80, 1]), Some((128, 2)));
        assert_eq!(uvarint(&[]), None);
        assert_eq!(uvarint(&[0xff; 20]), None);
    }
}
