//! Debug information from a debuginfod server, by build id: `GET URL/buildid/HEX/debuginfo`. Only if the user names servers in
//! `DEBUGINFOD_URLS`; files are kept where other debuginfod clients keep theirs, and what those fetched is used.
//!
//! What a server sends is as hostile as any other input. It is parsed with the same checks, and its build id must match.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use super::Watch;
use super::decompress::{LOOK_EVERY, RESERVE, free_space};

/// The servers, and how they are asked.
#[derive(Clone, Debug)]
pub struct Debuginfod {
    /// `http://` or `https://`, asked in this order.
    pub urls: Vec<String>,
    /// Where files are kept: `CACHE/HEX/debuginfo`.
    pub cache: PathBuf,
    /// The longest wait for a connection, and for the beginning of an answer.
    pub timeout: Duration,
    /// The longest download.
    pub max_time: Duration,
    /// Certificates (PEM) of those who may vouch for an `https://` server, instead of the public ones.
    pub certificates: Option<PathBuf>,
}

/// As other clients: `DEBUGINFOD_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(90);

/// `DEBUGINFOD_MAXTIME`; other clients wait forever.
const MAX_TIME: Duration = Duration::from_secs(15 * 60);

/// Bytes of certificates that are read: all public ones are a quarter of a megabyte.
const MAX_CERTIFICATES: u64 = 16 << 20;

/// The longest file taken from a server.
const MAX_SIZE: u64 = 64 << 30;

impl Debuginfod {
    /// As the environment says (`DEBUGINFOD_URLS`, `DEBUGINFOD_CACHE_PATH`, `DEBUGINFOD_TIMEOUT`, `DEBUGINFOD_MAXTIME`, `SSL_CERT_FILE`); `None`
    /// if it names no server or there is no folder for what they send.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let seconds =
            |name: &str| text(name).and_then(|v| v.trim().parse().ok()).filter(|s| *s > 0).map(Duration::from_secs);
        // Words without a scheme are settings of other clients (`ima:permissive`).
        let is_server = |url: &&str| url.starts_with("http://") || url.starts_with("https://");
        let urls: Vec<String> =
            text("DEBUGINFOD_URLS")?.split_whitespace().filter(is_server).map(str::to_owned).collect();
        let user = || path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        let cache = path("DEBUGINFOD_CACHE_PATH").or_else(|| user().map(|dir| dir.join("debuginfod_client")))?;
        (!urls.is_empty()).then(|| Self {
            urls,
            cache,
            timeout: seconds("DEBUGINFOD_TIMEOUT").unwrap_or(TIMEOUT),
            max_time: seconds("DEBUGINFOD_MAXTIME").unwrap_or(MAX_TIME),
            certificates: path("SSL_CERT_FILE"),
        })
    }

    /// The debug file of `build_id`, from the cache or the first server that has it. `Err` says why not, server by server.
    pub(super) fn fetch(&self, build_id: &[u8], watch: &dyn Watch) -> Result<PathBuf, String> {
        let id: String = build_id.iter().map(|b| format!("{b:02x}")).collect();
        let folder = self.cache.join(&id);
        let file = folder.join("debuginfo");
        // An empty file says that no server had it when another client asked. Ask again: that costs little here.
        if std::fs::metadata(&file).is_ok_and(|m| m.is_file() && m.len() > 0) {
            return Ok(file);
        }
        let kept = |e: io::Error| format!("{}: cannot keep debug information: {e}", folder.display());
        let tls = ureq::tls::TlsConfig::builder().root_certs(self.trusted()?).build();
        std::fs::create_dir_all(&folder).map_err(kept)?;
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .user_agent(concat!("goref-fast/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .timeout_connect(Some(self.timeout))
            .timeout_recv_response(Some(self.timeout))
            .timeout_global(Some(self.max_time))
            .tls_config(tls)
            .build()
            .into();
        let mut refused = Vec::new();
        for server in &self.urls {
            let url = format!("{}/buildid/{id}/debuginfo", server.trim_end_matches('/'));
            match download(&agent, &url, &folder, watch) {
                Ok(downloaded) => {
                    downloaded.persist(&file).map_err(|e| kept(e.error))?;
                    return Ok(file);
                }
                Err(why) => refused.push(format!("{url}: {why}")),
            }
        }
        // Gone if nothing was kept in it.
        let _ = std::fs::remove_dir(&folder);
        Err(refused.join("; "))
    }
}

impl Debuginfod {
    /// Whose certificates are believed.
    fn trusted(&self) -> Result<RootCerts, String> {
        let Some(path) = &self.certificates else { return Ok(RootCerts::WebPki) };
        let wrong = |why: String| format!("SSL_CERT_FILE {}: {why}", path.display());
        let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
        let mut pem = Vec::new();
        file.take(MAX_CERTIFICATES).read_to_end(&mut pem).map_err(|e| wrong(e.to_string()))?;
        let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| if let Ok(PemItem::Certificate(certificate)) = item { Some(certificate) } else { None })
            .collect();
        if certificates.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(certificates.into()) }
    }
}

/// Downloads `url` into a temporary file in `folder`.
fn download(
    agent: &ureq::Agent,
    url: &str,
    folder: &Path,
    watch: &dyn Watch,
) -> Result<tempfile::NamedTempFile, String> {
    watch.begin("asking for debug information", 0);
    let response = agent.get(url).call().map_err(|e| e.to_string())?;
    match response.status().as_u16() {
        200 => {}
        404 => return Err("not there".to_owned()),
        status => return Err(format!("the server answers with status {status}")),
    }
    let body = response.into_body();
    watch.begin("downloading debug information", body.content_length().unwrap_or(0));
    let to = tempfile::NamedTempFile::new_in(folder).map_err(|e| e.to_string())?;
    let len = copy(body.into_with_config().limit(MAX_SIZE).reader(), to.as_file(), watch).map_err(|e| e.to_string())?;
    if len == 0 { Err("the answer is empty".to_owned()) } else { Ok(to) }
}

/// Copies as long as there is room.
fn copy(mut from: impl Read, mut to: &File, watch: &dyn Watch) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let (mut len, mut next_look) = (0, 0);
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(len),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if len >= next_look {
            next_look = len + LOOK_EVERY;
            if free_space(to) < RESERVE {
                return Err(io::Error::other("no room for the answer"));
            }
        }
        to.write_all(&buffer[..n])?;
        len += n as u64;
        watch.advance(n as u64);
    }
}
