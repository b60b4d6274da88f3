//! The breakers between nodes, on real processes: a planned pause opens none; a node that is cut off is asked no more
//! within seconds, and again as soon as it is heard; what an operator forces ends by itself.

use crate::harness::{Cluster, Node, Shape, show, wait_until};
use ppdb::client::Client;
use ppdb::types::{Code, NodeName, Result};
use ppdb::wire::breaker::{BreakerSeen, BreakerState, PeerClass};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The window of a breaker.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Until it is heard again, connected, and was asked three times, twice a second.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// For how long it is forced here.
const FORCED: &str = "2s";

/// The breaker of a node towards another one, for questions and orders.
async fn breaker(client: &Client, node: &NodeName, peer: &NodeName) -> Result<BreakerSeen> {
    match client.command(Command::Breakers, Some(node), ANSWER_WITHIN).await?.0 {
        Answer::Breakers(all) => {
            let of = all.into_iter().find(|b| b.peer == *peer && b.class == PeerClass::Control);
            Ok(of.expect("one for each peer").seen)
        }
        other => panic!("{other:?}"),
    }
}

async fn leader(client: &Client) -> NodeName {
    match client.command(Command::Status, None, ANSWER_WITHIN).await.expect("a status").0 {
        Answer::Status(status) => status.metadata_leader.expect("a leader"),
        other => panic!("{other:?}"),
    }
}

/// `breaker list`, as JSON.
fn list(cluster: &Cluster) -> Vec<Value> {
    let told = cluster.ppdb(&["breaker", "list"]).expect(0).json();
    assert_eq!(told["value"]["no_answer"], json!([]), "{told}");
    told["value"]["breakers"].as_array().expect("an array").clone()
}

/// Cuts a node off from all others, both ways, or ends that.
fn cut(nodes: &[Node], victim: &NodeName, is_cut: bool) {
    let others =
        nodes.iter().map(|node| node.name.as_str()).filter(|name| *name != victim.as_str());
    let others = others.collect::<Vec<_>>().join(" ");
    for node in nodes {
        let toward = if node.name == *victim { &others } else { victim.as_str() };
        match is_cut {
            true => node.plant("peer.drop", toward),
            false => node.mend("peer.drop"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_cut_off_is_asked_no_more_until_it_is_heard_again() {
    let cluster = Cluster::start(Shape { replicas: 0, shards: 3, ..Shape::default() }).await;
    let client = cluster.client().await;
    cluster.switch(&client, Strategy::Full, MINUTE).await;
    let all = list(&cluster);
    assert_eq!(all.len(), 3 * 2 * PeerClass::ALL.len());
    for breaker in &all {
        let shown = (&breaker["opened_total"], &breaker["is_open"], &breaker["state"]);
        assert_eq!(
            shown,
            (&json!(0), &json!(false), &json!("closed")),
            "after a switch: {breaker}"
        );
        for field in ["error_count", "slow_request_count", "last_failure_time", "reason"] {
            assert!(breaker.get(field).is_some(), "{field}: {breaker}");
        }
    }

    let leader = leader(&client).await;
    let mut others = cluster.nodes.iter().map(|node| node.name.clone()).filter(|n| *n != leader);
    let (victim, third) = (others.next().expect("a second"), others.next().expect("a third"));
    let ask = async || breaker(&client, &leader, &victim).await;
    let before = ask().await.expect("an answer");
    assert!(before.calls > 0, "{before:?}");
    let began = Instant::now();
    cut(&cluster.nodes, &victim, true);
    let is = |state| move |b: &Result<BreakerSeen>| b.as_ref().is_ok_and(|b| b.state == state);
    let open = wait_until("open breaker", OPEN_WITHIN, ask, is(BreakerState::Open)).await;
    println!("open after {:.1?}: {open:?}", began.elapsed());
    let open = open.expect("just checked");
    assert!(open.is_open && open.opened_total == 1 && open.last_failure_time.is_some());
    let shown = list(&cluster).into_iter().filter(|b| b["is_open"] == true || b["calls"] == 0);
    let toward = shown.filter(|b| b["node"] == leader.as_str() && b["class"] == "control");
    let toward: Vec<Value> = toward.collect();
    assert_eq!(toward.len(), 1, "{toward:?}");
    assert!(toward[0]["reason"].as_str().is_some_and(|why| why.contains("calls failed")));
    // The one that is cut off has called nobody, and nobody else has called it.
    assert!(!breaker(&client, &leader, &third).await.expect("an answer").is_open);

    let mended = Instant::now();
    cut(&cluster.nodes, &victim, false);
    wait_until("closed breaker", CLOSED_WITHIN, ask, is(BreakerState::Closed))
        .await
        .expect("asked");
    println!("closed {:.1?} after it could be reached", mended.elapsed());

    // What is passed on to the leader is refused at once for as long as an operator wants.
    let words = ["breaker", "open", leader.as_str(), "--for", FORCED, "--node", third.as_str()];
    let forced = cluster.ppdb(&words).expect(0).json();
    let forced_at = Instant::now();
    let first = &forced["value"]["breakers"][0];
    assert_eq!((&first["state"], &first["is_open"]), (&json!("open"), &json!(true)), "{forced}");
    assert_eq!(first["reason"], "forced open by user tester");
    assert!(first["forced_until"].is_u64(), "{forced}");
    let show_by = async || {
        let asked = Instant::now();
        let shown = client.command(Command::StrategyShow, Some(&third), MINUTE).await;
        (asked.elapsed(), shown.map(drop))
    };
    let (took, refused) = show_by().await;
    let refused = refused.expect_err("it is held back");
    assert_eq!(refused.code, Code::Unreachable, "{refused}");
    assert!(refused.message.contains("its breaker for control is open"), "{refused}");
    assert!(took < Duration::from_millis(500), "refused after {took:?}");
    assert!(show(&client).await.is_ok(), "others are not held back");
    let _ = wait_until("end of the order", MINUTE, show_by, |(_, shown)| shown.is_ok()).await;
    let lasted = forced_at.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&lasted), "{lasted:?}");
    let seen = breaker(&client, &third, &leader).await.expect("an answer");
    assert_eq!((seen.state, seen.forced_until), (BreakerState::Closed, None), "{seen:?}");

    for bad in [["--for", "1ms"], ["--for", "25h"]] {
        cluster.ppdb(&[&["breaker", "open", "n2"][..], &bad].concat()).expect(2);
    }
    cluster.ppdb(&["breaker", "open", "n9", "--for", "1m"]).expect(1);
    cluster.ppdb(&["breaker", "close", leader.as_str(), "--for", "1m"]).expect(0);
}
