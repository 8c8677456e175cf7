//! Types, package variables and constants.

use super::{each, fields, named};
use crate::model::dwarf::DebugInfo;
use crate::model::types::Kind;

#[test]
fn nothing_is_damaged() {
    each(|_, info| assert!(info.incidents.is_empty(), "{:?}", info.incidents));
}

#[test]
fn struct_layout_is_as_written() {
    each(|_, info| {
        assert_eq!(fields(info, "main.Inner"), "A 0 int, B 8 *string");
        assert_eq!(
            fields(info, "main.Embedded"),
            "Inner 0 main.Inner, Mutex 16 *sync.Mutex, Name 24 string, List 40 []main.Inner, Any 64 interface {}, \
             Err 80 error, F 96 func(int) string, M 104 map[string]*main.Inner, C 112 chan main.Inner, \
             Arr 120 [3]main.Inner, Up 168 uintptr, Complex 176 complex128, Flag 192 bool, _ 200 [0]func(), \
             Next 200 *main.Embedded"
        );
        assert_eq!(named(info, "main.Embedded").size, 208);
        assert_eq!(fields(info, "main.Pair[string,*main.Inner]"), "Key 0 string, Val 16 *main.Inner");
        assert_eq!(info.types.field_path(info.types.find("main.Embedded").unwrap(), "Inner.B").unwrap().0, 8);
        assert_eq!(info.types.field_path(info.types.find("main.Embedded").unwrap(), "Inner.Missing"), None);
    });
}

#[test]
fn kinds() {
    each(|_, info| {
        let kind = |name: &str| named(info, name).kind.clone();
        let find = |name: &str| info.types.find(name).unwrap();
        assert_eq!(kind("int"), Kind::Scalar);
        assert_eq!(kind("main.Num"), Kind::Scalar);
        assert_eq!(kind("uintptr"), Kind::Scalar);
        assert_eq!(kind("unsafe.Pointer"), Kind::UnsafePointer);
        assert_eq!(kind("string"), Kind::String);
        assert_eq!(kind("[]main.Inner"), Kind::Slice(find("main.Inner")));
        assert_eq!(kind("main.Names"), Kind::Slice(find("string")));
        assert_eq!(kind("[3]main.Inner"), Kind::Array(find("main.Inner"), 3));
        assert_eq!(kind("*main.Embedded"), Kind::Pointer(find("main.Embedded")));
        assert_eq!(kind("interface {}"), Kind::Eface);
        assert_eq!(kind("error"), Kind::Iface);
        assert_eq!(kind("func(int) string"), Kind::Func);
        assert!(matches!(kind("runtime.eface"), Kind::Struct(_)));
        // A named type is one entry: what a variable refers to is what the name finds.
        let global = info.variables.iter().find(|v| &*v.name == "main.global").unwrap();
        assert_eq!(global.ty, find("main.Embedded"));
    });
}

#[test]
fn maps_and_channels_reach_their_storage() {
    each(|_, info| {
        let types = &info.types;
        let Kind::Map { key, elem, header } = named(info, "main.MyMap").kind else { panic!("MyMap is no map") };
        assert_eq!((&*types.get(key).name, &*types.get(elem).name), ("main.Num", "main.Names"));
        let header = header.expect("a header");
        assert_eq!(&*types.get(header).name, "map<main.Num,main.Names>");
        let pointee = |id| match types.get(id).kind {
            Kind::Pointer(to) => to,
            ref other => panic!("{} is {other:?}, not a pointer", types.get(id).name),
        };
        let (_, directory) = types.field_path(header, "dirPtr").unwrap();
        let table = pointee(pointee(directory));
        let (_, data) = types.field_path(table, "groups.data").unwrap();
        let group = pointee(data);
        assert_eq!(types.field_path(group, "ctrl").unwrap().0, 0);
        let (offset, slots) = types.field_path(group, "slots").unwrap();
        let Kind::Array(slot, 8) = types.get(slots).kind else { panic!("slots are no array of 8") };
        assert_eq!((offset, types.get(slot).size), (8, 8 + 24));
        assert_eq!(types.field_path(slot, "elem").unwrap(), (8, elem));

        let Kind::Chan { elem, header } = named(info, "chan main.Inner").kind else { panic!("no channel") };
        let header = header.expect("a header");
        assert_eq!(&*types.get(header).name, "hchan<main.Inner>");
        let (_, sudog) = types.field_path(header, "recvq.first").unwrap();
        let (_, value) = types.field_path(pointee(sudog), "elem").unwrap();
        assert_eq!(pointee(value), elem);
    });
}

#[test]
fn package_variables_have_the_addresses_of_symbols() {
    each(|program, info| {
        let exe = program.executable();
        for (name, ty) in [
            ("main.global", "main.Embedded"),
            ("main.globalPair", "main.Pair[string,*main.Inner]"),
            ("main.globalMap", "main.MyMap"),
            ("runtime.mheap_", "runtime.mheap"),
            ("runtime.allgs", "[]*runtime.g"),
        ] {
            let variable = info.variables.iter().find(|v| &*v.name == name).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(variable.address, exe.symbol(name).expect("a symbol").address, "{name}");
            assert_eq!(&*info.types.get(variable.ty).name, ty);
        }
        assert!(info.variables.is_sorted_by_key(|v| v.address));
    });
}

#[test]
fn runtime_constants() {
    each(|_, info| {
        assert_eq!(info.constants.get("runtime.heapArenaBytes"), Some(&(64 << 20)));
        assert_eq!(info.constants.get("runtime._PageSize"), Some(&8192));
        assert_eq!(info.constants.get("internal/abi.TFlagNamed"), Some(&4));
        assert_eq!(info.constants.get("runtime._Grunning"), Some(&2));
    });
}

#[test]
fn thread_count_changes_nothing() {
    for program in super::programs().iter().take(2) {
        let exe = program.executable();
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let info = pool.install(|| DebugInfo::load(&exe)).unwrap();
            let types: Vec<_> =
                (0..info.types.len() as u32).map(|i| info.types.get(crate::model::types::TypeId(i)).clone()).collect();
            (types, info.variables, info.functions)
        };
        let one = with(1);
        assert!(one == with(2) && one == with(7), "{}", program.label);
    }
}

#[test]
fn workers_may_share_it() {
    fn shared<T: Send + Sync>() {}
    shared::<DebugInfo<'_>>();
    shared::<crate::model::descriptors::Descriptors>();
}
