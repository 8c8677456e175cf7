//! The structs of the runtime whose fields are read, as offsets: declared here, found by name in a [`TypeTable`].
//!
//! Wrappers such as `atomic.Uint32` start with a field of size 0, so the offset of the wrapper is the offset of its value.

use super::REMEDY;
use crate::error::{Error, Result};
use crate::model::types::{Kind, TypeId, TypeTable};

/// Offset of the first of `paths` (alternatives separated by `|`) in struct `ty`.
fn offset_of(types: &TypeTable, ty: TypeId, paths: &str) -> Option<u64> {
    paths.split('|').find_map(|path| types.field_path(ty, path)).map(|(offset, _)| offset)
}

/// The first type among `names` (alternatives separated by `|`) that has fields.
fn struct_of(types: &TypeTable, names: &str) -> Option<TypeId> {
    names.split('|').find_map(|name| types.find(name))
}

/// Elements of the array at `path` in struct `name`; 0 if there is none.
pub(super) fn array_len(types: &TypeTable, name: &str, path: &str) -> u64 {
    let field = types.find(name).and_then(|ty| types.field_path(ty, path));
    match field.map(|(_, ty)| &types.get(ty).kind) {
        Some(Kind::Array(_, len)) => *len,
        _ => 0,
    }
}

fn required(types: &TypeTable, name: &str, ty: TypeId, paths: &str) -> Result<u64> {
    offset_of(types, ty, paths).ok_or_else(|| {
        Error::new(format!("runtime layout: struct {name} has no field {paths} in the DWARF of the executable"))
            .remedy(REMEDY)
    })
}

/// Bytes of the field that is the first of `paths` in struct `ty`; 0 if there is none.
fn width_of(types: &TypeTable, ty: TypeId, paths: &str) -> u64 {
    paths.split('|').find_map(|path| types.field_path(ty, path)).map_or(0, |(_, field)| types.get(field).size)
}

/// Declares a struct of field offsets and how to find it. `req` fields must exist, `opt` fields may be missing; `width` is the size
/// of a field that is not equally wide in all releases.
macro_rules! layouts {
    ($($(#[$doc:meta])* $Name:ident = $go:literal {
        $(req $field:ident = $path:literal,)*
        $(opt $ofield:ident = $opath:literal,)*
        $(width $wfield:ident = $wpath:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "fields carry the runtime's own names")]
        pub struct $Name {
            /// Size of the struct in bytes.
            pub size: u64,
            $(pub $field: u64,)*
            $(pub $ofield: Option<u64>,)*
            $(pub $wfield: u64,)*
        }

        impl $Name {
            pub(super) fn find(types: &TypeTable) -> Result<Self> {
                let ty = struct_of(types, $go).ok_or_else(|| {
                    Error::new(format!("runtime layout: no struct {} in the DWARF of the executable", $go))
                        .remedy("use the executable with DWARF (built without -ldflags=-w or -s)")
                })?;
                Ok(Self {
                    size: types.get(ty).size,
                    $($field: required(types, $go, ty, $path)?,)*
                    $($ofield: offset_of(types, ty, $opath),)*
                    $($wfield: width_of(types, ty, $wpath),)*
                })
            }

            /// `None` if the release has no such struct; an error if it has, without a needed field.
            #[allow(dead_code, reason = "generated for every struct, used for those that not all releases have")]
            pub(super) fn find_optional(types: &TypeTable) -> Result<Option<Self>> {
                if struct_of(types, $go).is_none() { Ok(None) } else { Self::find(types).map(Some) }
            }
        }
    )*};
}

layouts! {
    /// `runtime.mheap`.
    MheapLayout = "runtime.mheap" {
        req sweepgen = "sweepgen",
        req allspans = "allspans",
        req pages_in_use = "pagesInUse",
        opt arenas = "arenas",
        opt spanalloc_inuse = "spanalloc.inuse",
        opt cachealloc_inuse = "cachealloc.inuse",
    }
    /// `runtime.mspan`.
    MspanLayout = "runtime.mspan" {
        req start_addr = "startAddr",
        req npages = "npages",
        req free_index = "freeindex",
        req nelems = "nelems",
        req alloc_bits = "allocBits",
        req gcmark_bits = "gcmarkBits",
        req sweepgen = "sweepgen",
        req alloc_count = "allocCount",
        req spanclass = "spanclass",
        req state = "state",
        req elemsize = "elemsize",
        req limit = "limit",
        req specials = "specials",
        opt free_index_for_scan = "freeIndexForScan",
        opt large_type = "largeType",
        opt is_user_arena_chunk = "isUserArenaChunk",
        opt alloc_count_before_cache = "allocCountBeforeCache",
        width count_bytes = "nelems",
    }
    /// `runtime.heapArena`: pointer bits up to 1.21, and in 1.22 with GOEXPERIMENT=noallocheaders.
    HeapArenaLayout = "runtime.heapArena" {
        opt bitmap = "bitmap|heapArenaPtrScalar.bitmap",
        width bitmap_bytes = "bitmap|heapArenaPtrScalar.bitmap",
    }
    /// `runtime.special`.
    SpecialLayout = "runtime.special" {
        req next = "next",
        req offset = "offset",
        req kind = "kind",
        width offset_bytes = "offset",
    }
    /// `runtime.specialfinalizer`.
    SpecialFinalizerLayout = "runtime.specialfinalizer" {
        req func = "fn",
        req fint = "fint",
        req ot = "ot",
    }
    /// `runtime.specialWeakHandle`.
    SpecialWeakHandleLayout = "runtime.specialWeakHandle" {
        req handle = "handle",
    }
    /// `runtime.specialCleanup`: `fn` up to 1.25, `cleanup.{call,fn,arg}` since.
    SpecialCleanupLayout = "runtime.specialCleanup" {
        req func = "cleanup.fn|fn",
        opt call = "cleanup.call",
        opt arg = "cleanup.arg",
    }
    /// `runtime.finblock`, `finBlock` since 1.25.
    FinBlockLayout = "runtime.finBlock|runtime.finblock" {
        req alllink = "alllink",
        req cnt = "cnt",
        req fin = "fin",
    }
    /// `runtime.finalizer`.
    FinalizerLayout = "runtime.finalizer" {
        req func = "fn",
        req arg = "arg",
        req fint = "fint",
        req ot = "ot",
    }
    /// `runtime.cleanupBlock` (1.25+).
    CleanupBlockLayout = "runtime.cleanupBlock" {
        req alllink = "cleanupBlockHeader.alllink",
        req n = "cleanupBlockHeader.n",
        req cleanups = "cleanups",
    }
    /// `runtime.cleanupFn` (1.26+).
    CleanupFnLayout = "runtime.cleanupFn" {
        req call = "call",
        req func = "fn",
        req arg = "arg",
    }
    /// `runtime.cleanupQueue` (1.25+).
    CleanupQueueLayout = "runtime.cleanupQueue" {
        req all = "all",
    }
    /// `runtime.moduledata`.
    ModuledataLayout = "runtime.moduledata" {
        req pc_header = "pcHeader",
        req funcnametab = "funcnametab",
        req pctab = "pctab",
        req pclntable = "pclntable",
        req ftab = "ftab",
        req minpc = "minpc",
        req maxpc = "maxpc",
        req text = "text",
        req etext = "etext",
        req noptrdata = "noptrdata",
        req enoptrdata = "enoptrdata",
        req data = "data",
        req edata = "edata",
        req bss = "bss",
        req ebss = "ebss",
        req noptrbss = "noptrbss",
        req enoptrbss = "enoptrbss",
        req gcdata = "gcdata",
        req gcbss = "gcbss",
        req types = "types",
        req etypes = "etypes",
        req textsectmap = "textsectmap",
        req bad = "bad",
        req gcdatamask = "gcdatamask",
        req gcbssmask = "gcbssmask",
        req next = "next",
        opt rodata = "rodata",
        opt gofunc = "gofunc",
        opt itablinks = "itablinks",
        opt itaboffset = "itaboffset",
    }
    /// `runtime.textsect`; 1.17 has its length instead of its end.
    TextsectLayout = "runtime.textsect" {
        req vaddr = "vaddr",
        req baseaddr = "baseaddr",
        opt end = "end",
        opt length = "length",
    }
    /// `runtime.bitvector`.
    BitvectorLayout = "runtime.bitvector" {
        req n = "n",
        req bytedata = "bytedata",
    }
    /// `runtime.pcHeader`.
    PcHeaderLayout = "runtime.pcHeader" {
        req magic = "magic",
        req min_lc = "minLC",
        req ptr_size = "ptrSize",
        req nfunc = "nfunc",
    }
    /// `runtime.functab`; in 1.17 its words are 8 bytes wide and entries absolute.
    FunctabLayout = "runtime.functab" {
        req entryoff = "entryoff|entry",
        req funcoff = "funcoff",
        width entry_bytes = "entryoff|entry",
    }
    /// `runtime._func`.
    FuncLayout = "runtime._func" {
        req entry_off = "entryOff|entryoff|entry",
        req name_off = "nameOff|nameoff",
        req args = "args",
        req deferreturn = "deferreturn",
        req pcsp = "pcsp",
        req npcdata = "npcdata",
        req func_id = "funcID",
        req flag = "flag",
        req nfuncdata = "nfuncdata",
        width entry_bytes = "entryOff|entryoff|entry",
    }
    /// `internal/abi.Type`, `runtime._type` up to 1.20.
    AbiTypeLayout = "internal/abi.Type|runtime._type" {
        req size_ = "Size_|size",
        req ptr_bytes = "PtrBytes|ptrdata",
        req tflag = "TFlag|tflag",
        req kind = "Kind_|kind",
        req gcdata = "GCData|gcdata",
        req str = "Str|str",
    }
    /// `internal/abi.ArrayType`, `runtime.arraytype` up to 1.20.
    ArrayTypeLayout = "internal/abi.ArrayType|runtime.arraytype" {
        req elem = "Elem|elem",
        req len = "Len|len",
    }
    /// `internal/abi.StructType`, `runtime.structtype` up to 1.20.
    StructTypeLayout = "internal/abi.StructType|runtime.structtype" {
        req fields = "Fields|fields",
    }
    /// `internal/abi.StructField`, `runtime.structfield` up to 1.20.
    StructFieldLayout = "internal/abi.StructField|runtime.structfield" {
        req typ = "Typ|typ",
        req offset = "Offset|offset|offsetAnon",
    }
    /// `runtime.g`.
    GLayout = "runtime.g" {
        req stack_lo = "stack.lo",
        req stack_hi = "stack.hi",
        req panic = "_panic",
        req defer = "_defer",
        req m = "m",
        req sched_sp = "sched.sp",
        req sched_pc = "sched.pc",
        req sched_ctxt = "sched.ctxt",
        req sched_lr = "sched.lr",
        req sched_bp = "sched.bp",
        req syscallsp = "syscallsp",
        req syscallpc = "syscallpc",
        req atomicstatus = "atomicstatus",
        req goid = "goid",
        req waitreason = "waitreason",
        req async_safe_point = "asyncSafePoint",
        req startpc = "startpc",
        req gopc = "gopc",
        opt syscallbp = "syscallbp",
        opt xregs_state = "xRegs.state",
    }
    /// `runtime.m`.
    MLayout = "runtime.m" {
        req g0 = "g0",
        req procid = "procid",
        req gsignal = "gsignal",
        req curg = "curg",
        req p = "p",
        req alllink = "alllink",
        opt incgo = "incgo",
    }
    /// `runtime.p`.
    PLayout = "runtime.p" {
        req mcache = "mcache",
        opt id = "id",
        opt status = "status",
    }
    /// `runtime.mcache`.
    McacheLayout = "runtime.mcache" {
        req tiny = "tiny",
        req tinyoffset = "tinyoffset",
    }
    /// `runtime._defer`.
    DeferLayout = "runtime._defer" {
        req heap = "heap",
        req sp = "sp",
        req pc = "pc",
        req func = "fn",
        req link = "link",
        opt rangefunc = "rangefunc",
        opt head = "head",
    }
    /// `runtime._panic`.
    PanicLayout = "runtime._panic" {
        req arg = "arg",
        req link = "link",
    }
    /// `runtime.stackmap`.
    StackmapLayout = "runtime.stackmap" {
        req n = "n",
        req nbit = "nbit",
        req bytedata = "bytedata",
    }
    /// `runtime.stackObjectRecord`: the mask's offset, in 1.17 its address.
    StackObjectRecordLayout = "runtime.stackObjectRecord" {
        req off = "off",
        req obj_size = "size",
        req ptr_bytes = "ptrBytes|_ptrdata|ptrdata",
        opt gcdataoff = "gcdataoff",
        opt gcdata = "gcdata",
    }
    /// `runtime.mstats`.
    MstatsLayout = "runtime.mstats" {
        opt last_gc_unix = "last_gc_unix",
        opt numgc = "numgc",
        opt heap_stats = "heapStats.stats",
        opt stacks_sys = "stacks_sys",
        opt mspan_sys = "mspan_sys",
        opt mcache_sys = "mcache_sys",
        opt buckhash_sys = "buckhash_sys",
        opt gc_misc_sys = "gcMiscSys",
        opt other_sys = "other_sys",
    }
    /// `runtime.heapStatsDelta`.
    HeapStatsDeltaLayout = "runtime.heapStatsDelta" {
        opt committed = "committed",
        opt released = "released",
        opt in_heap = "inHeap",
        opt in_stacks = "inStacks",
        opt in_work_bufs = "inWorkBufs",
        opt in_ptr_scalar_bits = "inPtrScalarBits",
        opt large_alloc = "largeAlloc",
        opt large_alloc_count = "largeAllocCount",
        opt small_alloc_count = "smallAllocCount",
        opt large_free = "largeFree",
        opt large_free_count = "largeFreeCount",
        opt small_free_count = "smallFreeCount",
    }
    /// `runtime.gcControllerState`.
    GcControllerLayout = "runtime.gcControllerState" {
        opt heap_live = "heapLive",
        opt heap_marked = "heapMarked",
        opt heap_in_use = "heapInUse",
        opt heap_released = "heapReleased",
        opt heap_free = "heapFree",
        opt total_alloc = "totalAlloc",
        opt total_free = "totalFree",
    }
}
