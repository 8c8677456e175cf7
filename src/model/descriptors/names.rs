//! Full names of types built from descriptors, spelled as DWARF does.
//!
//! A descriptor's string has only the last element of a package path (`*http.Request`). For a named type the path stands beside it;
//! pointers, slices, arrays, maps and channels are composed from the full names of their parts. Struct, func and interface literals
//! keep the descriptor's string.

use super::Pending;
use crate::model::types::{Kind, TypeId, TypeTable};
use rustc_hash::FxHashMap;

/// The type of what cannot be read; the DWARF reader uses the same.
pub(super) const UNKNOWN: &str = "<unknown type>";

/// Composed names are cut back to the descriptor's own beyond this; it also ends names that would double at each level.
const MAX_COMPOSED: usize = 4096;

/// Composed types inside composed types; deeper ones keep the descriptor's string.
const MAX_DEPTH: u32 = 50;

/// `http.Request` of package `net/http` is `net/http.Request`; type arguments have full paths already.
pub(super) fn qualify(name: &str, pkg_path: &str) -> String {
    let head = name.find('[').unwrap_or(name.len());
    match name[..head].rfind('.') {
        Some(dot) => format!("{pkg_path}{}", &name[dot..]),
        None => name.to_owned(),
    }
}

/// The full name of each pending type.
pub(super) fn compose(pending: &[Pending], table: &TypeTable) -> Vec<String> {
    let by_id = pending.iter().enumerate().map(|(i, p)| (p.id, i)).collect();
    let mut composer = Composer { pending, by_id, done: vec![None; pending.len()], table };
    (0..pending.len()).map(|i| composer.name_at(i, MAX_DEPTH)).collect()
}

struct Composer<'c> {
    pending: &'c [Pending],
    by_id: FxHashMap<TypeId, usize>,
    done: Vec<Option<String>>,
    table: &'c TypeTable,
}

impl Composer<'_> {
    fn name(&mut self, id: TypeId, depth: u32) -> String {
        match self.by_id.get(&id) {
            Some(&i) => self.name_at(i, depth),
            None => self.table.get(id).name.to_string(),
        }
    }

    fn name_at(&mut self, i: usize, depth: u32) -> String {
        if let Some(name) = &self.done[i] {
            return name.clone();
        }
        let own = &self.pending[i].name;
        let own = if own.is_empty() { UNKNOWN } else { own };
        if self.pending[i].header.named || depth == 0 {
            return own.to_owned();
        }
        // A composed type that contains itself only exists in damaged images; inside, its own string stands for it.
        self.done[i] = Some(own.to_owned());
        let composed = match self.pending[i].kind {
            Kind::Pointer(elem) => format!("*{}", self.name(elem, depth - 1)),
            Kind::Slice(elem) => format!("[]{}", self.name(elem, depth - 1)),
            Kind::Array(elem, len) => format!("[{len}]{}", self.name(elem, depth - 1)),
            Kind::Map { key, elem, .. } => {
                let key = self.name(key, depth - 1);
                format!("map[{key}]{}", self.name(elem, depth - 1))
            }
            Kind::Chan { elem, .. } => {
                let direction = ["<-chan", "chan<-"].into_iter().find(|d| own.starts_with(d)).unwrap_or("chan");
                format!("{direction} {}", self.name(elem, depth - 1))
            }
            Kind::Struct(_) if own == UNKNOWN => "struct {...}".to_owned(),
            Kind::Func if own == UNKNOWN => "func(...)".to_owned(),
            _ => own.to_owned(),
        };
        let name = if composed.len() > MAX_COMPOSED { own.to_owned() } else { composed };
        self.done[i] = Some(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::qualify;

    #[test]
    fn package_paths_replace_package_names() {
        assert_eq!(qualify("http.Request", "net/http"), "net/http.Request");
        assert_eq!(qualify("main.T", "main"), "main.T");
        assert_eq!(
            qualify("p.Pair[int,net/http.Request]", "example.com/p"),
            "example.com/p.Pair[int,net/http.Request]"
        );
        assert_eq!(qualify("int", ""), "int");
    }
}
