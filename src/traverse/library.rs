//! Types of the Go library and of compiler-made objects that debug information leaves out, rebuilt from what it has.

use crate::model::types::{Field, Kind, Type, TypeId, TypeTable};

/// The inner node `indirect[K,V]` of the hash trie that has `node[K,V]`.
#[must_use]
pub fn trie_inner(types: &TypeTable, node: TypeId) -> Option<TypeId> {
    let (package, args) = types.get(node).name.split_once(".node[")?;
    types.find(&format!("{package}.indirect[{args}"))
}

/// The entry `entry[K,V]` of the hash trie that has `node[K,V]`.
///
/// An optimised program may have no variable of that type, and then no DIE either. Its fields are the same in every release that has hash
/// tries (`internal/sync/hashtriemap.go`, `internal/concurrent` in 1.23): the node, `overflow`, `key`, `value`.
pub fn trie_entry(types: &mut TypeTable, node: TypeId) -> Option<TypeId> {
    let node_type = types.get(node);
    let (package, args) = node_type.name.split_once(".node[")?;
    let name = format!("{package}.entry[{args}");
    if let Some(known) = types.find(&name) {
        return Some(known);
    }
    let overflow_at = node_type.size.next_multiple_of(8);
    let key_at = overflow_at.checked_add(8)?;
    // `unique` has keys that are weak pointers, and hashes for values.
    let (key, value) = if package == "unique" {
        (types.find("unsafe.Pointer")?, types.find("uintptr")?)
    } else {
        let (key, value) = split_args(args.strip_suffix(']')?)?;
        (types.find(key)?, types.find(value)?)
    };
    let value_at = key_at.checked_add(types.get(key).size)?.checked_next_multiple_of(align(types, value))?;
    let size = value_at.checked_add(types.get(value).size)?.checked_next_multiple_of(8)?;
    let pointer = Type {
        name: format!("sync/atomic.Pointer[{name}]").into(),
        size: 8,
        kind: Kind::Pointer(TypeId(u32::try_from(types.len()).ok()?.checked_add(1)?)),
        rtype_offset: 0,
    };
    let overflow = types.push(pointer);
    let field = |name: &str, offset, ty| Field { name: name.into(), offset, ty };
    let fields = vec![
        field("node", 0, node),
        field("overflow", overflow_at, overflow),
        field("key", key_at, key),
        field("value", value_at, value),
    ];
    Some(types.push(Type { name: name.into(), size, kind: Kind::Struct(fields), rtype_offset: 0 }))
}

/// A value that is part of a larger one if it does not start its object.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Type of the larger value.
    pub whole: TypeId,
    /// Offset in it, in bytes.
    pub at: u64,
    /// Size of the larger value, in bytes.
    pub size: u64,
}

/// What `ty` is part of: the runtime's own pointers to a timer lead into the middle of what `time.NewTimer` and its kin allocate: a
/// `runtime.timeTimer` since Go 1.23, before a `time.Timer` or `time.Ticker`, which are alike and have the timer as `runtimeTimer`.
#[must_use]
pub fn part_of(types: &TypeTable, ty: TypeId) -> Option<Part> {
    if &*types.get(ty).name != "runtime.timer" {
        return None;
    }
    let (whole, at) = match types.find("runtime.timeTimer") {
        Some(whole) => (whole, types.field_path(whole, "timer").filter(|(_, timer)| *timer == ty)?.0),
        None => {
            let whole = types.find("time.Timer")?;
            let is_it = |timer: TypeId| types.get(timer).size == types.get(ty).size;
            (whole, types.field_path(whole, "r").filter(|(_, timer)| is_it(*timer))?.0)
        }
    };
    let size = types.get(whole).size;
    (at > 0 && at.is_multiple_of(8)).then_some(Part { whole, at, size })
}

/// Alignment of a field: words for everything that may hold a pointer, at most the size for the rest.
fn align(types: &TypeTable, ty: TypeId) -> u64 {
    match (&types.get(ty).kind, types.get(ty).size) {
        (Kind::Scalar, size @ (1 | 2 | 4)) => size,
        _ => 8,
    }
}

/// `K,V` at the top level of brackets.
fn split_args(args: &str) -> Option<(&str, &str)> {
    let mut depth = 0i32;
    for (i, c) in args.char_indices() {
        match c {
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            ',' if depth == 0 => return Some((&args[..i], &args[i + 1..])),
            _ => {}
        }
    }
    None
}

/// The one capture of a method value, `x.M` used as a func: its receiver, at offset 8. Such closures have no debug information, but their
/// names say the receiver's type: `pkg.(*T).M-fm`, `pkg.T.M-fm`.
#[must_use]
pub fn method_value_receiver(types: &TypeTable, function: &str) -> Option<Field> {
    let (receiver, _) = function.strip_suffix("-fm")?.rsplit_once('.')?;
    let ty = match receiver.split_once("(*").and_then(|(package, rest)| Some((package, rest.strip_suffix(')')?))) {
        Some((package, name)) => types.find(&format!("*{package}{name}"))?,
        None => types.find(receiver)?,
    };
    // Without an own type in its name, an instantiated receiver would be misread.
    let known = !types.get(ty).name.contains("...");
    known.then(|| Field { name: "R".into(), offset: 8, ty })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(types: &mut TypeTable, name: &str, size: u64, kind: Kind) -> TypeId {
        types.push(Type { name: name.into(), size, kind, rtype_offset: 0 })
    }

    #[test]
    fn entry_without_debug_information_is_rebuilt() {
        let mut types = TypeTable::default();
        let node = push(&mut types, "internal/sync.node[map[a]b,func(x, y)]", 1, Kind::Opaque);
        let key = push(&mut types, "map[a]b", 8, Kind::Func);
        let value = push(&mut types, "func(x, y)", 8, Kind::Func);
        let entry = trie_entry(&mut types, node).expect("both arguments are known");
        assert_eq!(types.get(entry).size, 32);
        assert_eq!(types.field_path(entry, "key"), Some((16, key)));
        assert_eq!(types.field_path(entry, "value"), Some((24, value)));
        let (_, overflow) = types.field_path(entry, "overflow").expect("overflow");
        assert_eq!(types.get(overflow).kind, Kind::Pointer(entry));
        assert_eq!(trie_entry(&mut types, node), Some(entry), "built once");
    }

    #[test]
    fn receivers_by_name() {
        let mut types = TypeTable::default();
        let value = push(&mut types, "a/b.T", 16, Kind::Opaque);
        let pointer = push(&mut types, "*a/b.T", 8, Kind::Pointer(value));
        let receiver = |name: &str| method_value_receiver(&types, name).map(|f| f.ty);
        assert_eq!(receiver("a/b.(*T).M-fm"), Some(pointer));
        assert_eq!(receiver("a/b.T.M-fm"), Some(value));
        assert_eq!(receiver("a/b.T.M"), None);
        assert_eq!(receiver("a/b.U.M-fm"), None);
    }
}
