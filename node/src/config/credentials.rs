//! Credentials: read from files, read again when the files change, never printed, compared in constant time.
//!
//! A key that clients send ends when its file changes. A token that members of a cluster share reaches them at different
//! times, as each kubelet brings a changed Secret when it gets to it: so the one before it is accepted for
//! [`FORMER_FOR`] longer, by those who ask with [`Credential::accepted`].

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use subtle::ConstantTimeEq;

/// How often a file is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long after a change was seen, the credential before it is still accepted where both sides have to see it.
const FORMER_FOR: Duration = Duration::from_secs(600);
/// A credential is no longer than this, in bytes.
const MAX_LEN: u64 = 4096;

/// A credential file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its content cannot be a credential.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        message: &'static str,
    },
}

/// One credential in a file. Cheap to clone; clones share what was read.
#[derive(Clone)]
pub struct Credential {
    path: Arc<Path>,
    read: Arc<Mutex<Read>>,
}

struct Read {
    secret: Arc<[u8]>,
    /// The one before, and when it was replaced.
    former: Option<(Arc<[u8]>, Instant)>,
    version: Version,
    looked: Instant,
}

/// What changes when the file does; Kubernetes replaces mounted secrets by another file behind a symbolic link.
#[derive(PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Credential {
    /// Reads the file; white space at its end is left out.
    pub fn open(path: &Path) -> Result<Self, CredentialError> {
        let (secret, version) = read(path)?;
        Ok(Credential {
            path: path.into(),
            read: Arc::new(Mutex::new(Read {
                secret,
                former: None,
                version,
                looked: Instant::now(),
            })),
        })
    }

    /// The credential as the file has it now. When it cannot be read any more, the one read last stays valid.
    pub fn current(&self) -> Arc<[u8]> {
        let mut known = self.read.lock();
        if known.looked.elapsed() >= LOOK_EVERY {
            known.looked = Instant::now();
            self.look(&mut known);
        }
        known.secret.clone()
    }

    /// The credential as the file has it now, and the one before it for a while after a change.
    pub fn accepted(&self) -> (Arc<[u8]>, Option<Arc<[u8]>>) {
        let current = self.current();
        let known = self.read.lock();
        let former = known.former.as_ref();
        let former = former.filter(|(_, replaced)| replaced.elapsed() < FORMER_FOR);
        (current, former.map(|(secret, _)| secret.clone()))
    }

    /// Whether `given` is the credential; the time that it takes tells its length at most.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.current().ct_eq(given).into()
    }

    /// Whether `given` is the credential, or the one before it for a while after a change.
    pub fn accepts(&self, given: &[u8]) -> bool {
        let (current, former) = self.accepted();
        let is_former = former.is_some_and(|former| former.ct_eq(given).into());
        bool::from(current.ct_eq(given)) || is_former
    }

    fn look(&self, known: &mut Read) {
        let unchanged = version(&self.path).is_ok_and(|version| version == known.version);
        if unchanged {
            return;
        }
        match read(&self.path) {
            Ok((secret, version)) => {
                if secret != known.secret {
                    tracing::info!(file = %self.path.display(), "credential changed");
                    let former = std::mem::replace(&mut known.secret, secret);
                    known.former = Some((former, Instant::now()));
                }
                known.version = version;
            }
            Err(error) => tracing::error!(%error, "the credential read before stays valid"),
        }
    }

    #[cfg(test)]
    fn look_now(&self) {
        self.look(&mut self.read.lock());
    }
}

impl fmt::Debug for Credential {
    /// Where it comes from, not what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.path.display())
    }
}

fn version(path: &Path) -> io::Result<Version> {
    let metadata = fs::metadata(path)?;
    Ok(Version {
        inode: metadata.ino(),
        size: metadata.size(),
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec(),
    })
}

fn read(path: &Path) -> Result<(Arc<[u8]>, Version), CredentialError> {
    let io = |source| CredentialError::Io {
        path: path.to_owned(),
        source,
    };
    let content = |message| CredentialError::Content {
        path: path.to_owned(),
        message,
    };
    // The version is taken first: a change in between is seen at the next look.
    let version = version(path).map_err(io)?;
    if version.size > MAX_LEN {
        return Err(content("larger than 4096 bytes: expected one credential"));
    }
    let bytes = fs::read(path).map_err(io)?;
    let secret = bytes.trim_ascii();
    if secret.is_empty() {
        return Err(content("empty: expected one credential"));
    }
    if !secret.iter().all(u8::is_ascii_graphic) {
        return Err(content(
            "holds white space or characters outside ASCII: expected one credential that can stand in a header",
        ));
    }
    Ok((secret.into(), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn the_line_end_of_the_file_is_not_part_of_the_credential() {
        let (_dir, path) = file("s3cret\n");
        let credential = Credential::open(&path).unwrap();
        assert!(credential.matches(b"s3cret"));
        assert!(!credential.matches(b"s3cret\n"));
        assert!(!credential.matches(b"s3cre"));
        assert!(!credential.matches(b""));
    }

    #[test]
    fn a_changed_file_is_read_again_and_the_old_credential_ends() {
        let (_dir, path) = file("old");
        let credential = Credential::open(&path).unwrap();
        fs::write(&path, "newer").unwrap();
        credential.look_now();
        assert!(credential.matches(b"newer"));
        assert!(!credential.matches(b"old"));
    }

    #[test]
    fn where_both_sides_have_to_see_a_change_the_one_before_is_accepted_for_a_while() {
        let (_dir, path) = file("old");
        let credential = Credential::open(&path).unwrap();
        assert!(credential.accepted().1.is_none());
        fs::write(&path, "newer").unwrap();
        credential.look_now();
        assert!(credential.accepts(b"newer") && credential.accepts(b"old"));
        assert!(!credential.accepts(b"other"));
        fs::write(&path, "newest!").unwrap();
        credential.look_now();
        assert!(credential.accepts(b"newest!") && credential.accepts(b"newer"));
        assert!(!credential.accepts(b"old"), "two changes ago");
        let long_ago = Instant::now().checked_sub(FORMER_FOR).unwrap();
        credential.read.lock().former.as_mut().unwrap().1 = long_ago;
        assert!(!credential.accepts(b"newer") && credential.accepted().1.is_none());
        assert!(credential.accepts(b"newest!"));
    }

    #[test]
    fn a_file_that_vanishes_leaves_the_credential_valid() {
        let (_dir, path) = file("s3cret");
        let credential = Credential::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        credential.look_now();
        assert!(credential.matches(b"s3cret"));
        fs::write(&path, "").unwrap();
        credential.look_now();
        assert!(credential.matches(b"s3cret"));
        assert!(!credential.matches(b""));
    }

    #[test]
    fn it_is_never_printed() {
        let (_dir, path) = file("s3cret");
        let credential = Credential::open(&path).unwrap();
        assert!(!format!("{credential:?}").contains("s3cret"));
    }

    #[test]
    fn empty_oversized_and_unprintable_files_are_refused_with_their_path() {
        let long = "x".repeat(5000);
        for content in ["", " \n", "two words", "schlüssel", long.as_str()] {
            let (_dir, path) = file(content);
            let error = Credential::open(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("expected one credential"), "{error}");
        }
        let error = Credential::open(Path::new("/nonexistent/key")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/key"));
    }
}
