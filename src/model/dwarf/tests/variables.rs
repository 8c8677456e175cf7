//! Variables by PC and closure layouts.

use super::each;
use crate::model::dwarf::{DebugInfo, LocalVariable, Location};
use std::collections::BTreeSet;

/// Entry and end of the function `name`.
fn function(info: &DebugInfo<'_>, name: &str) -> Option<(u64, u64)> {
    let found = info.functions.iter().find(|f| info.function_name(f.low_pc) == Some(name))?;
    Some((found.low_pc, found.high_pc))
}

/// All states of the variables of the function `name`, at any of its PCs.
fn states(info: &DebugInfo<'_>, name: &str) -> Vec<(u64, LocalVariable)> {
    let (low, high) = function(info, name).unwrap_or_else(|| panic!("no function {name}"));
    (low..high).flat_map(|pc| info.variables_at(pc).iter().map(move |v| (pc, v.clone())).collect::<Vec<_>>()).collect()
}

fn type_name<'d>(info: &'d DebugInfo<'_>, variable: &LocalVariable) -> &'d str {
    &info.types.get(variable.ty).name
}

#[test]
fn parameters_come_first_in_order() {
    each(|program, info| {
        let (low, high) = function(info, "main.block").unwrap();
        let at_entry = info.variables_at(low);
        let params: Vec<&str> = at_entry.iter().filter(|v| v.is_param).map(|v| &*v.name).collect();
        assert_eq!(params, ["x", "n", "s", "~r0"]);
        assert!(at_entry.iter().all(|v| &*v.function == "main.block"));
        let x = &at_entry[0];
        assert_eq!(type_name(info, x), "*main.Embedded");
        // The register ABI passes the first integer argument in RAX (DWARF register 0).
        assert_eq!(x.pieces.len(), 1);
        assert!(!program.optimised || x.pieces[0].at == Location::Register(0), "{:?}", x.pieces);
        assert_eq!(info.function_name(low), Some("main.block"));
        assert_eq!(info.function_name(high - 1), Some("main.block"));
        assert_ne!(info.function_name(high), Some("main.block"));
    });
}

#[test]
fn strings_are_in_two_pieces_or_one() {
    each(|program, info| {
        let states = states(info, "main.block");
        let s: BTreeSet<usize> = states.iter().filter(|(_, v)| &*v.name == "s").map(|(_, v)| v.pieces.len()).collect();
        assert!(s.contains(&if program.optimised { 2 } else { 1 }), "{s:?}");
        for (_, variable) in &states {
            let end = variable.pieces.iter().map(|p| p.offset + p.size).max().unwrap_or(0);
            assert!(end <= info.types.get(variable.ty).size, "{variable:?}");
        }
    });
}

#[test]
fn blocks_are_deeper_and_not_always_in_scope() {
    each(|_, info| {
        let (low, high) = function(info, "main.block").unwrap();
        let has_inner = |pc| info.variables_at(pc).iter().any(|v| &*v.name == "inner" && v.depth == 1);
        let with = (low..high).filter(|&pc| has_inner(pc)).count() as u64;
        assert!(with > 0 && with < high - low, "{with} of {}", high - low);
        for pc in low..high {
            assert!(info.variables_at(pc).is_sorted_by_key(|v| v.depth));
        }
    });
}

#[test]
fn escaped_variables_lie_behind_their_address() {
    each(|_, info| {
        let states = states(info, "main.block");
        let address = states.iter().find(|(_, v)| &*v.name == "&escaped" && !v.pieces.is_empty());
        let value = states
            .iter()
            .find(|(_, v)| &*v.name == "escaped" && v.pieces.iter().any(|p| matches!(p.at, Location::CfaDeref(_))));
        // Before Go 1.25 only the pointer variable, since then also the value through a dereference.
        assert!(address.is_some() || value.is_some());
        if let Some((_, variable)) = address {
            assert_eq!(type_name(info, variable), "*int");
        }
        if let Some((_, variable)) = value {
            assert_eq!(type_name(info, variable), "int");
        }
    });
}

#[test]
fn inlined_calls_name_their_own_function() {
    each(|program, info| {
        let states = states(info, "main.caller");
        let sum = states.iter().find(|(_, v)| &*v.name == "sum");
        if !program.optimised {
            assert!(sum.is_none(), "nothing is inlined without optimisation");
            return;
        }
        let (_, sum) = sum.expect("a variable of the inlined call");
        assert_eq!((&*sum.function, sum.depth, sum.is_param), ("main.inlined", 1, true));
        assert_eq!(type_name(info, sum), "int");
        let (_, list) = states.iter().find(|(_, v)| &*v.name == "list").expect("the inlined call's parameter");
        assert!(list.is_param && &*list.function == "main.inlined" && list.depth == 1);
        let (_, e) = states.iter().find(|(_, v)| &*v.name == "e").unwrap();
        assert_eq!((&*e.function, e.depth), ("main.caller", 0));
    });
}

#[test]
fn generic_code_says_where_the_dictionary_has_the_type() {
    each(|_, info| {
        let states = states(info, "main.generic[go.shape.*uint8]");
        let find = |name: &str| states.iter().map(|(_, v)| v).find(|v| &*v.name == name);
        let v = find("v").unwrap();
        // The only instantiation of that shape.
        assert_eq!(type_name(info, v), "*main.Inner");
        assert!(v.dict_index.is_some());
        let (p, w) = (find("p").unwrap(), find("w").unwrap());
        let distinct: BTreeSet<_> = [v, p, w].iter().map(|v| v.dict_index.unwrap()).collect();
        assert_eq!(distinct.len(), 3);
        if let Some(dict) = find(".dict") {
            assert!(dict.is_param && dict.dict_index.is_none());
            assert!(type_name(info, dict).ends_with("]uintptr"));
        }
    });
}

#[test]
fn closures_list_their_captures() {
    each(|program, info| {
        let layout = |name: &str| {
            let (entry, _) = function(info, name)?;
            let layout = info.closure_layout(&info.types, entry).unwrap();
            assert_eq!(&*layout.function, name);
            let capture = |c: &(Box<str>, u64, _)| format!("{} {} {}", c.0, c.1, info.types.get(c.2).name);
            Some(layout.captures_in(&info.types, 64).iter().map(capture).collect::<Vec<_>>())
        };
        assert_eq!(
            layout("main.block.func1").unwrap(),
            ["&escaped 8 *int", "local 16 *main.Inner", "s 24 string", "x 40 *main.Embedded"]
        );
        let by_value = layout("main.byValue.func1").unwrap();
        assert_eq!(by_value[..2], ["n 8 int", "s 16 string"]);
        // An optimised body that needs one element of an array says nothing about the array.
        assert_eq!(by_value.get(2).map(String::as_str), (!program.optimised).then_some("e 32 [2]main.Inner"));
        let captures = layout("main.generic[go.shape.*uint8].func1").unwrap();
        // `Pair[int,*Inner]` and `Pair[Num,*Inner]` have this shape, and nothing says which it is.
        assert_eq!(captures[0], "p 8 *main.Pair[go.shape.int,go.shape.*uint8]");
        assert_eq!(captures[1], "w 16 []*main.Inner");
        assert!(layout("main.sink").unwrap().is_empty());
        let (entry, _) = function(info, "main.block").unwrap();
        assert_eq!(info.closure_layout(&info.types, entry + 1), None);
        assert_eq!(info.closure_layout(&info.types, 0), None);
    });
}

#[test]
fn parts_of_a_variable_have_its_name() {
    each(|program, info| {
        let states = states(info, "main.generic[go.shape.*uint8].func1");
        let dotted = |v: &LocalVariable| v.name.find('.').is_some_and(|dot| dot > 0);
        assert!(!states.iter().any(|(_, v)| dotted(v)));
        let w =
            states.iter().filter(|(_, v)| &*v.name == "w").map(|(_, v)| type_name(info, v)).collect::<BTreeSet<_>>();
        assert!(w.contains("[]*main.Inner"));
        assert!(program.optimised || w.len() == 1, "{w:?}");
    });
}

#[test]
fn every_function_can_be_read() {
    each(|_, info| {
        for f in &info.functions {
            assert!(info.function_name(f.low_pc).is_some(), "{:#x}", f.low_pc);
            let middle = f.low_pc + (f.high_pc - f.low_pc) / 2;
            for variable in info.variables_at(middle).iter() {
                assert!(!variable.function.is_empty());
            }
        }
        assert!(info.variables_at(0).is_empty() && info.variables_at(u64::MAX).is_empty());
    });
}
