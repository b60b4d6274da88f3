//! Any sequence of metadata commands: the invariants of the cluster state hold after each, a refused
//! command changes nothing, ids never go back, and replaying the log gives the same state.
//!
//! The commands come from bytes in two ways: as an encoded log, and as small choices, so that formations
//! that are almost valid are common.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ppdb::cluster::core::{ClusterState, MetaCommand, MetaReply};
use ppdb::types::{CopyId, DiskId, NodeId, NodeName};
use ppdb::wire::client::Role;
use ppdb::wire::codec;
use ppdb::wire::peer::{FormationMember, FormationRecord};
use ppdb_fuzz::round_trip;

/// Commands of one run.
const COMMANDS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    if let Some(commands) = round_trip::<Vec<MetaCommand>>(data) {
        apply(&commands);
    }
    apply(&Choices(data).commands());
});

fn apply(commands: &[MetaCommand]) {
    let mut state = ClusterState::default();
    for command in commands.iter().take(COMMANDS_MAX) {
        let before = state.clone();
        let reply = state.apply(command);
        state.check().unwrap_or_else(|why| panic!("{why}, after {command:?}"));
        match reply {
            MetaReply::Refused(_) => assert_eq!(state, before, "a refusal changes nothing"),
            MetaReply::Done { epoch } => assert_eq!(epoch, state.epoch),
        }
        assert!(state.epoch >= before.epoch, "the epoch never goes back");
        assert!(state.next_copy >= before.next_copy && state.next_node >= before.next_node);
        if state.is_formed() && before.is_formed() {
            assert_eq!(state.formation, before.formation, "a cluster is formed once");
            assert_eq!(state.members.len(), before.members.len(), "a member rejoins as one");
            let gone = before.members.keys().filter(|id| !state.members.contains_key(id));
            gone.for_each(|id| assert!(state.is_gone(*id)));
        }
        // Repeating a command is harmless: a client that lost the answer may send it again.
        let mut again = state.clone();
        again.apply(command);
        assert_eq!(again, state);
        assert_eq!(state.map().shards.len(), state.shards.len());
    }
    let mut replayed = ClusterState::default();
    commands.iter().take(COMMANDS_MAX).for_each(|command| drop(replayed.apply(command)));
    assert_eq!(replayed, state, "the same log gives the same state");
    // The operation log and the records of runs are stored beside the state.
    (state.oplog, state.runs) = Default::default();
    let stored = codec::encode(&state);
    assert_eq!(codec::decode::<ClusterState>(&stored).as_ref(), Ok(&state));
}

/// Bytes read as small choices; zero at the end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn commands(mut self) -> Vec<MetaCommand> {
        let mut commands = Vec::new();
        while !self.0.is_empty() && commands.len() < COMMANDS_MAX {
            commands.push(match self.next() % 8 {
                0 | 4 => MetaCommand::Form(self.record()),
                5 => MetaCommand::Rejoin { node: self.id(), disk: DiskId(self.next().into()) },
                6 => MetaCommand::Joined { node: self.id() },
                7 => {
                    let copies = (0..self.next() % 4).map(|_| CopyId(self.next().into()));
                    MetaCommand::Replace { copies: copies.collect() }
                }
                _ => MetaCommand::Readdress { node: self.id(), addr: self.addr() },
            });
        }
        commands
    }

    fn record(&mut self) -> FormationRecord {
        let id = u128::from(self.next() % 3);
        let shards = match self.next() {
            255 => u16::MAX,
            shards => u16::from(shards) * 5,
        };
        let members = (0..self.next() % 10).map(|_| self.member()).collect();
        FormationRecord { id, cluster: "fuzz".into(), shards, members }
    }

    fn member(&mut self) -> FormationMember {
        let name = format!("n{}", self.next() % 12);
        FormationMember {
            id: self.id(),
            name: NodeName::new(&name).expect("a letter and a number"),
            role: if self.next() % 3 == 0 { Role::Replica } else { Role::Primary },
            addr: self.addr(),
            disk: DiskId(self.next().into()),
        }
    }

    fn id(&mut self) -> NodeId {
        match self.next() {
            255 => NodeId(u64::MAX),
            254 => NodeId(u64::MAX - 1),
            id => NodeId((id % 16).into()),
        }
    }

    fn addr(&mut self) -> String {
        match self.next() {
            0 => String::new(),
            1 => "no-port".into(),
            2 => ":7".into(),
            port => format!("10.0.0.{}:{port}", port % 16),
        }
    }
}
