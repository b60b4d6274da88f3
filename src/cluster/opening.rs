//! Whether a copy that is placed on this disk may be opened, from what the log records, what lies in the
//! data folder, and whether a quorum has confirmed the metadata in this process.
//!
//! Before that the placement known here may be older than what this node has already done about it: a copy
//! it still lists may be half deleted, or one that it does not list yet may have taken its place. So until
//! then only what fits exactly is opened, and everything else waits; afterwards what does not fit is damage.

use super::agent::CopyRecord;

/// What becomes of a copy that is placed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is recorded as it is placed.
    Open,
    /// Nothing of it exists.
    Create,
    /// Another copy has to be dropped first, or the metadata confirmed.
    Wait,
    /// The log and the folders contradict the placement; why.
    Corrupt(String),
}

/// Judges a copy. `recorded` is what the log has under its group, `folder` whether the copy's folder exists.
pub(super) fn judge(
    wanted: &CopyRecord,
    recorded: Option<&CopyRecord>,
    folder: bool,
    confirmed: bool,
) -> Finding {
    match recorded {
        Some(found) if found == wanted => Finding::Open,
        Some(found) if found.disk != wanted.disk => {
            Finding::Corrupt(format!("recorded as {found:?}, not {wanted:?}"))
        }
        _ if !confirmed => Finding::Wait,
        // Copy ids rise: what is recorded was there before what is placed.
        Some(found) if found.raft_id < wanted.raft_id => Finding::Wait,
        Some(found) => Finding::Corrupt(format!("recorded as {found:?}, not {wanted:?}")),
        // It is recorded before its folder exists, and dropped only when it is not placed any more.
        None if folder => {
            Finding::Corrupt("its folder exists, but the log does not know it".to_owned())
        }
        None => Finding::Create,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DiskId;

    #[test]
    fn only_what_fits_is_opened_and_nothing_is_created_or_condemned_too_early() {
        let record = |raft_id, disk| CopyRecord { raft_id, disk: DiskId(disk) };
        let wanted = record(9, 1);
        let is_corrupt = |finding| matches!(finding, Finding::Corrupt(_));
        for confirmed in [false, true] {
            for folder in [false, true] {
                let find = |recorded| judge(&wanted, Some(&recorded), folder, confirmed);
                assert_eq!(find(record(9, 1)), Finding::Open);
                assert!(is_corrupt(find(record(9, 2))), "a log of another disk");
                assert_eq!(find(record(5, 1)), Finding::Wait, "an earlier copy");
            }
        }
        let later = |confirmed| judge(&wanted, Some(&record(12, 1)), true, confirmed);
        assert_eq!(later(false), Finding::Wait, "the placement known may be old");
        assert!(is_corrupt(later(true)));
        let unknown = |folder, confirmed| judge(&wanted, None, folder, confirmed);
        assert_eq!([unknown(false, false), unknown(true, false)], [Finding::Wait, Finding::Wait]);
        assert_eq!(unknown(false, true), Finding::Create);
        assert!(is_corrupt(unknown(true, true)), "the log lost what it had acknowledged");
    }
}
