//! Names as the compiler writes them, and what certain and uncertain evidence leads to.

use super::*;
use crate::model::types::Type;

/// A program with `Memo`, `Tree` and types to put into them.
#[derive(Default)]
struct Program {
    types: TypeTable,
    dictionaries: Vec<String>,
}

impl Program {
    fn new() -> Self {
        let mut program = Self::default();
        for (name, size) in [("int", 8), ("float64", 8), ("main.ID", 8), ("go.shape.int", 8), ("go.shape.float64", 8)] {
            program.add(name, size, Kind::Scalar);
        }
        program.add("string", 16, Kind::String);
        program.add("go.shape.string", 16, Kind::String);
        program.add("uint8", 1, Kind::Scalar);
        program.pointer("uint8");
        let byte = program.id("uint8");
        program.add("go.shape.*uint8", 8, Kind::Pointer(byte));
        for name in ["main.A", "main.B"] {
            let field = program.field("name", 0, "string");
            program.add(name, 16, Kind::Struct(vec![field]));
            program.pointer(name);
        }
        for (key, value) in [("go.shape.int", "go.shape.*uint8"), ("int", "*main.A"), ("int", "*main.B")] {
            program.map(key, value);
        }
        for arguments in ["go.shape.int,go.shape.*uint8", "int,*main.A"] {
            program.node(arguments);
        }
        program
    }

    fn id(&self, name: &str) -> TypeId {
        self.types.find(name).unwrap_or_else(|| panic!("no type {name}"))
    }

    fn add(&mut self, name: &str, size: u64, kind: Kind) -> TypeId {
        self.types.push(Type { name: name.into(), size, kind, rtype_offset: 0 })
    }

    fn pointer(&mut self, elem: &str) -> TypeId {
        let elem_id = self.id(elem);
        self.add(&format!("*{elem}"), 8, Kind::Pointer(elem_id))
    }

    fn map(&mut self, key: &str, elem: &str) {
        let kind = Kind::Map { key: self.id(key), elem: self.id(elem), header: None };
        self.add(&format!("map[{key}]{elem}"), 8, kind);
    }

    fn field(&self, name: &str, offset: u64, ty: &str) -> Field {
        Field { name: name.into(), offset, ty: self.id(ty) }
    }

    /// `main.node[K,V]{k K; v V; next *main.node[K,V]}`, and the pointer to it.
    fn node(&mut self, arguments: &str) {
        let (key, value) = arguments.split_once(',').expect("two arguments");
        let name = format!("main.node[{arguments}]");
        let id = self.types.push_forward();
        let pointer = self.add(&format!("*{name}"), 8, Kind::Pointer(id));
        let next = Field { name: "next".into(), offset: 16, ty: pointer };
        let fields = vec![self.field("k", 0, key), self.field("v", 8, value), next];
        self.types.set(id, Type { name: name.into(), size: 24, kind: Kind::Struct(fields), rtype_offset: 0 });
    }

    fn dictionary(&mut self, symbol: &str) {
        self.dictionaries.push(symbol.into());
    }

    /// The name of what a variable of `function` with the type `ty` has.
    fn resolve(&self, function: &str, ty: &str) -> Option<&str> {
        let generics =
            Generics::read(self.dictionaries.iter().zip(1..).map(|(s, i)| (s.as_bytes(), i * 64)), &self.types);
        let found = generics.resolve(&self.types, function, self.id(ty))?;
        Some(&self.types.get(found).name)
    }
}

fn may_be(types: &TypeTable, shape: TypeId, concrete: TypeId) -> bool {
    let binding = Binding::new();
    let matcher = Matcher { types, binding: &binding, steps: Cell::new(MAX_STEPS) };
    matcher.may_be(shape, concrete, true, 0) && !matcher.gave_up()
}

const MEMO: &str = "main.Memo[go.shape.int,go.shape.*uint8].func1";
const MAP: &str = "map[go.shape.int]go.shape.*uint8";
const NODE: &str = "*main.node[go.shape.int,go.shape.*uint8]";

#[test]
fn names() {
    assert_eq!(
        instantiation("a/b%2ec.T[int,map[string][]x.Y[z]]"),
        Some(("a/b%2ec.T", vec!["int", "map[string][]x.Y[z]"]))
    );
    assert_eq!(instantiation("T[func(a, b),struct { A int; B string \"x:\\\"]\\\"\" };int]").unwrap().1.len(), 3);
    for name in
        ["map[int]string", "[]int", "*main.T[int]", "main.T", "func() x.T[int]", "map.group[int]x.T[int]", "T[int"]
    {
        assert_eq!(instantiation(name), None, "{name}");
    }
    for (name, package, function, around) in [
        ("p.F[go.shape.int]", "p.", "F", None),
        ("p.(*T[go.shape.int]).M.func1.2", "p.", "T", None),
        ("p.T[go.shape.int].M", "p.", "T", None),
        ("p.main.F[go.shape.int].func1-range2", "p.main.", "F", None),
        ("p.g.func1.g.func1.(*T[go.shape.[]int]).M.1.2", "p.g.func1.g.func1.", "T", None),
        ("p.G[go.shape.int].F[go.shape.int].func1", "p.G[go.shape.int].", "F", Some("G")),
        ("p.(*T[go.shape.int]).F[go.shape.int]", "p.(*T[go.shape.int]).", "F", Some("T")),
        ("p.G[go.shape.int].func1.F[go.shape.int]", "p.G[go.shape.int].func1.", "F", None),
    ] {
        let shaped = shaped_function(name).expect(name);
        assert_eq!((shaped.package, shaped.name, shaped.around), (package, function, around), "{name}");
    }
    for name in ["p.F", "p.F[int]", "p.F[go.shape.int", "]p[", ""] {
        assert_eq!(shaped_function(name), None, "{name}");
    }
}

#[test]
fn one_dictionary_is_certain() {
    let mut program = Program::new();
    assert_eq!(program.resolve(MEMO, MAP), None);
    program.dictionary("main..dict.Memo[int,*main.A]");
    for function in [MEMO, "main.Memo[go.shape.int,go.shape.*uint8]", "x.y.Memo[go.shape.int,go.shape.*uint8].func9"] {
        assert_eq!(program.resolve(function, MAP), Some("map[int]*main.A"));
        assert_eq!(program.resolve(function, "go.shape.*uint8"), Some("*main.A"));
        assert_eq!(program.resolve(function, "int"), None);
    }
    assert_eq!(program.resolve("main.main", MAP), None);
    assert_eq!(program.resolve("main.Other[go.shape.int,go.shape.*uint8]", MAP), None);
}

#[test]
fn arguments_of_other_shapes_do_not_count() {
    let mut program = Program::new();
    program.dictionary("main..dict.Memo[int,*main.A]");
    program.dictionary("main..dict.Memo[float64,*main.B]");
    program.dictionary("main..dict.Memo[int,string]");
    program.dictionary("main..dict.Memo[int]");
    assert_eq!(program.resolve(MEMO, MAP), Some("map[int]*main.A"));
    // Nor does a function of the same name in another package, if this one's is known.
    program.dictionary("other..dict.Memo[int,*main.B]");
    assert_eq!(program.resolve(MEMO, MAP), Some("map[int]*main.A"));
    // The name of an inlined function's closure lacks the package.
    assert_eq!(program.resolve("main.f.Memo[go.shape.int,go.shape.*uint8].func1", MAP), None);
}

#[test]
fn two_arguments_of_one_shape_stay_open() {
    let mut program = Program::new();
    program.dictionary("main..dict.Memo[int,*main.A]");
    program.dictionary("main..dict.Memo[int,*main.B]");
    assert_eq!(program.resolve(MEMO, MAP), None);
    assert_eq!(program.resolve(MEMO, "go.shape.*uint8"), None);
    assert_eq!(program.resolve(MEMO, "go.shape.int"), Some("int"));
    // Also within one instantiation.
    let mut program = Program::new();
    program.dictionary("main..dict.Two[*main.A,*main.B]");
    assert_eq!(program.resolve("main.Two[go.shape.*uint8,go.shape.*uint8]", "go.shape.*uint8"), None);
    // A type that nothing describes may be of any shape.
    let mut program = Program::new();
    program.dictionary("main..dict.Memo[int,*main.A]");
    program.dictionary("main..dict.Memo[main.ID,*main.Unknown]");
    assert_eq!(program.resolve(MEMO, MAP), None);
}

#[test]
fn instances_of_generic_types() {
    let function = "main.(*Tree[go.shape.int,go.shape.*uint8]).All.func1";
    let mut program = Program::new();
    // Types alone prove nothing.
    assert_eq!(program.resolve(function, NODE), None);
    program.dictionary("main..dict.Tree[int,*main.A]");
    assert_eq!(program.resolve(function, NODE), Some("*main.node[int,*main.A]"));
    program.node("int,*main.B");
    assert_eq!(program.resolve(function, NODE), Some("*main.node[int,*main.A]"));
    program.dictionary("main..dict.Tree[int,*main.B]");
    assert_eq!(program.resolve(function, NODE), None);

    // Behind a shape that is no argument of the function: the only instance that fits what is known.
    let mut program = Program::new();
    program.dictionary("main..dict.Outer[*main.A]");
    let inner = program.types.push(Type {
        name: "go.shape.struct { main.p go.shape.*uint8 }".into(),
        size: 8,
        kind: Kind::Struct(vec![program.field("p", 0, "go.shape.*uint8")]),
        rtype_offset: 0,
    });
    for elem in ["main.A", "main.B"] {
        let fields = vec![program.field("p", 0, &format!("*{elem}"))];
        program.add(&format!("main.Box[*{elem}]"), 8, Kind::Struct(fields));
        let fields = vec![program.field("v", 0, &format!("main.Box[*{elem}]"))];
        program.add(&format!("main.Opt[main.Box[*{elem}]]"), 8, Kind::Struct(fields));
    }
    let name = format!("main.Opt[{}]", program.types.get(inner).name);
    program.add(&name, 8, Kind::Struct(vec![Field { name: "v".into(), offset: 0, ty: inner }]));
    assert_eq!(program.resolve("main.Outer[go.shape.*uint8]", &name), Some("main.Opt[main.Box[*main.A]]"));
    program.dictionary("main..dict.Outer[*main.B]");
    assert_eq!(program.resolve("main.Outer[go.shape.*uint8]", &name), None);
}

#[test]
fn methods_of_generic_types_with_parameters_of_their_own() {
    let mut program = Program::new();
    program.dictionary("main..dict.Map[int]");
    assert_eq!(program.resolve("main.f[go.shape.int].Map[go.shape.int].func1", "go.shape.int"), Some("int"));
    assert_eq!(program.resolve("main.(*node[go.shape.int,x]).Map[go.shape.int]", "go.shape.int"), None);
}

#[test]
fn other_structure_is_not_named() {
    let mut program = Program::new();
    let fields =
        vec![program.field("k", 0, "int"), program.field("v", 8, "*main.A"), program.field("other", 16, "int")];
    let id = program.id("main.node[int,*main.A]");
    program
        .types
        .set(id, Type { name: "main.node[int,*main.A]".into(), size: 24, kind: Kind::Struct(fields), rtype_offset: 0 });
    let shape = program.id("main.node[go.shape.int,go.shape.*uint8]");
    assert!(!may_be(&program.types, shape, id));
    program.dictionary("main..dict.f[int,*main.A]");
    let function = "main.f[go.shape.int,go.shape.*uint8]";
    assert_eq!(program.resolve(function, "main.node[go.shape.int,go.shape.*uint8]"), None);
}

#[test]
fn addresses_of_dictionaries() {
    let symbols = [(&b"main..dict.F[int]"[..], 64), (b"main.F", 128), (b"p..dict.T[int].M[int]", 192)];
    let generics = Generics::read(symbols.into_iter(), &TypeTable::default());
    assert_eq!([64, 128, 192].map(|a| generics.is_dictionary(a)), [true, false, true].map(Some));
    assert_eq!(Generics::default().is_dictionary(64), None);
}

#[test]
fn endless_types_end() {
    let mut types = TypeTable::default();
    let mut ids = Vec::new();
    for name in ["go.shape.struct { x }", "main.X"] {
        let id = types.push_forward();
        let fields = (0..100)
            .map(|i| {
                let pointer = types.push(Type {
                    name: format!("go.shape.{name}{i}").into(),
                    size: 8,
                    kind: Kind::Pointer(id),
                    rtype_offset: 0,
                });
                Field { name: "f".into(), offset: i * 8, ty: pointer }
            })
            .collect();
        types.set(id, Type { name: name.into(), size: 800, kind: Kind::Struct(fields), rtype_offset: 0 });
        ids.push(id);
    }
    assert!(!may_be(&types, ids[0], ids[1]));
}
