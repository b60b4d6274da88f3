//! A folder of certificates made by `ppdb cert`.

use super::ppdb;
use ppdb::pki::Identity;
use std::path::{Path, PathBuf};

/// A CA and what it issued.
#[derive(Clone)]
pub struct Certs {
    dir: PathBuf,
}

impl Certs {
    /// Makes the CA of a cluster in `dir`.
    pub fn init(dir: &Path, cluster: &str) -> Self {
        let certs = Self { dir: dir.to_path_buf() };
        certs.run(&["init", "--cluster", cluster]);
        certs
    }

    /// Issues a node's certificate.
    pub fn node(&self, name: &str) {
        self.run(&["issue", "node", name]);
    }

    /// Issues a user's certificate.
    pub fn user(&self, name: &str) {
        self.run(&["issue", "user", name]);
    }

    fn run(&self, words: &[&str]) {
        let dir = self.dir.to_str().expect("a folder with a plain name");
        ppdb(["cert"].iter().chain(words).chain(&["--certs", dir])).expect(0);
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Certificate and key: `node-NAME`, `user-NAME`.
    pub fn pair(&self, stem: &str) -> (PathBuf, PathBuf) {
        (self.dir.join(format!("{stem}.crt")), self.dir.join(format!("{stem}.key")))
    }

    /// What the client library needs to be that user.
    pub fn identity(&self, name: &str) -> Identity {
        let (cert, key) = self.pair(&format!("user-{name}"));
        Identity::load(&self.ca(), &cert, &key).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}
