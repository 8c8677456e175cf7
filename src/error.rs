//! Fatal errors: what was read, where, expected against found, and what the user can do.
//!
//! Soft errors (one bad pointer, one unreadable frame) are not here: they are counted in [`crate::incident`].

use std::fmt;

/// A fatal error: a message (outermost context first), an optional remedy and an optional cause.
#[derive(Debug)]
pub struct Error {
    message: String,
    remedy: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Shorthand for results that end the analysis.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A lowercase fragment: what was read, where, expected against found.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, source: None }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn cause(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The remedy, the outermost one if several layers gave one.
    #[must_use]
    pub fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref().or_else(|| {
            let inner: Option<&Error> = self.source.as_deref().and_then(|e| e.downcast_ref());
            inner.and_then(Error::remedy_text)
        })
    }
}

impl fmt::Display for Error {
    /// `message: cause: cause`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// Adds context to a result, once per layer.
pub trait Context<T> {
    /// Wraps the error in `message`, built only when there is one.
    ///
    /// # Errors
    /// The wrapped error.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(message()).cause(e))
    }
}
