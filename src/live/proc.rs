//! What `/proc/PID` tells: status, threads, mappings, auxiliary vector, children.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::address::{Addr, AddrRange};
use crate::image::FileMapping;

/// `/proc/PID/status` or `/proc/PID/task/TID/status`, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Status(BTreeMap<String, String>);

impl Status {
    /// Of a process, or of one of its threads.
    pub(super) fn read(pid: u32, tid: Option<u32>) -> io::Result<Self> {
        let path = match tid {
            Some(tid) => format!("/proc/{pid}/task/{tid}/status"),
            None => format!("/proc/{pid}/status"),
        };
        // A name may hold any bytes.
        Ok(Self::parse(&String::from_utf8_lossy(&fs::read(path)?)))
    }

    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
    }

    /// The text behind `key`.
    pub(super) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// The first number behind `key`: of `Uid` the real user, of `VmRSS` kilobytes.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.text(key).split_whitespace().next()?.parse().ok()
    }

    /// The id in the innermost PID namespace, which is the one that the process itself knows.
    pub(super) fn inner_id(&self) -> Option<u32> {
        self.text("NSpid").split_whitespace().last()?.parse().ok()
    }

    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`.
    pub(super) fn state(&self) -> char {
        self.text("State").chars().next().unwrap_or('?')
    }
}

/// Ids of all threads, in ascending order.
pub(super) fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let mut tids: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    tids.sort_unstable();
    Ok(tids)
}

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The addresses.
    pub range: AddrRange,
    /// `PF_R` 4, `PF_W` 2, `PF_X` 1.
    pub flags: u32,
    /// Shared with other processes, not private.
    pub shared: bool,
    /// File offset of the first byte.
    pub offset: u64,
    /// The file's device, as `st_dev` has it.
    pub device: u64,
    /// 0 without a file.
    pub inode: u64,
    /// The file's path, a name such as `[stack]`, or empty.
    pub path: String,
}

impl Mapping {
    /// Can be read without force.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.flags & 4 != 0
    }

    /// Can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Belongs to the kernel and cannot be read from outside.
    pub(super) fn is_special(&self) -> bool {
        self.path.starts_with("[vvar") || self.path == "[vsyscall]"
    }

    /// As a core's NT_FILE has it.
    pub(super) fn file(&self) -> Option<FileMapping> {
        (self.inode != 0).then(|| FileMapping { range: self.range, offset: self.offset, path: self.path.clone() })
    }

    /// Whether it is a mapping of this file.
    pub(super) fn is_of(&self, file: &fs::Metadata) -> bool {
        (self.device, self.inode) == (file.dev(), file.ino())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let address = |text: &str| u64::from_str_radix(text, 16).ok().map(Addr);
        let range = AddrRange::from_bounds(address(start)?, address(end)?);
        let permissions = fields.next()?.as_bytes();
        let flag = |at: usize, letter: u8, bit: u32| if permissions.get(at) == Some(&letter) { bit } else { 0 };
        let flags = flag(0, b'r', 4) | flag(1, b'w', 2) | flag(2, b'x', 1);
        let shared = permissions.get(3) == Some(&b's');
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let half = |text: &str| u64::from_str_radix(text, 16).ok();
        let device = device(half(major)?, half(minor)?);
        let inode = fields.next()?.trim().parse().ok()?;
        Some(Self { range, flags, shared, offset, device, inode, path: fields.next().unwrap_or("").trim().to_owned() })
    }
}

/// Paths that a mapped file may be opened by: that of the mapping itself (needs rights that root has), and its name in the process's own
/// view, which may be another file's by now.
pub(super) fn paths(pid: u32, range: AddrRange, name: &str) -> [PathBuf; 2] {
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    let mapping = format!("/proc/{pid}/map_files/{:x}-{:x}", range.start.0, range.end().0);
    [mapping, format!("/proc/{pid}/root{name}")].map(PathBuf::from)
}

/// `st_dev` of a device, as Linux puts it together.
fn device(major: u64, minor: u64) -> u64 {
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & !0xff) << 12
}

/// All mappings, in address order.
pub(super) fn mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    let text = fs::read(format!("/proc/{pid}/maps"))?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(Mapping::parse).collect())
}

/// The auxiliary vector, without its end: (`AT_*`, value).
pub(super) fn auxv(pid: u32) -> io::Result<Vec<(u64, u64)>> {
    let bytes = fs::read(format!("/proc/{pid}/auxv"))?;
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("8 bytes"));
    let entries = bytes.chunks_exact(16).map(|entry| (word(&entry[..8]), word(&entry[8..])));
    Ok(entries.take_while(|(kind, _)| *kind != 0).collect())
}

/// Fields of `/proc/PID/stat`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) state: char,
    pub(super) ppid: u32,
    /// When it started, in ticks since the boot: with the id, what tells it from all others.
    pub(super) start: u64,
    /// The signal that the parent gets when it ends, as `clone` was given it: any number.
    pub(super) exit_signal: i32,
}

/// Reads them; the name may hold spaces and parentheses.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&text))
}

fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // Field 3, the state, comes first.
    let number = |field: usize| fields.get(field - 3).and_then(|f| f.parse::<i64>().ok());
    Some(Stat {
        state: fields.first()?.chars().next()?,
        ppid: number(4)?.try_into().ok()?,
        start: number(22)?.try_into().ok()?,
        exit_signal: number(38)?.try_into().ok()?,
    })
}

/// Dead children of `pid` that were born with this exit signal. Ids as we see them.
pub(super) fn zombies(pid: u32, exit_signal: u8) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let wanted = |s: Stat| s.ppid == pid && s.exit_signal == i32::from(exit_signal) && s.state == 'Z';
    pids.filter(|&child| stat(child).is_some_and(wanted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_parsed() {
        let line = "00400000-00452000 r-xp 00001000 08:02 173521      /usr/bin/a program (deleted)";
        let mapping = Mapping::parse(line).expect("a mapping");
        assert_eq!(mapping.range, AddrRange::from_bounds(Addr(0x40_0000), Addr(0x45_2000)));
        assert_eq!((mapping.flags, mapping.shared, mapping.offset, mapping.inode), (5, false, 0x1000, 173_521));
        assert_eq!(mapping.path, "/usr/bin/a program (deleted)");
        assert_eq!(mapping.device, 0x802);
        let expected = ["/proc/7/map_files/400000-452000", "/proc/7/root/usr/bin/a program"].map(PathBuf::from);
        assert_eq!(paths(7, mapping.range, &mapping.path), expected);
        let bare = Mapping::parse("c000000000-c000400000 rw-p 00000000 00:00 0 ").expect("a mapping");
        assert!(bare.is_readable() && bare.is_writable() && bare.path.is_empty() && bare.file().is_none());
        assert!(!Mapping::parse("c000400000-c004000000 ---p 00000000 00:00 0").expect("a mapping").is_readable());
        assert_eq!(Mapping::parse("nonsense"), None);
    }

    #[test]
    fn own_process_is_read() {
        let pid = std::process::id();
        let status = Status::read(pid, None).expect("status");
        assert_eq!(status.number("Tgid"), Some(pid.into()));
        assert_eq!(status.inner_id(), Some(pid));
        assert!(threads(pid).expect("threads").contains(&pid));
        let maps = mappings(pid).expect("maps");
        assert!(maps.iter().any(|m| m.path == "[stack]"));
        let exe = fs::metadata("/proc/self/exe").expect("ourselves");
        assert_eq!((device(0xfff, 0xff), device(0x1000, 0x100)), (0xf_ffff, 1 << 44 | 1 << 20));
        assert!(maps.iter().any(|m| m.is_of(&exe)) || maps.iter().any(|m| m.inode == exe.ino()), "{maps:?}");
        assert!(auxv(pid).expect("auxv").iter().any(|(kind, _)| *kind == 9));
        assert_eq!(stat(pid).map(|s| s.exit_signal), Some(17), "SIGCHLD");
    }

    #[test]
    fn names_with_parentheses() {
        let rest: Vec<String> = (5..=37).map(|n| n.to_string()).collect();
        let stat = parse_stat(&format!("17 (a) b ) Z 4 {} 0 0", rest.join(" "))).expect("fields");
        assert_eq!(stat, Stat { state: 'Z', ppid: 4, start: 22, exit_signal: 0 });
    }
}
