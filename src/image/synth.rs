//! Test fixtures: small ELF files built byte by byte. Shares no struct, constant or offset with the reader, so that a wrong layout
//! cannot agree with itself.

use std::io::Write;

use tempfile::NamedTempFile;

use super::Inputs;

pub(crate) const R: u32 = 4;
pub(crate) const W: u32 = 2;
pub(crate) const X: u32 = 1;

/// One program header with its contents. `filesz` and `offset` may lie.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) p_type: u32,
    pub(crate) flags: u32,
    pub(crate) vaddr: u64,
    pub(crate) memsz: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) filesz: Option<u64>,
    pub(crate) offset: Option<u64>,
}

/// A core file under construction.
#[derive(Clone)]
pub(crate) struct Core {
    /// `e_machine`.
    pub(crate) machine: u16,
    pub(crate) loads: Vec<Load>,
    pub(crate) notes: Vec<u8>,
    /// gdb's order: notes behind the memory.
    pub(crate) notes_last: bool,
    /// Writes the number of program headers into section header 0.
    pub(crate) xnum: bool,
}

impl Core {
    pub(crate) fn new() -> Self {
        Self { machine: 62, loads: Vec::new(), notes: Vec::new(), notes_last: false, xnum: false }
    }

    /// One thread and an auxiliary vector for [`exe`] at `bias`.
    pub(crate) fn of(exe: &Exe, bias: u64) -> Self {
        let mut core = Self { machine: exe.machine, ..Self::new() };
        match exe.machine {
            183 => core.thread(17, &[0; 34]),
            _ => core.thread(17, &[0; 27]),
        }
        let base = exe.base + bias;
        core.auxv(&[(3, base + 64), (4, 56), (5, 4), (9, base + 0x1000)]);
        core
    }

    pub(crate) fn load(&mut self, vaddr: u64, flags: u32, memsz: u64, bytes: Vec<u8>) -> &mut Load {
        self.loads.push(Load { p_type: 1, flags, vaddr, memsz, bytes, filesz: None, offset: None });
        self.loads.last_mut().unwrap()
    }

    pub(crate) fn note(&mut self, name: &str, n_type: u32, desc: &[u8]) {
        for n in [name.len() as u32 + 1, desc.len() as u32, n_type] {
            self.notes.extend(n.to_le_bytes());
        }
        for part in [format!("{name}\0").as_bytes(), desc] {
            self.notes.extend(part);
            self.notes.resize(self.notes.len().div_ceil(4) * 4, 0);
        }
    }

    /// * `regs`: amd64 has 27 (`struct user_regs_struct`, r15 first), arm64 34 (`struct user_pt_regs`, x0 first).
    pub(crate) fn thread(&mut self, tid: u32, regs: &[u64]) {
        let mut desc = vec![0; 112];
        desc[12..14].copy_from_slice(&6u16.to_le_bytes());
        desc[32..36].copy_from_slice(&tid.to_le_bytes());
        desc.extend(words(regs));
        desc.extend([0; 8]);
        self.note("CORE", 1, &desc);
    }

    pub(crate) fn auxv(&mut self, entries: &[(u64, u64)]) {
        let mut desc: Vec<u8> = entries.iter().flat_map(|(t, v)| words(&[*t, *v])).collect();
        desc.extend([0; 16]);
        self.note("CORE", 6, &desc);
    }

    /// * `files`: start, end, offset in pages, path.
    pub(crate) fn files(&mut self, files: &[(u64, u64, u64, &str)]) {
        let mut desc = words(&[files.len() as u64, 4096]);
        desc.extend(files.iter().flat_map(|f| words(&[f.0, f.1, f.2])));
        desc.extend(files.iter().flat_map(|f| format!("{}\0", f.3).into_bytes()));
        self.note("CORE", 0x4649_4c45, &desc);
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let note =
            Load { p_type: 4, flags: R, vaddr: 0, memsz: 0, bytes: self.notes.clone(), filesz: None, offset: None };
        let mut all = self.loads.clone();
        all.insert(if self.notes_last { all.len() } else { 0 }, note);
        let phnum = all.len() as u64;
        let mut out = header(self.machine, 4, 0, phnum.min(0xffff) as u16);
        let mut data_at = 64 + 56 * phnum;
        if self.xnum {
            out[40..48].copy_from_slice(&data_at.to_le_bytes());
            out[56..58].copy_from_slice(&[0xff, 0xff]);
            out[58..62].copy_from_slice(&[64, 0, 1, 0]);
            data_at += 64;
        }
        let mut data: Vec<u8> = Vec::new();
        for s in &all {
            let offset = s.offset.unwrap_or(data_at + data.len() as u64);
            let filesz = s.filesz.unwrap_or(s.bytes.len() as u64);
            out.extend(s.p_type.to_le_bytes());
            out.extend(s.flags.to_le_bytes());
            out.extend(words(&[offset, s.vaddr, 0, filesz, s.memsz, 1]));
            data.extend(&s.bytes);
        }
        if self.xnum {
            let mut section_0 = [0; 64];
            section_0[44..48].copy_from_slice(&(phnum as u32).to_le_bytes());
            out.extend(section_0);
        }
        out.extend(data);
        out
    }
}

pub(crate) fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn header(machine: u16, e_type: u16, entry: u64, phnum: u16) -> Vec<u8> {
    let mut h = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    h.extend(e_type.to_le_bytes());
    h.extend(machine.to_le_bytes());
    h.extend(1u32.to_le_bytes());
    h.extend(words(&[entry, 64, 0]));
    h.extend(0u32.to_le_bytes());
    for half in [64, 56, phnum, 0, 0, 0u16] {
        h.extend(half.to_le_bytes());
    }
    h
}

/// An executable of fixed shape: page 0 headers and notes, pages 1-2 text, page 3 read-only data, page 4 data, pages 5-6 bss.
#[derive(Clone)]
pub(crate) struct Exe {
    /// `e_machine`.
    pub(crate) machine: u16,
    /// Link-time address of page 0; 0 makes it position independent.
    pub(crate) base: u64,
    pub(crate) gnu_id: [u8; 4],
    /// Changes the contents of all pages but the first.
    pub(crate) seed: u8,
    /// Name, type, flags, address, contents.
    pub(crate) sections: Vec<(&'static str, u32, u64, u64, Vec<u8>)>,
}

pub(crate) fn exe(base: u64) -> Exe {
    Exe { machine: 62, base, gnu_id: *b"\xab\xcd\xef\x01", seed: 0, sections: Vec::new() }
}

impl Exe {
    pub(crate) fn build(&self) -> Vec<u8> {
        let base = self.base;
        let mut out = header(self.machine, if base == 0 { 3 } else { 2 }, base + 0x1000, 4);
        let mut segment = |p_type: u32, flags: u32, offset: u64, filesz: u64, memsz: u64| {
            out.extend(p_type.to_le_bytes());
            out.extend(flags.to_le_bytes());
            out.extend(words(&[offset, base + offset, base + offset, filesz, memsz, 4]));
        };
        segment(4, R, 0x800, 20, 20);
        segment(1, R | X, 0, 0x3000, 0x3000);
        segment(1, R, 0x3000, 0x1000, 0x1000);
        segment(1, R | W, 0x4000, 0x1000, 0x3000);
        out.resize(0x800, 0);
        out.extend([4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0]);
        out.extend(self.gnu_id);
        out.resize(0x1000, 0);
        out.extend((0x1000..0x5000).map(|i| pattern(i, self.seed)));
        self.append_sections(&mut out);
        out
    }

    /// Bytes `from..to` of the file, as the process sees them at `base + from`.
    pub(crate) fn page(&self, from: usize, to: usize) -> Vec<u8> {
        self.build()[from..to].to_vec()
    }

    fn append_sections(&self, out: &mut Vec<u8>) {
        if self.sections.is_empty() {
            return;
        }
        let mut names = vec![0];
        let mut headers = vec![0; 64];
        let mut add = |out: &mut Vec<u8>, name: &str, sh_type: u32, flags: u64, addr: u64, data: &[u8], link: u32| {
            headers.extend((names.len() as u32).to_le_bytes());
            headers.extend(sh_type.to_le_bytes());
            headers.extend(words(&[flags, addr, out.len() as u64, data.len() as u64]));
            headers.extend(link.to_le_bytes());
            headers.extend([0; 4]);
            headers.extend(words(&[1, 0]));
            names.extend(format!("{name}\0").bytes());
            out.extend(data);
        };
        for (i, (name, sh_type, flags, addr, data)) in self.sections.iter().enumerate() {
            // A symbol table uses the section behind it for its strings.
            add(out, name, *sh_type, *flags, *addr, data, i as u32 + 2);
        }
        let all_names: Vec<u8> = self.sections.iter().flat_map(|s| format!("{}\0", s.0).into_bytes()).collect();
        let all_names = [&[0], &all_names[..], b".shstrtab\0"].concat();
        add(out, ".shstrtab", 3, 0, 0, &all_names, 0);
        // Left at an odd offset on purpose.
        let shoff = out.len() as u64;
        let shnum = self.sections.len() as u16 + 2;
        out[40..48].copy_from_slice(&shoff.to_le_bytes());
        out[58..60].copy_from_slice(&64u16.to_le_bytes());
        out[60..62].copy_from_slice(&shnum.to_le_bytes());
        out[62..64].copy_from_slice(&(shnum - 1).to_le_bytes());
        out.extend(headers);
    }
}

/// Never zero, so that invented zeros show.
pub(crate) fn pattern(i: u64, seed: u8) -> u8 {
    ((i.wrapping_mul(0x9e37_79b9) >> 13) as u8).wrapping_add(seed) | 1
}

pub(crate) fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len as u64).map(|i| pattern(i, seed)).collect()
}

/// Files on disk with the given contents, opened.
pub(crate) struct Files {
    pub(crate) exe: NamedTempFile,
    pub(crate) core: NamedTempFile,
}

impl Files {
    pub(crate) fn new(exe: &[u8], core: &[u8]) -> Self {
        Self { exe: file(exe), core: file(core) }
    }

    pub(crate) fn open(&self) -> crate::error::Result<Inputs> {
        Inputs::open(self.exe.path(), self.core.path(), None)
    }
}

pub(crate) fn file(contents: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(contents).unwrap();
    file
}

/// Opens both and hands the parsed process, or the error text, to `check`.
pub(crate) fn with_process<T>(
    exe: &[u8],
    core: &[u8],
    check: impl FnOnce(Result<super::Process<'_>, String>) -> T,
) -> T {
    let files = Files::new(exe, core);
    match files.open() {
        Ok(inputs) => check(super::Process::parse(&inputs).map_err(|e| e.to_string())),
        Err(e) => check(Err(e.to_string())),
    }
}

/// A small deterministic random number generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
