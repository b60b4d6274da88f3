//! `cert init`, `cert issue`, `cert list`: the commands around `pki`, which does the work.

use super::args::globals::CERTS_DEFAULT;
use super::args::{CertVerb, Globals, IssueFlags, IssueVerb};
use super::value::{Answered, Doc};
use crate::pki::{self, CertInfo, CertKind, IssueOptions, Subject};
use crate::types::Result;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Carries out one of them in the `--certs` folder.
pub fn run(verb: &CertVerb, globals: &Globals) -> Result<Answered> {
    let folder = globals.certs.clone().unwrap_or_else(|| PathBuf::from(CERTS_DEFAULT));
    let doc = match verb {
        CertVerb::Init { cluster } => init(&folder, cluster)?,
        CertVerb::Issue(IssueVerb::Node { name, options }) => {
            issue(&folder, Subject::Node(name.clone()), options)?
        }
        CertVerb::Issue(IssueVerb::User { name, options }) => {
            issue(&folder, Subject::User(name.clone()), options)?
        }
        CertVerb::List => list(&pki::list(&folder)?),
    };
    Ok(Answered::doc(doc, None))
}

fn init(folder: &Path, cluster: &str) -> Result<Doc> {
    let ca = pki::init(folder, cluster)?;
    let json =
        json!({ "cluster": ca.cluster, "ca": ca.cert, "key": ca.key, "certificate": ca.info });
    let notes = vec![
        format!("CA of cluster {}: {}", ca.cluster, ca.cert.display()),
        format!("its key, which makes any identity: {}", ca.key.display()),
    ];
    Ok(Doc { json, notes, ..list(&[ca.info]) })
}

fn issue(folder: &Path, subject: Subject, flags: &IssueFlags) -> Result<Doc> {
    let options = IssueOptions {
        out: flags.out.clone(),
        days: flags.days,
        hosts: flags.hosts.clone(),
        ..IssueOptions::default()
    };
    let issued = pki::issue(folder, subject, options)?;
    let json = json!({
        "cert": issued.cert, "key": issued.key, "ca": issued.ca, "certificate": issued.info,
    });
    let notes = vec![format!("wrote {} and {}", issued.cert.display(), issued.key.display())];
    Ok(Doc { json, notes, ..list(&[issued.info]) })
}

fn list(certificates: &[CertInfo]) -> Doc {
    let row = |info: &CertInfo| {
        let kind = match info.kind {
            CertKind::Ca => "ca",
            CertKind::Node => "node",
            CertKind::User => "user",
        };
        let left = match info.expired {
            true => "EXPIRED".to_owned(),
            false => format!("{} days", info.days_left),
        };
        let file = info.file.display().to_string();
        vec![
            kind.into(),
            info.name.clone(),
            info.cluster.clone(),
            pki::rfc3339(info.not_after),
            left,
            file,
        ]
    };
    Doc {
        json: json!(certificates),
        header: vec!["KIND", "NAME", "CLUSTER", "VALID UNTIL", "LEFT", "FILE"],
        rows: certificates.iter().map(row).collect(),
        notes: Vec::new(),
    }
}
