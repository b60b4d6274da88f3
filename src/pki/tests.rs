//! The CA, what it issues, and what is read back.

use super::*;
use crate::types::Code;
use ::time::{Duration, OffsetDateTime};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use x509_parser::{extensions::ParsedExtension, parse_x509_certificate, prelude::GeneralName};

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), "shop").unwrap();
    dir
}

fn node(dir: &Path, name: &str) -> Issued {
    issue(dir, Subject::node(name).unwrap(), IssueOptions::default()).unwrap()
}

fn der(path: &Path) -> Vec<u8> {
    files::read_certificates(path).unwrap().swap_remove(0).to_vec()
}

#[test]
fn the_ca_signs_and_does_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(&dir.path().join("new/folder"), "shop").unwrap();
    let der = der(&made.cert);
    let (_, ca) = parse_x509_certificate(&der).unwrap();
    let constraints = ca.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca);
    assert_eq!(constraints.path_len_constraint, Some(0));
    let usage = ca.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert_eq!(made.info.cluster, "shop");
    assert_eq!(made.info.kind, CertKind::Ca);
    assert_eq!(made.info.days_left, 3_650);
    assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_ca_is_made_once() {
    let dir = folder();
    let before = fs::read(dir.path().join(CA_KEY_FILE)).unwrap();
    let refused = init(dir.path(), "shop").unwrap_err();
    assert_eq!(refused.code, Code::BadCertificate);
    assert!(refused.message.contains("ca.crt"), "{refused}");
    fs::remove_file(dir.path().join(CA_CERT_FILE)).unwrap();
    let refused = init(dir.path(), "shop").unwrap_err();
    assert!(refused.message.contains("ca.key"), "{refused}");
    assert_eq!(fs::read(dir.path().join(CA_KEY_FILE)).unwrap(), before);
}

#[test]
fn cluster_names_have_an_alphabet() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "Shop", "a.b", "a/b", "a b", &"x".repeat(64)] {
        assert_eq!(init(dir.path(), bad).unwrap_err().code, Code::BadRequest, "{bad}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_node_serves_and_connects_and_a_user_only_connects() {
    let dir = folder();
    let user = Subject::user("alice").unwrap();
    let user = issue(dir.path(), user, IssueOptions::default()).unwrap();
    for (issued, uri, dns, serves, days) in [
        (node(dir.path(), "n1"), "spiffe://shop/node/n1", Some("n1.shop.ppdb.internal"), true, 90),
        (user, "spiffe://shop/user/alice", None, false, 7),
    ] {
        let der = der(&issued.cert);
        let (_, leaf) = parse_x509_certificate(&der).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap().value;
        let mut expected = vec![GeneralName::URI(uri)];
        expected.extend(dns.map(GeneralName::DNSName));
        assert_eq!(names.general_names, expected);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.any);
        assert_eq!(usage.server_auth, serves);
        assert!(!leaf.is_ca());
        let has_authority = leaf.iter_extensions().any(|extension| {
            matches!(extension.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(_))
        });
        assert!(has_authority);
        let serial = leaf.raw_serial();
        assert_eq!(serial.len(), 16);
        assert_eq!(serial[0] & 0xc0, 0x40, "positive, full length");
        let now = OffsetDateTime::now_utc();
        let backdated = now - leaf.validity().not_before.to_datetime();
        assert!((290..=310).contains(&backdated.whole_seconds()), "{backdated}");
        let left = leaf.validity().not_after.to_datetime() - now;
        assert_eq!((left + Duration::minutes(1)).whole_days(), days);
        assert_eq!(fs::metadata(&issued.key).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(issued.principal.to_string(), uri);
    }
}

#[test]
fn serials_differ() {
    let dir = folder();
    assert_ne!(node(dir.path(), "n1").info.serial, node(dir.path(), "n2").info.serial);
}

#[test]
fn no_certificate_outlives_its_ca() {
    let dir = folder();
    let options = IssueOptions { days: Some(DAYS_MAX), ..Default::default() };
    let later = OffsetDateTime::now_utc() + Duration::days(9_999);
    let exact = IssueOptions { not_after: Some(later), ..Default::default() };
    let ca = list(dir.path()).unwrap().swap_remove(0);
    for (name, options) in [("n1", options), ("n2", exact)] {
        let issued = issue(dir.path(), Subject::node(name).unwrap(), options).unwrap();
        assert!(issued.info.not_after <= ca.not_after);
        assert!(issued.info.days_left >= 3_649);
    }
}

#[test]
fn senseless_requests_are_refused_and_leave_nothing() {
    let dir = folder();
    let yesterday = Some(OffsetDateTime::now_utc() - Duration::days(1));
    for options in [
        IssueOptions { days: Some(0), ..Default::default() },
        IssueOptions { days: Some(DAYS_MAX + 1), ..Default::default() },
        IssueOptions { not_after: yesterday, ..Default::default() },
        IssueOptions { hosts: vec!["not a host".into()], ..Default::default() },
        IssueOptions { hosts: vec!["h".into(); HOSTS_MAX + 1], ..Default::default() },
    ] {
        let refused = issue(dir.path(), Subject::node("n1").unwrap(), options.clone());
        assert_eq!(refused.unwrap_err().code, Code::BadRequest, "{options:?}");
    }
    for bad in ["", "Alice", "a/b", "..", "a b", &"x".repeat(64)] {
        assert!(Subject::user(bad).is_err(), "{bad}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn nothing_is_issued_over_an_existing_file() {
    let dir = folder();
    let first = fs::read(node(dir.path(), "n1").key).unwrap();
    let again = issue(dir.path(), Subject::node("n1").unwrap(), IssueOptions::default());
    assert!(again.unwrap_err().message.contains("node-n1.crt"));
    assert_eq!(fs::read(dir.path().join("node-n1.key")).unwrap(), first);
}

#[test]
fn another_folder_is_complete_by_itself() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    let hosts = vec!["db.example.org".to_owned(), "10.0.0.1".to_owned()];
    let options = IssueOptions { out: Some(out.path().into()), hosts, ..Default::default() };
    let issued = issue(dir.path(), Subject::node("n1").unwrap(), options.clone()).unwrap();
    let identity = Identity::from_dir(out.path(), "node-n1").unwrap();
    assert_eq!(identity.principal(), &issued.principal);
    assert!(!out.path().join(CA_KEY_FILE).exists());
    let der = der(&issued.cert);
    let (_, leaf) = parse_x509_certificate(&der).unwrap();
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 4);

    let other = folder();
    let refused = issue(other.path(), Subject::node("n2").unwrap(), options).unwrap_err();
    assert!(refused.message.contains("another CA"), "{refused}");
}

#[test]
fn the_ca_must_be_whole() {
    let (dir, other) = (folder(), folder());
    fs::copy(other.path().join(CA_KEY_FILE), dir.path().join(CA_KEY_FILE)).unwrap();
    let issued = issue(dir.path(), Subject::node("n1").unwrap(), IssueOptions::default());
    assert!(issued.unwrap_err().message.contains("is not the key of"));
    let key = other.path().join(CA_KEY_FILE);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let issued = issue(other.path(), Subject::node("n1").unwrap(), IssueOptions::default());
    assert!(issued.unwrap_err().message.contains("mode 0640"));
}

#[test]
fn the_list_is_in_order_and_tells_what_expired() {
    let dir = folder();
    node(dir.path(), "n2");
    node(dir.path(), "n1");
    let hour = Duration::hours(1);
    let options = IssueOptions {
        not_before: Some(OffsetDateTime::now_utc() - hour * 3),
        not_after: Some(OffsetDateTime::now_utc() - hour),
        ..Default::default()
    };
    issue(dir.path(), Subject::user("n1").unwrap(), options).unwrap();
    fs::write(dir.path().join("README"), "not a certificate").unwrap();
    fs::write(dir.path().join("other.crt"), "not ours").unwrap();
    let listed = list(dir.path()).unwrap();
    let shown: Vec<_> = listed.iter().map(|c| (c.kind, c.name.as_str(), c.expired)).collect();
    assert_eq!(
        shown,
        [
            (CertKind::Ca, "PPDB CA of shop", false),
            (CertKind::Node, "n1", false),
            (CertKind::Node, "n2", false),
            (CertKind::User, "n1", true),
        ]
    );
    assert_eq!(listed[3].days_left, -1);
    assert_eq!(listed[1].days_left, 89);
    let json = serde_json::to_value(&listed[1]).unwrap();
    assert_eq!(json["kind"], "node");
    assert_eq!(json["not_after"], rfc3339(listed[1].not_after));

    fs::write(dir.path().join("node-n1.crt"), "damaged").unwrap();
    assert!(list(dir.path()).unwrap_err().message.contains("node-n1.crt"));
    let empty = tempfile::tempdir().unwrap();
    assert!(list(empty.path()).unwrap_err().message.contains("ppdb cert init"));
}

#[test]
fn an_identity_is_read_only_from_files_that_fit() {
    let dir = folder();
    let (n1, n2) = (node(dir.path(), "n1"), node(dir.path(), "n2"));
    let identity = Identity::load(&n1.ca, &n1.cert, &n1.key).unwrap();
    assert_eq!(identity.expires_in_days(), 89);
    assert_eq!(identity.not_after(), n1.info.not_after);

    let mixed = Identity::load(&n1.ca, &n1.cert, &n2.key).unwrap_err();
    assert!(mixed.message.contains("does not serve as the key"), "{mixed}");
    let ca_as_leaf = Identity::load(&n1.ca, &n1.ca, &dir.path().join(CA_KEY_FILE)).unwrap_err();
    assert!(ca_as_leaf.message.contains("exactly one URI name, and carries 0"), "{ca_as_leaf}");
    let leaf_as_ca = Identity::load(&n2.cert, &n1.cert, &n1.key).unwrap_err();
    assert!(leaf_as_ca.message.contains("is not the certificate of a CA"), "{leaf_as_ca}");
    let missing = Identity::from_dir(dir.path(), "node-n3").unwrap_err();
    assert!(missing.message.contains("node-n3.crt"), "{missing}");

    fs::set_permissions(&n1.key, fs::Permissions::from_mode(0o644)).unwrap();
    let open = Identity::load(&n1.ca, &n1.cert, &n1.key).unwrap_err();
    assert!(open.message.contains("mode 0644") && open.message.contains("chmod 600"), "{open}");
}

#[test]
fn two_identities_in_one_certificate_are_none() {
    let key = rcgen::KeyPair::generate().unwrap();
    for count in [0, 2] {
        let mut params = rcgen::CertificateParams::default();
        let uri = || rcgen::SanType::URI("spiffe://shop/node/n1".try_into().unwrap());
        params.subject_alt_names = (0..count).map(|_| uri()).collect();
        let certificate = params.self_signed(&key).unwrap();
        let refused = Principal::of_certificate(certificate.der()).unwrap_err();
        assert!(refused.contains(&format!("carries {count}")), "{refused}");
    }
    assert!(Principal::of_certificate(b"no certificate").is_err());
}
