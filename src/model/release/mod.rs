//! What stands in for debug information in an executable without it (`-ldflags=-w`, `-s -w`, `strip`).
//!
//! The structs of the runtime are the same in every program of a release, so their layouts come from a table of the release (`table`), made
//! from DWARF of that release and held against it by a test. `version` reads which one it is. Variables have names if there is a symbol table
//! (`symbols`); if not, those of the runtime are found by what lies there (`locate`, `references`). Types of the program are not lost: the
//! runtime has descriptors of all that may be behind an interface or in an object with a header. What is lost are names of fields below
//! other pointers, and of local variables.
//!
//! The result is a [`DebugInfo`] like any other, so that nothing later needs to know where it came from.

mod locate;
pub(super) mod references;
mod symbols;
mod table;
#[cfg(test)]
mod tests;
mod version;

pub use locate::Located;
pub use version::GoVersion;

use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::executable::Executable;
use crate::model::dwarf::{DebugInfo, GlobalVariable};
use crate::model::layout::RuntimeLayout;
use crate::model::types::{Kind, Type};
use table::Table;

/// Tables by the minor version of Go 1.
const TABLES: [(u32, &str); 11] = [
    (17, include_str!("tables/go1.17.txt")),
    (18, include_str!("tables/go1.18.txt")),
    (19, include_str!("tables/go1.19.txt")),
    (20, include_str!("tables/go1.20.txt")),
    (21, include_str!("tables/go1.21.txt")),
    (22, include_str!("tables/go1.22.txt")),
    (23, include_str!("tables/go1.23.txt")),
    (24, include_str!("tables/go1.24.txt")),
    (25, include_str!("tables/go1.25.txt")),
    (26, include_str!("tables/go1.26.txt")),
    (27, include_str!("tables/go1.27.txt")),
];

/// Variables that [`RuntimeLayout`] needs and that are found by structure if there is no symbol. `memstats` and `gcController` only
/// reconcile: at address 0 they have nothing to say.
const NEEDED: [&str; 9] =
    ["firstmoduledata", "mheap_", "allgs", "allm", "allp", "gcphase", "allfin", "memstats", "gcController"];

/// No mask lies there.
const NOT_A_MASK: u64 = 1;

/// Symbols whose size is that of a struct: a table for another build has others.
const SIZES: [(&str, &str); 5] = [
    ("runtime.firstmoduledata", "runtime.moduledata"),
    ("runtime.mheap_", "runtime.mheap"),
    ("runtime.m0", "runtime.m"),
    ("runtime.g0", "runtime.g"),
    ("runtime.memstats", "runtime.mstats"),
];

/// What the user should know about names.
const WITH_SYMBOLS: &str = "the executable has no debug information (-ldflags=-w, -linkshared): package variables and functions have their names, \
                            local variables have not; fields have theirs where the runtime knows the type (interfaces, objects over \
                            512 bytes)";
const WITHOUT_SYMBOLS: &str = "the executable has neither debug information nor symbols (-ldflags='-s -w', strip): functions have \
                               their names, package and local variables have not; fields have theirs where the runtime knows the \
                               type (interfaces, objects over 512 bytes)";

/// Debug information without DWARF.
pub struct Substitute<'img> {
    /// To be used like what DWARF gives.
    pub debug: DebugInfo<'img>,
    /// A sentence about the names that are missing.
    pub missing_names: &'static str,
}

/// Makes it for the process at load bias `bias`.
///
/// * `libraries`: other files with Go code, each with its load bias less `bias`.
///
/// # Errors
/// The release is not known or has no table, the table does not fit the executable, or a variable of the runtime is not found.
pub fn substitute<'img>(
    exe: &Executable<'img>,
    libraries: &[(&Executable<'_>, u64)],
    image: &dyn Image,
    bias: u64,
) -> Result<Substitute<'img>> {
    let what = || format!("executable {}: no debug information (.debug_info)", exe.path().display());
    let version = GoVersion::read(exe, image, bias).ok_or_else(|| {
        Error::new(format!("{}, and no Go release in .go.buildinfo", what()))
            .remedy("give the executable with debug information (built without -ldflags=-w or -s, not stripped)")
    })?;
    let mut table = table_for(exe, &version).map_err(|e| Error::new(what()).cause(e))?;
    check_sizes(exe, &table, &version)?;
    let mut variables = symbols::variables(&[(exe, 0)], &mut table.types);
    let library_variables = symbols::variables(libraries, &mut table.types);
    let has_symbols = variables.iter().any(|v| &*v.name == "runtime.mheap_");
    if !has_symbols {
        variables = located(exe, image, bias, &mut table, &version)?;
    }
    let missing_names = if has_symbols { WITH_SYMBOLS } else { WITHOUT_SYMBOLS };
    let mut debug = DebugInfo::without_dwarf(table.types, variables, table.constants);
    debug.library_variables = library_variables;
    Ok(Substitute { debug, missing_names })
}

/// The variables of the runtime that [`RuntimeLayout`] asks for, found without symbols: name without package, address in the process. For
/// tests that know better.
///
/// # Errors
/// As [`substitute`].
pub fn locate(exe: &Executable<'_>, image: &dyn Image, bias: u64) -> Result<Located> {
    let version = GoVersion::read(exe, image, bias).ok_or_else(|| Error::new("no Go release in .go.buildinfo"))?;
    let mut table = table_for(exe, &version)?;
    let layout = layout_of(&mut table)?;
    locate::variables(exe, image, bias, &layout, &version.text)
}

fn table_for(exe: &Executable<'_>, version: &GoVersion) -> Result<Table> {
    let remedy = "give the executable with debug information (built without -ldflags=-w or -s, not stripped)";
    let Some((_, text)) = TABLES.iter().find(|(minor, _)| *minor == version.minor) else {
        return Err(Error::new(format!(
            "{}: layouts are known without it for {}",
            version.text,
            TABLES.map(|(minor, _)| format!("1.{minor}")).join(", ")
        ))
        .remedy(remedy));
    };
    let applies = |section: &str| match section.strip_prefix("X:") {
        Some(experiment) => version.experiments.iter().any(|x| x == experiment),
        None => section == exe.architecture().name,
    };
    Table::parse(text, applies).map_err(|line| Error::new(format!("table of Go 1.{}: {line}", version.minor)))
}

/// A table for other sizes is worse than none.
fn check_sizes(exe: &Executable<'_>, table: &Table, version: &GoVersion) -> Result<()> {
    for (symbol, name) in SIZES {
        let (Some(found), Some(ty)) = (exe.symbol(symbol), table.types.find(name)) else { continue };
        let expected = table.types.get(ty).size;
        if found.size != 0 && found.size != expected {
            return Err(Error::new(format!(
                "executable {}: {symbol} has {} bytes, expected {expected} for {}: it was built in a way whose layouts are not \
                 known without debug information",
                exe.path().display(),
                found.size,
                version.text
            ))
            .remedy("give the executable with debug information (built without -ldflags=-w or -s, not stripped)"));
        }
    }
    Ok(())
}

/// Layouts alone: every variable at address 0.
fn layout_of(table: &mut Table) -> Result<RuntimeLayout> {
    let ty = table.types.push(Type { name: "(unknown)".into(), size: 0, kind: Kind::Opaque, rtype_offset: 0 });
    let nowhere = |name: &&str| GlobalVariable { name: format!("runtime.{name}").into(), address: 0, ty };
    let variables: Vec<GlobalVariable> = NEEDED.iter().map(nowhere).collect();
    RuntimeLayout::find(&table.types, &variables, &table.constants, 0)
}

fn located(
    exe: &Executable<'_>,
    image: &dyn Image,
    bias: u64,
    table: &mut Table,
    version: &GoVersion,
) -> Result<Vec<GlobalVariable>> {
    let layout = layout_of(table)?;
    let mut found = locate::variables(exe, image, bias, &layout, &version.text)
        .map_err(|e| Error::new(format!("executable {}", exe.path().display())).cause(e))?;
    for name in NEEDED {
        if !found.iter().any(|(known, _)| *known == name) {
            found.push((name, 0));
        }
    }
    if table.constants.contains_key("internal/abi.TFlagGCMaskOnDemand") {
        // Says that masks may be made on demand. Its address is that of no mask, and so is this one; a mask that is just being made is not
        // told from a finished one.
        found.push(("inProgress", NOT_A_MASK));
    }
    // Of size 0: they name addresses, no words. What lies there has no name, as everything else in data and bss.
    let ty = table.types.push(Type { name: "(unknown)".into(), size: 0, kind: Kind::Opaque, rtype_offset: 0 });
    let variable = |(name, at): (&str, u64)| {
        let name = format!("runtime.{name}").into();
        GlobalVariable { name, address: at.wrapping_sub(bias), ty }
    };
    let mut variables: Vec<GlobalVariable> = found.into_iter().map(variable).collect();
    variables.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
    Ok(variables)
}
