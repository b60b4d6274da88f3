//! Certificate and key files: written once, keys for their owner's eyes only, read with a bound.
//!
//! Knows PEM and file modes, nothing of what a certificate says.

use crate::types::{Code, Error, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Bytes of a certificate or key file; a longer one is refused. A bundle of CAs during a roll fits often.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Mode of a key file. Any bit for group or others is refused on reading.
const KEY_MODE: u32 = 0o600;
const CERT_MODE: u32 = 0o644;

/// Makes the folder and its parents; a new one is its owner's alone.
pub(super) fn make_folder(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| failed("make the folder", dir, error))
}

/// Writes a pair of files that must not exist yet. The key comes first: its creation is what one of two
/// racing writers wins. If the certificate cannot be written, the key is removed again.
pub(super) fn write_pair(key: (&Path, &str), cert: (&Path, &str)) -> Result<()> {
    refuse_existing(cert.0)?;
    write_new(key.0, key.1, KEY_MODE)?;
    write_new(cert.0, cert.1, CERT_MODE).inspect_err(|_| {
        let _ = fs::remove_file(key.0);
    })
}

/// Makes `target` a copy of the certificate file `source`, unless it is one already. Another content
/// there is an error: it would be another cluster's CA.
pub(super) fn copy_certificate(source: &Path, target: &Path) -> Result<()> {
    let text = read_text(source)?;
    match target.exists() {
        false => write_new(target, &text, CERT_MODE),
        true if read_text(target)? == text => Ok(()),
        true => Err(bad(format!(
            "`{}` exists and differs from `{}`: it belongs to another CA",
            target.display(),
            source.display()
        ))),
    }
}

/// An error that names the file, if it exists.
pub(super) fn refuse_existing(path: &Path) -> Result<()> {
    // `symlink_metadata`: a dangling link is in the way as well.
    match fs::symlink_metadata(path) {
        Ok(_) => Err(exists(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", path, error)),
    }
}

/// Creates the file with its final mode, so that it never had a wider one, and makes it durable.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists(path)),
        Err(error) => return Err(failed("create", path, error)),
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    });
    written.map_err(|error| {
        // A half-written file would be in the way of the next attempt.
        let _ = fs::remove_file(path);
        failed("write", path, error)
    })
}

/// The text of a certificate file.
pub(super) fn read_text(path: &Path) -> Result<String> {
    read_open(path, open(path)?)
}

/// The text of a key file that only its owner may read.
pub(super) fn read_key_text(path: &Path) -> Result<String> {
    let file = open(path)?;
    // The mode of the open file, so that it cannot be exchanged between the check and the reading.
    let mode = file.metadata().map_err(|error| failed("look at", path, error))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(bad(format!(
            "the key `{path}` has mode {mode:04o} and is open to others; run `chmod 600 {path}`, and issue \
             it anew if someone may have read it"
        )));
    }
    read_open(path, file)
}

/// Every certificate in the file, at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read_text(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            Err(bad(format!("`{}` holds no PEM certificate", path.display())))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(bad(format!("`{}` is not PEM: {error}", path.display()))),
    }
}

/// The private key in the file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let text = read_key_text(path)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| bad(format!("`{}` holds no PEM private key: {error}", path.display())))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| failed("open", path, error))
}

fn read_open(path: &Path, file: File) -> Result<String> {
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => {
            Err(bad(format!("`{}` is longer than {FILE_BYTES_MAX} bytes", path.display())))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(failed("read", path, error)),
    }
}

pub(super) fn bad(message: String) -> Error {
    Error::new(Code::BadCertificate, message)
}

fn exists(path: &Path) -> Error {
    bad(format!("`{}` exists already and is never overwritten", path.display()))
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    bad(format!("cannot {what} `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pair_is_written_once_and_the_key_is_the_owners() {
        let dir = tempfile::tempdir().unwrap();
        let (key, cert) = (dir.path().join("a.key"), dir.path().join("a.crt"));
        write_pair((&key, "k"), (&cert, "c")).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
        let again = write_pair((&key, "other"), (&cert, "other")).unwrap_err();
        assert!(again.message.contains("a.crt"), "{again}");
        fs::remove_file(&cert).unwrap();
        let again = write_pair((&key, "other"), (&cert, "other")).unwrap_err();
        assert!(again.message.contains("a.key"), "{again}");
        assert_eq!(fs::read_to_string(&key).unwrap(), "k");
        assert!(!cert.exists());
    }

    #[test]
    fn every_wider_mode_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("a.key");
        write_new(&key, "k", KEY_MODE).unwrap();
        assert_eq!(read_key_text(&key).unwrap(), "k");
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601, 0o660] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            let refused = read_key_text(&key).unwrap_err();
            assert_eq!(refused.code, Code::BadCertificate);
            let cure = format!("chmod 600 {}", key.display());
            assert!(refused.message.contains(&format!("mode {mode:04o}")), "{refused}");
            assert!(refused.message.contains(&cure), "{refused}");
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read_key_text(&key).unwrap(), "k");
    }

    #[test]
    fn long_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.crt");
        fs::write(&path, vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(read_text(&path).unwrap_err().message.contains("longer than"));
        fs::write(&path, "no pem").unwrap();
        assert!(read_certificates(&path).unwrap_err().message.contains("holds no PEM"));
    }

    #[test]
    fn a_copy_of_the_ca_never_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "one").unwrap();
        copy_certificate(&a, &b).unwrap();
        copy_certificate(&a, &b).unwrap();
        fs::write(&a, "two").unwrap();
        assert!(copy_certificate(&a, &b).unwrap_err().message.contains("another CA"));
        assert_eq!(fs::read_to_string(&b).unwrap(), "one");
    }
}
