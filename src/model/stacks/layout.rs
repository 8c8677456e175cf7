//! Offsets of the runtime's own structures that describe goroutines: `g`, `m`, `_defer`, found in DWARF by field name.
//!
//! Names moved between releases (`atomicstatus` became a struct with a `value`, `xRegs` is new in Go 1.26), so a list of candidates
//! is tried where that happened and a field that a release lacks is an `Option`.

use crate::error::{Error, Result};
use crate::model::types::{Kind, TypeId, TypeTable};

/// Field offsets in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackLayout {
    /// Size of a `g`.
    pub g_size: u64,
    /// `g.stack.lo`.
    pub g_stack_lo: u64,
    /// `g.stack.hi`.
    pub g_stack_hi: u64,
    /// `g._panic`.
    pub g_panic: u64,
    /// `g._defer`.
    pub g_defer: u64,
    /// `g.m`.
    pub g_m: u64,
    /// `g.sched.sp`.
    pub g_sched_sp: u64,
    /// `g.sched.pc`.
    pub g_sched_pc: u64,
    /// `g.sched.ctxt`.
    pub g_sched_ctxt: u64,
    /// `g.sched.lr`.
    pub g_sched_lr: u64,
    /// `g.syscallsp`.
    pub g_syscallsp: u64,
    /// `g.syscallpc`.
    pub g_syscallpc: u64,
    /// `g.atomicstatus`, the u32 itself.
    pub g_atomicstatus: u64,
    /// `g.goid`.
    pub g_goid: u64,
    /// `g.startpc`.
    pub g_startpc: u64,
    /// `g.waiting` and what hangs on it.
    pub waiting: Option<WaitingLayout>,
    /// `g.asyncSafePoint`.
    pub g_async_safe_point: Option<u64>,
    /// `g.xRegs.state` (Go 1.26+).
    pub g_xregs_state: Option<u64>,
    /// Size of `runtime.xRegs`, if the collector scans that state (see [`StackLayout::find`]).
    pub xregs_size: Option<u64>,
    /// `m.procid`.
    pub m_procid: u64,
    /// `m.g0`.
    pub m_g0: u64,
    /// `m.gsignal`.
    pub m_gsignal: Option<u64>,
    /// `m.curg`.
    pub m_curg: u64,
    /// `m.vdsoSP`.
    pub m_vdso_sp: Option<u64>,
    /// `m.vdsoPC`.
    pub m_vdso_pc: Option<u64>,
    /// `_defer.heap`.
    pub defer_heap: u64,
    /// `_defer.sp`.
    pub defer_sp: u64,
    /// `_defer.fn`.
    pub defer_fn: u64,
    /// `_defer.link`.
    pub defer_link: u64,
    /// `_defer.siz`, an int32 (Go 1.17): bytes of arguments and results behind the record. They are only there where the compiler
    /// does not wrap deferred calls in closures without arguments, which came with arguments in registers: on arm64 in 1.18.
    pub defer_siz: Option<u64>,
    /// Size of a `_defer`.
    pub defer_size: u64,
    /// `internal/abi.RegArgs`: size and range of pointer words, the stack object of `reflect.makeFuncStub`.
    pub reg_args: Option<RegArgs>,
}

/// Offsets that lead from a goroutine blocked in channel operations to the values it sends or receives.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct WaitingLayout {
    /// `g.waiting`.
    pub g_waiting: u64,
    /// `sudog.elem`: the address of the value.
    pub sudog_elem: u64,
    /// `sudog.c`.
    pub sudog_c: u64,
    /// `sudog.waitlink`.
    pub sudog_waitlink: u64,
    /// `hchan.elemtype`.
    pub hchan_elemtype: u64,
}

/// What the collector knows of `internal/abi.RegArgs`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RegArgs {
    /// Size of the structure.
    pub size: u64,
    /// Offset of `Ptrs`.
    pub ptrs: u64,
    /// Length of `Ptrs` in words.
    pub nptrs: u64,
}

impl StackLayout {
    /// Finds all offsets.
    ///
    /// * `scans_xregs`: whether this release's collector scans `g.xRegs.state` (it has a function `runtime.xRegScan`).
    ///
    /// # Errors
    /// Names the first structure or field that the debug information lacks.
    pub fn find(types: &TypeTable, scans_xregs: bool) -> Result<Self> {
        let g = structure(types, "runtime.g")?;
        let m = structure(types, "runtime.m")?;
        let defer = structure(types, "runtime._defer")?;
        let g_xregs_state = optional(types, g, "xRegs.state");
        let xregs = types.find("runtime.xRegs").map(|id| types.get(id).size);
        Ok(Self {
            g_size: types.get(g).size,
            g_stack_lo: field(types, g, "stack.lo")?,
            g_stack_hi: field(types, g, "stack.hi")?,
            g_panic: field(types, g, "_panic")?,
            g_defer: field(types, g, "_defer")?,
            g_m: field(types, g, "m")?,
            g_sched_sp: field(types, g, "sched.sp")?,
            g_sched_pc: field(types, g, "sched.pc")?,
            g_sched_ctxt: field(types, g, "sched.ctxt")?,
            g_sched_lr: field(types, g, "sched.lr")?,
            g_syscallsp: field(types, g, "syscallsp")?,
            g_syscallpc: field(types, g, "syscallpc")?,
            // An atomic.Uint32 since Go 1.20: its `value` may follow a zero-sized marker.
            g_atomicstatus: optional(types, g, "atomicstatus.value")
                .map_or_else(|| field(types, g, "atomicstatus"), Ok)?,
            g_goid: field(types, g, "goid")?,
            g_startpc: field(types, g, "startpc")?,
            waiting: waiting(types, g),
            g_async_safe_point: optional(types, g, "asyncSafePoint"),
            g_xregs_state,
            xregs_size: if scans_xregs && g_xregs_state.is_some() { xregs.filter(|s| *s <= 64 << 10) } else { None },
            m_procid: field(types, m, "procid")?,
            m_g0: field(types, m, "g0")?,
            m_gsignal: optional(types, m, "gsignal"),
            m_curg: field(types, m, "curg")?,
            m_vdso_sp: optional(types, m, "vdsoSP"),
            m_vdso_pc: optional(types, m, "vdsoPC"),
            defer_heap: field(types, defer, "heap")?,
            defer_sp: field(types, defer, "sp")?,
            defer_fn: field(types, defer, "fn")?,
            defer_link: field(types, defer, "link")?,
            defer_siz: optional(types, defer, "siz"),
            defer_size: types.get(defer).size,
            reg_args: reg_args(types),
        })
    }

    /// Whether every offset of a `g` lies inside its size, so that a loaded `g` can be indexed after one length check.
    #[must_use]
    pub fn g_fits(&self) -> bool {
        let words = [
            self.g_stack_lo,
            self.g_stack_hi,
            self.g_panic,
            self.g_defer,
            self.g_m,
            self.g_sched_sp,
            self.g_sched_pc,
            self.g_sched_ctxt,
            self.g_sched_lr,
            self.g_syscallsp,
            self.g_syscallpc,
            self.g_goid,
            self.g_startpc,
            self.g_xregs_state.unwrap_or(0),
            self.waiting.map_or(0, |w| w.g_waiting),
        ];
        let word_fits = |offset: u64| offset.checked_add(8).is_some_and(|end| end <= self.g_size);
        self.g_size <= 1 << 16
            && words.into_iter().all(word_fits)
            && self.g_atomicstatus.saturating_add(4) <= self.g_size
            && self.g_async_safe_point.unwrap_or(0) < self.g_size
    }
}

fn structure(types: &TypeTable, name: &str) -> Result<TypeId> {
    let found = types.find(name).filter(|id| matches!(types.get(*id).kind, Kind::Struct(_)));
    found.ok_or_else(|| {
        Error::new(format!("the executable's DWARF has no structure {name}"))
            .remedy("build the program without -ldflags=-w or -s, and pass the executable that the process ran")
    })
}

fn field(types: &TypeTable, of: TypeId, path: &str) -> Result<u64> {
    optional(types, of, path).ok_or_else(|| {
        let name = &types.get(of).name;
        Error::new(format!("the executable's DWARF has no field {path} in {name}"))
            .remedy("Go 1.17 to 1.27 have it; a newer release may have renamed it")
    })
}

fn optional(types: &TypeTable, of: TypeId, path: &str) -> Option<u64> {
    types.field_path(of, path).map(|(offset, _)| offset)
}

/// For names only, so a release without one of these fields is no error.
fn waiting(types: &TypeTable, g: TypeId) -> Option<WaitingLayout> {
    let (sudog, hchan) = (types.find("runtime.sudog")?, types.find("runtime.hchan")?);
    // Since Go 1.26 these are pairs of a pointer that may be hidden from the collector and an address, which is always right.
    let address = |name: &str| optional(types, sudog, &format!("{name}.vu")).or_else(|| optional(types, sudog, name));
    Some(WaitingLayout {
        g_waiting: optional(types, g, "waiting")?,
        sudog_elem: address("elem")?,
        sudog_c: address("c")?,
        sudog_waitlink: optional(types, sudog, "waitlink")?,
        hchan_elemtype: optional(types, hchan, "elemtype")?,
    })
}

fn reg_args(types: &TypeTable) -> Option<RegArgs> {
    let id = types.find("internal/abi.RegArgs")?;
    let ptrs = types.field(id, "Ptrs")?;
    let (size, offset) = (types.get(id).size, ptrs.offset);
    let Kind::Array(_, nptrs) = types.get(ptrs.ty).kind else { return None };
    let fits = size <= 4096 && nptrs <= 64 && offset.checked_add(nptrs * 8).is_some_and(|end| end <= size);
    fits.then_some(RegArgs { size, ptrs: offset, nptrs })
}
