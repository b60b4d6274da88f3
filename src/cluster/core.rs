//! The cluster's state and what each command does to it. Pure and deterministic: every member applies
//! the same commands in the same order and has the same state.
//!
//! Refusals are values, not errors: a command that does not fit leaves the state untouched.

use super::journal::Event;
use super::oplog::OperationLog;
use super::runs::{RunEntry, Runs};
use super::{placement, settings};
use crate::types::{Code, CopyId, DiskId, Error, Incarnation, NodeId, NodeName, ShardId, limits};
use crate::wire::client::{Map, MapNode, MapShard, Role, Strategy};
use crate::wire::operation::Operation;
use crate::wire::oplog::Record;
use crate::wire::peer::FormationRecord;
use crate::wire::plan::Plan;
use crate::wire::tally::Tally;
use crate::wire::terms::Terms;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An entry of the metadata log. Stored, so append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MetaCommand {
    /// Makes the cluster: members, placement and the first copy ids. Repeating the same is harmless.
    Form(FormationRecord),
    /// A member listens somewhere else.
    Readdress { node: NodeId, addr: String },
    /// Journals a new operation.
    Begin { to: Strategy, by: String, commit_asked: bool, now_ms: u64, terms: Terms },
    /// Moves the latest operation on, if it is that one at that step.
    Advance { operation: u64, step: u64, event: Event, now_ms: u64 },
    /// Sets a live setting.
    Set { name: String, value: String },
    /// A member lost its disk and answers with an empty one: it goes on under a fresh id.
    Rejoin { node: NodeId, disk: DiskId },
    /// A member that was registered anew runs as such.
    Joined { node: NodeId },
    /// These copies were on lost disks and their groups go on without them: fresh ones take their place.
    Replace { copies: Vec<CopyId> },
    /// Keeps a plan, if its number is the next one.
    Plan(Box<Plan>),
    /// Keeps a record of the operation log, or notes the outcome of the one with its key.
    Record(Box<Record>),
    /// Takes an event of a run of a runbook.
    Run(Box<RunEntry>),
}

/// What a command led to. Stored nowhere; append-only on the wire all the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MetaReply {
    /// It was carried out, or had been before.
    Done { epoch: u64 },
    /// It does not fit; the state is untouched.
    Refused(Error),
}

/// Everything the metadata group knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The formation that made this cluster.
    pub formation: u128,
    /// Its name.
    pub cluster: String,
    /// Raised by every change of the map.
    pub epoch: u64,
    /// Placement of the data.
    pub strategy: Strategy,
    /// Members by id.
    pub members: BTreeMap<NodeId, Member>,
    /// Shards by id: `shards[i].id == i`.
    pub shards: Vec<ShardPlacement>,
    /// Next copy id; never goes back.
    pub next_copy: u64,
    /// Next node id; never goes back.
    pub next_node: u64,
    /// The journal: operations by id, the latest last. At most `journal::OPERATIONS_MAX`.
    pub operations: Vec<Operation>,
    /// Next operation id; never goes back.
    pub next_operation: u64,
    /// Live settings that were set, by name.
    pub settings: BTreeMap<String, String>,
    /// Plans that may start a switch, by id. At most `plans::PLANS_MAX`.
    pub plans: Vec<Plan>,
    /// Next plan id; never goes back.
    pub next_plan: u64,
    /// Counts of the operations that the journal has forgotten. Stored beside the rest, whose layout is fixed.
    #[serde(skip)]
    pub forgotten: Tally,
    /// What operators had the cluster do. Stored beside this record (`logic`), because this one is written again
    /// with every entry.
    #[serde(skip)]
    pub oplog: OperationLog,
    /// What the last runbooks did. Stored beside this record for the same reason.
    #[serde(skip)]
    pub runs: Runs,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Name in its certificate.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Where it listens, `host:port`.
    pub addr: String,
    /// The disk it was registered with.
    pub disk: DiskId,
    /// It has run with this disk as a member. Until then it may be told to join; afterwards a folder with
    /// this disk id and no formation in it has lost what it held.
    pub joined: bool,
}

/// Where a shard lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardPlacement {
    /// The shard.
    pub id: ShardId,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// The primary that leads it whenever it is up and caught up.
    pub owner: NodeId,
    /// Its copies. A copy exists only by being listed here with the disk it belongs to.
    pub copies: Vec<CopyPlacement>,
    /// The one copy that may start the group of this incarnation; every other one joins it, even where it
    /// is the only voter that placement names.
    pub founder: CopyId,
}

/// A copy of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlacement {
    /// Its id, never used before or after.
    pub id: CopyId,
    /// The member that holds it.
    pub node: NodeId,
    /// The disk it was created for. If that is not the disk of its member, the copy is lost.
    pub disk: DiskId,
    /// Whether it shall vote.
    pub voter: bool,
}

impl ClusterState {
    /// True once the cluster exists.
    pub fn is_formed(&self) -> bool {
        self.epoch > 0
    }

    /// Applies one command.
    pub fn apply(&mut self, command: &MetaCommand) -> MetaReply {
        let result = match command {
            MetaCommand::Form(record) => self.form(record),
            MetaCommand::Readdress { node, addr } => self.readdress(*node, addr),
            MetaCommand::Begin { to, by, commit_asked, now_ms, terms } => {
                self.begin(*to, by, *commit_asked, *now_ms, terms)
            }
            MetaCommand::Advance { operation, step, event, now_ms } => {
                self.advance(*operation, *step, event, *now_ms)
            }
            MetaCommand::Set { name, value } => self.set(name, value),
            MetaCommand::Rejoin { node, disk } => self.rejoin(*node, *disk),
            MetaCommand::Joined { node } => self.joined(*node),
            MetaCommand::Replace { copies } => self.replace(copies),
            MetaCommand::Plan(plan) => self.keep_plan(plan),
            MetaCommand::Record(record) => self.keep_record(record),
            MetaCommand::Run(entry) => self.keep_run(entry),
        };
        match result {
            Ok(()) => MetaReply::Done { epoch: self.epoch },
            Err(error) => MetaReply::Refused(error),
        }
    }

    fn form(&mut self, record: &FormationRecord) -> Result<(), Error> {
        if self.is_formed() {
            return match self.formation == record.id {
                true => Ok(()),
                false => Err(Error::new(
                    Code::AlreadyFormed,
                    format!("this is cluster `{}`, formed before", self.cluster),
                )),
            };
        }
        check_formation(record)?;
        let of_role = |role: Role| -> Vec<NodeId> {
            record.members.iter().filter(|m| m.role == role).map(|m| m.id).collect()
        };
        let (primaries, replicas) = (of_role(Role::Primary), of_role(Role::Replica));
        self.members = record
            .members
            .iter()
            .map(|m| {
                let member = Member {
                    name: m.name.clone(),
                    role: m.role,
                    addr: m.addr.clone(),
                    disk: m.disk,
                    joined: true,
                };
                (m.id, member)
            })
            .collect();
        self.formation = record.id;
        self.cluster = record.cluster.clone();
        self.next_node = self.members.keys().last().map_or(1, |last| last.0.saturating_add(1));
        self.next_copy = 1;
        self.next_operation = 1;
        self.next_plan = 1;
        self.shards = placement::owners(record.shards, &primaries, &[])
            .into_iter()
            .enumerate()
            .map(|(i, owner)| self.first_placement(ShardId(i as u16), owner, &replicas))
            .collect();
        self.epoch = 1;
        Ok(())
    }

    fn first_placement(
        &mut self,
        id: ShardId,
        owner: NodeId,
        replicas: &[NodeId],
    ) -> ShardPlacement {
        let mut copies = vec![self.create_copy(owner, true)];
        copies.extend(replicas.iter().map(|node| self.create_copy(*node, false)));
        let founder = copies.first().map_or(CopyId(0), |c| c.id);
        ShardPlacement { id, incarnation: Incarnation(1), owner, copies, founder }
    }

    /// Allocates a copy id for the member's registered disk.
    pub(super) fn create_copy(&mut self, node: NodeId, voter: bool) -> CopyPlacement {
        let id = CopyId(self.next_copy);
        self.next_copy += 1;
        let disk = self.members.get(&node).map_or(DiskId(0), |member| member.disk);
        CopyPlacement { id, node, disk, voter }
    }

    fn readdress(&mut self, node: NodeId, addr: &str) -> Result<(), Error> {
        check_addr(addr)?;
        let member = self
            .members
            .get_mut(&node)
            .ok_or_else(|| Error::new(Code::NotFound, format!("there is no member {node}")))?;
        if member.addr != addr {
            member.addr = addr.to_owned();
            self.epoch += 1;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        settings::check(name, value)?;
        if !self.is_formed() {
            return Err(Error::new(Code::NotFormed, "there is no cluster yet"));
        }
        if self.settings.insert(name.to_owned(), value.to_owned()).as_deref() != Some(value) {
            self.epoch += 1;
        }
        Ok(())
    }

    /// The member of that name.
    pub fn member(&self, name: &NodeName) -> Option<(NodeId, &Member)> {
        self.members.iter().find(|(_, m)| m.name == *name).map(|(id, m)| (*id, m))
    }

    /// The name of a member.
    pub fn name(&self, node: NodeId) -> Option<NodeName> {
        self.members.get(&node).map(|m| m.name.clone())
    }

    /// A shard by id.
    pub fn shard(&self, id: ShardId) -> Option<&ShardPlacement> {
        self.shards.get(id.0 as usize)
    }

    /// The routing table for clients.
    pub fn map(&self) -> Map {
        let name = |node: NodeId| self.members.get(&node).map(|m| m.name.clone());
        Map {
            epoch: self.epoch,
            strategy: self.strategy,
            read_default: self.read_default(),
            nodes: self
                .members
                .values()
                .map(|m| MapNode { name: m.name.clone(), role: m.role, addr: m.addr.clone() })
                .collect(),
            shards: self
                .shards
                .iter()
                .filter_map(|s| {
                    let owner = name(s.owner)?;
                    let mut copies: Vec<NodeName> = s
                        .copies
                        .iter()
                        .filter(|c| self.serves(c))
                        .filter_map(|c| name(c.node))
                        .collect();
                    copies.sort_by_key(|n| *n != owner);
                    Some(MapShard { id: s.id, incarnation: s.incarnation, owner, copies })
                })
                .collect(),
        }
    }

    /// Whether clients may read from a copy: in both strategies a replica's, else one that shall vote.
    pub fn serves(&self, copy: &CopyPlacement) -> bool {
        let is_replica = || self.members.get(&copy.node).is_some_and(|m| m.role == Role::Replica);
        copy.voter || is_replica()
    }

    /// What must hold after every command; the fuzzer and the tests call it.
    pub fn check(&self) -> Result<(), String> {
        if !self.is_formed() {
            return match *self == Self::default() {
                true => Ok(()),
                false => Err("an unformed cluster has content".into()),
            };
        }
        let mut copies = BTreeSet::new();
        for (i, shard) in self.shards.iter().enumerate() {
            if shard.id.0 as usize != i {
                return Err(format!("shard {} at position {i}", shard.id));
            }
            if !shard.copies.iter().any(|c| c.node == shard.owner && c.voter) {
                return Err(format!("{}: its owner does not vote", shard.id));
            }
            for copy in &shard.copies {
                let member = self.members.get(&copy.node).ok_or("a copy on no member")?;
                if copy.voter && member.role == Role::Replica {
                    return Err(format!("{}: a replica votes", copy.id));
                }
                if copy.id.0 >= self.next_copy || !copies.insert(copy.id) {
                    return Err(format!("{} is used twice", copy.id));
                }
            }
            if shard.founder.0 >= self.next_copy {
                return Err(format!("{}: {} was never created", shard.id, shard.founder));
            }
        }
        let disks: BTreeSet<_> = self.members.values().map(|m| m.disk).collect();
        let names: BTreeSet<_> = self.members.values().map(|m| &m.name).collect();
        if disks.len() != self.members.len() || names.len() != self.members.len() {
            return Err("two members share a disk or a name".into());
        }
        self.check_journal()?;
        self.check_plans()?;
        self.oplog.check()?;
        self.runs.check()?;
        match self.members.keys().last() {
            Some(last) if last.0 < self.next_node => Ok(()),
            _ => Err("node ids run ahead of their counter".into()),
        }
    }
}

/// Refuses a formation that no cluster can have.
pub fn check_formation(record: &FormationRecord) -> Result<(), Error> {
    let bad = |message: String| Err(Error::new(Code::BadRequest, message));
    let count = |role: Role| record.members.iter().filter(|m| m.role == role).count();
    let (primaries, replicas) = (count(Role::Primary), count(Role::Replica));
    if !(1..=limits::PRIMARIES_MAX).contains(&primaries) {
        return bad(format!(
            "a cluster has 1 to {} primaries, not {primaries}",
            limits::PRIMARIES_MAX
        ));
    }
    if replicas > limits::REPLICAS_MAX {
        return bad(format!(
            "a cluster has at most {} replicas, not {replicas}",
            limits::REPLICAS_MAX
        ));
    }
    if record.shards == 0 || record.shards > limits::SHARDS_MAX {
        return bad(format!(
            "a cluster has 1 to {} shards, not {}",
            limits::SHARDS_MAX,
            record.shards
        ));
    }
    if (record.shards as usize) < primaries {
        return bad(format!(
            "{} shards leave one of {primaries} primaries without any",
            record.shards
        ));
    }
    let distinct = |n: usize, what: &str| match n == record.members.len() {
        true => Ok(()),
        false => Err(Error::new(Code::BadRequest, format!("two members share {what}"))),
    };
    let members = &record.members;
    distinct(members.iter().map(|m| &m.name).collect::<BTreeSet<_>>().len(), "a name")?;
    distinct(members.iter().map(|m| m.id).collect::<BTreeSet<_>>().len(), "an id")?;
    distinct(members.iter().map(|m| &m.addr).collect::<BTreeSet<_>>().len(), "an address")?;
    distinct(members.iter().map(|m| m.disk).collect::<BTreeSet<_>>().len(), "a data folder")?;
    if members.iter().any(|m| m.id.0 == 0 || m.id.0 == u64::MAX) {
        return bad("member ids lie between 1 and 2^64 - 2".into());
    }
    members.iter().try_for_each(|m| check_addr(&m.addr))
}

fn check_addr(addr: &str) -> Result<(), Error> {
    let port = addr.rsplit_once(':').and_then(|(host, port)| {
        (!host.is_empty() && addr.len() <= 255).then(|| port.parse::<u16>().ok())?
    });
    match port {
        Some(port) if port > 0 => Ok(()),
        _ => Err(Error::new(Code::BadRequest, format!("`{addr}` is not host:port"))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::codec;
    use crate::wire::peer::FormationMember;

    pub(crate) fn record(primaries: u64, replicas: u64, shards: u16) -> FormationRecord {
        let member = |i: u64| FormationMember {
            id: NodeId(i),
            name: NodeName::new(&format!("n{i}")).unwrap(),
            role: if i <= primaries { Role::Primary } else { Role::Replica },
            addr: format!("127.0.0.1:{}", 7100 + i),
            disk: DiskId(u128::from(i) << 64),
        };
        FormationRecord {
            id: 42,
            cluster: "test".into(),
            shards,
            members: (1..=primaries + replicas).map(member).collect(),
        }
    }

    #[test]
    fn forming_places_every_shard_once_on_a_primary_and_on_every_replica() {
        let mut state = ClusterState::default();
        state.check().unwrap();
        assert_eq!(state.apply(&MetaCommand::Form(record(3, 1, 12))), MetaReply::Done { epoch: 1 });
        state.check().unwrap();
        assert_eq!(state.shards.len(), 12);
        for shard in &state.shards {
            assert_eq!(shard.copies.len(), 2);
            assert_eq!(shard.copies.iter().filter(|c| c.voter).count(), 1);
        }
        let map = state.map();
        assert_eq!(map.shards.len(), 12);
        assert!(map.shards.iter().all(|s| s.copies[0] == s.owner && s.copies.len() == 2));
    }

    #[test]
    fn forming_is_repeatable_and_never_twice() {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 12)));
        let formed = state.clone();
        assert_eq!(state.apply(&MetaCommand::Form(record(3, 1, 12))), MetaReply::Done { epoch: 1 });
        let other = FormationRecord { id: 43, ..record(1, 0, 12) };
        assert!(matches!(
            state.apply(&MetaCommand::Form(other)),
            MetaReply::Refused(e) if e.code == Code::AlreadyFormed
        ));
        assert_eq!(state, formed);
    }

    #[test]
    fn impossible_formations_are_refused_and_change_nothing() {
        let mut twins = record(3, 0, 12);
        twins.members[1].disk = twins.members[0].disk;
        let mut nowhere = record(1, 0, 12);
        nowhere.members[0].addr = "nowhere".into();
        let bad = [
            record(0, 1, 12),
            record(6, 0, 12),
            record(3, 3, 12),
            record(3, 1, 0),
            record(3, 1, 2),
            record(3, 1, limits::SHARDS_MAX + 1),
            twins,
            nowhere,
        ];
        for record in bad {
            let mut state = ClusterState::default();
            assert!(matches!(
                state.apply(&MetaCommand::Form(record)),
                MetaReply::Refused(e) if e.code == Code::BadRequest
            ));
            assert_eq!(state, ClusterState::default());
        }
    }

    #[test]
    fn an_address_changes_once() {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 12)));
        let moved = MetaCommand::Readdress { node: NodeId(2), addr: "127.0.0.1:9".into() };
        assert_eq!(state.apply(&moved), MetaReply::Done { epoch: 2 });
        assert_eq!(state.apply(&moved), MetaReply::Done { epoch: 2 });
        let nobody = MetaCommand::Readdress { node: NodeId(9), addr: "127.0.0.1:9".into() };
        assert!(matches!(state.apply(&nobody), MetaReply::Refused(e) if e.code == Code::NotFound));
    }

    #[test]
    fn stored_formats_keep_their_bytes() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let small = FormationRecord { members: record(1, 0, 1).members, ..record(1, 0, 1) };
        assert_eq!(
            hex(codec::encode(&MetaCommand::Form(small.clone()))),
            "01002a0474657374010101026e31000e3132372e302e302e313a3731303180808080808080808002"
        );
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(small));
        assert_eq!(
            hex(codec::encode(&state)),
            "012a0474657374010001\
             01026e31000e3132372e302e302e313a373130318080808080808080800201\
             01000101010101808080808080808080020101\
             02020001000001"
        );
        let moved = MetaCommand::Readdress { node: NodeId(2), addr: "a:1".into() };
        assert_eq!(hex(codec::encode(&moved)), "01010203613a31");
        let rejoin = MetaCommand::Rejoin { node: NodeId(2), disk: DiskId(7) };
        assert_eq!(hex(codec::encode(&rejoin)), "01050207");
        assert_eq!(hex(codec::encode(&MetaCommand::Joined { node: NodeId(2) })), "010602");
        let replace = MetaCommand::Replace { copies: vec![CopyId(3), CopyId(9)] };
        assert_eq!(hex(codec::encode(&replace)), "0107020309");
    }
}
