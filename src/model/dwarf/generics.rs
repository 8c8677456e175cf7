//! Concrete types behind the shapes of generic code, from the names of dictionaries and of instantiated types.
//!
//! Code is compiled once for all type arguments of one shape: `main.Memo[int,*main.A]` and `main.Memo[int,*main.B]` share
//! `main.Memo[go.shape.int,go.shape.*uint8]`, and DWARF gives its variables types such as `map[go.shape.int]go.shape.*uint8`. Which
//! arguments there are, say the dictionaries: every call of shaped code passes one (`main..dict.Memo[int,*main.A]`), and every
//! closure made in shaped code captures one, used or not (`noder.funcLit`). So a function with code of its own has exactly the
//! dictionaries that the symbol table names, and where all of them agree about a type argument it is known.
//!
//! A call that was inlined may leave no trace of its instantiation: neither the dictionary, which nothing reads, nor (seen with Go
//! 1.24) the types of its variables. So the variables of inlined functions keep their shapes, even if only one instantiation is
//! known, and so does whatever is ambiguous: a wrong name is worse than none.

use crate::model::types::{Field, Kind, TypeId, TypeTable};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::Cell;

/// How every shape's name begins.
const SHAPE: &str = "go.shape.";
/// In the symbol of a dictionary, between package and function or type.
const DICTIONARY: &str = "..dict.";
/// Comparisons of types for one question; real ones need a few hundred.
const MAX_STEPS: u32 = 20_000;
/// Nesting of type arguments; real ones stay below ten.
const MAX_DEPTH: u32 = 40;

/// A dictionary: the arguments of one instantiation.
struct Dictionary {
    /// `pkg/path.Name` of the generic function or type.
    name: Box<str>,
    arguments: Vec<Box<str>>,
}

/// What is known about instantiations.
#[derive(Default)]
pub(super) struct Generics {
    /// By name without package: the name of an inlined function's closure lacks it.
    dictionaries: FxHashMap<Box<str>, Vec<Dictionary>>,
    /// Types `pkg/path.Name[arguments]` without shapes, by `pkg/path.Name`.
    instances: FxHashMap<Box<str>, Vec<TypeId>>,
    /// Names without package of all generic types, to tell methods from functions.
    types: FxHashSet<Box<str>>,
    /// Link-time addresses of all dictionaries.
    addresses: FxHashSet<u64>,
}

/// Shapes of a function's type parameters and what stands for each, if it is known.
type Binding = Vec<(Box<str>, Option<TypeId>)>;

impl Generics {
    /// * `symbols`: names and addresses of the executable's symbols.
    pub(super) fn read<'n>(symbols: impl Iterator<Item = (&'n [u8], u64)>, types: &TypeTable) -> Self {
        let mut generics = Self::default();
        for (symbol, address) in symbols {
            let Some((package, rest)) = str::from_utf8(symbol).ok().and_then(|s| s.split_once(DICTIONARY)) else {
                continue;
            };
            generics.addresses.insert(address);
            let Some((name, arguments)) = instantiation(rest) else { continue };
            let arguments = arguments.into_iter().map(Box::from).collect();
            let dictionary = Dictionary { name: format!("{package}.{name}").into(), arguments };
            generics.dictionaries.entry(name.into()).or_default().push(dictionary);
        }
        for id in (0..types.len() as u32).map(TypeId) {
            let name = &types.get(id).name;
            if let Some((generic, _)) = instantiation(name) {
                generics.types.insert(short(generic).into());
                if !name.contains(SHAPE) {
                    generics.instances.entry(generic.into()).or_default().push(id);
                }
            }
        }
        generics
    }

    /// The type that a variable of `function` really has, if its own is made of shapes and the answer is certain.
    ///
    /// * `function`: a function that has code of its own here; nothing is certain about inlined ones.
    /// * `types`: the table that was read, extended or not.
    pub(super) fn resolve(&self, types: &TypeTable, function: &str, ty: TypeId) -> Option<TypeId> {
        if !types.get(ty).name.contains(SHAPE) {
            return None;
        }
        let binding = self.binding(types, function)?;
        let matcher = Matcher { types, binding: &binding, steps: Cell::new(MAX_STEPS) };
        self.concrete(&matcher, ty, 0).filter(|_| !matcher.gave_up())
    }

    /// Whether a dictionary lies at this link-time address; unknown if the symbol table is gone.
    pub(super) fn is_dictionary(&self, address: u64) -> Option<bool> {
        (!self.addresses.is_empty()).then(|| self.addresses.contains(&address))
    }

    /// What the dictionaries of shaped `function` agree on.
    fn binding(&self, types: &TypeTable, function: &str) -> Option<Binding> {
        let shaped = shaped_function(function)?;
        if shaped.around.is_some_and(|name| self.types.contains(name)) {
            return None;
        }
        let full = format!("{}{}", shaped.package, shaped.name);
        let dictionaries = self.dictionaries.get(shaped.name).map_or(&[][..], |all| all);
        let exact = dictionaries.iter().any(|d| *d.name == *full);
        let dictionaries = dictionaries.iter().filter(|d| !exact || *d.name == *full);
        let mut known: Vec<Vec<&str>> = dictionaries.map(|d| d.arguments.iter().map(|a| &**a).collect()).collect();
        let nothing = Binding::new();
        let matcher = Matcher { types, binding: &nothing, steps: Cell::new(MAX_STEPS) };
        known.retain(|arguments| matcher.all_may_be(&shaped.shapes, arguments, 0));
        if matcher.gave_up() {
            return None;
        }
        let mut binding = Binding::new();
        for shape in &shaped.shapes {
            if binding.iter().any(|(known, _)| **known == **shape) {
                continue;
            }
            // The same shape may stand for several parameters: all of them, in all instantiations, must agree.
            let same = || shaped.shapes.iter().enumerate().filter(|(_, s)| *s == shape).map(|(i, _)| i);
            let mut arguments = known.iter().flat_map(|known| same().map(|i| known[i]));
            let first = arguments.next()?;
            let concrete = if arguments.all(|other| other == first) { types.find(first) } else { None };
            binding.push(((*shape).into(), concrete));
        }
        Some(binding)
    }

    fn concrete(&self, matcher: &Matcher<'_>, ty: TypeId, depth: u32) -> Option<TypeId> {
        let types = matcher.types;
        let t = types.get(ty);
        if !t.name.contains(SHAPE) {
            return Some(ty);
        }
        if depth > MAX_DEPTH {
            return None;
        }
        let fits = |found: &TypeId| matcher.may_be(ty, *found, true, depth);
        if let Some(bound) = matcher.bound(&t.name) {
            return bound.filter(fits);
        }
        if let Some(found) = types.find(&substitute(types, &t.name, matcher.binding))
            && found != ty
            && !types.get(found).name.contains(SHAPE)
        {
            return Some(found).filter(fits);
        }
        if t.name.starts_with(SHAPE) {
            return None;
        }
        let part = |ty: TypeId| Some(&*types.get(self.concrete(matcher, ty, depth + 1)?).name);
        let name = match (instantiation(&t.name), &t.kind) {
            (Some((generic, shapes)), _) => return self.sole_instance(matcher, ty, generic, &shapes),
            (None, Kind::Pointer(elem)) => format!("*{}", part(*elem)?),
            (None, Kind::Slice(elem)) => format!("[]{}", part(*elem)?),
            (None, Kind::Array(elem, len)) => format!("[{len}]{}", part(*elem)?),
            (None, Kind::Map { key, elem, .. }) => format!("map[{}]{}", part(*key)?, part(*elem)?),
            (None, Kind::Chan { elem, .. }) => format!("chan {}", part(*elem)?),
            _ => return None,
        };
        types.find(&name).filter(fits)
    }

    /// The only instance of a generic type that `ty` may stand for.
    fn sole_instance(&self, matcher: &Matcher<'_>, ty: TypeId, generic: &str, shapes: &[&str]) -> Option<TypeId> {
        let mut candidates = self.instances.get(generic)?.iter().filter(|c| matcher.may_be(ty, **c, true, 0));
        let sole = *candidates.next()?;
        if candidates.next().is_some() {
            return None;
        }
        // A type that only dictionaries mention may have no description of its own.
        let name = &matcher.types.get(sole).name;
        let (_, arguments) = instantiation(name)?;
        let others = self.dictionaries.get(short(generic)).into_iter().flatten().filter(|d| *d.name == *generic);
        let contradicts = |d: &Dictionary| {
            !d.arguments.iter().map(|a| &**a).eq(arguments.iter().copied())
                && matcher.all_may_be(shapes, &d.arguments, 0)
        };
        (!others.into_iter().any(contradicts)).then_some(sole)
    }
}

/// Compares shapes with types.
struct Matcher<'m> {
    types: &'m TypeTable,
    binding: &'m Binding,
    /// Steps left; at 0 no answer counts.
    steps: Cell<u32>,
}

impl Matcher<'_> {
    fn gave_up(&self) -> bool {
        self.steps.get() == 0
    }

    /// What is known about the shape of this name: nothing, that it is ambiguous, or its type.
    fn bound(&self, name: &str) -> Option<Option<TypeId>> {
        self.binding.iter().find(|(shape, _)| **shape == *name).map(|(_, concrete)| *concrete)
    }

    fn all_may_be(&self, shapes: &[&str], arguments: &[impl AsRef<str>], depth: u32) -> bool {
        shapes.len() == arguments.len()
            && shapes.iter().zip(arguments).all(|(shape, argument)| self.text_may_be(shape, argument.as_ref(), depth))
    }

    /// As [`Matcher::may_be`] for type arguments; a type without description may be anything.
    fn text_may_be(&self, shape: &str, concrete: &str, depth: u32) -> bool {
        if !shape.contains(SHAPE) || shape == concrete {
            return shape == concrete;
        }
        match (self.types.find(shape), self.types.find(concrete)) {
            (Some(shape), Some(concrete)) => self.may_be(shape, concrete, false, depth + 1),
            (None, Some(concrete)) => match self.bound(shape) {
                Some(Some(bound)) => self.same(bound, concrete),
                _ => true,
            },
            _ => true,
        }
    }

    fn same(&self, a: TypeId, b: TypeId) -> bool {
        a == b || self.types.get(a).name == self.types.get(b).name
    }

    /// Whether `shape` may stand for `concrete`.
    ///
    /// * `layout`: compare the fields of instances too, not only their arguments.
    fn may_be(&self, shape: TypeId, concrete: TypeId, layout: bool, depth: u32) -> bool {
        let Some(left) = self.steps.get().checked_sub(1).filter(|_| depth <= MAX_DEPTH) else {
            self.steps.set(0);
            return false;
        };
        self.steps.set(left);
        let (s, c) = (self.types.get(shape), self.types.get(concrete));
        if !s.name.contains(SHAPE) {
            return s.name == c.name;
        }
        if s.size != c.size || std::mem::discriminant(&s.kind) != std::mem::discriminant(&c.kind) {
            return false;
        }
        if let Some(Some(bound)) = self.bound(&s.name) {
            return self.same(bound, concrete);
        }
        let underlying = s.name.strip_prefix(SHAPE);
        if underlying.is_none()
            && let Some((generic, shapes)) = instantiation(&s.name)
        {
            let Some((other, arguments)) = instantiation(&c.name) else { return false };
            return generic == other
                && self.all_may_be(&shapes, &arguments, depth)
                && (!layout || self.parts_may_be(shape, concrete, depth));
        }
        match underlying {
            // All pointers have this shape where the constraint has no methods or types of its own.
            Some("*uint8") => true,
            // Named numbers have the shape of their underlying type, which DWARF does not name.
            Some(underlying) if s.kind == Kind::Scalar => is_named(&c.name) || *c.name == *underlying,
            _ => self.parts_may_be(shape, concrete, depth),
        }
    }

    fn parts_may_be(&self, shape: TypeId, concrete: TypeId, depth: u32) -> bool {
        let behind = |s: TypeId, c: TypeId| self.may_be(s, c, false, depth + 1);
        match (&self.types.get(shape).kind, &self.types.get(concrete).kind) {
            (Kind::Pointer(s), Kind::Pointer(c)) | (Kind::Slice(s), Kind::Slice(c)) => behind(*s, *c),
            (Kind::Chan { elem: s, .. }, Kind::Chan { elem: c, .. }) => behind(*s, *c),
            (Kind::Map { key: sk, elem: s, .. }, Kind::Map { key: ck, elem: c, .. }) => {
                behind(*sk, *ck) && behind(*s, *c)
            }
            (Kind::Array(s, sn), Kind::Array(c, cn)) => sn == cn && self.may_be(*s, *c, true, depth + 1),
            (Kind::Struct(s), Kind::Struct(c)) => {
                let same = |(s, c): (&Field, &Field)| {
                    let name = |f: &Field| f.name.rsplit('.').next().map(str::to_owned);
                    s.offset == c.offset && name(s) == name(c) && self.may_be(s.ty, c.ty, true, depth + 1)
                };
                s.len() == c.len() && s.iter().zip(c).all(same)
            }
            // Their names say no more than that.
            _ => true,
        }
    }
}

/// `Name` of `pkg/path.Name`.
fn short(name: &str) -> &str {
    &name[name.rfind('.').map_or(0, |dot| dot + 1)..]
}

/// Whether this is the name of a declared type, not of a predeclared one.
fn is_named(name: &str) -> bool {
    name.contains('.')
}

/// `name` with the bound shapes replaced by what stands for them.
fn substitute(types: &TypeTable, name: &str, binding: &Binding) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    'next: while let Some(first) = rest.chars().next() {
        // The longest first: `go.shape.func()` begins `go.shape.func() int`.
        let mut best: Option<(&str, TypeId)> = None;
        for (shape, concrete) in binding {
            if let Some(concrete) = concrete
                && let Some(behind) = rest.strip_prefix(&**shape)
                && ends_here(behind)
                && best.is_none_or(|(known, _)| known.len() < shape.len())
            {
                best = Some((shape, *concrete));
            }
        }
        if let Some((shape, concrete)) = best
            && starts_here(&out)
        {
            out.push_str(&types.get(concrete).name);
            rest = &rest[shape.len()..];
            continue 'next;
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// Whether a type's name may begin behind this text.
fn starts_here(before: &str) -> bool {
    !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '/' | '%' | '-'))
}

/// Whether a type's name ends where this text follows.
fn ends_here(behind: &str) -> bool {
    behind.is_empty() || behind.starts_with([',', ';', ']', ')', '}']) || behind.starts_with(" }")
}

/// Generic name and type arguments of `pkg/path.Name[arguments]` or `Name[arguments]`; none for other types' names.
fn instantiation(name: &str) -> Option<(&str, Vec<&str>)> {
    let open = name.find('[')?;
    let generic = &name[..open];
    let is_name = !generic.is_empty() && generic != "map" && !generic.contains([' ', '*', '(', '<', '{']);
    // The compiler's own: `map.group[K]V`.
    let is_declared = !generic.starts_with("map.") && !generic.starts_with("noalg.") && !generic.starts_with(SHAPE);
    if !is_name || !is_declared || matching(name, open)? + 1 != name.len() {
        return None;
    }
    Some((generic, arguments(&name[open + 1..name.len() - 1])))
}

/// What the name of a function's code says about the shapes in it.
#[derive(Debug, PartialEq, Eq)]
struct Shaped<'n> {
    /// Package, with the functions around it if it was inlined there, and the dot.
    package: &'n str,
    /// Name of the generic function, or of the type that it is a method of.
    name: &'n str,
    shapes: Vec<&'n str>,
    /// Name of what stands before it if that is shaped: a function around it, or the receiver of a method with type parameters
    /// of its own, which has another dictionary.
    around: Option<&'n str>,
}

/// The innermost shaped function of a name: in `p.main.(*T[go.shape.int]).All.func1` it is `p.main.` `T`.
fn shaped_function(function: &str) -> Option<Shaped<'_>> {
    let (mut from, mut groups) = (0, Vec::new());
    while let Some(open) = function[from..].find('[').map(|i| from + i) {
        let close = matching(function, open)?;
        groups.push((open, close));
        from = close + 1;
    }
    let (open, close) = groups.pop()?;
    let shapes = &function[open + 1..close];
    if !shapes.contains(SHAPE) {
        return None;
    }
    let name_before = |open: usize| function[..open].rfind(['.', '*', '(']).map_or(0, |i| i + 1);
    let start = name_before(open);
    let package = function[..start].trim_end_matches(['(', '*']);
    let around = groups.pop().filter(|_| package.ends_with("].") || package.ends_with("])."));
    Some(Shaped {
        package,
        name: &function[start..open],
        shapes: arguments(shapes),
        around: around.map(|(open, _)| &function[name_before(open)..open]),
    })
}

/// Where the bracket that opens at `open` closes.
fn matching(text: &str, open: usize) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0u32, false, false);
    for (i, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' if !quoted => depth += 1,
            b']' if !quoted => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// Splits type arguments; behind a semicolon stand those of the type itself, before it those of the function around it.
fn arguments(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut depth, mut quoted, mut escaped, mut from) = (0u32, false, false, 0);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'(' | b'{' => depth += 1,
            b']' | b')' | b'}' => depth = depth.saturating_sub(1),
            b',' | b';' if depth == 0 => {
                all.push(&text[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    all.push(&text[from..]);
    all
}

#[cfg(test)]
mod tests;
