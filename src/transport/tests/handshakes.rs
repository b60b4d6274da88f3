//! Who gets in, who does not, and what both sides are told.

use super::*;
use crate::types::NodeName;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Usage, KeyPair, SanType};
use time::{Duration as Days, OffsetDateTime};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_users_reach_a_node_and_each_knows_the_other() {
    let dir = ca("shop");
    let (server, addr, mut accepted) = serve(&node(dir.path(), "n1"), Options::default());
    for identity in [node(dir.path(), "n2"), user(dir.path(), "alice")] {
        let client = Endpoint::client(&identity).unwrap();
        let near = client.connect(&addr).await.unwrap();
        let far = within(accepted.recv()).await.unwrap();
        assert_eq!(near.principal().to_string(), "spiffe://shop/node/n1");
        assert_eq!(far.principal(), identity.principal());
        assert_eq!(near.remote_addr(), server.local_addr());
        assert_eq!(far.remote_addr().port(), client.local_addr().port());
        assert!(far.remote_addr().is_ipv4() && !near.is_closed());
    }
    // A server connects as well, by name too.
    let (peer, peer_addr, mut peer_accepted) = serve(&node(dir.path(), "n3"), Options::default());
    let by_name = format!("localhost:{}", peer.local_addr().port());
    for addr in [peer_addr, by_name] {
        let near = server.connect_node(&addr, &NodeName::new("n3").unwrap()).await.unwrap();
        let far = within(peer_accepted.recv()).await.unwrap();
        assert_eq!(far.principal().to_string(), "spiffe://shop/node/n1");
        assert_eq!(far.remote_addr(), server.local_addr());
        drop(near);
    }
}

/// A node that shows a certificate which `issue` would not make, signed by the CA in `dir`.
fn forged(dir: &Path, uris: &[&str], usages: &[Usage]) -> Identity {
    let pem = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let ca_key = KeyPair::from_pem(&pem("ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&pem("ca.crt"), ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = usages.to_vec();
    let key = KeyPair::generate().unwrap();
    let name = format!("f{}", std::fs::read_dir(dir).unwrap().count());
    node(dir, &name).showing(&params.signed_by(&key, &issuer).unwrap(), &key)
}

/// A certificate of the CA in `leaf_dir` whose owner trusts the CA in `ca_dir`.
fn trusting(ca_dir: &Path, leaf_dir: &Path) -> Identity {
    let name = format!("x{}", std::fs::read_dir(leaf_dir).unwrap().count());
    let issued =
        pki::issue(leaf_dir, Subject::node(&name).unwrap(), IssueOptions::default()).unwrap();
    Identity::load(&ca_dir.join("ca.crt"), &issued.cert, &issued.key).unwrap()
}

fn valid(dir: &Path, name: &str, from_days: i64, to_days: i64) -> Identity {
    let now = OffsetDateTime::now_utc();
    let options = IssueOptions {
        not_before: Some(now + Days::days(from_days)),
        not_after: Some(now + Days::days(to_days)),
        ..Default::default()
    };
    issue(dir, Subject::node(name).unwrap(), options)
}

const BOTH: &[Usage] = &[Usage::ClientAuth, Usage::ServerAuth];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_of_the_connecting_side_is_refused_and_both_sides_know_why() {
    logged();
    let (shop, twin, other) = (ca("shop"), ca("shop"), ca("other"));
    let (shop, twin, other) = (shop.path(), twin.path(), other.path());
    let (_server, addr, mut accepted) = serve(&node(shop, "n1"), Options::default());
    for (identity, sentence) in [
        (
            trusting(shop, twin),
            "it is not signed by the CA of cluster `shop` (it calls itself spiffe://shop/node/x",
        ),
        (
            trusting(shop, other),
            "it is not signed by the CA of cluster `shop` (it calls itself spiffe://other/node/x",
        ),
        (valid(shop, "old", -9, -1), "it expired on 20"),
        (valid(shop, "new", 1, 9), "it is not valid before 20"),
        (
            forged(shop, &["spiffe://other/node/n2"], BOTH),
            "it belongs to cluster `other` (spiffe://other/node/n2), not to cluster `shop`",
        ),
        (forged(shop, &["spiffe://shop/node/n2", "spiffe://shop/node/n3"], BOTH), "carries 2"),
        (forged(shop, &["spiffe://shop/node/n2"], &[Usage::ServerAuth]), "extended key usage"),
    ] {
        let client = Endpoint::client(&identity).unwrap();
        let ours = client.local_addr().port();
        let refused = connect_without_checks(&client, &identity, &addr).await;
        let Err(Error::Refused(told)) = refused else { panic!("{sentence}: not refused") };
        assert!(told.starts_with("the other side refused our certificate: it"), "{told}");
        assert!(told.contains(sentence), "{told}");
        is_logged(&["connection refused", &format!(":{ours} "), sentence]).await;
    }
    assert!(accepted.try_recv().is_err(), "nothing was delivered");
}

/// Connects like `Endpoint::connect`, taking whatever the server shows.
async fn connect_without_checks(
    client: &Endpoint,
    identity: &Identity,
    addr: &str,
) -> Result<(), Error> {
    let config = super::super::tls::connecting(identity, None).unwrap();
    let provider = pki::provider();
    let mut blind = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(super::tls::Blind(provider)))
        .with_client_cert_resolver(config.client_auth_cert_resolver.clone());
    blind.alpn_protocols = config.alpn_protocols;
    client.dial_with(blind, addr.parse().unwrap()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_of_the_answering_side_is_refused_and_both_sides_know_why() {
    logged();
    let (shop, twin, other) = (ca("shop"), ca("shop"), ca("other"));
    let (shop, twin, other) = (shop.path(), twin.path(), other.path());
    let client = Endpoint::client(&node(shop, "n1")).unwrap();
    let port = format!(":{} ", client.local_addr().port());
    for (identity, sentence) in [
        (
            trusting(shop, twin),
            "it is not signed by the CA of cluster `shop` (it calls itself spiffe://shop/node/x",
        ),
        (
            node(other, "n2"),
            "it is not signed by the CA of cluster `shop` (it calls itself spiffe://other/node/n2)",
        ),
        (valid(shop, "old", -9, -1), "it expired on 20"),
        (valid(shop, "new", 1, 9), "it is not valid before 20"),
        (
            forged(shop, &["spiffe://other/node/n2"], BOTH),
            "it belongs to cluster `other` (spiffe://other/node/n2), not to cluster `shop`",
        ),
        (user(shop, "eve"), "it is the certificate of user `eve`, and only a node may serve"),
        (
            forged(shop, &["spiffe://shop/user/mallory"], BOTH),
            "it is the certificate of user `mallory`, and only a node may serve",
        ),
    ] {
        let tls = super::super::tls::accepting(&identity).unwrap();
        let server = Endpoint::serve(loopback(), &identity, Options::default(), tls).unwrap();
        let (_server, addr, mut accepted) = accepting(server);
        let Err(Error::Refused(told)) = client.connect(&addr).await else {
            panic!("{sentence}: not refused")
        };
        let expected = format!("{addr}: the certificate of the other side was refused: {sentence}");
        assert!(told.starts_with(&expected), "{told}");
        is_logged(&["connection refused", &port, "refused our certificate", sentence]).await;
        assert!(accepted.try_recv().is_err(), "nothing was delivered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_answers_must_be_the_one_that_was_called() {
    let dir = ca("shop");
    let (_server, addr, mut accepted) = serve(&node(dir.path(), "n1"), Options::default());
    let client = Endpoint::client(&node(dir.path(), "n2")).unwrap();
    let refused = client.connect_node(&addr, &NodeName::new("n9").unwrap()).await;
    let Err(Error::Refused(told)) = refused else { panic!("not refused") };
    assert!(told.ends_with("it is the certificate of node `n1`, not of node `n9`"), "{told}");
    assert!(accepted.try_recv().is_err());
    client.connect_node(&addr, &NodeName::new("n1").unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_certificate_or_protocol_is_refused() {
    logged();
    let dir = ca("shop");
    let (_server, addr, mut accepted) = serve(&node(dir.path(), "n1"), Options::default());
    let identity = node(dir.path(), "n2");
    let changed = |change: fn(&mut rustls::ClientConfig)| {
        let mut config = super::super::tls::connecting(&identity, None).unwrap();
        change(&mut config);
        config
    };
    let anonymous = changed(|c| c.client_auth_cert_resolver = Arc::new(super::tls::Nobody));
    let wrong = changed(|c| c.alpn_protocols = vec![b"h3".to_vec()]);
    let none = changed(|c| c.alpn_protocols = vec![]);
    for (config, sentence, log) in [
        (anonymous, "requires a certificate, and we showed none", "showed no certificate"),
        (wrong, "`ppdb/1` is required", "`ppdb/1` is required"),
        (none, "`ppdb/1` is required", "`ppdb/1` is required"),
    ] {
        let client = Endpoint::client(&identity).unwrap();
        let refused = client.dial_with(config, addr.parse().unwrap()).await;
        let Err(Error::Refused(told)) = refused else { panic!("{sentence}: not refused") };
        assert!(told.contains(sentence), "{told}");
        let port = format!(":{} ", client.local_addr().port());
        is_logged(&["connection refused", &port, log]).await;
    }
    assert!(accepted.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_told_in_time() {
    let dir = ca("shop");
    let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
    let addr = nobody.local_addr().unwrap().to_string();
    let options = Options { connect_timeout: Duration::from_millis(300), ..Default::default() };
    let client = Endpoint::client_with(&node(dir.path(), "n1"), options).unwrap();
    let started = std::time::Instant::now();
    let failed = client.connect(&addr).await;
    let Err(Error::Unreachable(told)) = failed else { panic!("reached nobody") };
    assert!(told.starts_with(&addr) && told.contains("no answer within 300ms"), "{told}");
    assert!(started.elapsed() < PATIENCE);
    for bad in ["no-port", "", "127.0.0.1:x"] {
        assert!(matches!(client.connect(bad).await, Err(Error::Unreachable(_))), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_serve_and_only_on_a_free_port() {
    let dir = ca("shop");
    let Err(Error::Setup(why)) = Endpoint::server(loopback(), &user(dir.path(), "al")) else {
        panic!("a user serves")
    };
    assert!(why.contains("spiffe://shop/user/al"), "{why}");
    let options = Options { datagram_bytes_max: 8_952, ..Default::default() };
    let Err(Error::Setup(why)) = Endpoint::client_with(&node(dir.path(), "n0"), options) else {
        panic!("datagrams that the kernel drops")
    };
    assert!(why.contains("1200 to 6550"), "{why}");
    let identity = node(dir.path(), "n1");
    let first = Endpoint::server(loopback(), &identity).unwrap();
    let Err(Error::Setup(why)) = Endpoint::server(first.local_addr(), &identity) else {
        panic!("a port was bound twice")
    };
    assert!(why.contains(&first.local_addr().to_string()), "{why}");
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let dir = ca("shop");
    let made = Endpoint::client(&node(dir.path(), "n1"));
    assert!(matches!(made, Err(Error::Setup(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_bound_connections_are_refused() {
    logged();
    let dir = ca("shop");
    let options = Options { connections_max: 1, ..Default::default() };
    let (_server, addr, mut accepted) = serve(&node(dir.path(), "n1"), options);
    let client = Endpoint::client(&node(dir.path(), "n2")).unwrap();
    let first = client.connect(&addr).await.unwrap();
    let Err(Error::Unreachable(told)) = client.connect(&addr).await else {
        panic!("a second connection was taken")
    };
    assert!(told.contains("takes no further connections"), "{told}");
    within(accepted.recv()).await.unwrap();
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_prove_an_address_gets_in() {
    let dir = ca("shop");
    // Half of one is none: every newcomer is under pressure.
    let options = Options { handshakes_max: 1, ..Default::default() };
    let (_server, addr, mut accepted) = serve(&node(dir.path(), "n1"), options);
    let client = Endpoint::client(&node(dir.path(), "n2")).unwrap();
    for _ in 0..3 {
        client.connect(&addr).await.unwrap();
        within(accepted.recv()).await.unwrap();
    }
}
