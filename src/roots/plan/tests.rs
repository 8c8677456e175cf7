//! Plans of a hand-made frame.

use super::*;
use crate::architecture::{AMD64, ARM64};
use crate::model::stacks::{Role, StackMaps};
use crate::model::types::Type;

/// A frame of six local words `[-64, -16)` and three of arguments; live are the given CFA offsets.
fn code(live: &[i64], objects: Vec<StackObject>) -> FrameCode {
    let mut maps = StackMaps { locals: Bits::zeros(6), locals_offset: -64, args: Bits::zeros(3), objects };
    for offset in live {
        match offset {
            0.. => maps.args.set((offset / 8) as usize, true),
            _ => maps.locals.set(((offset + 64) / 8) as usize, true),
        }
    }
    let geometry = FrameCode::with_geometry(&AMD64, Role::Normal, Some(56));
    FrameCode { pc: 100, name: "main.f".into(), entry: 50, arg_words: Some(3), maps, ..geometry }
}

fn variable(name: &str, ty: TypeId, depth: u32, pieces: &[Piece]) -> LocalVariable {
    let (function, package, name) = ("main.f".into(), "main".into(), name.into());
    LocalVariable { function, package, name, ty, is_param: false, dict_index: None, depth, pieces: pieces.to_vec() }
}

fn at(offset: u64, size: u64, at: i64) -> Piece {
    Piece { offset, size, at: Location::Cfa(at) }
}

struct Types {
    table: TypeTable,
    int: TypeId,
    pointer: TypeId,
    slice: TypeId,
    eface: TypeId,
}

fn types() -> Types {
    let mut table = TypeTable::default();
    let mut add = |name: &str, size, kind| table.push(Type { name: name.into(), size, kind, rtype_offset: 0 });
    let int = add("int", 8, Kind::Scalar);
    let pointer = add("*int", 8, Kind::Pointer(int));
    let slice = add("[]*int", 24, Kind::Slice(pointer));
    let eface = add("interface {}", 16, Kind::Eface);
    Types { table, int, pointer, slice, eface }
}

fn run(offset: i64, nwords: u32) -> Run {
    Run { offset, nwords, lost: None }
}

fn names(plan: &Plan) -> Vec<(&str, i64)> {
    plan.variables.iter().map(|v| (&*v.name.text, v.offset)).collect()
}

#[test]
fn live_words_get_one_name_dead_ones_none() {
    let t = types();
    let code = code(&[-64, -56, -16 - 8], Vec::new());
    let variables = [
        variable("dead", t.pointer, 0, &[at(0, 8, -48)]),
        variable("outer", t.pointer, 0, &[at(0, 8, -64)]),
        variable("inner", t.pointer, 1, &[at(0, 8, -64)]),
        variable("&x", t.pointer, 0, &[at(0, 8, -56)]),
        variable("n", t.int, 0, &[at(0, 8, -24)]),
    ];
    let plan = build(&AMD64, &code, Some(&code), FrameMode::Exact, &variables, &[], &t.table);
    assert_eq!(names(&plan), [("main.f.inner", -64), ("main.f.x", -56)]);
    assert_eq!(plan.unnamed, [run(-24, 1)], "an int names no pointer");
}

#[test]
fn nothing_is_live_where_the_frame_never_continues() {
    let t = types();
    let code = code(&[-64], Vec::new());
    let variables = [variable("v", t.pointer, 0, &[at(0, 8, -64)])];
    let plan = build(&AMD64, &code, None, FrameMode::Trapped, &variables, &[], &t.table);
    assert_eq!((plan.variables.len(), plan.unnamed.len()), (0, 0));
}

#[test]
fn split_values_are_put_together() {
    let t = types();
    let code = code(&[-64, -40], Vec::new());
    let variables = [
        variable("s", t.slice, 0, &[at(0, 8, -64), at(8, 8, -32), Piece { offset: 16, size: 8, at: Location::Gone }]),
        // DWARF shows the lone data word as if it were the whole interface.
        variable("e", t.eface, 0, &[at(0, 16, -40)]),
    ];
    let plan = build(&AMD64, &code, Some(&code), FrameMode::Exact, &variables, &[], &t.table);
    let [s, e] = &*plan.variables else { panic!("{plan:?}") };
    let part = |word, nwords, offset| Part { word, nwords, from: Source::Frame(offset) };
    assert_eq!(
        s.parts,
        [part(0, 1, -64), part(1, 1, -32), part(2, 1, -32)],
        "the capacity is gone: the length bounds it"
    );
    assert_eq!((s.ty, s.extent_of), (Some(t.slice), Some(8)));
    assert_eq!((&*e.parts, e.ty, e.live.ones().collect::<Vec<_>>()), (&[part(1, 1, -40)][..], None, vec![1]));
    assert!(plan.unnamed.is_empty());
}

#[test]
fn spilled_arguments_take_the_parameters_name() {
    let t = types();
    let code = code(&[8], Vec::new());
    let mut params = [variable("n", t.int, 0, &[]), variable("p", t.pointer, 0, &[]), variable("q", t.pointer, 0, &[])];
    params.iter_mut().for_each(|p| p.is_param = true);
    params[1].pieces = vec![Piece { offset: 0, size: 8, at: Location::Register(3) }];
    let plan = build(&AMD64, &code, Some(&code), FrameMode::Exact, &params, &[], &t.table);
    assert_eq!(names(&plan), [("main.f.p", 8)]);
}

#[test]
fn stack_objects_are_named_by_what_lies_there() {
    let t = types();
    let object = |offset| StackObject { offset, size: 24, mask: Bits::from_bytes(&[1], 3) };
    let code = code(&[], vec![object(-64), object(-40)]);
    let variables = [variable("s", t.slice, 0, &[at(0, 24, -64)])];
    let plan = build(&AMD64, &code, Some(&code), FrameMode::Exact, &variables, &[], &t.table);
    let found: Vec<_> = plan.objects.iter().map(|o| o.name.as_ref().map(|(n, ty)| (&*n.text, *ty))).collect();
    assert_eq!(found, [Some(("main.f.s", t.slice)), None]);
    let plan = build(&AMD64, &code, Some(&code), FrameMode::Conservative, &variables, &[], &t.table);
    assert_eq!((plan.objects.len(), &*plan.unnamed), (0, &[run(-56, 5), run(0, 3)][..]), "{plan:?}");
}

/// The word above `asyncPreempt` is the link register of what it interrupted.
#[test]
fn injected_calls_of_arm64_are_scanned_to_behind_the_link_register() {
    let t = types();
    let frame = |machine, role| FrameCode {
        name: "runtime.asyncPreempt".into(),
        arg_words: Some(0),
        ..FrameCode::with_geometry(machine, role, Some(32))
    };
    let unnamed = |machine, role| {
        let code = frame(machine, role);
        build(machine, &code, Some(&code), FrameMode::Conservative, &[], &[], &t.table).unnamed
    };
    assert_eq!(unnamed(&ARM64, Role::Injected), [run(-32, 5)], "with the frame pointer between");
    assert_eq!(unnamed(&ARM64, Role::Normal), [run(-32, 3)]);
    assert_eq!(unnamed(&AMD64, Role::Injected), [run(-40, 3)]);
}

#[test]
fn variables_without_a_place_explain_what_has_none() {
    let t = types();
    let object = StackObject { offset: -40, size: 24, mask: Bits::from_bytes(&[7], 3) };
    let code = code(&[-64, -56], vec![object]);
    let build = |variables: &[LocalVariable]| {
        let plan = build(&AMD64, &code, Some(&code), FrameMode::Exact, variables, &[], &t.table);
        let text = |lost: &Option<Lost>| {
            let lost = lost.as_ref()?;
            Some((lost.name.as_ref().map(|name| name.text.to_string()), lost.referent))
        };
        let [run] = &*plan.unnamed else { panic!("{plan:?}") };
        (text(&run.lost), text(&plan.objects[0].lost))
    };
    let elements = Referent::Elements(t.pointer);
    let one = build(&[variable("s", t.slice, 0, &[]), variable("n", t.int, 0, &[])]);
    let named = Some((Some("main.f.s".to_owned()), elements));
    assert_eq!(one, (named.clone(), named));
    let two = build(&[variable("s", t.slice, 0, &[]), variable("r", t.slice, 1, &[])]);
    assert_eq!(two, (Some((None, elements)), Some((None, elements))), "the type is known, the name is not");
    // A variable that has a place is not lost, and a single pointer fills neither.
    let none = build(&[variable("s", t.slice, 0, &[at(0, 24, 0)]), variable("p", t.pointer, 0, &[])]);
    assert_eq!(none, (None, None));
}
