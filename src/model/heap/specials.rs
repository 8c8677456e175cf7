//! Specials of in-use spans that the collector treats as roots: finalizers, cleanups and weak handles.

use super::{Heap, PAGE_SIZE, SpanId, read};
use crate::address::Addr;
use crate::image::{Image, ReadError};
use crate::incident::Incidents;
use crate::model::chain::Chain;
use crate::model::layout::RuntimeLayout;
use rayon::prelude::*;

/// What a special holds on to; the object itself is not among it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SpecialKind {
    /// `runtime.SetFinalizer`: what the object's fields reach, and the function.
    Finalizer {
        /// `fn`, a func value.
        func: u64,
        /// `fint`, type of the function's parameter (`*abi.Type`); not scanned by the collector.
        fint: u64,
        /// `ot`, type of the object pointer (`*abi.PtrType`); not scanned by the collector.
        ot: u64,
    },
    /// `runtime.AddCleanup`; of `call`, `func`, `arg` those the release has are set, the others are 0.
    Cleanup {
        /// `cleanup.call` (1.26+).
        call: u64,
        /// `fn`, or `cleanup.fn`.
        func: u64,
        /// `cleanup.arg` (1.26+), the boxed argument.
        arg: u64,
    },
    /// `weak.Pointer`: the handle object is a strong root, its target is not.
    WeakHandle {
        /// The handle object.
        handle: u64,
    },
}

/// One special.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// Span of the object.
    pub span: SpanId,
    /// Slot of the object.
    pub slot: u32,
    /// Offset from the span's start, as recorded (a tiny object's lies inside its slot).
    pub offset: u64,
    /// Address of the record.
    pub addr: u64,
    /// What it holds.
    pub kind: SpecialKind,
}

/// Reads the specials of all spans into `heap.specials`, in span order.
pub(super) fn read(heap: &mut Heap, image: &dyn Image, layout: &RuntimeLayout) {
    let with: Vec<SpanId> = read::ids(heap).filter(|&id| heap.details(id).specials != 0).collect();
    let lists: Vec<(Vec<Special>, Incidents)> =
        with.into_par_iter().map(|id| read_list(heap, image, layout, id)).collect();
    for (list, incidents) in lists {
        heap.specials.extend(list);
        heap.incidents.merge(&incidents);
    }
}

fn read_list(heap: &Heap, image: &dyn Image, layout: &RuntimeLayout, id: SpanId) -> (Vec<Special>, Incidents) {
    let (span, details) = (heap.span(id), heap.details(id));
    let mut out = Vec::new();
    let mut incidents = Incidents::default();
    let mut chain = Chain::new(details.specials);
    let mut last = (0, 0);
    while let Some(addr) = chain.current() {
        let record = Addr(addr);
        let fields = (
            image.read_u64(record.add(layout.special.next)),
            read_offset(image, layout, record),
            image.read_u8(record.add(layout.special.kind)),
        );
        let (Ok(next), Ok(offset), Ok(kind)) = fields else {
            incidents.count("special.unread");
            break;
        };
        // Sorted by offset and kind: what is not, is no special.
        if (offset, kind) < last || offset >= details.npages * PAGE_SIZE {
            incidents.count("special.bad_record");
            break;
        }
        last = (offset, kind);
        let slot = span.slot_of(span.start + offset);
        if slot >= u32::from(span.nelems) {
            incidents.count("special.bad_record");
            break;
        }
        match payload(image, layout, record, kind) {
            Ok(Some(kind)) => out.push(Special { span: id, slot, offset, addr, kind }),
            Ok(None) => {}
            Err(_) => incidents.count("special.unread"),
        }
        if !chain.advance(next) {
            incidents.count("special.cycle");
            break;
        }
    }
    (out, incidents)
}

/// `special.offset`: 16 bits up to Go 1.23, a word since.
fn read_offset(image: &dyn Image, layout: &RuntimeLayout, record: Addr) -> Result<u64, ReadError> {
    let at = record.add(layout.special.offset);
    let mut bytes = [0; 8];
    let width = layout.special.offset_bytes.min(8) as usize;
    image.read(at, &mut bytes[..width])?;
    Ok(u64::from_le_bytes(bytes))
}

/// What a special of this kind holds; `None` for kinds that hold nothing (profile records, pin counters, ...).
fn payload(
    image: &dyn Image,
    layout: &RuntimeLayout,
    record: Addr,
    kind: u8,
) -> Result<Option<SpecialKind>, ReadError> {
    let constants = &layout.constants;
    let word = |field: u64| image.read_u64(record.add(field));
    let optional = |field: Option<u64>| field.map_or(Ok(0), word);
    if kind == constants.kind_special_finalizer {
        let at = &layout.specialfinalizer;
        return Ok(Some(SpecialKind::Finalizer { func: word(at.func)?, fint: word(at.fint)?, ot: word(at.ot)? }));
    }
    if Some(kind) == constants.kind_special_weak_handle
        && let Some(at) = &layout.special_weak_handle
    {
        return Ok(Some(SpecialKind::WeakHandle { handle: word(at.handle)? }));
    }
    if Some(kind) == constants.kind_special_cleanup
        && let Some(at) = &layout.special_cleanup
    {
        let (call, func, arg) = (optional(at.call)?, word(at.func)?, optional(at.arg)?);
        return Ok(Some(SpecialKind::Cleanup { call, func, arg }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::modules::testing::Bytes;

    #[test]
    fn offsets_are_as_wide_as_the_release_has_them() {
        let mut layout = RuntimeLayout::default();
        layout.special.offset = 8;
        // {next, offset 0x1234, kind 2, padding}: up to Go 1.23 the kind lies behind 16 bits of offset.
        let image = Bytes::new(vec![(0x1000, vec![0, 0, 0, 0, 0, 0, 0, 0, 0x34, 0x12, 2, 0, 0, 0, 0, 0])]);
        for (width, offset) in [(2, 0x1234), (8, 0x2_1234)] {
            layout.special.offset_bytes = width;
            assert_eq!(read_offset(&image, &layout, Addr(0x1000)), Ok(offset));
        }
        assert!(read_offset(&image, &layout, Addr(0x1008)).is_err());
    }
}
