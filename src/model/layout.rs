//! Where the fields of the runtime's structs are: found in DWARF by name, never from a version number.
//!
//! Every difference between Go releases that is a matter of layout ends here: a field that only some releases have is an
//! `Option`, a field that was renamed lists its names. `structs` declares the fields; variables and constants are here.

mod structs;

pub use structs::*;

use crate::error::{Error, Result};
use crate::model::dwarf::GlobalVariable;
use crate::model::types::TypeTable;
use rustc_hash::FxHashMap;
use std::ops::RangeInclusive;
use structs::array_len;

/// `runtime.spanInlineMarkBits` lies at the end of a span's one page.
const MAX_INLINE_MARK_BITS: u64 = 4096;

/// `heapArenaBytes`.
const ARENA_SIZE: u64 = 64 << 20;

/// `arenaBaseOffset` on amd64, where its constant is not in the debug information.
const ARENA_BASE_OFFSET: u64 = 0xffff_8000_0000_0000;

/// What to do about an unknown layout.
const REMEDY: &str = "use an executable built by Go 1.17 to 1.27; a newer release may have renamed what is missing";

/// Addresses of runtime variables in the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields carry the runtime's own names")]
pub struct Globals {
    pub firstmoduledata: u64,
    pub mheap: u64,
    pub allgs: u64,
    pub allm: u64,
    pub allp: u64,
    pub gcphase: u64,
    pub memstats: u64,
    pub gc_controller: u64,
    pub allfin: u64,
    pub build_version: Option<u64>,
    /// `runtime.gcCleanups` (1.25+).
    pub gc_cleanups: Option<u64>,
    /// Sentinel of a GC mask that is being built (1.24+).
    pub in_progress: Option<u64>,
    pub m0: Option<u64>,
    pub g0: Option<u64>,
    pub work: Option<u64>,
    pub sched: Option<u64>,
    pub wait_reason_strings: Option<u64>,
    pub zerobase: Option<u64>,
}

/// Values of runtime constants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constants {
    /// `_KindSpecialFinalizer`.
    pub kind_special_finalizer: u8,
    /// `_KindSpecialWeakHandle` (1.23+).
    pub kind_special_weak_handle: Option<u8>,
    /// `_KindSpecialCleanup` (1.24+).
    pub kind_special_cleanup: Option<u8>,
    /// `minSizeForMallocHeader`: pointerful slots above it start with their type.
    pub min_size_for_malloc_header: u64,
    /// `mallocHeaderSize`.
    pub malloc_header_size: u64,
    /// `arenaBaseOffset`: arena 0 starts at this address, modulo 2^64.
    pub arena_base_offset: u64,
}

/// How the pointer bits of a `heapArena` are written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ArenaBits {
    /// Up to 1.19: a byte for four words, pointer bits in its low half.
    Two,
    /// One bit per word.
    One,
}

/// Everything about the target's runtime that depends on its release or build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "one field per struct of the runtime, named after it")]
pub struct RuntimeLayout {
    pub globals: Globals,
    pub constants: Constants,
    pub mheap: MheapLayout,
    pub mspan: MspanLayout,
    pub heap_arena: HeapArenaLayout,
    /// Where masks are not in spans and headers: how arenas have them.
    pub arena_bits: Option<ArenaBits>,
    pub special: SpecialLayout,
    pub specialfinalizer: SpecialFinalizerLayout,
    pub special_weak_handle: Option<SpecialWeakHandleLayout>,
    pub special_cleanup: Option<SpecialCleanupLayout>,
    pub finblock: FinBlockLayout,
    pub finalizer: FinalizerLayout,
    pub cleanup_block: Option<CleanupBlockLayout>,
    pub cleanup_fn: Option<CleanupFnLayout>,
    pub cleanup_queue: Option<CleanupQueueLayout>,
    pub moduledata: ModuledataLayout,
    pub textsect: TextsectLayout,
    pub bitvector: BitvectorLayout,
    pub pc_header: PcHeaderLayout,
    pub functab: FunctabLayout,
    pub func: FuncLayout,
    pub abi_type: AbiTypeLayout,
    pub array_type: ArrayTypeLayout,
    pub struct_type: StructTypeLayout,
    pub struct_field: StructFieldLayout,
    pub g: GLayout,
    pub m: MLayout,
    pub p: PLayout,
    pub mcache: McacheLayout,
    pub defer: DeferLayout,
    pub panic: PanicLayout,
    pub stackmap: StackmapLayout,
    pub stack_object_record: StackObjectRecordLayout,
    pub mstats: MstatsLayout,
    pub gc_controller: GcControllerLayout,
    pub heap_stats_delta: Option<HeapStatsDeltaLayout>,
    /// Elements of `consistentHeapStats.stats`; 0 if there is no such array.
    pub heap_stats_len: u64,
    /// Elements of `heapStatsDelta.smallAllocCount`: the number of size classes.
    pub size_classes: u64,
    /// `sizeof(runtime.spanInlineMarkBits)`: 128 under Green Tea, 0 without.
    pub inline_mark_bits_size: u64,
}

impl RuntimeLayout {
    /// Finds every offset, variable and constant.
    ///
    /// * `variables`: package variables with link-time addresses; `bias` is added to them.
    /// * `constants`: by full name, such as `runtime._KindSpecialFinalizer`.
    ///
    /// # Errors
    /// A struct, field or variable that every supported release has is missing: the message names it.
    pub fn find(
        types: &TypeTable,
        variables: &[GlobalVariable],
        constants: &FxHashMap<String, i64>,
        bias: u64,
    ) -> Result<Self> {
        let inline_mark_bits_size = types.find("runtime.spanInlineMarkBits").map_or(0, |ty| types.get(ty).size);
        if inline_mark_bits_size > MAX_INLINE_MARK_BITS {
            return Err(Error::new(format!(
                "runtime layout: struct runtime.spanInlineMarkBits has {inline_mark_bits_size} bytes, expected at most \
                 {MAX_INLINE_MARK_BITS}"
            ))
            .remedy(REMEDY));
        }
        let (mspan, heap_arena) = (MspanLayout::find(types)?, HeapArenaLayout::find(types)?);
        let arena_bits = arena_bits(&heap_arena)?;
        if arena_bits.is_none() && mspan.large_type.is_none() {
            return Err(Error::new(
                "runtime layout: neither struct runtime.mspan has a field largeType nor struct runtime.heapArena a field bitmap in \
                 the DWARF of the executable: where pointer masks are is unknown",
            )
            .remedy(REMEDY));
        }
        Ok(Self {
            globals: Globals::find(variables, bias)?,
            constants: Constants::find(constants, arena_bits.is_some())?,
            mheap: MheapLayout::find(types)?,
            mspan,
            heap_arena,
            arena_bits,
            special: SpecialLayout::find(types)?,
            specialfinalizer: SpecialFinalizerLayout::find(types)?,
            special_weak_handle: SpecialWeakHandleLayout::find_optional(types)?,
            special_cleanup: SpecialCleanupLayout::find_optional(types)?,
            finblock: FinBlockLayout::find(types)?,
            finalizer: FinalizerLayout::find(types)?,
            cleanup_block: CleanupBlockLayout::find_optional(types)?,
            cleanup_fn: CleanupFnLayout::find_optional(types)?,
            cleanup_queue: CleanupQueueLayout::find_optional(types)?,
            moduledata: ModuledataLayout::find(types)?,
            textsect: TextsectLayout::find(types)?,
            bitvector: BitvectorLayout::find(types)?,
            pc_header: PcHeaderLayout::find(types)?,
            functab: FunctabLayout::find(types)?,
            func: FuncLayout::find(types)?,
            abi_type: AbiTypeLayout::find(types)?,
            array_type: ArrayTypeLayout::find(types)?,
            struct_type: StructTypeLayout::find(types)?,
            struct_field: StructFieldLayout::find(types)?,
            g: GLayout::find(types)?,
            m: MLayout::find(types)?,
            p: PLayout::find(types)?,
            mcache: McacheLayout::find(types)?,
            defer: DeferLayout::find(types)?,
            panic: PanicLayout::find(types)?,
            stackmap: StackmapLayout::find(types)?,
            stack_object_record: StackObjectRecordLayout::find(types)?,
            mstats: MstatsLayout::find(types)?,
            gc_controller: GcControllerLayout::find(types)?,
            heap_stats_delta: HeapStatsDeltaLayout::find_optional(types)?,
            heap_stats_len: array_len(types, "runtime.mstats", "heapStats.stats"),
            size_classes: array_len(types, "runtime.heapStatsDelta", "smallAllocCount"),
            inline_mark_bits_size,
        })
    }
}

/// How arenas have pointer bits: by the size of the array that holds them.
fn arena_bits(layout: &HeapArenaLayout) -> Result<Option<ArenaBits>> {
    if layout.bitmap.is_none() {
        return Ok(None);
    }
    let one_bit = ARENA_SIZE / 64;
    match layout.bitmap_bytes {
        bytes if bytes == one_bit => Ok(Some(ArenaBits::One)),
        bytes if bytes == 2 * one_bit => Ok(Some(ArenaBits::Two)),
        bytes => Err(Error::new(format!(
            "runtime layout: field bitmap of struct runtime.heapArena has {bytes} bytes, expected {one_bit} or {}",
            2 * one_bit
        ))
        .remedy(REMEDY)),
    }
}

impl Globals {
    fn find(variables: &[GlobalVariable], bias: u64) -> Result<Self> {
        let runtime: FxHashMap<&str, u64> = variables
            .iter()
            .filter_map(|v| Some((v.name.strip_prefix("runtime.")?, v.address.wrapping_add(bias))))
            .collect();
        let optional = |name: &str| runtime.get(name).copied();
        let required = |name: &str| {
            optional(name).ok_or_else(|| {
                Error::new(format!("runtime layout: no variable runtime.{name} in the DWARF of the executable"))
                    .remedy("use the executable with DWARF (built without -ldflags=-w or -s)")
            })
        };
        Ok(Self {
            firstmoduledata: required("firstmoduledata")?,
            mheap: required("mheap_")?,
            allgs: required("allgs")?,
            allm: required("allm")?,
            allp: required("allp")?,
            gcphase: required("gcphase")?,
            memstats: required("memstats")?,
            gc_controller: required("gcController")?,
            allfin: required("allfin")?,
            build_version: optional("buildVersion"),
            gc_cleanups: optional("gcCleanups"),
            in_progress: optional("inProgress"),
            m0: optional("m0"),
            g0: optional("g0"),
            work: optional("work"),
            sched: optional("sched"),
            wait_reason_strings: optional("waitReasonStrings"),
            zerobase: optional("zerobase"),
        })
    }
}

impl Constants {
    /// * `arena_bits`: masks are in arenas, so there are no malloc headers, whatever the constants say.
    fn find(constants: &FxHashMap<String, i64>, arena_bits: bool) -> Result<Self> {
        let runtime = |name: &str| constants.get(&format!("runtime.{name}")).copied();
        let kind = |name: &str| runtime(name).and_then(|v| u8::try_from(v).ok());
        let size = |name: &str, known: RangeInclusive<i64>, usual: u64| match runtime(name) {
            None => Ok(usual),
            Some(_) if arena_bits => Ok(usual),
            Some(value) if known.contains(&value) => Ok(value.cast_unsigned()),
            Some(value) => Err(Error::new(format!(
                "runtime layout: constant runtime.{name} is {value}, expected {} to {}",
                known.start(),
                known.end()
            ))
            .remedy(REMEDY)),
        };
        Ok(Self {
            kind_special_finalizer: kind("_KindSpecialFinalizer").ok_or_else(|| {
                Error::new("runtime layout: no constant runtime._KindSpecialFinalizer in the DWARF of the executable")
            })?,
            kind_special_weak_handle: kind("_KindSpecialWeakHandle"),
            kind_special_cleanup: kind("_KindSpecialCleanup"),
            // 8 bytes of header; bitmaps up to one bitmap word per pointer bit: the same in every supported release. The mask of
            // an object with a bitmap must fit a word.
            min_size_for_malloc_header: size("minSizeForMallocHeader", 8..=512, 512)?,
            malloc_header_size: size("mallocHeaderSize", 8..=8, 8)?,
            arena_base_offset: runtime("arenaBaseOffsetUintptr").map_or(ARENA_BASE_OFFSET, i64::cast_unsigned),
        })
    }
}
