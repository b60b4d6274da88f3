//! Bad certificates against real processes: signed by another CA, expired, of another cluster, a user's in
//! place of a node's, a key that others may read. Each is refused with an error that says which it was.

use crate::harness::{Certs, Cluster, Node, Ran, Shape, Wrap, ppdb};
use ppdb::pki::Identity;
use ppdb::transport::{Endpoint, StreamClass};
use ppdb::wire::client::Role;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;

/// A certificate and its key.
type Pair = (PathBuf, PathBuf);

/// Signs a certificate with the CA's key as `ppdb cert` would never do: for any name, expired or not.
fn forge(certs: &Certs, file: &str, uri: &str, valid_days: i64) -> Pair {
    let ca_key = fs::read_to_string(certs.dir().join("ca.key")).expect("the CA's key");
    let ca_key = KeyPair::from_pem(&ca_key).expect("a key");
    let ca = fs::read_to_string(certs.ca()).expect("the CA's certificate");
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).expect("a CA");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, file);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if let Some((cluster, name)) = uri.trim_start_matches("spiffe://").split_once("/node/") {
        let dns = format!("{name}.{cluster}.ppdb.internal");
        params.subject_alt_names.push(SanType::DnsName(dns.try_into().expect("ASCII")));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let now = OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(10);
    params.not_after = now + time::Duration::days(valid_days);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let pair = (certs.dir().join(format!("{file}.crt")), certs.dir().join(format!("{file}.key")));
    fs::write(&pair.0, certificate.pem()).expect("written");
    fs::write(&pair.1, key.serialize_pem()).expect("written");
    fs::set_permissions(&pair.1, fs::Permissions::from_mode(0o600)).expect("a mode");
    pair
}

/// Asks the first node with a certificate; trusts `ca`.
fn ask(cluster: &Cluster, ca: &Path, (cert, key): &Pair) -> Ran {
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (ca, cert, key) = (text(ca), text(cert), text(key));
    let endpoint = cluster.nodes[0].addr.to_string();
    let words = ["info", "--ca", &ca, "--cert", &cert, "--key", &key, "--endpoint", &endpoint];
    ppdb(words.into_iter().chain(["-o", "json", "--timeout", "5s"]))
}

/// The sentence of a command that was refused for its certificate.
fn refusal(ran: Ran) -> String {
    let answer = ran.expect(4).json();
    assert_eq!((&answer["ok"], &answer["outcome"]), (&false.into(), &"fail".into()), "{answer}");
    assert_eq!(answer["code"], "BadCertificate", "{answer}");
    answer["message"].as_str().unwrap_or_default().to_owned()
}

fn assert_says(sentence: &str, parts: &[&str]) {
    assert!(
        parts.iter().all(|part| sentence.contains(part)),
        "`{sentence}` does not say {parts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_bad_certificates_are_refused_by_name_of_the_fault() {
    let cluster = Cluster::unformed(Shape { primaries: 1, replicas: 0, ..Shape::default() });
    let certs = &cluster.certs;
    let ca = certs.ca();
    let good = forge(certs, "good", "spiffe://it/user/good", 1);
    cluster.wait_up().await;
    ask(&cluster, &ca, &good).expect(0);

    let imposter = Certs::init(&cluster.dir().join("imposter"), "it");
    imposter.user("tester");
    let wrong_ca = imposter.pair("user-tester");
    assert_says(&refusal(ask(&cluster, &ca, &wrong_ca)), &["not signed by the CA of cluster `it`"]);
    // The other way round: a client that trusts another CA refuses the node.
    assert_says(&refusal(ask(&cluster, &imposter.ca(), &wrong_ca)), &["not signed by the CA"]);

    let expired = forge(certs, "expired", "spiffe://it/user/late", -1);
    assert_says(&refusal(ask(&cluster, &ca, &expired)), &["expired"]);

    let other = forge(certs, "other", "spiffe://shop/user/tester", 1);
    assert_says(&refusal(ask(&cluster, &ca, &other)), &["cluster", "shop"]);
    let shop = Certs::init(&cluster.dir().join("shop"), "shop");
    shop.user("tester");
    assert_says(&refusal(ask(&cluster, &ca, &shop.pair("user-tester"))), &["cluster", "shop"]);

    let (cert, key) = good;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("a mode");
    assert_says(&refusal(ask(&cluster, &ca, &(cert, key))), &["mode 0640", "chmod 600"]);
    let left = cluster.nodes[0].log();
    assert!(
        left.contains("expired") && left.contains("shop"),
        "the node's log says why too:\n{left}"
    );
}

/// Starts a second node with a certificate and tries to form a cluster with it: what is said about it, by
/// the node itself or by the first one.
fn join_with(cluster: &mut Cluster, (cert, key): &Pair) -> String {
    let second = cluster.node("n2");
    second.kill();
    second.start_as(cert, key);
    let ran = cluster.init();
    assert_ne!(ran.code, Some(0), "a cluster was formed: {ran:#?}");
    let answer = ran.json();
    assert_eq!(answer["ok"], false, "{answer}");
    let own_words = cluster.node("n2").ended_with_log();
    own_words.unwrap_or_else(|| answer["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_bad_certificates_join_nothing() {
    let mut cluster = Cluster::unformed(Shape { primaries: 2, replicas: 0, ..Shape::default() });
    let certs = cluster.certs.clone();
    cluster.wait_up().await;

    let imposter = Certs::init(&cluster.dir().join("imposter"), "it");
    imposter.node("n2");
    let said = join_with(&mut cluster, &imposter.pair("node-n2"));
    assert_says(&said, &["not signed by the CA of cluster `it`"]);
    let said = join_with(&mut cluster, &forge(&certs, "late", "spiffe://it/node/n2", -1));
    assert_says(&said, &["expired"]);
    let said = join_with(&mut cluster, &forge(&certs, "far", "spiffe://shop/node/n2", 1));
    assert_says(&said, &["cluster", "shop"]);
    let said = join_with(&mut cluster, &forge(&certs, "user", "spiffe://it/user/n2", 1));
    assert_says(&said, &["user", "node"]);
    // The name in the certificate is the name of the node.
    let said = join_with(&mut cluster, &forge(&certs, "third", "spiffe://it/node/n3", 1));
    assert_says(&said, &["n3", "n2"]);

    // With the right certificate the same two nodes form a cluster.
    cluster.node("n2").kill();
    cluster.node("n2").start();
    cluster.init().expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_opens_no_stream_meant_for_nodes() {
    let cluster = Cluster::unformed(Shape { primaries: 1, replicas: 0, ..Shape::default() });
    cluster.wait_up().await;
    let addr = cluster.nodes[0].addr.to_string();
    for class in
        [StreamClass::Urgent, StreamClass::Append, StreamClass::Snapshot, StreamClass::Node]
    {
        let (cert, key) = forge(&cluster.certs, "user", "spiffe://it/user/peer", 1);
        let identity = Identity::load(&cluster.certs.ca(), &cert, &key).expect("an identity");
        let endpoint = Endpoint::client(&identity).expect("a socket");
        let connection = endpoint.connect(&addr).await.expect("a user may connect");
        let opened = connection.open(class).await;
        if let Ok((sender, _receiver)) = &opened {
            // The class is the first thing the node reads, and all it reads.
            let _ = sender.send("not for users".into()).await;
        }
        let closed = tokio::time::timeout(Duration::from_secs(5), connection.closed()).await;
        let why = closed.expect("the node closes the connection").to_string();
        assert_says(&why, &["a node certificate is required"]);
    }
}

#[test]
fn a_node_does_not_start_with_a_certificate_that_is_not_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let certs = Certs::init(&dir.path().join("certs"), "it");
    certs.user("n1");
    let addr = "127.0.0.1:19999".parse().expect("an address");
    let node = Node::new("n1", Role::Primary, addr, dir.path(), &certs, Wrap::default());
    let (cert, key) = certs.pair("user-n1");
    let ran = ppdb(node.serve(&cert, &key));
    assert!(!matches!(ran.code, Some(0) | None), "{ran:#?}");
    assert_says(&ran.text(), &["user", "node"]);
    assert!(!node.data_dir().exists(), "nothing was written");
}
