//! The seeds of the fuzz targets are real messages, and the committed files are exactly what the code
//! encodes: golden bytes of the wire.
//!
//! `PPDB_TEST_WRITE_SEEDS=1` writes them. A file that exists and changes means that the format on the wire
//! has changed, which needs a version or a new variant.

use bytes::Bytes;
use ppdb::cluster::core::MetaCommand;
use ppdb::cluster::runs::RunEntry;
use ppdb::storage::wal;
use ppdb::types::*;
use ppdb::wire::alarm::{Alarm, Severity};
use ppdb::wire::breaker::{BreakerOrder, PeerClass};
use ppdb::wire::client::*;
use ppdb::wire::command::*;
use ppdb::wire::logs::*;
use ppdb::wire::monitor::{self, MonitorEvent, MonitorPage, MonitorQuestion, OpKind, Wish};
use ppdb::wire::oplog::{Outcome, Record};
use ppdb::wire::peer::*;
use ppdb::wire::plan::{Bound, BoundMember, Plan, PlanHead};
use ppdb::wire::runs::*;
use ppdb::wire::slowlog::*;
use ppdb::wire::terms::{NodePredicted, PlanId, Predicted, Terms};
use ppdb::wire::{codec, frame};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// A file of a corpus: target, name, bytes.
type Seed = (&'static str, String, Vec<u8>);

fn name(name: &str) -> NodeName {
    NodeName::new(name).expect("a node name")
}

fn token() -> Token {
    Token { shard: ShardId(3), incarnation: Incarnation(1), index: 2048 }
}

/// A message that decodes to itself, as a seed.
fn seed<T>(target: &'static str, file: &str, value: &T) -> Seed
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = codec::encode(value);
    assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value), "{file}");
    (target, file.to_owned(), bytes)
}

fn ops() -> Vec<Op> {
    let (key, value) = (Bytes::from_static(b"cart:42"), Bytes::from_static(b"3 items"));
    vec![
        Op::Get { key: key.clone() },
        Op::Exists { key: key.clone() },
        Op::Ttl { key: key.clone() },
        Op::Set {
            key: key.clone(),
            value: value.clone(),
            condition: Condition::Absent,
            expiry: Expiry::AfterMs(1_800_000),
        },
        Op::Set {
            key: key.clone(),
            value: value.clone(),
            condition: Condition::Present,
            expiry: Expiry::Keep,
        },
        Op::Del { key: key.clone() },
        Op::Incr { key: key.clone(), by: -7 },
        Op::Append { key: key.clone(), value: value.clone() },
        Op::Cas { key: key.clone(), expected: None, value: value.clone() },
        Op::Cas { key: key.clone(), expected: Some(value.clone()), value: Bytes::new() },
        Op::Expire { key: key.clone(), after_ms: 1 },
        Op::Persist { key },
    ]
}

fn results() -> Vec<OpResult> {
    vec![
        OpResult::Nil,
        OpResult::Done,
        OpResult::Bool(true),
        OpResult::Int(i64::MIN),
        OpResult::Value(Bytes::from_static(b"\x00\xff")),
        OpResult::Failed(Code::NotAnInteger),
    ]
}

fn map() -> Map {
    let node =
        |n: &str, role| MapNode { name: name(n), role, addr: format!("10.0.0.1:71{}", n.len()) };
    let shard = |id: u16, owner: &str| MapShard {
        id: ShardId(id),
        incarnation: Incarnation(1),
        owner: name(owner),
        copies: vec![name(owner), name("r1")],
    };
    Map {
        epoch: 7,
        strategy: Strategy::Sharded,
        read_default: Default::default(),
        nodes: vec![node("n1", Role::Primary), node("r1", Role::Replica)],
        shards: vec![shard(0, "n1"), shard(1, "n1")],
    }
}

fn requests() -> Vec<(&'static str, RequestBody)> {
    let kv = |level, dedup| {
        RequestBody::Kv(Kv { shard: ShardId(3), ops: encode_ops(&ops()), level, dedup })
    };
    let session = SessionId { incarnation: Incarnation(1), index: 99 };
    let members = vec![
        (name("n1"), Role::Primary, "10.0.0.1:7101".to_owned()),
        (name("r1"), Role::Replica, "10.0.0.4:7101".to_owned()),
    ];
    let scan = Scan {
        shard: ShardId(11),
        prefix: Bytes::from_static(b"cart:"),
        after: Some(Bytes::from_static(b"cart:41")),
        limit: 100,
        keys_only: false,
        level: ReadLevel::Local { max_staleness_ms: Some(500) },
    };
    vec![
        ("hello", RequestBody::Hello),
        ("map", RequestBody::Map),
        ("kv", kv(ReadLevel::Linearizable, None)),
        (
            "kv-retried",
            kv(
                ReadLevel::Session { incarnation: Incarnation(1), index: 2048 },
                Some(SessionSeq { session, sequence: 12 }),
            ),
        ),
        ("scan", RequestBody::Scan(scan)),
        ("open-session", RequestBody::OpenSession { shard: ShardId(5) }),
        (
            "init",
            RequestBody::Command(Command::ClusterInit(Formation {
                cluster: "shop".into(),
                shards: 12,
                members,
            })),
        ),
        ("status", RequestBody::Command(Command::Status)),
        ("info", RequestBody::Command(Command::Info)),
        ("lag", RequestBody::Command(Command::ReplicaLag)),
        ("digest", RequestBody::Command(Command::Digest { shard: ShardId(1), at: Some(77) })),
        ("op-log", RequestBody::Command(Command::OperationLog { limit: 20 })),
        ("runs", RequestBody::Command(Command::Runs { limit: 20 })),
        ("plans", RequestBody::Command(Command::Plans)),
        ("run-show", RequestBody::Command(Command::RunShow { run: 12 })),
        ("run-event", RequestBody::Command(Command::Run(Box::new(step_ended())))),
        ("slow-log", RequestBody::Command(Command::SlowLog { limit: 20 })),
        ("alarms", RequestBody::Command(Command::Alarms)),
        ("metrics", RequestBody::Command(Command::Metrics)),
        ("stats", RequestBody::Command(Command::Stats)),
        ("hot-keys", RequestBody::Command(Command::HotKeys { limit: 10 })),
        ("monitor", RequestBody::Command(Command::Monitor(monitor_question()))),
        ("ping", RequestBody::Command(Command::Ping)),
        (
            "breaker",
            RequestBody::Command(Command::Breaker(BreakerOrder {
                peer: name("n2"),
                class: Some(PeerClass::Copy),
                open: true,
                for_ms: 60_000,
            })),
        ),
        (
            "logs",
            RequestBody::Command(Command::Logs(LogQuestion {
                after: Some(LogPosition { started_ms: 1_795_000_000_000, sequence: 300 }),
                level: LogLevel::Warn,
                since_ms: Some(600_000),
                limit: 100,
            })),
        ),
    ]
}

fn replies() -> Vec<(&'static str, Result<ReplyBody>)> {
    let hello = Hello { node: name("n1"), version: "0.1.0".into(), formed: true };
    let kv = KvReply { results: encode_results(&results()), token: token(), age_ms: Some(12) };
    let entries = vec![
        (Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))),
        (Bytes::from_static(b"b"), None),
    ];
    let scan = ScanReply { entries, token: token(), next_after: Some(Bytes::from_static(b"b")) };
    let refused =
        Error::new(Code::NotLeader, "n2 does not lead s3").hint(Some(name("n1"))).retry_after(50);
    let digest = CopyDigest {
        node: name("r1"),
        shard: ShardId(1),
        incarnation: Incarnation(1),
        index: 77,
        keys: 3,
        sha256: "00".repeat(32),
    };
    let lag = CopyLag {
        shard: ShardId(1),
        node: name("r1"),
        state: "learner".into(),
        leader_index: 9,
        matched: None,
    };
    vec![
        ("hello", Ok(ReplyBody::Hello(hello))),
        ("map", Ok(ReplyBody::Map(map()))),
        ("kv", Ok(ReplyBody::Kv(kv))),
        ("scan", Ok(ReplyBody::Scan(scan))),
        ("session", Ok(ReplyBody::Session(SessionId { incarnation: Incarnation(1), index: 99 }))),
        ("formed", Ok(ReplyBody::Command(Answer::Formed { map: map(), created: true }))),
        ("lag", Ok(ReplyBody::Command(Answer::ReplicaLag(vec![lag])))),
        ("digest", Ok(ReplyBody::Command(Answer::Digest(digest)))),
        ("op-log", Ok(ReplyBody::Command(Answer::OperationLog(vec![operation()])))),
        ("runs", Ok(ReplyBody::Command(Answer::Runs(vec![run().head()])))),
        ("plans", Ok(ReplyBody::Command(Answer::Plans(vec![plan_head()])))),
        ("run", Ok(ReplyBody::Command(Answer::Run(Box::new(run()))))),
        ("step-kept", Ok(ReplyBody::Command(Answer::StepKept { result: true }))),
        ("logs", Ok(ReplyBody::Command(Answer::Logs(log_page())))),
        ("slow-log", Ok(ReplyBody::Command(Answer::SlowLog(vec![slow_request()])))),
        ("alarms", Ok(ReplyBody::Command(Answer::Alarms(vec![alarm()])))),
        ("monitor", Ok(ReplyBody::Command(Answer::Monitor(monitor_page())))),
        ("pong", Ok(ReplyBody::Command(Answer::Pong))),
        ("metrics", Ok(ReplyBody::Command(Answer::Metrics("ppdb_epoch 3\n".into())))),
        ("refused", Err(refused)),
    ]
}

fn monitor_question() -> MonitorQuestion {
    let wish = Wish {
        one_in: 100,
        pattern: Some("cart:*".into()),
        kinds: vec![OpKind::Set, OpKind::Scan],
    };
    MonitorQuestion { watch: 7, wish, after: 30, is_last: true }
}

fn monitor_page() -> MonitorPage {
    let event = MonitorEvent {
        sequence: 31,
        at_ms: 1_795_000_000_000,
        by: "user ann".into(),
        kind: OpKind::Cas,
        key: "cart:42".into(),
        key_bytes: 7,
        shard: ShardId(3),
        operations: 2,
        outcome: monitor::Outcome::Failed(Code::Overloaded),
        took_us: 1_250,
    };
    let (sampled, matched, dropped) = (900, 31, 1);
    let events = vec![event];
    MonitorPage { began_us: 5, events, sampled, matched, dropped, spent_us: 80 }
}

fn alarm() -> Alarm {
    Alarm {
        name: "node_down".into(),
        severity: Severity::Critical,
        subject: "r1".into(),
        message: "r1 is not heard".into(),
        fix: "start it".into(),
        since_ms: 1_795_000_000_000,
        seen_by: vec![name("n1"), name("n2")],
    }
}

fn slow_request() -> SlowRequest {
    SlowRequest {
        number: 9,
        at_ms: 1_795_000_000_000,
        kind: SlowKind::Write,
        operations: 3,
        key: "cart:42".into(),
        by: "user ann".into(),
        shard: ShardId(3),
        total_us: 12_300,
        phases: Phases::Write { queue_us: 200, wal_us: 11_000, commit_us: 1_000, apply_us: 100 },
        code: Some(Code::Unknown),
    }
}

fn log_page() -> LogPage {
    let line = LogLine {
        sequence: 301,
        at_ms: 1_795_000_000_000,
        level: LogLevel::Warn,
        target: "ppdb::node".into(),
        message: "member has not joined".into(),
        fields: vec![("member".into(), "n2".into())],
    };
    let position = LogPosition { started_ms: 1_795_000_000_000, sequence: 301 };
    LogPage { lines: vec![line], position, dropped: 7 }
}

fn book() -> Book {
    Book {
        script: "scripts/presale.rhai".into(),
        sha256: "ab".repeat(32),
        params: vec![("ask".into(), "true".into())],
        host: "ops1".into(),
    }
}

/// An event of a run.
fn step_ended() -> RunOrder {
    let result = Some("{\"equal\":true}".to_owned());
    let event = RunEvent::StepEnded { index: 0, result, failure: None, operations: vec![7] };
    RunOrder { runner: 0x3fa9 << 48, run: 1, sequence: 2, event }
}

/// The record of a run that somebody took up.
fn run() -> Run {
    let why = || ("Interrupted".to_owned(), "the script was interrupted".to_owned());
    let end = StepEnd {
        at_ms: 1_795_000_000_200,
        result: Some("{\"equal\":true}".into()),
        failure: None,
        operations: vec![7],
    };
    let step = |end| RunStep {
        name: "verify".into(),
        line: 9,
        began_ms: 1_795_000_000_100,
        tries: 1,
        end,
    };
    let resumed = Resumed {
        at_ms: 1_795_000_000_150,
        by: "user ann".into(),
        from: "10.0.0.9:5000".into(),
        host: "ops1".into(),
    };
    Run {
        number: 12,
        runner: 0x3fa9 << 48,
        by: "user ann".into(),
        from: "10.0.0.9:5000".into(),
        book: book(),
        began_ms: 1_795_000_000_000,
        steps: vec![step(Some(end)), step(None)],
        notes: vec![RunNote { at_ms: 1_795_000_000_120, text: "half way".into() }],
        resumed: vec![resumed],
        end: Some(RunEnd { at_ms: 1_795_000_000_300, failure: Some(why()) }),
        events: 5,
    }
}

/// A record of the operation log with its outcome.
fn plan_head() -> PlanHead {
    PlanHead {
        id: PlanId(17),
        to: Strategy::Full,
        by: "user ann".into(),
        expires_ms: 1_795_000_000_000,
        copy_bytes: 300 << 20,
        took_ms: 2_500,
        outdated: Some("n3 has another disk".into()),
    }
}

fn operation() -> Record {
    Record {
        number: 0,
        key: 0x3fa9 << 48,
        by: "user ann".into(),
        from: "10.0.0.9:5000".into(),
        through: Some(name("n2")),
        node: name("n1"),
        command: "strategy commit".into(),
        plan: Some(PlanId(1)),
        operation: Some(7),
        began_ms: 1_795_000_000_000,
        took_ms: Some(4),
        outcome: Some(Outcome::Failed {
            code: Code::OperationConflict,
            message: "there is no operation".into(),
        }),
    }
}

fn record() -> FormationRecord {
    let member = |i: u64, role| FormationMember {
        id: NodeId(i),
        name: name(&format!("n{i}")),
        role,
        addr: format!("10.0.0.{i}:7101"),
        disk: DiskId(u128::from(i) << 100),
    };
    FormationRecord {
        id: 42 << 64,
        cluster: "shop".into(),
        shards: 12,
        members: vec![member(1, Role::Primary), member(2, Role::Primary), member(3, Role::Replica)],
    }
}

fn peer_frame() -> PeerFrame {
    let group = GroupId::of(ShardId(3), Incarnation(1));
    let position = LogPos { term: 2, leader: 17, index: 2048 };
    let bodies = vec![
        PeerBody::Append(Bytes::from_static(b"\x01entries")),
        PeerBody::Vote(Bytes::from_static(b"\x01vote")),
        PeerBody::PreVote(Bytes::from_static(b"\x01vote")),
        PeerBody::TransferLeader(Bytes::from_static(b"\x01to")),
        PeerBody::ReadIndex,
        PeerBody::Answer(Bytes::from_static(b"\x01answer")),
        PeerBody::ReadIndexAnswer(position),
        PeerBody::Refused(Code::Moved),
    ];
    let message = |(call, body)| PeerMessage { group, from: 17, to: 18, call: call as u64, body };
    PeerFrame {
        clock_ms: 1_795_000_000_000,
        messages: bodies.into_iter().enumerate().map(message).collect(),
    }
}

fn quorum_of_two() -> PeerFrame {
    let group = GroupId::of(ShardId(3), Incarnation(1));
    let question = PeerBody::ReadIndexAs(Bytes::from_static(b"\x01vote"));
    let answer = PeerBody::Committed(LogPos { term: 2, leader: 17, index: 2048 });
    let message = |(from, to, body)| PeerMessage { group, from, to, call: 3, body };
    let messages = [(18, 17, question), (17, 18, answer)].map(message).to_vec();
    PeerFrame { clock_ms: 1_795_000_000_000, messages }
}

fn beacon() -> PeerFrame {
    let (group, body) = (GroupId::META, PeerBody::Beacon);
    let message = PeerMessage { group, from: 5, to: 1, call: 0, body };
    PeerFrame { clock_ms: 1_795_000_000_000, messages: vec![message] }
}

fn peer_seeds() -> Vec<Seed> {
    let header = SnapshotHeader {
        group: GroupId::of(ShardId(3), Incarnation(1)),
        from: 17,
        to: 18,
        vote: Bytes::from_static(b"\x01vote"),
        meta: Bytes::from_static(b"\x01meta"),
        data_bytes: 1 << 30,
        crc32c: 0xdead_beef,
    };
    let description = NodeDescription {
        name: name("n1"),
        role: Role::Primary,
        disk: DiskId(7),
        formation: Some(42),
    };
    let refused =
        NodeAnswer::Refused(Error::new(Code::AlreadyFormed, "n2 belongs to a cluster already"));
    let passed_on = NodeCall::PassedOn {
        by: "user ann".into(),
        from: "10.0.0.9:5000".into(),
        command: Command::Set { name: "reads.default".into(), value: "local".into() },
        deadline_ms: 5_000,
    };
    let target = "peer_frame";
    vec![
        seed(target, "frame", &peer_frame()),
        seed(target, "frame-empty", &PeerFrame::default()),
        seed(target, "frame-beacon", &beacon()),
        seed(target, "frame-quorum", &quorum_of_two()),
        seed(target, "snapshot", &header),
        seed(target, "call-describe", &NodeCall::Describe),
        seed(target, "call-join", &NodeCall::Join(record())),
        seed(target, "call-passed-on", &passed_on),
        seed(target, "answer-description", &NodeAnswer::Description(description)),
        seed(target, "answer-joined", &NodeAnswer::Joined),
        seed(target, "answer-refused", &refused),
    ]
}

/// Real frames behind each other, with caps and chunk sizes as the target reads them.
fn splitter_seeds() -> Vec<Seed> {
    let frames: Vec<Vec<u8>> = requests()
        .into_iter()
        .take(3)
        .map(|(_, body)| codec::encode(&Request { id: 1, deadline_ms: 0, body }))
        .collect();
    let stream: Vec<u8> =
        frames.iter().flat_map(|f| [&frame::header(f.len())[..], f].concat()).collect();
    let cases: [(&str, u8, &[u8]); 5] = [
        ("bytes", 255, &[1]),
        ("whole", 255, &[9]),
        ("mixed", 255, &[3, 1, 250, 7]),
        ("over-the-cap", 10, &[5]),
        ("no-chunks", 255, &[]),
    ];
    let input = |cap: u8, chunks: &[u8]| [&[cap, chunks.len() as u8], chunks, &stream].concat();
    cases.map(|(file, cap, chunks)| ("splitter", file.to_owned(), input(cap, chunks))).into()
}

fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (file, body) in requests() {
        let request = Request { id: 300, deadline_ms: 5_000, body };
        seeds.push(seed("client_frame", &format!("request-{file}"), &request));
    }
    for (file, body) in replies() {
        seeds.push(seed("client_frame", &format!("reply-{file}"), &Reply { id: 300, body }));
    }
    seeds.push(("client_frame", "ops".into(), encode_ops(&ops()).into()));
    seeds.push(("client_frame", "results".into(), encode_results(&results()).into()));
    seeds.extend(peer_seeds());
    seeds.extend(splitter_seeds());
    seeds.extend(metadata_seeds());
    seeds
}

fn path_of((target, file, _): &Seed) -> PathBuf {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    corpus.join(target).join(format!("{file}.bin"))
}

/// A real log of three segments and an unfinished fourth, as the target reads it. Its salts are random, so
/// the file is not compared; what recovery makes of it is.
fn log_of_segments() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let options = wal::Options { segment_bytes: 16 << 10, ..wal::Options::default() };
    let log = wal::Wal::open(dir.path(), options).expect("a log");
    let (a, b) = (log.group(GroupId::META), log.group(GroupId::of(ShardId(3), Incarnation(1))));
    a.create(Bytes::from_static(b"meta"), Box::new(drop));
    b.create(Bytes::from_static(b"copy 7"), Box::new(drop));
    for i in 0..40u64 {
        let (done, durable) = std::sync::mpsc::channel();
        b.save_vote(Bytes::from(format!("vote {i}")), Box::new(drop));
        b.append(i, vec![Bytes::from(vec![i as u8; 900])], Box::new(move |r| drop(done.send(r))));
        durable.recv().expect("a callback").expect("durable");
    }
    a.append(0, vec![Bytes::from_static(b"form")], Box::new(drop));
    b.save_committed(Bytes::from_static(b"39"));
    b.truncate(38);
    drop((a, b, log));
    let mut files: Vec<_> = std::fs::read_dir(dir.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let contents = files.iter().map(|path| std::fs::read(path).expect("a segment"));
    let mut used: Vec<Vec<u8>> = contents.filter(|bytes| bytes.iter().any(|b| *b != 0)).collect();
    for segment in &mut used {
        let end = segment.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        segment.truncate(end.next_multiple_of(512));
    }
    let (_, others) = used.split_last().expect("a segment");
    let lengths = others.iter().flat_map(|s| ((s.len() / 512) as u16).to_le_bytes());
    [others.len() as u8].into_iter().chain(lengths).chain(used.concat()).collect()
}

/// The segments in such a file, numbered from 1.
fn segments(data: &[u8]) -> Vec<(u64, &[u8])> {
    let (lengths, mut rest) = data[1..].split_at(usize::from(data[0]) * 2);
    let mut segments = Vec::new();
    for length in lengths.chunks(2) {
        let (segment, left) =
            rest.split_at(usize::from(length[0]) * 512 + usize::from(length[1]) * 131_072);
        segments.push(segment);
        rest = left;
    }
    segments.push(rest);
    (1..).zip(segments).collect()
}

#[test]
fn a_log_of_an_earlier_build_is_recovered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wal_recovery");
    let path = folder.join("four-segments.bin");
    if std::env::var_os("PPDB_TEST_WRITE_SEEDS").is_some() && !path.exists() {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(&path, log_of_segments()).expect("written");
    }
    let committed = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for (data, whose) in [(committed, "the committed log"), (log_of_segments(), "this build's log")]
    {
        let segments = segments(&data);
        assert!(segments.len() > 2, "{whose}: {} segments", segments.len());
        let found = wal::recover_bytes(&segments).unwrap_or_else(|e| panic!("{whose}: {e}"));
        assert_eq!((found.groups, found.entries, found.cut), (2, 39, false), "{whose}: {found:?}");
    }
}

/// A plan for the cluster of `record`.
fn plan() -> Plan {
    let member = |member: &FormationMember| BoundMember {
        node: member.id,
        name: member.name.clone(),
        disk: member.disk,
        version: "0.1.0".into(),
        certificate_expires_ms: 1_800_000_000_000,
    };
    let cost = NodePredicted {
        node: name("n1"),
        in_bytes: 1 << 20,
        out_bytes: 2 << 20,
        disk_peak_bytes: 3 << 20,
    };
    Plan {
        id: PlanId(1),
        to: Strategy::Full,
        by: "user ann".into(),
        expires_ms: 1_795_000_900_000,
        predicted: Predicted {
            copy_bytes: 1 << 20,
            took_ms: 900,
            write_gap_ms: 9,
            nodes: vec![cost],
        },
        bound: Bound { epoch: 1, members: record().members.iter().map(member).collect() },
    }
}

/// Commands of a metadata log.
fn metadata_seeds() -> Vec<Seed> {
    let readdress =
        |node, addr: &str| MetaCommand::Readdress { node: NodeId(node), addr: addr.into() };
    let other = FormationRecord { id: 43, ..record() };
    let log = vec![
        readdress(1, "10.0.0.9:7101"),
        MetaCommand::Form(record()),
        readdress(2, "10.0.0.9:7102"),
        readdress(9, "10.0.0.9:7103"),
        MetaCommand::Form(other),
        MetaCommand::Form(record()),
    ];
    let lost = vec![
        MetaCommand::Form(record()),
        MetaCommand::Rejoin { node: NodeId(2), disk: DiskId(77) },
        MetaCommand::Replace { copies: vec![CopyId(1), CopyId(3)] },
        MetaCommand::Joined { node: NodeId(4) },
    ];
    let planned = vec![
        MetaCommand::Form(record()),
        MetaCommand::Plan(Box::new(plan())),
        MetaCommand::Begin {
            to: Strategy::Full,
            by: "user ann".into(),
            commit_asked: true,
            now_ms: 1_795_000_000_000,
            terms: Terms {
                plan: Some(PlanId(1)),
                skipped: vec!["load".into()],
                predicted: Some(plan().predicted),
                max_p99_ms: Some(50),
                ..Terms::default()
            },
        },
    ];
    let recorded = vec![
        MetaCommand::Record(Box::new(operation())),
        MetaCommand::Form(record()),
        MetaCommand::Record(Box::new(Record { outcome: None, took_ms: None, ..operation() })),
        MetaCommand::Record(Box::new(operation())),
    ];
    let entry = |order: RunOrder| {
        let (by, from, now_ms) = ("user ann".into(), "10.0.0.9:5000".into(), 1_795_000_000_000);
        MetaCommand::Run(Box::new(RunEntry { order, by, from, now_ms }))
    };
    let event = |sequence, event| RunOrder { sequence, event, ..step_ended() };
    let began = RunEvent::StepBegan { index: 0, name: "verify".into(), line: 9 };
    let other = RunOrder { runner: 1, ..event(0, RunEvent::Resume(book())) };
    let ran = vec![
        MetaCommand::Form(record()),
        entry(RunOrder { run: 0, ..event(0, RunEvent::Begin(book())) }),
        entry(event(1, began)),
        entry(step_ended()),
        entry(event(3, RunEvent::Note("half way".into()))),
        entry(other),
        entry(event(4, RunEvent::End(None))),
    ];
    // The second way in which the target reads its input: one member, and an address for it.
    let choices = vec![0, 1, 1, 1, 0, 1, 1, 7, 3, 1, 1, 8];
    // One member, which loses its disk twice and whose copy is replaced.
    let lose = vec![0, 1, 3, 1, 0, 1, 1, 7, 3, 5, 1, 9, 5, 2, 8, 7, 1, 1, 6, 3];
    vec![
        seed("metadata_apply", "log", &log),
        seed("metadata_apply", "log-lost-disk", &lost),
        seed("metadata_apply", "log-plan", &planned),
        seed("metadata_apply", "log-record", &recorded),
        seed("metadata_apply", "log-run", &ran),
        ("metadata_apply", "choices".into(), choices),
        ("metadata_apply", "choices-lost-disk".into(), lose),
    ]
}

#[test]
fn committed_seeds_are_what_the_code_encodes() {
    let write = std::env::var_os("PPDB_TEST_WRITE_SEEDS").is_some();
    for seed in seeds() {
        let path = path_of(&seed);
        if write {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, &seed.2).expect("written");
        }
        let committed = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(committed, seed.2, "{}: the wire format has changed", path.display());
    }
}
