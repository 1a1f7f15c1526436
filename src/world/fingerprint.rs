//! Keyed fingerprints: equal secrets can be recognised without being revealed.
//!
//! The key is made at first use, is 32 random bytes in a file of mode 0600, and
//! never leaves the host. Without it a fingerprint says nothing about a secret,
//! not even about a weak one, and fingerprints of two hosts cannot be compared.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use hmac::{Hmac, Mac};
use rustix::fs::OFlags;
use sha2::Sha256;

use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

const KEY_BYTES: usize = 32;

/// How a marker begins.
const MARKER: &str = "<redacted:hmac-sha256:";

/// Whether a value is a marker in the place of a credential.
pub fn is_marker(value: &str) -> bool {
    let digits = value
        .strip_prefix(MARKER)
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The key of the fingerprints of a host.
pub struct FingerprintKey([u8; KEY_BYTES]);

impl FingerprintKey {
    /// A key made of given bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> FingerprintKey {
        FingerprintKey(bytes)
    }

    /// Reads the key file, or makes it where there is none. Several processes may do this
    /// at once: all get the same key.
    ///
    /// [`ErrorKind::HostUnfit`] where the file is not a key or others can read it.
    pub fn load_or_create(path: &Path) -> Result<FingerprintKey> {
        match load(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
        match create(path) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => load(path),
            result => result,
        }
    }

    /// What stands for a value: 16 hexadecimal digits of HMAC-SHA-256.
    pub fn fingerprint(&self, value: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(value);
        hex::encode(&mac.finalize().into_bytes()[..8])
    }

    /// The marker that takes the place of a value.
    pub fn marker(&self, value: &[u8]) -> String {
        format!("{MARKER}{}>", self.fingerprint(value))
    }
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

fn load(path: &Path) -> Result<FingerprintKey> {
    let file = File::options()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)
        .context(|| format!("open the fingerprint key {}", path.display()))?;
    let meta = file
        .metadata()
        .context(|| format!("look at {}", path.display()))?;
    let unfit = |why: &str| {
        Err(Error::new(
            ErrorKind::HostUnfit,
            format!("the fingerprint key {} {why}", path.display()),
        ))
    };
    if !meta.is_file() || meta.len() != KEY_BYTES as u64 {
        return unfit("is not a file of 32 bytes: remove it and a new one will be made");
    }
    if meta.mode() & 0o077 != 0 || meta.uid() != rustix::process::geteuid().as_raw() {
        return unfit("can be read by others: remove it and a new one will be made");
    }
    let mut key = [0; KEY_BYTES];
    (&file)
        .read_exact(&mut key)
        .context(|| format!("read {}", path.display()))?;
    Ok(FingerprintKey(key))
}

fn create(path: &Path) -> Result<FingerprintKey> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .context(|| format!("create {}", dir.display()))?;
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)
        .map_err(|error| Error::caused_by(ErrorKind::HostUnfit, "get random bytes", error))?;
    let what = || format!("create the fingerprint key {}", path.display());
    // Complete before it has its name; the temporary file is 0600 and removes itself.
    let mut file = tempfile::NamedTempFile::new_in(dir).context(what)?;
    file.write_all(&key).context(what)?;
    file.as_file().sync_all().context(what)?;
    file.persist_noclobber(path)
        .map_err(|error| error.error)
        .context(what)?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .context(what)?;
    Ok(FingerprintKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/fingerprint.key");
        let prints: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| FingerprintKey::load_or_create(&path).unwrap()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap().fingerprint(b"x"))
                .collect()
        });
        assert!(prints.iter().all(|print| *print == prints[0]));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn an_unfit_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (bytes, mode) in [
            (31, 0o600),
            (0, 0o600),
            (33, 0o600),
            (32, 0o640),
            (32, 0o604),
        ] {
            std::fs::write(&path, vec![7; bytes]).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = FingerprintKey::load_or_create(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HostUnfit, "{bytes} {mode:o}");
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(FingerprintKey::load_or_create(&path).is_err());
    }

    #[test]
    fn fingerprints_follow_key_and_value() {
        let one = FingerprintKey::from_bytes([1; 32]);
        let two = FingerprintKey::from_bytes([2; 32]);
        assert_eq!(one.fingerprint(b"a"), one.fingerprint(b"a"));
        assert_ne!(one.fingerprint(b"a"), one.fingerprint(b"b"));
        assert_ne!(one.fingerprint(b"a"), two.fingerprint(b"a"));
        assert_eq!(
            one.marker(b"a").len(),
            "<redacted:hmac-sha256:0123456789abcdef>".len()
        );
    }
}
