//! Debug information outside of the executable, and executables found in a directory: always the same bytes as with the whole
//! executable, or a clear refusal. On the sample, so that no Go toolchain is needed.

use crate::harness::binutils::{self, build_id};
use crate::harness::corefile::Run;
use crate::harness::{Skip, required, tool};
use crate::sample::unpacked;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Stripped copy and debug file of the sample's executable, in a folder of their own.
struct Split {
    dir: tempfile::TempDir,
    stripped: PathBuf,
    debug: PathBuf,
}

impl Split {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (stripped, debug) = (dir.path().join("app"), dir.path().join("elsewhere.debug"));
        required(binutils::split(&unpacked().0, &stripped, &debug))?;
        Some(Self { dir, stripped, debug })
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Names the debug file `name` in `.gnu_debuglink`.
    fn link(&self, name: &str) -> Option<PathBuf> {
        let named = self.path(&format!("link/{name}"));
        fs::copy(&self.debug, &named).unwrap();
        let linked = self.path("linked/app");
        let option = format!("--add-gnu-debuglink={}", named.display());
        required(binutils::run("objcopy", &[&option, &self.stripped, &linked]))?;
        fs::remove_file(named).unwrap();
        Some(linked)
    }
}

/// The profile of the whole executable.
fn expected() -> &'static [u8] {
    static EXPECTED: OnceLock<Vec<u8>> = OnceLock::new();
    EXPECTED.get_or_init(|| tool::core_ok(&unpacked().0, &unpacked().1, &["-q"]).bytes())
}

fn same(what: &str, exe: &Path, args: &[&str]) {
    let ran = tool::core_ok(exe, &unpacked().1, args);
    assert!(ran.bytes() == expected(), "{what}: other bytes than with the whole executable\n{}", ran.stdout());
}

/// Refused with status 1; `said` are parts of the message.
fn refused(what: &str, exe: &Path, args: &[&str], said: &[&str]) {
    let ran = tool::core(exe, &unpacked().1, args);
    assert_eq!(ran.code(), 1, "{what}: {}", ran.stderr());
    for part in said {
        assert!(ran.stderr().contains(part), "{what}: {part:?}? {}", ran.stderr());
    }
    assert!(ran.stderr().contains("help: ") && ran.stderr().lines().count() == 2, "{what}: {}", ran.stderr());
}

/// Analyzed without debug information: nothing but names is missing, and `said` are parts of the report.
fn nameless(what: &str, exe: &Path, args: &[&str], said: &[&str]) {
    let ran = tool::core_ok(exe, &unpacked().1, args);
    assert!(ran.bytes() != expected(), "{what}: with all names\n{}", ran.stdout());
    let whole = tool::core_ok(&unpacked().0, &unpacked().1, &[]);
    assert_eq!(ran.decode().total(), whole.decode().total(), "{what}");
    for part in said.iter().chain(&["Names: ", "--debug-file"]) {
        assert!(ran.stdout().contains(part), "{what}: {part:?}? {}", ran.stdout());
    }
}

#[test]
fn given_with_an_option() {
    let Some(split) = Split::new() else { return };
    let debug = split.debug.to_str().unwrap();
    same("stripped", &split.stripped, &["--debug-file", debug]);
    let ran = tool::core_ok(&split.stripped, &unpacked().1, &["--debug-file", debug, "-v"]);
    assert!(ran.stdout().contains(&format!("debug information from {debug}")), "{}", ran.stdout());
    // Symbols stay, DWARF goes.
    let only_dwarf = split.path("only-dwarf");
    required(binutils::run("objcopy", &[&"--strip-debug", &unpacked().0, &only_dwarf]));
    same("--strip-debug", &only_dwarf, &["--debug-file", debug]);
    // An executable with debug information of its own, and that executable as a debug file.
    same("whole", &unpacked().0, &["--debug-file", debug]);
    same("whole as debug file", &split.stripped, &["--debug-file", unpacked().0.to_str().unwrap()]);
    // Compressed as a whole.
    let packed = split.path("packed.debug.zst");
    fs::write(&packed, zstd::encode_all(&fs::read(&split.debug).unwrap()[..], 1).unwrap()).unwrap();
    same("compressed", &split.stripped, &["--debug-file", packed.to_str().unwrap()]);
}

#[test]
fn wrong_debug_files() {
    let Some(split) = Split::new() else { return };
    let debug = split.debug.to_str().unwrap();
    nameless("none", &split.stripped, &["--debug-dir", "/nonexistent"], &[]);
    refused("the debug file as executable", &split.debug, &[], &["without the code", "--debug-file"]);
    refused("without DWARF", &split.stripped, &["--debug-file", split.stripped.to_str().unwrap()], &["found none"]);
    refused("no file", &split.stripped, &["--debug-file", "/nonexistent"], &["debug file /nonexistent: cannot open"]);
    refused("a core", &split.stripped, &["--debug-file", unpacked().1.to_str().unwrap()], &["found none"]);
    // Another build of the program: other ids.
    let mut other = fs::read(&split.debug).unwrap();
    let id = build_id(&split.stripped);
    let bytes: Vec<u8> = (0..id.len() / 2).map(|i| u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap()).collect();
    let at = other.windows(bytes.len()).position(|w| w == bytes).expect("the id in the debug file");
    other[at] ^= 0xff;
    let wrong = split.path("other.debug");
    fs::write(&wrong, &other).unwrap();
    let args = ["--debug-file", wrong.to_str().unwrap()];
    refused("other build", &split.stripped, &args, &["does not belong to executable", "GNU build id", &id[2..]]);
    // The same where it is found: not taken, and said.
    let by_id = split.path(&format!("debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    fs::copy(&wrong, &by_id).unwrap();
    let dir = split.path("debug/x");
    let dir = dir.parent().unwrap().to_str().unwrap();
    nameless("other build by id", &split.stripped, &["--debug-dir", dir], &["not taken", "GNU build id"]);
    let damaged = split.path("damaged.debug");
    for part in [1, 10, 50, 90, 99] {
        let whole = fs::read(debug).unwrap();
        fs::write(&damaged, &whole[..whole.len() * part / 100]).unwrap();
        let ran = tool::core(&split.stripped, &unpacked().1, &["--debug-file", damaged.to_str().unwrap()]);
        assert!([0, 1, 3].contains(&ran.code()) && !ran.stderr().contains("panicked"), "{part} %: {}", ran.stderr());
    }
}

#[test]
fn found_by_build_id() {
    let Some(split) = Split::new() else { return };
    let id = build_id(&split.stripped);
    let by_id = split.path(&format!("debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    // As distributions have it: a link to the file.
    fs::copy(&split.debug, split.path("debug/files/app.debug")).unwrap();
    symlink("../../files/app.debug", &by_id).unwrap();
    let dir = split.path("debug/x");
    same("by build id", &split.stripped, &["--debug-dir", dir.parent().unwrap().to_str().unwrap()]);
}

#[test]
fn found_by_debuglink() {
    let Some(split) = Split::new() else { return };
    let Some(linked) = split.link("app.debug") else { return };
    let nowhere = ["--debug-dir", "/nonexistent"];
    nameless("not there yet", &linked, &nowhere, &[]);
    let folder = linked.parent().unwrap().canonicalize().unwrap();
    let in_dir = split.path("debug").join(folder.strip_prefix("/").unwrap()).join("app.debug");
    for place in [folder.join("app.debug"), folder.join(".debug/app.debug"), in_dir] {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&split.debug, &place).unwrap();
        let dir = split.path("debug");
        same(&place.display().to_string(), &linked, &["--debug-dir", dir.to_str().unwrap()]);
        // A byte at the end changes nothing but the checksum.
        let mut changed = fs::read(&place).unwrap();
        changed.push(0);
        fs::write(&place, changed).unwrap();
        nameless("checksum", &linked, &["--debug-dir", dir.to_str().unwrap()], &["checksum", "app.debug"]);
        fs::remove_file(place).unwrap();
    }
}

/// The directory was `/` for the process: a container's root, or a copy of the few files that matter.
#[test]
fn executable_in_a_sysroot() {
    let Some(split) = Split::new() else { return };
    // What the sample's core says about its executable.
    let known = PathBuf::from(executable_of_sample());
    let inside = |root: &Path| root.join(known.strip_prefix("/").unwrap());
    let root = split.path("root");
    fs::create_dir_all(inside(&root).parent().unwrap()).unwrap();
    refused("empty", &root, &[], &["directory", known.to_str().unwrap()]);
    fs::copy(&unpacked().0, inside(&root)).unwrap();
    same("whole", &root, &[]);
    // An absolute link stays inside; one that climbs out of the root, too.
    for target in ["/opt/real/app", "../../../../../../../../../../opt/real/app"] {
        fs::remove_file(inside(&root)).unwrap();
        fs::create_dir_all(root.join("opt/real")).unwrap();
        fs::copy(&unpacked().0, root.join("opt/real/app")).unwrap();
        symlink(target, inside(&root)).unwrap();
        same(target, &root, &[]);
    }
    // A link in circles is an error.
    fs::remove_file(inside(&root)).unwrap();
    symlink(&known, inside(&root)).unwrap();
    refused("circle", &root, &[], &["too many symbolic links"]);
    // Nothing outside is opened, though it is there.
    fs::remove_file(inside(&root)).unwrap();
    symlink(&unpacked().0, inside(&root)).unwrap();
    refused("outside", &root, &[], &["directory"]);
    // Stripped, with its debug information inside as well.
    fs::remove_file(inside(&root)).unwrap();
    fs::copy(&split.stripped, inside(&root)).unwrap();
    let id = build_id(&split.stripped);
    let by_id = root.join(format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    fs::create_dir_all(by_id.parent().unwrap()).unwrap();
    fs::create_dir_all(root.join("srv")).unwrap();
    fs::copy(&split.debug, root.join("srv/app.debug")).unwrap();
    symlink("/srv/app.debug", by_id).unwrap();
    same("stripped", &root, &[]);
    refused("no executable", Path::new("/proc/self/fdinfo"), &[], &["directory"]);
}

fn executable_of_sample() -> String {
    let inputs = goref_fast::image::Inputs::open(&unpacked().0, &unpacked().1, None).unwrap();
    let process = goref_fast::image::Process::parse(&inputs).unwrap();
    let entry = goref_fast::address::Addr(process.executable.entry());
    process.files.iter().find(|f| f.range.contains(entry)).expect("the executable's mapping").live_path().to_owned()
}

/// A debuginfod server on the loopback interface: answers `GET` with a file or a status, counts the questions.
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = serve(stream, &answer);
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

enum Answer {
    File(Vec<u8>),
    /// Announced, but the connection ends half-way.
    Half(Vec<u8>),
    Status(u16),
    Silence,
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str) -> Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.trim() != "" {
        line.clear();
    }
    let (file, sent) = match answer(request.split_whitespace().nth(1).unwrap_or_default()) {
        Answer::File(file) => (file, 1),
        Answer::Half(file) => (file, 2),
        Answer::Status(status) => {
            return write!(stream, "HTTP/1.1 {status} Nothing\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Answer::Silence => {
            std::thread::sleep(std::time::Duration::from_secs(20));
            return Ok(());
        }
    };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.len())?;
    stream.write_all(&file[..file.len() / sent])
}

#[test]
fn asked_from_servers() {
    let Some(split) = Split::new() else { return };
    let id = build_id(&split.stripped);
    let cache = split.path("cache");
    let nowhere = ["--debug-dir", "/nonexistent"];
    let ask = |exe: &Path, urls: &str, cache: &Path| {
        let environment = [
            ("DEBUGINFOD_URLS", urls),
            ("DEBUGINFOD_CACHE_PATH", cache.to_str().unwrap()),
            ("DEBUGINFOD_TIMEOUT", "2"),
        ];
        tool::core_with(exe, &unpacked().1, &nowhere, &environment)
    };
    let debug = fs::read(&split.debug).unwrap();
    let path = format!("/buildid/{id}/debuginfo");
    let (answered, expected_path) = (debug.clone(), path.clone());
    let good = Server::start(
        move |asked| {
            if asked == expected_path { Answer::File(answered.clone()) } else { Answer::Status(404) }
        },
    );
    let bad = Server::start(|_| Answer::Status(404));
    let broken = Server::start(|_| Answer::Status(500));
    // Without the variable nobody is asked.
    nameless("not asked", &split.stripped, &nowhere, &[]);
    assert_eq!(good.asked() + bad.asked(), 0);
    // An executable with debug information needs no server.
    assert_eq!(ask(&unpacked().0, &good.url, &cache).code(), 0);
    assert_eq!(good.asked(), 0);
    // The second server has it; words that are no servers are left alone; then it is in the cache.
    let urls = format!("ima:permissive {} {}/ {}/ ", bad.url, broken.url, good.url);
    for round in 0..2 {
        let ran = ask(&split.stripped, &urls, &cache);
        assert_eq!(ran.code(), 0, "{}", ran.stderr());
        assert!(ran.bytes() == expected(), "round {round}");
        assert_eq!((bad.asked(), broken.asked(), good.asked()), (1, 1, 1), "round {round}: asked once");
    }
    assert_eq!(fs::read(cache.join(&id).join("debuginfo")).unwrap(), debug, "kept where other clients look");
    // What is there from another client is used, nobody asked.
    let other = split.path("other-cache");
    fs::create_dir_all(other.join(&id)).unwrap();
    fs::write(other.join(&id).join("debuginfo"), &debug).unwrap();
    assert_eq!(ask(&split.stripped, &bad.url, &other).code(), 0);
    assert_eq!(bad.asked(), 1);

    // Failures: said, and nothing is kept.
    let empty = split.path("empty-cache");
    let fails = |server: &Server, said: &str| {
        let ran = ask(&split.stripped, &server.url, &empty);
        assert_eq!(ran.code(), 0, "{said}: names are missing, nothing else");
        assert!(ran.stdout().contains(said) && ran.stdout().contains(&path), "{said}? {}", ran.stdout());
        assert!(!empty.join(&id).exists(), "{said}: something was kept");
    };
    fails(&bad, "not there");
    fails(&broken, "status 500");
    let answered = debug.clone();
    fails(&Server::start(move |_| Answer::Half(answered.clone())), "http");
    fails(&Server::start(|_| Answer::File(Vec::new())), "empty");
    fails(&Server::start(|_| Answer::Silence), "timeout");
    let mut wrong = debug;
    let at = wrong.windows(4).position(|w| w == b"GNU\0").expect("the note") + 4;
    wrong[at] ^= 0xff;
    let ran = ask(&split.stripped, &Server::start(move |_| Answer::File(wrong.clone())).url, &empty);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert!(ran.stdout().contains("GNU build id: the executable has"), "{}", ran.stdout());
}

/// An https server with a certificate of its own is believed if `SSL_CERT_FILE` has that, and only then.
#[test]
fn asked_from_a_server_over_https() {
    let Some(split) = Split::new() else { return };
    let id = build_id(&split.stripped);
    let (key, certificate) = (split.path("tls/key.pem"), split.path("tls/cert.pem"));
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    make.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
    let made =
        make.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output().map_err(|e| Skip(format!("openssl: {e}")));
    let Some(made) = required(made) else { return };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::copy(&split.debug, split.path(&format!("served/buildid/{id}/debuginfo"))).unwrap();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "localhost:0", "-WWW", "-cert"]).arg(&certificate).arg("-key").arg(&key);
    let Some(mut server) = required(Run::spawn(command.current_dir(split.path("served")))) else { return };
    let line = server.line("ACCEPT");
    let port = line.rsplit(':').next().expect("a port").trim().to_owned();
    let url = format!("https://localhost:{port}");
    let ask = |cache: &str, trusted: &Path| {
        let cache = split.path(cache);
        let environment = [
            ("DEBUGINFOD_URLS", &*url),
            ("DEBUGINFOD_CACHE_PATH", cache.to_str().unwrap()),
            ("DEBUGINFOD_TIMEOUT", "20"),
            ("SSL_CERT_FILE", trusted.to_str().unwrap()),
        ];
        tool::core_with(&split.stripped, &unpacked().1, &["--debug-dir", "/nonexistent"], &environment)
    };
    let trusted = ask("cache-1", &certificate);
    let (unknown, empty) = (ask("cache-2", Path::new("")), ask("cache-3", &key));
    let _ = server.child.kill();
    let _ = server.child.wait();
    assert_eq!(trusted.code(), 0, "{}", trusted.stderr());
    assert!(trusted.bytes() == expected(), "{}", trusted.stdout());
    for (ran, said) in [(unknown, "certificate"), (empty, "no certificate in it")] {
        assert_eq!(ran.code(), 0, "names are missing, nothing else: {}", ran.stderr());
        assert!(ran.stdout().contains(said), "{said}: {}", ran.stdout());
    }
}
