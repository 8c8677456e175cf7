//! Function tables (`pclntab`): PC to function, names, PC-value tables, funcdata.

use super::{Module, Modules};
use crate::address::{Addr, AddrRange};
use crate::image::{Image, Scratch};
use crate::model::layout::RuntimeLayout;

/// One module's tables.
#[derive(Debug, Default)]
pub(super) struct Pclntab {
    /// `(entryoff, funcoff)` in ascending entry order; the last entry is only the end of the text.
    ftab: Vec<(u32, u32)>,
    /// Number of the module's first function.
    pub(super) first_index: u32,
    pclntable: AddrRange,
    pctab: AddrRange,
    funcnametab: AddrRange,
    text: u64,
    /// `moduledata.textsectmap` if there is more than one text section.
    sections: Vec<TextSection>,
    /// PC quantum of PC-value tables.
    min_lc: u64,
}

/// `runtime.textsect`.
#[derive(Copy, Clone, Debug)]
struct TextSection {
    vaddr: u64,
    end: u64,
    baseaddr: u64,
}

/// Longest function name that is read.
const MAX_NAME: usize = 1 << 16;
/// More text sections cannot be real.
const MAX_SECTIONS: u64 = 1 << 16;

/// `PCDATA_*` table numbers (`internal/abi/symtab.go`).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PcData {
    /// `PCDATA_UnsafePoint`.
    UnsafePoint = 0,
    /// `PCDATA_StackMapIndex`.
    StackMapIndex = 1,
    /// `PCDATA_InlTreeIndex`.
    InlTreeIndex = 2,
    /// `PCDATA_ArgLiveIndex`.
    ArgLiveIndex = 3,
}

/// `FUNCDATA_*` numbers (`internal/abi/symtab.go`).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FuncData {
    /// `FUNCDATA_ArgsPointerMaps`.
    ArgsPointerMaps = 0,
    /// `FUNCDATA_LocalsPointerMaps`.
    LocalsPointerMaps = 1,
    /// `FUNCDATA_StackObjects`.
    StackObjects = 2,
    /// `FUNCDATA_InlTree`.
    InlTree = 3,
    /// `FUNCDATA_OpenCodedDeferInfo`.
    OpenCodedDeferInfo = 4,
    /// `FUNCDATA_ArgInfo`.
    ArgInfo = 5,
}

/// A function: the fixed part of its `_func` record.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Func {
    /// Canonical number over all modules: equal PCs give equal numbers, in module and address order.
    pub index: u32,
    /// Index of its module in `Modules::list`.
    pub module: u32,
    /// Address of the `_func`.
    pub addr: u64,
    /// Entry PC in the process.
    pub entry: u64,
    /// End PC: entry of the next function.
    pub end: u64,
    /// Name offset in `funcnametab`.
    pub name_off: i32,
    /// Bytes of arguments, results and spill slots; `-0x8000_0000` if unknown.
    pub args: i32,
    /// Offset from entry of the deferreturn call, 0 if none.
    pub deferreturn: u32,
    /// Offset of the SP delta table.
    pub pcsp: u32,
    /// Number of pcdata tables.
    pub npcdata: u32,
    /// `abi.FuncID`.
    pub func_id: u8,
    /// `abi.FuncFlag`: 1 TopFrame, 2 SPWrite, 4 Asm.
    pub flag: u8,
    /// Number of funcdata entries.
    pub nfuncdata: u8,
}

impl Pclntab {
    /// Reads the tables of the `moduledata` at `md`; `None` if they cannot be read or make no sense.
    pub(super) fn read(image: &dyn Image, layout: &RuntimeLayout, md: Addr) -> Option<Self> {
        let at = &layout.moduledata;
        let word = |field: u64| image.read_u64(md.add(field)).ok();
        let slice = |field: u64| {
            let start = Addr(word(field)?);
            Some(AddrRange { start, len: image.read_u64(md.add(field + 8)).ok()? })
        };
        let header = Addr(word(at.pc_header)?);
        let min_lc = image.read_u8(header.add(layout.pc_header.min_lc)).ok()?;
        let ptr_size = image.read_u8(header.add(layout.pc_header.ptr_size)).ok()?;
        if ptr_size != 8 || !matches!(min_lc, 1 | 4) {
            return None;
        }
        let ftab = slice(at.ftab)?;
        let entries = AddrRange { start: ftab.start, len: ftab.len.checked_mul(layout.functab.size)? };
        let mut scratch = Scratch::default();
        let loaded = image.load(&[entries], &mut scratch);
        let stride = usize::try_from(layout.functab.size).ok().filter(|&size| size >= 8)?;
        let text = word(at.text)?;
        // Go 1.17 has entry PCs and offsets of 8 bytes.
        let absolute = layout.functab.entry_bytes == 8;
        let field = |entry: &[u8], at: u64, base: u64| {
            let from = entry.get(at as usize..)?;
            match absolute {
                false => from.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)),
                true => u32::try_from(u64::from_le_bytes(*from.first_chunk()?).wrapping_sub(base)).ok(),
            }
        };
        // The last entry is the end of the text and no function: in Go 1.17 what stands where its record would be told is an address, if
        // the executable is position-independent.
        let mut left = loaded.get(0).len() / stride;
        let mut record = |entry: &[u8]| {
            left -= 1;
            if left == 0 { Some(0) } else { field(entry, layout.functab.funcoff, 0) }
        };
        let ftab = loaded
            .get(0)
            .chunks_exact(stride)
            .map(|e| Some((field(e, layout.functab.entryoff, text)?, record(e)?)))
            .collect::<Option<Vec<_>>>()?;
        if ftab.len() < 2 || !ftab.is_sorted_by_key(|&(entryoff, _)| entryoff) {
            return None;
        }
        Some(Self {
            ftab,
            first_index: 0,
            pclntable: slice(at.pclntable)?,
            pctab: slice(at.pctab)?,
            funcnametab: slice(at.funcnametab)?,
            text,
            // Absolute entries need no map of sections.
            sections: if absolute { Vec::new() } else { sections(image, layout, slice(at.textsectmap)?)? },
            min_lc: u64::from(min_lc),
        })
    }

    /// Number of functions.
    pub(super) fn nfunc(&self) -> u32 {
        (self.ftab.len() as u32).saturating_sub(1)
    }

    /// Offset of a PC in the text, as `(*moduledata).textOff`.
    fn text_off(&self, pc: u64) -> Option<u32> {
        let mut off = pc.wrapping_sub(self.text);
        if !self.sections.is_empty() {
            let inside = |s: &&TextSection| pc >= s.baseaddr && pc - s.baseaddr < s.end - s.vaddr;
            let section = self.sections.iter().find(inside)?;
            off = pc - section.baseaddr + section.vaddr;
        }
        u32::try_from(off).ok()
    }

    /// PC of an offset in the text, as `(*moduledata).textAddr`.
    fn text_addr(&self, off: u32) -> u64 {
        let off = u64::from(off);
        let section = self.sections.iter().find(|s| off >= s.vaddr && off < s.end);
        match section {
            Some(s) => s.baseaddr.wrapping_add(off - s.vaddr),
            None => self.text.wrapping_add(off),
        }
    }
}

fn sections(image: &dyn Image, layout: &RuntimeLayout, map: AddrRange) -> Option<Vec<TextSection>> {
    if map.len <= 1 {
        return Some(Vec::new());
    }
    let mut out = Vec::new();
    for i in 0..(map.len <= MAX_SECTIONS).then_some(map.len)? {
        let entry = map.start.add(i.wrapping_mul(layout.textsect.size));
        let word = |field: u64| image.read_u64(entry.add(field)).ok();
        let vaddr = word(layout.textsect.vaddr)?;
        let end = match (layout.textsect.end, layout.textsect.length) {
            (Some(end), _) => word(end)?,
            (None, Some(length)) => vaddr.wrapping_add(word(length)?),
            (None, None) => return None,
        };
        out.push(TextSection { vaddr, end: end.max(vaddr), baseaddr: word(layout.textsect.baseaddr)? });
    }
    Some(out)
}

impl Modules {
    /// The function that contains `pc` (a PC of the process), as `runtime.findfunc`.
    ///
    /// Cost: a binary search and some reads of a few bytes: cache by [`Func::index`] or PC where many are needed.
    #[must_use]
    pub fn find_func(&self, image: &dyn Image, pc: u64) -> Option<Func> {
        let (number, module) = (0u32..).zip(&self.list).find(|(_, m)| m.pcs.contains(Addr(pc)))?;
        let tables = &module.pclntab;
        let off = tables.text_off(pc)?;
        let i = tables.ftab.partition_point(|&(entryoff, _)| entryoff <= off).checked_sub(1)?;
        let (&(_, funcoff), &(end, _)) = (tables.ftab.get(i)?, tables.ftab.get(i + 1)?);

        let at = &self.layout.func;
        if u64::from(funcoff).checked_add(at.size)? > tables.pclntable.len {
            return None;
        }
        let addr = tables.pclntable.start.add(u64::from(funcoff));
        let mut record = [0; 64];
        let record = record.get_mut(..usize::try_from(at.size).ok()?)?;
        image.read(addr, record).ok()?;
        let u32_at = |field: u64| record.get(field as usize..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let u8_at = |field: u64| record.get(field as usize).copied();
        Some(Func {
            index: tables.first_index + i as u32,
            module: number,
            addr: addr.0,
            entry: match at.entry_bytes {
                8 => u64::from_le_bytes(*record.get(at.entry_off as usize..)?.first_chunk()?),
                _ => tables.text_addr(u32_at(at.entry_off)?),
            },
            end: tables.text_addr(end),
            name_off: u32_at(at.name_off)?.cast_signed(),
            args: u32_at(at.args)?.cast_signed(),
            deferreturn: u32_at(at.deferreturn)?,
            pcsp: u32_at(at.pcsp)?,
            npcdata: u32_at(at.npcdata)?,
            func_id: u8_at(at.func_id)?,
            flag: u8_at(at.flag)?,
            nfuncdata: u8_at(at.nfuncdata)?,
        })
    }

    /// The function of the executable that is called `name`; inlined calls of it do not count.
    ///
    /// Cost: a pass over all names and functions.
    #[must_use]
    pub fn func_named(&self, image: &dyn Image, name: &str) -> Option<Func> {
        let tables = &self.list.first()?.pclntab;
        let mut scratch = Scratch::default();
        let names = image.load(&[tables.funcnametab], &mut scratch);
        let quoted = [&b"\0"[..], name.as_bytes(), b"\0"].concat();
        // Behind the NUL of the name before it: the first function's name is not asked for.
        let found = memchr::memmem::find(names.get(0), &quoted)?;
        let name_off = u32::try_from(found + 1).ok()?;
        let of = |&&(_, funcoff): &&(u32, u32)| {
            let record = tables.pclntable.start.add(u64::from(funcoff));
            image.read_u32(record.add(self.layout.func.name_off)).is_ok_and(|off| off == name_off)
        };
        let &(entryoff, _) = tables.ftab.iter().take(tables.nfunc() as usize).find(of)?;
        self.find_func(image, tables.text_addr(entryoff))
    }

    /// The function's name as the runtime prints it: full package path, type arguments as `[...]`.
    #[must_use]
    pub fn func_name(&self, image: &dyn Image, func: &Func) -> Option<String> {
        self.name_at(image, func.module, func.name_off)
    }

    /// The NUL-terminated name at an offset of a module's `funcnametab`.
    #[must_use]
    pub fn name_at(&self, image: &dyn Image, module: u32, name_off: i32) -> Option<String> {
        let tab = self.list.get(module as usize)?.pclntab.funcnametab;
        let off = u64::try_from(name_off).ok().filter(|&off| off < tab.len)?;
        let mut name = Vec::new();
        let mut block = [0; 64];
        let mut left = usize::try_from(tab.len - off).ok()?.min(MAX_NAME);
        let mut at = tab.start.add(off);
        while left > 0 {
            let len = left.min(block.len());
            image.read(at, &mut block[..len]).ok()?;
            if let Some(end) = block[..len].iter().position(|&b| b == 0) {
                name.extend_from_slice(&block[..end]);
                return Some(String::from_utf8_lossy(&name).into_owned());
            }
            name.extend_from_slice(&block[..len]);
            at = at.add(len as u64);
            left -= len;
        }
        None
    }

    /// SP delta at `pc` (exact, not `pc - 1`): bytes that the function has pushed below its return address.
    #[must_use]
    pub fn sp_delta(&self, image: &dyn Image, func: &Func, pc: u64) -> Option<i32> {
        self.pc_value(image, func, func.pcsp, pc)
    }

    /// Value of a pcdata table at `pc`; -1 where the function has no such table, as `runtime.pcdatavalue`.
    #[must_use]
    pub fn pcdata(&self, image: &dyn Image, func: &Func, table: PcData, pc: u64) -> Option<i32> {
        let table = table as u32;
        if table >= func.npcdata {
            return Some(-1);
        }
        let off = image.read_u32(self.pcdata_start(func).add(u64::from(table) * 4)).ok()?;
        self.pc_value(image, func, off, pc)
    }

    /// Address of a funcdata; `None` if the function has none.
    #[must_use]
    pub fn funcdata(&self, image: &dyn Image, func: &Func, which: FuncData) -> Option<u64> {
        let which = which as u64;
        if which >= u64::from(func.nfuncdata) {
            return None;
        }
        let tables = self.pcdata_start(func).add(u64::from(func.npcdata) * 4);
        if self.layout.func.entry_bytes == 8 {
            // Go 1.17: addresses, aligned.
            let at = Addr(tables.0.checked_next_multiple_of(8)?).add(which * 8);
            return image.read_u64(at).ok().filter(|&addr| addr != 0);
        }
        let off = image.read_u32(tables.add(which * 4)).ok().filter(|&off| off != u32::MAX)?;
        Some(self.module_of(func)?.gofunc.wrapping_add(u64::from(off)))
    }

    /// Where the offsets of the pcdata tables start: right behind `nfuncdata`, the last field of a `_func`.
    fn pcdata_start(&self, func: &Func) -> Addr {
        Addr(func.addr).add(self.layout.func.nfuncdata + 1)
    }

    /// The module of a function.
    #[must_use]
    pub fn module_of(&self, func: &Func) -> Option<&Module> {
        self.list.get(func.module as usize)
    }

    /// Value of the PC-value table at `off` of `pctab` for `pc`, as `runtime.pcvalue`: -1 without a table; `None` if the table is
    /// damaged or does not reach `pc`.
    #[must_use]
    pub fn pc_value(&self, image: &dyn Image, func: &Func, off: u32, pc: u64) -> Option<i32> {
        if off == 0 {
            return Some(-1);
        }
        let tables = &self.module_of(func)?.pclntab;
        let off = u64::from(off);
        let start = tables.pctab.start.add(off);
        let mut bytes = Varints::new(image, start, tables.pctab.len.checked_sub(off)?);
        let mut value = -1i32;
        let mut until = func.entry;
        let mut first = true;
        loop {
            let delta = bytes.next()?;
            if delta == 0 && !first {
                return None;
            }
            first = false;
            // Zig-zag: the lowest bit is the sign.
            value = value.wrapping_add((delta >> 1).cast_signed() ^ -((delta & 1).cast_signed()));
            until = until.wrapping_add(u64::from(bytes.next()?) * tables.min_lc);
            if pc < until {
                return Some(value);
            }
        }
    }
}

/// Varints of a PC-value table, read a block at a time.
struct Varints<'a> {
    image: &'a dyn Image,
    next: Addr,
    left: u64,
    block: [u8; 128],
    used: usize,
    filled: usize,
}

impl<'a> Varints<'a> {
    fn new(image: &'a dyn Image, next: Addr, left: u64) -> Self {
        Self { image, next, left, block: [0; 128], used: 0, filled: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        if self.used == self.filled {
            let len = self.left.min(self.block.len() as u64);
            if len == 0 {
                return None;
            }
            self.image.read(self.next, &mut self.block[..len as usize]).ok()?;
            self.next = self.next.add(len);
            self.left -= len;
            (self.used, self.filled) = (0, len as usize);
        }
        self.used += 1;
        Some(self.block[self.used - 1])
    }

    fn next(&mut self) -> Option<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
