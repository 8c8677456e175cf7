//! Function tables for unit tests.

use super::code::{CodeId, FrameCode, FrameCodes, Role};
use crate::architecture::Architecture;

/// Functions of which only the geometry matters, each with one PC.
pub(crate) struct Codes {
    architecture: &'static Architecture,
    list: Vec<FrameCode>,
}

impl Codes {
    pub(crate) fn of(architecture: &'static Architecture) -> Self {
        Self { architecture, list: Vec::new() }
    }

    pub(crate) fn add(&mut self, pc: u64, spdelta: i32, flag: u8, role: Role) -> &mut Self {
        let geometry = FrameCode::with_geometry(self.architecture, role, Some(spdelta));
        let name = format!("f{pc}").into();
        self.list.push(FrameCode { pc, func: pc as u32, name, entry: pc & !0xf, flag, ..geometry });
        self
    }
}

impl FrameCodes for Codes {
    fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    fn find(&mut self, pc: u64) -> Option<CodeId> {
        self.list.iter().position(|c| c.pc == pc).map(|i| CodeId(i as u32))
    }

    fn code(&self, id: CodeId) -> &FrameCode {
        &self.list[id.0 as usize]
    }
}
