//! Makes the tables from DWARF, and holds those that are checked in against it.
//!
//! `GOREF_GO_ROOTS=FOLDER GOREF_BLESS=1 cargo test --lib release::tests::tables` writes the table of every toolchain in that folder
//! (`VERSION/go/bin/go`); without `GOREF_BLESS` it says what is not as written. `GOREF_GO_VERSIONS` selects.

use super::*;
use crate::image::executable::Executable;
use crate::model::descriptors::Descriptors;
use crate::model::stacks::StackLayout;
use crate::model::types::{TypeId, TypeTable, asked};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Structs of which the walk needs all: it follows their fields. Names that a release lacks are passed over.
const WHOLE: [&str; 14] = [
    "runtime.hmap",
    "runtime.mapextra",
    "time.runtimeTimer",
    "internal/runtime/maps.Map",
    "internal/runtime/maps.table",
    "internal/runtime/maps.groupsReference",
    "runtime.hchan",
    "runtime.waitq",
    "runtime.sudog",
    "runtime._defer",
    "runtime.coro",
    "runtime.timeTimer",
    "sync.poolLocal",
    "sync.poolChainElt",
];

/// Constants that are read, by prefix.
const CONSTANTS: [&str; 8] = [
    "runtime.arenaBaseOffsetUintptr",
    "runtime._KindSpecial",
    "runtime.minSizeForMallocHeader",
    "runtime.mallocHeaderSize",
    "internal/abi.TFlag",
    "internal/abi.KindDirectIface",
    "internal/abi.KindGCProg",
    "internal/abi.KindMask",
];

/// Experiments that change a layout, by minor version.
fn experiments(minor: u32) -> &'static [&'static str] {
    match minor {
        22 => &["noallocheaders"],
        24 => &["noswissmap"],
        25 => &["greenteagc", "noswissmap"],
        26 => &["nogreenteagc"],
        27 => &["nogreenteagc", "mapsplitgroup"],
        _ => &[],
    }
}

/// The lines of each struct and constant, by name.
type Entries = BTreeMap<String, String>;

#[test]
fn tables() {
    let Some(roots) = std::env::var_os("GOREF_GO_ROOTS").map(PathBuf::from) else {
        eprintln!("skipped: GOREF_GO_ROOTS is not set, so there is no toolchain to compare the tables with");
        return;
    };
    let selected = std::env::var("GOREF_GO_VERSIONS").ok();
    let selected = |version: &str| selected.as_ref().is_none_or(|list| list.split(',').any(|v| v.trim() == version));
    let bless = std::env::var("GOREF_BLESS").is_ok_and(|v| v == "1");
    let mut versions: Vec<String> = std::fs::read_dir(&roots)
        .expect("GOREF_GO_ROOTS is a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|version| roots.join(version).join("go/bin/go").is_file() && selected(version))
        .collect();
    versions.sort();
    let mut wrong = Vec::new();
    for version in versions {
        let minor = GoVersion::parse(&format!("go{version}")).expect("a folder named by its version").minor;
        let Some((_, known)) = TABLES.iter().find(|(known, _)| *known == minor) else { continue };
        let made = make(&roots.join(&version).join("go"), &version, minor);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/model/release/tables/go1.{minor}.txt"));
        if bless {
            std::fs::write(path, made).unwrap();
        } else if made != **known {
            let differs = made.lines().zip(known.lines()).find(|(a, b)| a != b);
            wrong.push(format!("{version}: first difference (made, checked in): {differs:?}"));
        }
    }
    assert!(wrong.is_empty(), "GOREF_BLESS=1 writes the tables anew:\n{}", wrong.join("\n"));
}

/// The whole table of one toolchain.
fn make(goroot: &Path, version: &str, minor: u32) -> String {
    let base = entries(&build(goroot, minor, "amd64", ""));
    let mut text = format!("# Layouts of go{version} (linux/amd64), made from DWARF by tests.rs. Do not edit.\n");
    base.values().for_each(|lines| text.push_str(lines));
    let mut section = |name: &str, other: Entries| {
        let mut lines = String::new();
        for (key, entry) in &other {
            if base.get(key) != Some(entry) {
                lines.push_str(entry);
            }
        }
        for gone in base.keys().filter(|key| !other.contains_key(*key)) {
            let _ = writeln!(lines, "gone {gone}");
        }
        if !lines.is_empty() {
            let _ = write!(text, "@{name}\n{lines}");
        }
    };
    section("arm64", entries(&build(goroot, minor, "arm64", "")));
    for experiment in experiments(minor) {
        section(&format!("X:{experiment}"), entries(&build(goroot, minor, "amd64", experiment)));
    }
    text
}

fn build(goroot: &Path, minor: u32, goarch: &str, experiment: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in [
        ("program.go", include_str!("tests/program.go")),
        ("newer.go", include_str!("tests/go1.24.go")),
        ("older.go", include_str!("tests/older.go")),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::fs::write(dir.path().join("go.mod"), format!("module example.com/tables\n\ngo 1.{minor}\n")).unwrap();
    let output = Command::new(goroot.join("bin/go"))
        .current_dir(dir.path())
        .env("GOROOT", goroot)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod")
        .env("GOOS", "linux")
        .env("GOARCH", goarch)
        .env("GOEXPERIMENT", experiment)
        .env("CGO_ENABLED", "0")
        .args(["build", "-o", "program", "."])
        .output()
        .expect("go runs");
    assert!(output.status.success(), "{goarch} {experiment}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(dir.path().join("program")).unwrap()
}

/// What a program's DWARF says about everything that this crate asks for.
fn entries(program: &[u8]) -> Entries {
    let exe = Executable::parse(program, Path::new("program")).expect("an ELF file");
    let debug = DebugInfo::load(&exe).expect("debug information");
    let types = &debug.types;
    asked::take();
    RuntimeLayout::find(types, &debug.variables, &debug.constants, 0).expect("a layout");
    Descriptors::new(types, &debug.constants).expect("descriptors");
    StackLayout::find(types, true).expect("stacks");
    let mut fields: BTreeMap<TypeId, BTreeSet<String>> = BTreeMap::new();
    for (name, field) in asked::take() {
        if let Some(id) = types.find(&name).filter(|id| matches!(types.get(*id).kind, Kind::Struct(_))) {
            let of = fields.entry(id).or_default();
            if !field.is_empty() {
                of.insert(field);
            }
        }
    }
    for name in WHOLE {
        types.find(name).into_iter().for_each(|id| whole(types, id, &mut fields));
    }
    let mut entries = Entries::new();
    for (id, wanted) in &fields {
        let ty = types.get(*id);
        let Kind::Struct(of) = &ty.kind else { continue };
        let mut lines = format!("type {} {}\n", ty.name, ty.size);
        for field in of.iter().filter(|f| wanted.contains(&*f.name)) {
            let _ = writeln!(lines, " {} {} {}", field.name, field.offset, spell(types, field.ty, &fields));
        }
        entries.insert(ty.name.to_string(), lines);
    }
    for (name, value) in &debug.constants {
        if CONSTANTS.iter().any(|prefix| name.starts_with(prefix)) {
            entries.insert(name.clone(), format!("const {name} {value}\n"));
        }
    }
    entries
}

/// Wants all fields of a struct, and of those that it contains.
fn whole(types: &TypeTable, id: TypeId, fields: &mut BTreeMap<TypeId, BTreeSet<String>>) {
    match &types.get(id).kind {
        Kind::Struct(of) if !types.get(id).name.contains(' ') => {
            fields.entry(id).or_default().extend(of.iter().map(|f| f.name.to_string()));
            of.iter().for_each(|f| whole(types, f.ty, fields));
        }
        Kind::Array(elem, _) => whole(types, *elem, fields),
        _ => {}
    }
}

/// A type as a table names it.
fn spell(types: &TypeTable, id: TypeId, known: &BTreeMap<TypeId, BTreeSet<String>>) -> String {
    let ty = types.get(id);
    let behind = |elem: TypeId| {
        let elem = types.get(elem);
        let plain = matches!(elem.kind, Kind::Struct(_) | Kind::Opaque) && !elem.name.contains(' ');
        plain.then(|| elem.name.to_string())
    };
    let opaque = || format!("?{}", ty.size);
    match &ty.kind {
        Kind::Scalar if [1, 2, 4, 8].contains(&ty.size) => format!("uint{}", ty.size * 8),
        Kind::Pointer(elem) => {
            format!("*{}", behind(*elem).unwrap_or_else(|| spell(types, *elem, known)))
        }
        Kind::Slice(elem) => format!("[]{}", behind(*elem).unwrap_or_else(|| spell(types, *elem, known))),
        Kind::Array(elem, len) => match spell(types, *elem, known) {
            elem if elem.starts_with('?') => opaque(),
            elem => format!("[{len}]{elem}"),
        },
        Kind::Struct(_) if known.contains_key(&id) => ty.name.to_string(),
        Kind::UnsafePointer => "unsafe.Pointer".into(),
        Kind::Func => "func()".into(),
        Kind::String => "string".into(),
        Kind::Eface => "interface {}".into(),
        Kind::Iface => table::IFACE.into(),
        _ => opaque(),
    }
}

/// What every table must be good for, without any toolchain.
#[test]
fn tables_give_layouts() {
    for (minor, text) in TABLES {
        let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix('@')).collect();
        for section in sections.iter().copied().chain([""]) {
            let mut table = Table::parse(text, |s| s == section).unwrap_or_else(|e| panic!("{minor}: {e}"));
            let layout = layout_of(&mut table).unwrap_or_else(|e| panic!("1.{minor} {section}: {e}"));
            assert!((136..=168).contains(&layout.mspan.size), "1.{minor} {section}");
            assert_eq!(layout.functab.size, if minor == 17 { 16 } else { 8 }, "1.{minor} {section}");
            Descriptors::new(&table.types, &table.constants).unwrap_or_else(|e| panic!("1.{minor} {section}: {e}"));
            let stacks = StackLayout::find(&table.types, true).unwrap_or_else(|e| panic!("1.{minor} {section}: {e}"));
            assert!(stacks.g_fits() && stacks.waiting.is_some() && stacks.reg_args.is_some(), "1.{minor} {section}");
        }
    }
}

/// A damaged table is an error or a layout, never a panic: any one line less, any number another.
#[test]
fn damaged_tables() {
    let (_, text) = TABLES[TABLES.len() - 1];
    let lines: Vec<&str> = text.lines().collect();
    for i in 0..lines.len() {
        for replacement in [None, Some("18446744073709551615"), Some("-1"), Some("3")] {
            let mut damaged = lines.clone();
            let line = replacement.and_then(|number| {
                let (rest, _) = lines[i].rsplit_once(' ')?;
                Some(format!("{rest} {number}"))
            });
            match &line {
                Some(line) => damaged[i] = line,
                None => {
                    damaged.remove(i);
                }
            }
            if let Ok(mut table) = Table::parse(&damaged.join("\n"), |s| s == "arm64") {
                let _ = layout_of(&mut table);
                let _ = Descriptors::new(&table.types, &table.constants);
                let _ = StackLayout::find(&table.types, true);
            }
        }
    }
}
