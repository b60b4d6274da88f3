//! What every code means, where it usually comes from, and what to do: one long table.

use crate::types::Code;

/// What is said of a code.
pub struct Text {
    /// What it means, in one sentence.
    pub means: &'static str,
    /// Where it usually comes from, the most likely first.
    pub causes: &'static [&'static str],
    /// What to do, in that order.
    pub cures: &'static [&'static str],
}

/// A text.
pub const fn text(
    means: &'static str,
    causes: &'static [&'static str],
    cures: &'static [&'static str],
) -> Text {
    Text { means, causes, cures }
}

/// The text of a code.
pub fn of(code: Code) -> Text {
    match code {
        Code::NotLeader => text(
            "the node asked does not lead the shard, and somebody else has to answer",
            &[
                "a leader was just elected, or moves to another node",
                "--no-retry keeps the client from asking the other one",
            ],
            &[
                "repeat the command; clients follow the hint by themselves",
                "`ppdb status` names shards that have no leader",
            ],
        ),
        Code::Moved => text(
            "the shard is not on the node asked in the form that the map of the caller names",
            &[
                "a switch has passed its commit point since the map was read",
                "a node lost its disk and came back under fresh ids",
            ],
            &["repeat the command; clients fetch the new map by themselves"],
        ),
        Code::NotReady => text(
            "the node does not serve yet: it has not confirmed its copies with the others, or it is stopping",
            &[
                "it was started a moment ago",
                "a majority of the primaries is down, so that nobody can confirm it",
            ],
            &[
                "wait some seconds and repeat",
                "`ppdb cluster nodes` tells who is up and ready",
                "start the primaries that are down",
            ],
        ),
        Code::Overloaded => text(
            "a bounded queue of the node is full, or its load is beyond what this kind of request may add to",
            &[
                "more requests at a time than the node can carry out",
                "a slow disk, behind which writes wait",
                "many scans and batches, which are refused before anything else",
            ],
            &[
                "wait for the time that the answer names, then repeat",
                "`ppdb stats` and `ppdb slowlog` tell what is slow",
                "send fewer requests at a time",
            ],
        ),
        Code::NoSpace => text(
            "only the reserve of the disk is left: writes are refused, reads go on",
            &["the data has grown", "something else fills the disk of the data folder"],
            &[
                "make room on the disk of the node, or give it a larger one; writes go on by themselves",
                "delete keys that are not needed, such as by `ppdb del --prefix P`",
            ],
        ),
        Code::NotYet => text(
            "the copy asked has not reached the log index that was asked for within the time",
            &[
                "a `session` read with --after at a copy that is behind",
                "the copy was just restarted",
            ],
            &["repeat it, or ask another copy", "`ppdb replica lag` tells who is behind"],
        ),
        Code::TooStale => text(
            "the copy asked cannot prove that it is as fresh as --max-staleness demands",
            &[
                "its leader was not heard for longer than that",
                "the bound is shorter than a heartbeat",
            ],
            &[
                "ask with a longer bound, or at another node",
                "`--level linearizable` asks the leader",
            ],
        ),
        Code::Unreachable => text(
            "no connection could be made, and nothing was sent",
            &[
                "no node listens at the address",
                "a firewall drops UDP, which QUIC uses",
                "the endpoint belongs to another cluster",
            ],
            &[
                "name a node that runs with --endpoint, or a context with --context",
                "`ppdb context validate` tries every context",
                "look whether UDP passes to that port",
            ],
        ),
        Code::DeadlineExceeded => text(
            "the time was over before anything was done",
            &[
                "the leader of a shard is being replaced",
                "the cluster is overloaded, or a majority is down",
                "--timeout is shorter than the command needs",
            ],
            &["`ppdb status` tells what is down", "repeat it, or give it more time with --timeout"],
        ),
        Code::BadRequest => text(
            "the command or its arguments do not fit",
            &[
                "a flag that goes with another command or level",
                "a value without its unit, such as 5 for 5s",
                "a name that fits more than one node",
            ],
            &["`ppdb help COMMAND` shows what fits, with an example"],
        ),
        Code::KeyTooLong => text(
            "the key, or the prefix of a scan, is empty or longer than 480 bytes",
            &["a value was passed where the key belongs", "a variable of a script is empty"],
            &["shorten the key, for example by a digest of its long part"],
        ),
        Code::ValueTooLong => text(
            "the value is longer than 1 MiB",
            &["a file that is stored as a whole"],
            &[
                "split it over several keys that share a {tag}, or keep it elsewhere and store where it is",
            ],
        ),
        Code::BatchTooLarge => text(
            "there are more operations or bytes in one request than the cluster takes",
            &[
                "more than 1024 keys in one command",
                "the live settings safety.max_batch_size or safety.max_batch_bytes are lower",
            ],
            &["split it", "`ppdb config get` shows both settings"],
        ),
        Code::CrossShard => text(
            "--atomic was asked for keys that do not share a shard",
            &["keys without a common {tag}"],
            &[
                "give keys that belong together the same tag: {ann}.name and {ann}.age share a shard",
                "leave --atomic out if each key may be done by itself",
            ],
        ),
        Code::NotAnInteger => text(
            "`incr` met a value that is not a decimal number of 64 bits",
            &["the key holds text, or a number with blanks or a fraction"],
            &["`ppdb get KEY` shows what is there"],
        ),
        Code::IntegerOverflow => text(
            "`incr` would leave the range of a number of 64 bits; the value is as it was",
            &["a counter that was set to a very large number"],
            &["`ppdb get KEY` shows what is there; set it anew"],
        ),
        Code::Denied => text(
            "who the certificate names has no right to do this",
            &[
                "the certificate of a node was used for the work of a user, or the other way round",
                "the record of a run is somebody else's",
            ],
            &[
                "`ppdb cert list` shows who each certificate names",
                "use a certificate of a user: --user, or --cert and --key",
            ],
        ),
        Code::UnknownCommand => text(
            "there is no such command",
            &["a typing error", "the other side runs an older version"],
            &["`ppdb help` lists the commands", "`ppdb info NODE` tells the version of a node"],
        ),
        Code::NotFormed => text(
            "the node belongs to no cluster yet",
            &[
                "`ppdb cluster init` was not run",
                "its data folder is empty, and no member has called it back",
            ],
            &[
                "form the cluster once with `ppdb cluster init`",
                "look whether the node was started with the data folder that was meant",
            ],
        ),
        Code::AlreadyFormed => text(
            "the node, or a member that was named, belongs to a cluster already",
            &[
                "`ppdb cluster init` with other members than the first time",
                "a data folder that was used for another cluster",
            ],
            &[
                "`ppdb cluster nodes` shows the cluster that there is",
                "give a node that shall join another cluster an empty data folder",
            ],
        ),
        Code::TokenLost => text(
            "the token is of a lineage of the shard that has been replaced",
            &["a token that was kept from before the shard was promoted"],
            &["forget the token and read at `--level linearizable` once"],
        ),
        Code::BadConfig => text(
            "a setting, or a file of settings or contexts, is unknown, malformed or out of bounds",
            &[
                "a typing error in ppdb.toml, in a PPDB_ variable or in the file of contexts",
                "a value without its unit",
            ],
            &[
                "the message names the value and its bounds",
                "`ppdb config show --origin` shows the settings of a node and where each came from",
                "`ppdb config get` shows the live settings",
            ],
        ),
        Code::BadCertificate => text(
            "a certificate, a key or a CA does not fit",
            &[
                "the files are of another cluster's CA",
                "the certificate has expired",
                "others may read the key",
                "the file of the user is not there",
            ],
            &[
                "`ppdb cert list --certs DIR` shows who, which cluster and until when",
                "`ppdb cert issue user NAME` makes another one",
                "`chmod 600` for the key",
            ],
        ),
        Code::BadVersion => text(
            "the two sides have no version of the protocol in common",
            &["one of them is much older", "what listens at that address is not ppdb"],
            &[
                "`ppdb version` and `ppdb info NODE` tell both",
                "bring both to versions that follow each other",
            ],
        ),
        Code::NotFound => text(
            "what was named does not exist",
            &[
                "a typing error in the name of a node, a shard, an operation or a context",
                "it was forgotten: logs keep a bounded number",
            ],
            &[
                "`ppdb cluster nodes`, `ppdb shard map`, `ppdb op list` and `ppdb context list` show which there are",
            ],
        ),
        Code::Unknown => text(
            "the request was sent and its answer was lost: it may or may not have happened",
            &[
                "a node died, or the connection was lost, in the middle",
                "the time was over while the answer was on its way",
                "of several keys some were written and some were not",
            ],
            &[
                "read before you repeat",
                "an order to the cluster is in `ppdb op list`, a switch in `ppdb strategy show`",
            ],
        ),
        Code::SessionExpired => text(
            "the session of the write is not known any more, so nobody can tell whether it was applied before",
            &["a client that was silent for more than ten minutes and then repeated a write"],
            &["read the key, then decide"],
        ),
        Code::SequenceTooOld => text(
            "the write was repeated so late that its result is not remembered",
            &["more than 1024 later writes of the same session were made meanwhile"],
            &["read the key, then decide"],
        ),
        Code::Corrupt => text(
            "stored data failed its checksum; the node stops rather than answer wrongly",
            &["a disk that lies or is dying", "a file of the data folder was changed from outside"],
            &[
                "look at the log of the node and at the disk",
                "replace the disk and start the node with an empty data folder: it is refilled by itself",
                "`ppdb shard verify` compares the copies afterwards",
            ],
        ),
        Code::Internal => text(
            "something happened that the program itself rules out",
            &["a fault in ppdb", "the machine has no memory, threads or open files left"],
            &[
                "keep the log of the node and the message",
                "look at the limits of the process",
                "restart the node; if it happens again, report it",
            ],
        ),
        Code::OperationConflict => text(
            "the order does not fit what is under way",
            &[
                "another operation runs",
                "this one is past the point that the order is for",
                "somebody else was faster",
                "64 runbooks are under way already",
            ],
            &[
                "`ppdb strategy show` tells what is under way and what it waits for, `ppdb runs list` which runbooks",
                "give the order that fits, or wait",
            ],
        ),
        Code::PrecheckFailed => text(
            "a check says that the switch would do harm now; nothing was changed",
            &[
                "a node is down, or a copy is behind",
                "a disk has no room for what would be copied",
                "the load is too high",
            ],
            &[
                "`ppdb strategy plan full` (or `sharded`) lists every check with its smallest fix",
                "--skip CHECK overrules a single one, on record",
            ],
        ),
        Code::Superseded => text(
            "the order came from a coordinator or a runbook that was replaced by another one; it had no effect",
            &[
                "the leader of the metadata has changed in the middle of an operation",
                "somebody has taken up the run with `run --resume`",
            ],
            &[
                "nothing: the new coordinator, or the new runner, goes on",
                "`ppdb strategy show` and `ppdb runs list` tell how far it is",
            ],
        ),
        Code::NotSafeNow => text(
            "what the order rests on does not hold at this moment",
            &[
                "a voter is silent, and changing the others now could cost the majority",
                "a copy was not compared yet",
            ],
            &[
                "the message says what is waited for",
                "`ppdb strategy watch` follows it; it goes on by itself when that holds",
            ],
        ),
        Code::Undone => text(
            "the operation that was waited for ended where it began: it was aborted or reverted",
            &["an operator gave that order", "the guard saw that clients were served badly"],
            &["`ppdb strategy history` tells why", "remove the reason, then begin again"],
        ),
        Code::PlanOutdated => text(
            "the plan expired, was used, or the world that it was made for has moved",
            &[
                "it is older than 15 minutes",
                "a node was restarted, a disk has filled, the epoch has moved",
            ],
            &["`ppdb strategy plan full` (or `sharded`) makes another one"],
        ),
        Code::ReadOnly => text(
            "the context is protected, and changes were not allowed in it; nothing was sent",
            &[
                "the command was meant for another cluster",
                "`writes on` was not given, or its time is over",
            ],
            &[
                "look which context holds: `ppdb context list`, or the prompt",
                "--writes allows one command",
                "in a shell `writes on --for 10m` allows the lines that follow, `writes off` ends it",
            ],
        ),
    }
}
