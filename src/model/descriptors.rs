//! stub
#![allow(missing_docs)]
use crate::address::Addr;
use crate::image::Image;
use crate::model::modules::Modules;
use crate::model::types::{Kind, TypeId, TypeTable};
pub struct Descriptors;
impl Descriptors {
    pub fn type_of(&self, _image: &dyn Image, modules: &Modules, table: &mut TypeTable, rtype: Addr) -> Option<TypeId> {
        let m = modules.list.iter().find(|m| m.is_main)?;
        table.find_rtype(rtype.0.wrapping_sub(m.types.start.0))
    }
    pub fn is_direct_iface(&self, image: &dyn Image, rtype: Addr) -> Option<bool> {
        Some(image.read_u8(rtype.add(23)).ok()? & 32 != 0 || image.read_u8(rtype.add(20)).ok()? & 32 != 0)
    }
    pub fn itab_type(&self, image: &dyn Image, itab: Addr) -> Option<Addr> {
        image.read_u64(itab.add(8)).ok().map(Addr)
    }
}
#[allow(dead_code)]
fn x(_: Kind) {}
