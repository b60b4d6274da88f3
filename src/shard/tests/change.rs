//! The rules for a change of the members, by values: who leads, who votes, who answers, who is near.

use crate::shard::change::{SILENT_MS, Step, check};
use crate::types::{Code, CopyId, NodeId};
use crate::wire::operation::{Lead, MemberReport, ShardChange};

const ME: CopyId = CopyId(1);

/// Members as one letter each, copies 1, 2, ... in order: upper case votes, lower case learns; `v` is well,
/// `s` silent, `n` has never answered, `f` far behind, `b` silent and far behind.
fn lead(members: &str, joint: bool) -> Lead {
    let member = |(i, letter): (usize, char)| {
        let copy = i as u64 + 1;
        let kind = letter.to_ascii_lowercase();
        assert!("vsnfb".contains(kind), "{letter}");
        let near = !"fb".contains(kind);
        MemberReport {
            copy: CopyId(copy),
            node: NodeId(10 * copy),
            voter: letter.is_ascii_uppercase(),
            matched: if near { 100 } else { 7 },
            answered_ms: match kind {
                'n' => None,
                's' | 'b' => Some(SILENT_MS + 1),
                _ => Some(SILENT_MS),
            },
            near,
        }
    };
    let members = members.chars().enumerate().map(member).collect();
    Lead { fence: (1, 1), joint, last_index: 100, members }
}

fn copies(ids: &[u64]) -> Vec<CopyId> {
    ids.iter().copied().map(CopyId).collect()
}

fn ids(step: impl Fn(std::collections::BTreeSet<u64>) -> Step, of: &[u64]) -> Result<Step, Code> {
    Ok(step(of.iter().copied().collect()))
}

/// `members` with `*` at the end are joint.
fn outcome(members: &str, change: &ShardChange) -> Result<Step, Code> {
    let joint = members.ends_with('*');
    let lead = lead(members.trim_end_matches('*'), joint);
    check(ME, &lead, change).map_err(|error| error.code)
}

fn voters(members: &str, goal: &[u64]) -> Result<Step, Code> {
    outcome(members, &ShardChange::Voters(copies(goal)))
}

const NOT_NOW: Result<Step, Code> = Err(Code::NotSafeNow);
const BAD: Result<Step, Code> = Err(Code::BadRequest);

#[test]
fn a_lone_voter_needs_every_voter_to_answer_and_be_near() {
    let done = || ids(Step::Voters, &[1]);
    assert_eq!(voters("VVVv", &[1]), done());
    assert_eq!(voters("VV", &[1]), done());
    for one_not_well in ["VSVv", "VVSv", "VNVv", "VFVv", "VVFv", "VBVv", "VS", "VVVVS", "VSS"] {
        assert_eq!(voters(one_not_well, &[1]), NOT_NOW, "{one_not_well}");
    }
    // Learners do not count.
    for learner in ["VVVs", "VVVn", "VVVf", "VVVb"] {
        assert_eq!(voters(learner, &[1]), done(), "{learner}");
    }
    // Only for itself: a leader never leaves a shard to another copy alone.
    for other in [2, 3, 4] {
        assert_eq!(voters("VVVv", &[other]), NOT_NOW, "{other}");
    }
    assert_eq!(voters("Vv", &[2]), NOT_NOW);
}

#[test]
fn more_voters_need_a_majority_of_them_to_answer_and_be_near() {
    let three = &[1, 2, 3];
    for well in ["Vvvv", "Vvsv", "Vsvv", "Vvfv", "Vbvv", "Vnvv", "Vvvs"] {
        assert_eq!(voters(well, three), ids(Step::Voters, three), "{well}");
    }
    for not_well in ["Vssv", "Vffv", "Vsfv", "Vnbv", "Vbbv", "Vnnv"] {
        assert_eq!(voters(not_well, three), NOT_NOW, "{not_well}");
    }
    // Two need both; four need three; five need three.
    assert_eq!(voters("Vv", &[1, 2]), ids(Step::Voters, &[1, 2]));
    for not_well in ["Vs", "Vf", "Vn"] {
        assert_eq!(voters(not_well, &[1, 2]), NOT_NOW, "{not_well}");
    }
    assert_eq!(voters("Vvvs", &[1, 2, 3, 4]), ids(Step::Voters, &[1, 2, 3, 4]));
    assert_eq!(voters("Vvss", &[1, 2, 3, 4]), NOT_NOW);
    assert_eq!(voters("Vvvsf", &[1, 2, 3, 4, 5]), ids(Step::Voters, &[1, 2, 3, 4, 5]));
    assert_eq!(voters("Vvfsf", &[1, 2, 3, 4, 5]), NOT_NOW);
    // The old voters do not count, only the ones to be: a dead one is replaced.
    assert_eq!(voters("VVSv", &[1, 2, 4]), ids(Step::Voters, &[1, 2, 4]));
    assert_eq!(voters("VSSv", &[1, 2, 4]), ids(Step::Voters, &[1, 2, 4]));
    assert_eq!(voters("VSVs", &[1, 2, 4]), NOT_NOW);
    // This leader is among them.
    assert_eq!(voters("VVVv", &[2, 3]), NOT_NOW);
    assert_eq!(voters("VVVv", &[2, 3, 4]), NOT_NOW);
}

#[test]
fn what_holds_already_needs_nothing() {
    assert_eq!(voters("VVV", &[3, 1, 2]), Ok(Step::Nothing));
    assert_eq!(voters("VSN", &[1, 2, 3]), Ok(Step::Nothing));
    assert_eq!(voters("Vsf", &[1]), Ok(Step::Nothing));
    assert_eq!(voters("VVV", &[1, 1, 2, 3, 3]), Ok(Step::Nothing));
    let fence = outcome("Vs*", &ShardChange::Fence);
    assert_eq!(fence, Ok(Step::Nothing));
}

#[test]
fn a_change_that_was_interrupted_is_finished_under_the_same_rules() {
    // While joint, the voters are those of both configurations: the goal may look as if it held.
    assert_eq!(voters("VVVv*", &[1, 2, 3]), ids(Step::Voters, &[1, 2, 3]));
    assert_eq!(voters("VVSv*", &[1, 2, 3]), ids(Step::Voters, &[1, 2, 3]));
    assert_eq!(voters("VSSv*", &[1, 2, 3]), NOT_NOW);
    assert_eq!(voters("VVVv*", &[1]), ids(Step::Voters, &[1]));
    assert_eq!(voters("VVSv*", &[1]), NOT_NOW);
    assert_eq!(voters("VVFv*", &[1]), NOT_NOW);
    assert_eq!(voters("VVVv*", &[2]), NOT_NOW);
}

#[test]
fn voters_are_members_and_at_least_one() {
    assert_eq!(voters("VVV", &[]), BAD);
    assert_eq!(voters("VVV*", &[]), BAD);
    assert_eq!(voters("Vvv", &[1, 2, 9]), BAD);
    assert_eq!(voters("Vvv", &[9]), BAD);
}

#[test]
fn only_learners_are_removed() {
    let remove = |members: &str, of: &[u64]| outcome(members, &ShardChange::Remove(copies(of)));
    assert_eq!(remove("Vvv", &[2, 3]), ids(Step::Remove, &[2, 3]));
    assert_eq!(remove("Vsn", &[2, 3]), ids(Step::Remove, &[2, 3]));
    // Who is no member any more is left out.
    assert_eq!(remove("Vvv", &[2, 9]), ids(Step::Remove, &[2]));
    for nobody in [&[][..], &[9], &[8, 9]] {
        assert_eq!(remove("Vvv", nobody), Ok(Step::Nothing), "{nobody:?}");
    }
    assert_eq!(remove("VVv", &[2]), NOT_NOW);
    assert_eq!(remove("VVv", &[2, 3]), NOT_NOW);
    assert_eq!(remove("Vvv", &[1]), NOT_NOW);
    // A leader that was just demoted still leads for a moment.
    assert_eq!(remove("vVv", &[1]), NOT_NOW);
    assert_eq!(remove("VVv*", &[3]), NOT_NOW);
    assert_eq!(remove("VVv*", &[9]), Ok(Step::Nothing));
}

#[test]
fn leadership_goes_only_to_a_voter_that_answers_and_is_near() {
    let transfer = |members: &str, to| outcome(members, &ShardChange::Transfer(CopyId(to)));
    assert_eq!(transfer("VVV", 2), Ok(Step::Transfer(2)));
    assert_eq!(transfer("VVS", 2), Ok(Step::Transfer(2)));
    for not_well in ["VSV", "VFV", "VNV", "VBV", "Vvv"] {
        assert_eq!(transfer(not_well, 2), NOT_NOW, "{not_well}");
    }
    // To leave two configurations behind, the one voter to be has to lead.
    assert_eq!(transfer("VVV*", 2), Ok(Step::Transfer(2)));
    assert_eq!(transfer("VVV", 1), Ok(Step::Nothing));
    assert_eq!(transfer("VVV", 9), BAD);
}

#[test]
fn the_message_says_who_is_waited_for() {
    let message = |members: &str, change: ShardChange| {
        check(ME, &lead(members, false), &change).unwrap_err().message
    };
    let alone = || ShardChange::Voters(copies(&[1]));
    let three = || ShardChange::Voters(copies(&[1, 2, 3]));
    assert_eq!(
        message("VVS", alone()),
        "every voter has to answer and be near; c3 on m30 answered 1001 ms ago, the limit is 1000 ms"
    );
    assert_eq!(
        message("Vfn", three()),
        "1 of 3 new voters answer and are near, 2 are needed; c2 on m20 has log index 7 of 100 and \
         lacks what was written more than 1000 ms ago; c3 on m30 has not answered yet"
    );
    assert_eq!(
        message("VVV", ShardChange::Voters(copies(&[2]))),
        "c2 on m20 can make itself the one voter only as leader"
    );
    assert_eq!(
        message("VVv", ShardChange::Remove(copies(&[2]))),
        "c2 on m20 still votes; only learners are removed"
    );
}
