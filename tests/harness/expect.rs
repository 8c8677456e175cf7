//! What the fixtures state about themselves, in comments next to the code that builds a structure.
//!
//! ```text
//! //goref:expect path="$P.head -> next. (*$P.Node)" count=999 bytes=23976
//! //goref:expect prefix="$P.SyncMap" since="1.24" min_count=200 min_bytes=4000
//! //goref:define HOLDER="[[$P.Global|$P.Pointer]]"
//! ```
//!
//! Exactly one of
//! * `path`: one stack, frames joined by ` -> `, root first; the numbers are the own values of that very stack;
//! * `prefix`: the sum over all stacks that start with these frames;
//! * `within`: the sum over all stacks in which this frame occurs.
//!
//! `count` and `bytes` must be met exactly (a path that is not there has 0 of both); `min_count` and `min_bytes` are lower
//! bounds, for what the hash seed or the release decides. Sizes are size-class sizes. In a file that begins with `//go:build go1.24`
//! (or `!go1.24`) everything is since (or until before) that release. Frames behind a closure's function (`pkg.f.func1`) are its
//! captures, which the debug information of Go before 1.23 does not place: such a path is since 1.23.
//!
//! `mode="default"` or `mode="noopt"` restricts a statement to one build mode, `since="1.25"` and `until="1.25"` (inclusive) to
//! releases, `without="noswissmap,race"` to builds without these experiments and build modes, `with=".."` to builds with one of them.
//! In the text `$P` is the package's path (`goref.test/fixtures/<folder>`), `$NAME` of a `goref:define` in the same
//! file its text, and `[[a|b]]` makes one statement for each alternative.

use super::pprof::Profile;
use super::program::{Mode, Recipe, sources};
use super::toolchain::minor;
use std::path::Path;

/// One statement.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// `file:line`.
    pub at: String,
    pub scope: Scope,
    pub count: Bound,
    pub bytes: Bound,
    mode: Option<String>,
    with: Vec<String>,
    without: Vec<String>,
    since: u32,
    until: u32,
}

#[derive(Clone, Debug)]
pub enum Scope {
    Path(Vec<String>),
    Prefix(Vec<String>),
    Within(String),
}

#[derive(Copy, Clone, Debug)]
pub enum Bound {
    Any,
    Exactly(u64),
    AtLeast(u64),
}

impl Bound {
    fn met(self, n: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(want) => n == want,
            Self::AtLeast(want) => n >= want,
        }
    }

    /// What it says of objects that have room behind them.
    fn padded(self) -> Self {
        match self {
            Self::Exactly(want) if want > 0 => Self::AtLeast(want),
            other => other,
        }
    }
}

impl Expectation {
    /// Statements hold for some releases, modes and experiments only.
    pub fn applies(&self, version: &str, recipe: impl Into<Recipe>) -> bool {
        let recipe = recipe.into();
        (self.since..=self.until).contains(&minor(version))
            && self.mode.as_deref().is_none_or(|m| m == recipe.mode.compiled())
            && !self.without.iter().any(|w| recipe.is(w))
            && (self.with.is_empty() || self.with.iter().any(|w| recipe.is(w)))
    }

    /// The builds that it is restricted to, or away from.
    pub fn builds(&self) -> impl Iterator<Item = &str> {
        self.with.iter().chain(&self.without).map(String::as_str)
    }

    /// The frame that a stack has in common with the statement, to show what is there instead.
    pub fn root_frame(&self) -> &str {
        match &self.scope {
            Scope::Path(path) | Scope::Prefix(path) => &path[0],
            Scope::Within(frame) => frame,
        }
    }

    /// `Err` says what differs. In builds that pad objects bytes are at least what is stated.
    pub fn check(&self, profile: &Profile, mode: Mode) -> Result<(), String> {
        let [count, bytes] = match &self.scope {
            Scope::Path(path) => profile.stacks.get(path).copied().unwrap_or_default(),
            Scope::Prefix(path) => profile.sum(|stack| stack.starts_with(path)),
            Scope::Within(frame) => profile.sum(|stack| stack.contains(frame)),
        };
        let enough = if mode == Mode::Asan { self.bytes.padded() } else { self.bytes };
        if self.count.met(count) && enough.met(bytes) {
            return Ok(());
        }
        Err(format!(
            "{}: {:?}: expected {:?} objects, {:?} bytes; found {count}, {bytes}",
            self.at, self.scope, self.count, self.bytes
        ))
    }
}

/// All statements of the packages below `dir`; `module` is their import path prefix.
pub fn read_all(dir: &Path, module: &str) -> Vec<Expectation> {
    let mut all = Vec::new();
    for file in sources(dir) {
        let relative = file.strip_prefix(dir).unwrap();
        if relative.starts_with("cmd") {
            continue; // programs of their own
        }
        let package = match relative.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(folder) => format!("{module}/{}", folder.display()),
            None => "main".to_owned(),
        };
        let text = std::fs::read_to_string(&file).unwrap();
        read_file(&text, &relative.display().to_string(), &package, &mut all);
    }
    all
}

/// The statements of a program of its own in `dir`: those of its main package, and of the packages below it.
///
/// * `module`: import path of `root`, which `dir` lies in.
pub fn read_program(dir: &Path, root: &Path, module: &str) -> Vec<Expectation> {
    let mut all = Vec::new();
    for file in sources(dir) {
        let folder = file.parent().expect("a file's folder");
        let package = match folder.strip_prefix(root) {
            Ok(inside) if folder != dir => format!("{module}/{}", inside.display()),
            _ => "main".to_owned(),
        };
        read_file(&std::fs::read_to_string(&file).unwrap(), &file.display().to_string(), &package, &mut all);
    }
    all
}

/// The statements of one main package's file.
pub fn read_main(file: &Path) -> Vec<Expectation> {
    let mut all = Vec::new();
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
    read_file(&text, &file.display().to_string(), "main", &mut all);
    all
}

fn read_file(text: &str, name: &str, package: &str, all: &mut Vec<Expectation>) {
    let first = all.len();
    read_lines(text, name, package, all);
    let Some(constraint) = text.lines().next().and_then(|line| line.strip_prefix("//go:build ")) else { return };
    for expectation in &mut all[first..] {
        match constraint.strip_prefix("!go") {
            Some(release) => expectation.until = expectation.until.min(minor(release) - 1),
            None => {
                let release =
                    constraint.strip_prefix("go").unwrap_or_else(|| panic!("{name}: not a release: {constraint}"));
                expectation.since = expectation.since.max(minor(release));
            }
        }
    }
}

fn read_lines(text: &str, name: &str, package: &str, all: &mut Vec<Expectation>) {
    let mut defined: Vec<(String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        if let Some(rest) = line.trim().strip_prefix("//goref:define ") {
            for (key, value) in attributes(rest, &at) {
                defined.push((format!("${key}"), value));
            }
        } else if let Some(rest) = line.trim().strip_prefix("//goref:expect ") {
            let mut rest = rest.to_owned();
            for (key, value) in &defined {
                rest = rest.replace(key, value);
            }
            // `$P` is always followed by a dot, `$pkgname` and the like do not exist.
            all.extend(alternatives(&rest.replace("$P.", &format!("{package}."))).iter().map(|s| parse(s, &at)));
        } else {
            assert!(!line.contains("goref:expect"), "{at}: not at the start of its line");
        }
    }
}

/// Expands the first `[[a|b]]`, then the next, and so on.
fn alternatives(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once("[[") else { return vec![text.to_owned()] };
    let (choices, after) = rest.split_once("]]").unwrap_or_else(|| panic!("no end of alternatives: {text}"));
    choices.split('|').flat_map(|choice| alternatives(&format!("{before}{choice}{after}"))).collect()
}

/// `key="value"` and `key=value`.
fn attributes(mut text: &str, at: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return all;
        }
        let (key, rest) = text.split_once('=').unwrap_or_else(|| panic!("{at}: no value: {text}"));
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or_else(|| panic!("{at}: no closing quote: {text}")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        all.push((key.to_owned(), value.to_owned()));
        text = rest;
    }
}

fn parse(text: &str, at: &str) -> Expectation {
    let (mut scope, mut count, mut bytes) = (None, Bound::Any, Bound::Any);
    let (mut mode, mut with, mut without, mut since, mut until) = (None, Vec::new(), Vec::new(), 0, u32::MAX);
    let number = |value: &str| value.parse().unwrap_or_else(|e| panic!("{at}: {value:?}: {e}"));
    let list = |value: &str| value.split(',').map(str::to_owned).collect();
    let path = |value: &str| value.split(" -> ").map(str::to_owned).collect();
    for (key, value) in attributes(text, at) {
        match key.as_str() {
            "path" => scope = Some(Scope::Path(path(&value))),
            "prefix" => scope = Some(Scope::Prefix(path(&value))),
            "within" => scope = Some(Scope::Within(value)),
            "count" => count = Bound::Exactly(number(&value)),
            "bytes" => bytes = Bound::Exactly(number(&value)),
            "min_count" => count = Bound::AtLeast(number(&value)),
            "min_bytes" => bytes = Bound::AtLeast(number(&value)),
            "mode" => {
                assert!(["default", "noopt"].contains(&value.as_str()), "{at}: no such mode: {value}");
                mode = Some(value);
            }
            "with" => with = list(&value),
            "without" => without = list(&value),
            "since" => since = minor(&value),
            "until" => until = minor(&value),
            other => panic!("{at}: no such attribute: {other}"),
        }
    }
    let scope = scope.unwrap_or_else(|| panic!("{at}: no path, prefix or within"));
    let says = |bound| !matches!(bound, Bound::Any | Bound::AtLeast(0));
    assert!(says(count) || says(bytes), "{at}: states nothing");
    Expectation { at: at.to_owned(), scope, count, bytes, mode, with, without, since, until }
}

#[test]
fn grammar() {
    use super::program::Mode;
    let mut all = Vec::new();
    let text = "//goref:define H=\"[[$P.A|$P.B -> x. (*$P.T)]]\"\n\t//goref:expect path=\"$H -> y. (string)\" since=\"1.25\" mode=\"noopt\" without=\"race,greenteagc\" count=2 min_bytes=3\n";
    read_file(text, "f.go", "p/q", &mut all);
    assert_eq!(all.len(), 2);
    let mut tagged = Vec::new();
    read_file("//go:build !go1.25\n\n//goref:expect path=\"$P.X\" count=1\n", "g.go", "p/q", &mut tagged);
    let last = tagged.pop().expect("one more");
    assert!(last.applies("1.24.11", Mode::Default) && !last.applies("1.25.5", Mode::Default));
    read_file("//go:build go1.25\n\n//goref:expect path=\"$P.X\" count=1\n", "g.go", "p/q", &mut tagged);
    let last = tagged.pop().expect("one more");
    assert!(!last.applies("1.24.11", Mode::Default) && last.applies("1.25.5", Mode::Default));
    let Scope::Path(path) = &all[1].scope else { panic!("{all:?}") };
    assert_eq!(path[..], ["p/q.B".to_owned(), "x. (*p/q.T)".to_owned(), "y. (string)".to_owned()]);
    assert_eq!(all[1].at, "f.go:2");
    assert!(
        all[0].applies("1.25.5", Mode::NoOpt)
            && !all[0].applies("1.24.11", Mode::NoOpt)
            && !all[0].applies("1.27.3", Mode::Default)
            && !all[0].applies("1.25.5", Recipe { experiment: "greenteagc", ..Mode::NoOpt.into() })
    );
    let mut profile = Profile::default();
    profile.stacks.insert(path.clone(), [2, 5]);
    let met = |e: &Expectation, mode| e.check(&profile, mode).is_ok();
    assert!(met(&all[1], Mode::Default) && !met(&all[0], Mode::Default));
    let exact = |bytes: u64| parse(&format!("path=\"{}\" bytes={bytes}", path.join(" -> ")), "here");
    assert_eq!([4, 5, 6, 0].map(|n| met(&exact(n), Mode::Default)), [false, true, false, false]);
    assert_eq!([4, 5, 6, 0].map(|n| met(&exact(n), Mode::Asan)), [true, true, false, false]);
}
