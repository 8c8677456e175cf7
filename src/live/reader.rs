//! [`Reader`]: how bytes get from another process to us.
//!
//! A stopped process is read by `process_vm_readv`: many pieces in one call. Of a snapshot that would double the memory: the call pins
//! pages, and the kernel gives a page that is shared copy-on-write to whoever pins it as a copy of its own, even for reading. Reading
//! `/proc/PID/mem` pins nothing (perf/notes/0009).

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::address::AddrRange;

/// Pieces of one system call (`UIO_MAXIOV`).
const PIECES: usize = 1024;

/// Bytes of one system call; the kernel's limit is 2 GiB.
const CALL_BYTES: usize = 1 << 30;

const PAGE: u64 = 4096;

/// Reads one process.
#[derive(Debug)]
pub(super) struct Reader {
    pid: Pid,
    /// Its memory as a file, if it is a snapshot.
    memory: Option<File>,
}

impl Reader {
    /// Of a process that shares its memory with no other.
    pub(super) fn new(pid: u32) -> Self {
        Self { pid: Pid::from_raw(pid.cast_signed()), memory: None }
    }

    /// Of a snapshot. If its memory cannot be opened as a file, it is read as that of any process.
    pub(super) fn of_snapshot(pid: u32) -> Self {
        Self { memory: File::open(format!("/proc/{pid}/mem")).ok(), ..Self::new(pid) }
    }

    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Fills `buf` from `addr`; false if any byte of it cannot be read.
    pub(super) fn exact(&self, addr: u64, buf: &mut [u8]) -> bool {
        let len = buf.len();
        let mut done = 0;
        while done < len {
            let (at, rest) = (addr.wrapping_add(done as u64), &mut buf[done..]);
            let from_file = self.memory.as_ref().map(|file| file.read_at(rest, at));
            done += match from_file {
                Some(Ok(read @ 1..)) => read,
                Some(Err(e)) if e.kind() == ErrorKind::Interrupted => 0,
                // Where the file cannot be used after all, the call may do.
                _ => {
                    let remote = [RemoteIoVec { base: at as usize, len: rest.len().min(CALL_BYTES) }];
                    match process_vm_readv(self.pid, &mut [IoSliceMut::new(rest)], &remote) {
                        Ok(read @ 1..) => read,
                        _ => return false,
                    }
                }
            };
        }
        true
    }

    /// Fills `buf` from `addr`. Pages that cannot be read, of a file that is shorter now, become zeros.
    pub(super) fn what_can_be(&self, addr: u64, buf: &mut [u8]) {
        if self.exact(addr, buf) {
            return;
        }
        let mut at = addr;
        let mut rest = buf;
        while !rest.is_empty() {
            let (page, after) = rest.split_at_mut(((PAGE - at % PAGE) as usize).min(rest.len()));
            if !self.exact(at, page) {
                page.fill(0);
            }
            at += page.len() as u64;
            rest = after;
        }
    }

    /// Fills `buf` with the bytes of `ranges`, which lie in it one after the other. Calls `failed` with the index of each that cannot be read
    /// whole.
    pub(super) fn all(&self, ranges: &[AddrRange], buf: &mut [u8], mut failed: impl FnMut(usize)) {
        let mut at = 0;
        let mut from = 0;
        while at < ranges.len() {
            let len = ranges[at].len as usize;
            let (mut count, mut bytes) = (1, len);
            if self.memory.is_none() {
                let more = ranges[at + 1..].iter().take(PIECES - 1).take_while(|r| {
                    let fits = r.len as usize <= CALL_BYTES.saturating_sub(bytes);
                    bytes += if fits { r.len as usize } else { 0 };
                    fits
                });
                count += more.count();
            }
            let done = if count > 1 { self.several(&ranges[at..at + count], &mut buf[from..from + bytes]) } else { 0 };
            if done == 0 {
                // The kernel stopped at this one, or it is alone.
                if !self.exact(ranges[at].start.0, &mut buf[from..from + len]) {
                    failed(at);
                }
                at += 1;
                from += len;
                continue;
            }
            from += ranges[at..at + done].iter().map(|r| r.len as usize).sum::<usize>();
            at += done;
        }
    }

    /// One call. Returns how many were read whole.
    fn several(&self, ranges: &[AddrRange], buf: &mut [u8]) -> usize {
        let remote: Vec<RemoteIoVec> =
            ranges.iter().map(|r| RemoteIoVec { base: r.start.0 as usize, len: r.len as usize }).collect();
        let mut read = process_vm_readv(self.pid, &mut [IoSliceMut::new(buf)], &remote).unwrap_or(0);
        let whole = ranges.iter().take_while(|r| {
            let whole = read >= r.len as usize;
            read = read.saturating_sub(r.len as usize);
            whole
        });
        whole.count()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::address::Addr;
    use crate::live::proc;

    /// Our own memory is as good as another's.
    #[test]
    fn both_ways_read_the_same() {
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 253) as u8).collect();
        let base = data.as_ptr() as u64;
        let range = |from: u64, len: u64| AddrRange { start: Addr(base + from), len };
        let mut ranges: Vec<AddrRange> = (0..3000).map(|i| range(i * 900, 1 + i % 300)).collect();
        ranges.insert(1700, AddrRange { start: Addr(16), len: 8 });
        ranges.insert(1701, AddrRange { start: Addr(24), len: 8 });
        ranges.push(AddrRange { start: Addr(u64::MAX - 4), len: 8 });
        let total: u64 = ranges.iter().map(|r| r.len).sum();
        let pid = std::process::id();
        for reader in [Reader::new(pid), Reader::of_snapshot(pid)] {
            let mut buf = vec![0; total as usize];
            let mut failed = Vec::new();
            reader.all(&ranges, &mut buf, |i| failed.push(i));
            assert_eq!(failed, [1700, 1701, ranges.len() - 1], "{reader:?}");
            let mut from = 0;
            for (i, r) in ranges.iter().enumerate() {
                let found = &buf[from..from + r.len as usize];
                from += r.len as usize;
                if !failed.contains(&i) {
                    let at = (r.start.0 - base) as usize;
                    assert_eq!(found, &data[at..at + found.len()], "{i}");
                }
            }
            let mut whole = vec![0; data.len()];
            assert!(reader.exact(base, &mut whole) && whole == data);
            assert!(!reader.exact(16, &mut [0; 8]));
        }
    }

    /// A page in the middle of a mapping that cannot be read: behind the end of its file.
    #[test]
    fn what_cannot_be_read_is_zeros() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(3 * PAGE).expect("length");
        let map = crate::image::FileMap::new(&file, "test").expect("map");
        file.write_all_at(&[7; PAGE as usize], 0).expect("bytes");
        file.set_len(PAGE).expect("length");
        let base = map.as_ptr() as u64;
        let pid = std::process::id();
        for reader in [Reader::new(pid), Reader::of_snapshot(pid)] {
            let mut buf = vec![1; 2 * PAGE as usize];
            reader.what_can_be(base + 100, &mut buf);
            assert!(buf[..PAGE as usize - 100].iter().all(|b| *b == 7), "{reader:?}");
            assert!(buf[PAGE as usize - 100..].iter().all(|b| *b == 0), "{reader:?}");
        }
    }

    /// A shell and its subshell share four megabytes, as a process and its snapshot do.
    #[test]
    fn a_snapshot_stays_shared() {
        let mut shell = Command::new("sh")
            .args(["-c", "x=$(printf %04000000d 0); (echo forked; read y); :"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut said = String::new();
        BufReader::new(shell.stdout.take().expect("piped")).read_line(&mut said).expect("a line");
        let pid = shell.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
        let child: u32 = children.trim().parse().expect("one child");
        let own = || -> u64 {
            let rollup = std::fs::read_to_string(format!("/proc/{child}/smaps_rollup")).expect("smaps");
            let sizes = rollup.lines().filter_map(|l| l.strip_prefix("Private_")?.split_whitespace().nth(1));
            sizes.map(|kib| kib.parse::<u64>().expect("a number")).sum()
        };
        let before = own();
        let reader = Reader::of_snapshot(child);
        let mut longest = 0;
        for m in proc::mappings(child).expect("maps").iter().filter(|m| m.is_writable() && !m.is_special()) {
            let mut bytes = vec![0; m.range.len as usize];
            assert!(reader.exact(m.range.start.0, &mut bytes), "{m:?}");
            longest = longest.max(bytes.split(|b| *b != b'0').map(<[u8]>::len).max().unwrap_or(0));
        }
        let after = own();
        drop(shell.stdin.take());
        shell.wait().expect("it ends");
        assert!(longest >= 4_000_000, "{longest}");
        assert!(after < before + 256, "{before} KiB of its own became {after}");
    }
}
