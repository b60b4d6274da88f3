//! May the leader of a shard carry out this change of its members now, and what is left to do of it?
//!
//! Pure: a report of the leader and the order in, a step or the reason to wait out. Fences, proposals and
//! the condition on the membership are in `lead`.
//!
//! To one voter only by that voter itself, as leader, and only while every voter answers and is near: with
//! one of them silent, two configurations would have to be left behind by a majority that may not exist,
//! and what the lone voter wrote last would be nowhere else. To more voters only while a majority of the
//! new ones answers and is near: else the shard could commit nothing until they have caught up.

use super::pace::WINDOW;
use crate::types::{Code, CopyId, Error};
use crate::wire::operation::{Lead, MemberReport, ShardChange};
use std::collections::BTreeSet;

/// A member whose last answer is older counts as silent.
pub const SILENT_MS: u64 = 1_000;

/// What is left to do of an order; ids are those of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It holds already.
    Nothing,
    /// Make these the voters; finishes a change towards them that was interrupted.
    Voters(BTreeSet<u64>),
    /// Remove these learners.
    Remove(BTreeSet<u64>),
    /// Ask this voter to take over.
    Transfer(u64),
}

/// Decides for the leader `me` from what it knows now. `NotSafeNow` says what is waited for, `BadRequest` what
/// will never do.
pub fn check(me: CopyId, lead: &Lead, change: &ShardChange) -> Result<Step, Error> {
    let facts = Facts { me, lead };
    match change {
        ShardChange::Fence => Ok(Step::Nothing),
        ShardChange::Voters(copies) => facts.voters(copies),
        ShardChange::Remove(copies) => facts.remove(copies),
        ShardChange::Transfer(copy) => facts.transfer(*copy),
    }
}

struct Facts<'a> {
    me: CopyId,
    lead: &'a Lead,
}

impl Facts<'_> {
    fn voters(&self, copies: &[CopyId]) -> Result<Step, Error> {
        let goal: BTreeSet<CopyId> = copies.iter().copied().collect();
        if goal.is_empty() {
            return Err(Error::new(Code::BadRequest, "a shard without voters cannot exist"));
        }
        let members = goal.iter().map(|copy| self.member(*copy)).collect::<Result<Vec<_>, _>>()?;
        let current: BTreeSet<CopyId> = self.current().map(|m| m.copy).collect();
        if current == goal && !self.lead.joint {
            return Ok(Step::Nothing);
        }
        match goal.len() {
            1 => self.to_one(members[0])?,
            _ => self.to_more(&members)?,
        }
        Ok(Step::Voters(ids(goal)))
    }

    fn to_one(&self, alone: &MemberReport) -> Result<(), Error> {
        if alone.copy != self.me {
            let who = name(alone);
            return Err(wait(format!("{who} can make itself the one voter only as leader")));
        }
        match self.current().find_map(|voter| self.lack(voter)) {
            Some(lack) => Err(wait(format!("every voter has to answer and be near; {lack}"))),
            None => Ok(()),
        }
    }

    fn to_more(&self, goal: &[&MemberReport]) -> Result<(), Error> {
        if !goal.iter().any(|member| member.copy == self.me) {
            return Err(wait(format!("{} leads and would not vote; another has to lead", self.me)));
        }
        let lacks: Vec<String> = goal.iter().filter_map(|member| self.lack(member)).collect();
        let (ready, needed) = (goal.len() - lacks.len(), goal.len() / 2 + 1);
        if ready >= needed {
            return Ok(());
        }
        Err(wait(format!(
            "{ready} of {} new voters answer and are near, {needed} are needed; {}",
            goal.len(),
            lacks.join("; ")
        )))
    }

    fn remove(&self, copies: &[CopyId]) -> Result<Step, Error> {
        let listed = |member: &&MemberReport| copies.contains(&member.copy);
        let leaving: Vec<&MemberReport> = self.lead.members.iter().filter(listed).collect();
        if leaving.is_empty() {
            return Ok(Step::Nothing);
        }
        if let Some(member) = leaving.iter().find(|m| m.voter || m.copy == self.me) {
            let does = if member.voter { "votes" } else { "leads" };
            return Err(wait(format!("{} still {does}; only learners are removed", name(member))));
        }
        if self.lead.joint {
            return Err(wait("a change of the voters is under way".to_owned()));
        }
        Ok(Step::Remove(ids(leaving.iter().map(|member| member.copy))))
    }

    fn transfer(&self, copy: CopyId) -> Result<Step, Error> {
        let to = self.member(copy)?;
        if copy == self.me {
            return Ok(Step::Nothing);
        }
        if !to.voter {
            return Err(wait(format!("{} does not vote, so it cannot lead", name(to))));
        }
        match self.lack(to) {
            Some(lack) => Err(wait(lack)),
            None => Ok(Step::Transfer(copy.0)),
        }
    }

    fn member(&self, copy: CopyId) -> Result<&MemberReport, Error> {
        let found = self.lead.members.iter().find(|member| member.copy == copy);
        found.ok_or_else(|| {
            Error::new(Code::BadRequest, format!("{copy} is no member of this shard's group"))
        })
    }

    /// While two configurations hold, the voters of both.
    fn current(&self) -> impl Iterator<Item = &MemberReport> {
        self.lead.members.iter().filter(|member| member.voter)
    }

    /// What a member lacks to be counted on.
    fn lack(&self, member: &MemberReport) -> Option<String> {
        let who = name(member);
        match member.answered_ms {
            None => Some(format!("{who} has not answered yet")),
            Some(ms) if ms > SILENT_MS => {
                Some(format!("{who} answered {ms} ms ago, the limit is {SILENT_MS} ms"))
            }
            Some(_) if !member.near => Some(format!(
                "{who} has log index {} of {} and lacks what was written more than {} ms ago",
                member.matched,
                self.lead.last_index,
                WINDOW.as_millis()
            )),
            Some(_) => None,
        }
    }
}

fn ids(copies: impl IntoIterator<Item = CopyId>) -> BTreeSet<u64> {
    copies.into_iter().map(|copy| copy.0).collect()
}

fn name(member: &MemberReport) -> String {
    format!("{} on {}", member.copy, member.node)
}

fn wait(what: String) -> Error {
    Error::new(Code::NotSafeNow, what)
}
