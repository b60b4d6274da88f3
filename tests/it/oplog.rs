//! The operation log: who had the cluster do what, from where, and what came of it, on every node and after
//! everybody was killed.

use crate::harness::{Cluster, Shape, wait_until};
use ppdb::client::{Client, Options};
use ppdb::types::{Code, Incarnation, NodeName, ShardId};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::Command;
use ppdb::wire::operation::{ShardChange, ShardOrder, StrategyOrder};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A node looks for planted faults once in a while.
const FAULT_SEEN_AFTER: Duration = Duration::from_millis(300);

fn list(cluster: &Cluster, node: &str) -> Vec<Value> {
    let answer = cluster.ppdb(&["op", "list", "--node", node]).expect(0).json();
    assert_eq!(answer["served_by"], node, "{answer}");
    answer["value"].as_array().expect("an array").clone()
}

/// The newest record of a command that begins so, as soon as a node knows how it ended.
async fn settled(cluster: &Cluster, node: &str, command: &str) -> Value {
    let is_it = |r: &Value| r["command"].as_str().is_some_and(|text| text.starts_with(command));
    let ask = async || list(cluster, node).into_iter().find(is_it);
    let ended = |found: &Option<Value>| found.as_ref().is_some_and(|r| r["outcome"] != "running");
    wait_until(command, SOON, ask, ended).await.expect("just checked")
}

fn set(value: &str) -> Command {
    Command::Set { name: "reads.default".into(), value: value.into() }
}

async fn ann(cluster: &Cluster) -> Client {
    let (identity, endpoints) = (cluster.certs.identity("ann"), cluster.endpoints());
    let options = Options { endpoints, identity, connections_per_node: 1 };
    Client::connect(options).await.expect("a node answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_on_record_with_who_and_what_came_of_it() {
    let mut cluster = Cluster::start(Shape { shards: 3, ..Shape::default() }).await;
    let init = settled(&cluster, "n1", "cluster init --shards 3 --member").await;
    assert_eq!((&init["number"], &init["node"]), (&json!(1), &json!("n1")), "{init}");
    assert_eq!((&init["by"], &init["outcome"]), (&json!("user tester"), &json!("ok")), "{init}");

    // Another user, through each node: the record names both, and the node only where it passed the order on.
    cluster.certs.user("ann");
    let client = ann(&cluster).await;
    for (node, value) in [("n1", "local"), ("n2", "session"), ("n3", "linearizable")] {
        let node = NodeName::new(node).expect("a name");
        client.command(set(value), Some(&node), ANSWER_WITHIN).await.expect("it is set");
        let found = settled(&cluster, "r1", &format!("config set reads.default {value}")).await;
        assert_eq!((&found["by"], &found["outcome"]), (&json!("user ann"), &json!("ok")));
        let passed_on = found["node"] != node.as_str();
        let through = if passed_on { json!(node.as_str()) } else { Value::Null };
        assert_eq!(found["through"], through, "{found}");
        assert!(found["from"].as_str().is_some_and(|from| from.starts_with("127.")), "{found}");
    }
    assert_eq!(list(&cluster, "r1").len(), 4, "each order once");

    refusals_are_on_record(&cluster, &client).await;
    one_is_shown_by_number_and_by_id(&cluster);

    // Nothing is forgotten where everybody dies.
    let before = list(&cluster, "n2");
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_ready().await;
    for node in ["n1", "n2", "n3", "r1"] {
        assert_eq!(list(&cluster, node), before, "{node}");
    }
    let client = ann(&cluster).await;
    one_whose_node_died_is_unknown(&mut cluster, &client).await;
}

async fn refusals_are_on_record(cluster: &Cluster, client: &Client) {
    cluster.ppdb(&["config", "set", "reads.default", "often"]).expect(2);
    let bad = settled(cluster, "n3", "config set reads.default often").await;
    assert_eq!((&bad["outcome"], &bad["code"]), (&json!("fail"), &json!("BadConfig")), "{bad}");
    assert!(bad["message"].as_str().is_some_and(|m| m.contains("no read level")), "{bad}");

    cluster.ppdb(&["strategy", "commit"]).expect(5);
    let early = settled(cluster, "n3", "strategy commit").await;
    assert_eq!(early["code"], "OperationConflict", "{early}");

    // An order that only nodes may give, to one that does not lead.
    let order = ShardOrder {
        shard: ShardId(0),
        incarnation: Incarnation(1),
        fence: (1, 1),
        change: ShardChange::Fence,
    };
    let node = NodeName::new("r1").expect("a name");
    let denied = client.command(Command::Shard(order), Some(&node), ANSWER_WITHIN).await;
    assert_eq!(denied.expect_err("denied").code, Code::Denied);
    let denied = settled(cluster, "n3", "an order of nodes to s0").await;
    assert_eq!((&denied["by"], &denied["node"]), (&json!("user ann"), &json!("r1")), "{denied}");
    assert_eq!(denied["code"], "Denied", "{denied}");
}

fn one_is_shown_by_number_and_by_id(cluster: &Cluster) {
    let mut shell = cluster.shell(&[]);
    let newest = shell.value("op list --limit 1")[0].clone();
    let (number, id) = (&newest["number"], newest["id"].as_str().expect("an id"));
    assert_eq!(shell.value(&format!("op show {number}")), newest);
    assert_eq!(shell.value(&format!("op show {}", &id[..8])), newest);
    assert_eq!(shell.code("op show 9999"), "NotFound");
    assert_eq!(shell.code("op shwo 1"), "UnknownCommand");
    shell.finish();
}

/// The coordinator dies between the record of an order and what was ordered.
async fn one_whose_node_died_is_unknown(cluster: &mut Cluster, client: &Client) {
    let before = list(cluster, "r1").len();
    cluster.nodes.iter().for_each(|node| node.plant("point", "journal.begin.before kill"));
    tokio::time::sleep(FAULT_SEEN_AFTER).await;
    let order = Command::Strategy(StrategyOrder::prepare(Strategy::Full));
    let answer = client.command(order, None, ANSWER_WITHIN).await;
    assert!(answer.is_err(), "{answer:?}");

    let lost = settled(cluster, "r1", "strategy prepare full").await;
    assert_eq!((&lost["outcome"], &lost["code"]), (&json!("unknown"), &Value::Null), "{lost}");
    assert_eq!((&lost["by"], &lost["took_ms"]), (&json!("user ann"), &Value::Null), "{lost}");
    let node = lost["node"].as_str().expect("a node").to_owned();
    assert!(!cluster.node(&node).is_running(), "{lost}");
    assert_eq!(list(cluster, "r1").len(), before + 1);
}
