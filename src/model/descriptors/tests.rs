//! Descriptors of real executables (see the tests of the DWARF reader) against the DIEs of the same types, and damaged ones.

use super::*;
use crate::address::AddrRange;
use crate::image::executable::Executable;
use crate::image::{Base, Missing, Place, ReadError, Scratch, UnitBytes};
use crate::model::dwarf::DebugInfo;
use crate::model::dwarf::tests::programs;
use object::{Object, ObjectSection};

/// The executable as it lies in memory before it runs: allocated sections at their link-time addresses.
struct StaticImage {
    sections: Vec<(u64, Vec<u8>)>,
    missing: Missing,
}

impl StaticImage {
    fn new(bytes: &[u8]) -> Self {
        let elf = object::File::parse(bytes).unwrap();
        let sections =
            elf.sections().filter(|s| s.address() != 0).filter_map(|s| Some((s.address(), s.data().ok()?.to_vec())));
        Self { sections: sections.collect(), missing: Missing::default() }
    }
}

impl Image for StaticImage {
    fn load<'s>(&'s self, ranges: &[AddrRange], scratch: &'s mut Scratch) -> UnitBytes<'s> {
        scratch.begin(ranges.len());
        for range in ranges {
            let at = scratch.spill.len();
            scratch.spill.resize(at + range.len as usize, 0);
            let whole = self.read(range.start, &mut scratch.spill[at..]).is_ok();
            let len = if whole { range.len } else { 0 };
            scratch.places.push(Place::in_spill(at, len));
        }
        scratch.unit(Base::NONE)
    }

    fn read(&self, addr: Addr, buf: &mut [u8]) -> std::result::Result<(), ReadError> {
        let found = self.sections.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(addr.0.checked_sub(*start)?).ok()?;
            bytes.get(from..from.checked_add(buf.len())?)
        });
        buf.copy_from_slice(found.ok_or(ReadError::Unmapped(addr))?);
        Ok(())
    }

    fn missing(&self) -> &Missing {
        &self.missing
    }
}

fn main_module(exe: &Executable<'_>) -> ModuleTypes {
    let symbol = |name: &str| Addr(exe.symbol(name).unwrap_or_else(|| panic!("no symbol {name}")).address);
    ModuleTypes { types: symbol("runtime.types"), etypes: symbol("runtime.etypes") }
}

/// A module before the real one, so that no descriptor is taken to have a DIE.
const NO_MODULE: ModuleTypes = ModuleTypes { types: Addr(0), etypes: Addr(0) };

/// Package variables whose types have DIEs are one side, the same types built from their descriptors the other.
#[test]
fn descriptors_say_what_dwarf_says() {
    for program in programs() {
        eprintln!("{}", program.label);
        let exe = program.executable();
        let mut info = DebugInfo::load(&exe).unwrap();
        let image = StaticImage::new(&program.bytes);
        let main = main_module(&exe);
        let descriptors = Descriptors::new(&info.types, &info.constants).unwrap();
        let dies: Vec<TypeId> = (0..info.types.len() as u32).map(TypeId).collect();
        let (mut compared, mut renamed) = (0, 0);
        for die in dies {
            let Type { name, size, kind, rtype_offset } = info.types.get(die).clone();
            // DWARF's reader makes an interface of `sync.eface` on purpose; its descriptor says what is declared.
            if rtype_offset == 0 || &*name == "sync.eface" {
                continue;
            }
            let rtype = main.types.add(rtype_offset);
            let id = descriptors.type_of(&image, &[NO_MODULE, main], &mut info.types, rtype);
            let built = info.types.get(id.unwrap_or_else(|| panic!("{name} at {rtype}"))).clone();
            assert_eq!(built.size, size, "{name}");
            assert_eq!(built.rtype_offset, 0, "{name}: belongs to the second module");
            compared += 1;
            // The linker calls types without algorithms and shapes by other names; literals have short package names inside.
            renamed += usize::from(built.name != name);
            assert_eq!(shape(&info.types, &built.kind), shape(&info.types, &kind), "{name}");
        }
        assert!(compared > 500, "{compared}");
        assert!(renamed * 10 < compared, "{renamed} of {compared} have other names");
        assert!(descriptors.incidents().is_empty(), "{:?}", descriptors.incidents());
    }
}

/// What must agree of a kind: everything but the ids, and the names inside, which `noalg.` prefixes change.
fn shape(types: &TypeTable, kind: &Kind) -> String {
    let size = |id: TypeId| types.get(id).size;
    match kind {
        Kind::Scalar => "scalar".into(),
        Kind::Pointer(to) => format!("pointer to {}", size(*to)),
        Kind::Slice(elem) => format!("slice of {}", size(*elem)),
        Kind::Array(elem, len) => format!("array of {len} {}", size(*elem)),
        Kind::Struct(fields) => {
            fields.iter().map(|f| format!("{} {} {};", f.name, f.offset, size(f.ty))).collect::<String>()
        }
        Kind::Map { key, elem, header } => {
            let header = header.expect("a header");
            let path = |path| types.field_path(header, path).map(|(offset, ty)| (offset, size(ty)));
            format!("map {} {} {:?} {:?}", size(*key), size(*elem), path("dirPtr"), group(types, header))
        }
        Kind::Chan { elem, header } => {
            let header = header.expect("a header");
            let offset = |path| types.field_path(header, path).map(|(offset, _)| offset);
            format!("chan {} {:?} {:?} {:?}", size(*elem), offset("buf"), offset("recvq.first"), offset("dataqsiz"))
        }
        other => format!("{other:?}"),
    }
}

/// Slot type, through the whole chain of a swiss map's header.
fn group(types: &TypeTable, header: TypeId) -> Option<String> {
    let pointee = |id: TypeId| match types.get(id).kind {
        Kind::Pointer(to) => Some(to),
        _ => None,
    };
    let (_, directory) = types.field_path(header, "dirPtr")?;
    let (_, data) = types.field_path(pointee(pointee(directory)?)?, "groups.data")?;
    let (offset, slots) = types.field_path(pointee(data)?, "slots")?;
    let Kind::Array(slot, len) = types.get(slots).kind else { return None };
    Some(format!("{len} slots at {offset}: {}", shape(types, &types.get(slot).kind)))
}

#[test]
fn names_have_full_paths() {
    for program in programs() {
        let exe = program.executable();
        let mut info = DebugInfo::load(&exe).unwrap();
        let image = StaticImage::new(&program.bytes);
        let main = main_module(&exe);
        let descriptors = Descriptors::new(&info.types, &info.constants).unwrap();
        for name in [
            "main.OnlyBehindInterface",
            "main.Pair[string,*main.Inner]",
            "main.MyMap",
            "main.Fn",
            "*internal/abi.Type",
            "error",
            "[]*internal/abi.Type",
        ] {
            let Some(die) = info.types.find(name).filter(|die| info.types.get(*die).rtype_offset != 0) else {
                continue;
            };
            let rtype = main.types.add(info.types.get(die).rtype_offset);
            assert_eq!(descriptors.find(&[main], &info.types, rtype), Some(die));
            let built = descriptors.type_of(&image, &[NO_MODULE, main], &mut info.types, rtype).unwrap();
            assert_ne!(built, die);
            assert_eq!(&*info.types.get(built).name, name);
        }
        // Built with the type: composed names, and headers named as the linker does.
        let table = info.types.find("main.OnlyBehindInterface").unwrap();
        let rtype = main.types.add(info.types.get(table).rtype_offset);
        let built = descriptors.find(&[NO_MODULE, main], &info.types, rtype).unwrap();
        let field = |name: &str| info.types.get(info.types.field(built, name).unwrap().ty);
        assert_eq!(&*field("Table").name, "map[string]map[main.Num]chan<- *main.Inner");
        assert_eq!(&*field("Queue").name, "<-chan main.Pair[main.Num,*main.Inner]");
        assert_eq!(&*field("Big").name, "main.BigMap");
        let Kind::Map { header: Some(header), .. } = field("Table").kind else { panic!("no header") };
        assert_eq!(&*info.types.get(header).name, "map<string,map[main.Num]chan<- *main.Inner>");
        let Kind::Map { key, elem, .. } = field("Big").kind else { panic!("no map") };
        // Keys and elements over 128 bytes are stored as pointers; the group says so.
        assert_eq!((info.types.get(key).size, info.types.get(elem).size), (320, 320));
    }
}

#[test]
fn direct_interfaces() {
    for program in programs() {
        let exe = program.executable();
        let info = DebugInfo::load(&exe).unwrap();
        let image = StaticImage::new(&program.bytes);
        let main = main_module(&exe);
        let descriptors = Descriptors::new(&info.types, &info.constants).unwrap();
        let mut checked = 0;
        for (name, direct) in [
            ("string", false),
            ("int", false),
            ("main.MyMap", true),
            ("func()", true),
            ("*internal/abi.Type", true),
            ("main.OnlyBehindInterface", false),
        ] {
            let die = info.types.find(name).map(|id| info.types.get(id)).filter(|die| die.rtype_offset != 0);
            let Some(die) = die else { continue };
            let rtype = main.types.add(die.rtype_offset);
            assert_eq!(descriptors.is_direct_iface(&image, rtype), Some(direct), "{name}");
            checked += 1;
        }
        assert!(checked >= 4, "{checked}");
        assert_eq!(descriptors.is_direct_iface(&image, Addr(0)), None);
        assert_eq!(descriptors.is_direct_iface(&image, Addr(8)), None);
        assert_eq!(descriptors.itab_type(&image, Addr(8)), None);
        // An itab of the program: error for *errors.errorString or the like.
        let itab =
            exe.symbols().find(|(name, _)| name.starts_with(b"go:itab.")).map(|(_, symbol)| Addr(symbol.address));
        if let Some(itab) = itab {
            let rtype = descriptors.itab_type(&image, itab).unwrap();
            assert!(descriptors.find(&[main], &info.types, rtype).is_some());
        }
    }
}

#[test]
fn damaged_descriptors_end() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for program in programs().iter().filter(|p| p.optimised) {
        let exe = program.executable();
        let main = main_module(&exe);
        for _ in 0..8 {
            let mut info = DebugInfo::load(&exe).unwrap();
            let descriptors = Descriptors::new(&info.types, &info.constants).unwrap();
            let mut image = StaticImage::new(&program.bytes);
            let types = image
                .sections
                .iter_mut()
                .find(|(start, bytes)| main.types.0 >= *start && main.types.0 - *start < bytes.len() as u64);
            let (start, bytes) = types.unwrap();
            let from = (main.types.0 - *start) as usize;
            let len = (main.etypes.0 - main.types.0) as usize;
            for _ in 0..len / 64 {
                let at = from + random() as usize % len;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random() as u8;
                }
            }
            for offset in (0..len as u64).step_by(8) {
                descriptors.type_of(&image, &[NO_MODULE, main], &mut info.types, main.types.add(offset));
            }
            let pool = (0..info.types.len() as u32).map(TypeId);
            assert!(pool.into_iter().all(|id| nesting(&info.types, id, 0) <= 101));
        }
    }
}

fn nesting(types: &TypeTable, id: TypeId, depth: u32) -> u32 {
    assert!(depth < 200);
    match &types.get(id).kind {
        Kind::Array(elem, _) => nesting(types, *elem, depth + 1),
        Kind::Struct(fields) => {
            let parts = fields.iter().filter(|f| types.get(f.ty).size > 0);
            parts.map(|f| nesting(types, f.ty, depth + 1)).max().unwrap_or(depth)
        }
        _ => depth,
    }
}
