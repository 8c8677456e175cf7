//! Descriptors of closure objects: `struct { F uintptr; .. }`, which the compiler makes for each closure that is allocated
//! (`typecheck.ClosureType`). Field names are those of the captured variables up to Go 1.20, `X0`, `X1` .. after; `R` is a receiver.

use super::Descriptors;
use super::layout::kind;
use crate::address::Addr;
use crate::image::Image;

/// What a closure's object is allocated as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosureStruct {
    /// In bytes.
    pub size: u64,
    /// What lies behind the code pointer: name, offset in bytes, descriptor.
    pub captures: Vec<(String, u64, Addr)>,
}

impl Descriptors {
    /// The closure object's type whose descriptor is at `rtype`; `None` if nothing or something else lies there.
    #[must_use]
    pub fn closure_struct(&self, image: &dyn Image, rtype: Addr) -> Option<ClosureStruct> {
        let header = self.layout.header(image, rtype)?;
        if header.kind != kind::STRUCT || header.named || header.size < 16 {
            return None;
        }
        let fields = self.layout.struct_fields(image, rtype, header.size)?;
        let mut named = fields.iter().map(|field| {
            let name = self.layout.name(image, Addr(field.name))?;
            Some((name, field.offset, Addr(field.ty)))
        });
        let (name, offset, code) = named.next()??;
        let is_code = matches!(&*name, "F" | ".F") && offset == 0;
        if !is_code || self.layout.header(image, code)?.kind != kind::UINTPTR {
            return None;
        }
        Some(ClosureStruct { size: header.size, captures: named.collect::<Option<_>>()? })
    }
}
