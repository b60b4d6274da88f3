//! `context validate`: its files, its certificate, and whether a node answers.

use super::{Context, Contexts, Place};
use crate::cli::args::Globals;
use crate::cli::session::{self, Call};
use crate::cli::value::{Answered, Doc};
use crate::pki::{Identity, rfc3339};
use crate::types::{Code, Error, Result};
use crate::wire::command::{Answer, Command};
use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// How long one context is tried, unless the command has less time.
const TRY: Duration = Duration::from_secs(3);
/// Days left from which on it is said how to renew a certificate.
const DAYS_FEW: i64 = 3;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// Tries the one named, or all of them at the same time.
pub async fn run(all: &Contexts, name: Option<&str>, call: &Call) -> Result<Answered> {
    let chosen: Vec<(&str, &Context)> = match name {
        Some(name) => vec![(name, all.get(name)?)],
        None => all.contexts.iter().map(|(name, context)| (name.as_str(), context)).collect(),
    };
    if chosen.is_empty() {
        let message = "there is no context to try; `ppdb context add` makes one";
        return Err(Error::new(Code::NotFound, message));
    }
    let tried = chosen.iter().map(async |(name, context)| (*name, checks(context, call).await));
    let tried = join_all(tried).await;
    let yes = tried.iter().all(|(_, checks)| checks.iter().all(|check| check.ok));
    Ok(Answered { yes, ..Answered::doc(doc(&tried), None) })
}

async fn checks(context: &Context, call: &Call) -> Vec<Check> {
    let (ca, cert, key) = context.globals().identity_paths();
    let identity = match Identity::load(&ca, &cert, &key) {
        Ok(identity) => identity,
        Err(error) => return vec![Check { name: "files", ok: false, detail: error.message }],
    };
    let files = format!("{}, {}, {}", ca.display(), cert.display(), key.display());
    let left = (identity.expires_in_days(), rfc3339(identity.not_after()));
    let certificate = certificate(&identity.principal().to_string(), left.0, &left.1);
    vec![Check { name: "files", ok: true, detail: files }, certificate, node(context, call).await]
}

fn certificate(who: &str, days_left: i64, until: &str) -> Check {
    let detail = match days_left {
        ..0 => format!("{who} EXPIRED at {until}; `ppdb cert issue user` makes another one"),
        0..DAYS_FEW => format!(
            "{who}, valid for {days_left} days, until {until}; `ppdb cert issue user` makes another one"
        ),
        _ => format!("{who}, valid for {days_left} days, until {until}"),
    };
    Check { name: "certificate", ok: days_left >= 0, detail }
}

async fn node(context: &Context, call: &Call) -> Check {
    let deadline = call.deadline.min(Instant::now() + TRY);
    let call = Call { deadline, ..call.clone() };
    let (ok, detail) = match answer(context, &call).await {
        Ok(detail) => (true, detail),
        Err(error) => (false, error.to_string()),
    };
    Check { name: "node", ok, detail }
}

async fn answer(context: &Context, call: &Call) -> Result<String> {
    // What the context does not say is the default, as when it is used, and nothing of the current one.
    let globals = Globals { place: Place::Bare, ..context.globals() };
    let (client, cluster) = session::open(&globals, call).await?;
    let answer = client.command(Command::Info, None, call.left()).await;
    client.close().await;
    match answer? {
        (Answer::Info(info), by) => {
            Ok(format!("{by} of cluster {cluster}, version {}", info.version))
        }
        _ => Err(crate::cli::caller::other_answer()),
    }
}

fn doc(tried: &[(&str, Vec<Check>)]) -> Doc {
    let json = tried.iter().map(|(name, checks)| {
        let each: Vec<Json> = checks
            .iter()
            .map(|c| json!({ "check": c.name, "ok": c.ok, "detail": c.detail }))
            .collect();
        json!({ "context": name, "ok": checks.iter().all(|check| check.ok), "checks": each })
    });
    let row = |name: &str, check: &Check| {
        let verdict = if check.ok { "ok" } else { "WRONG" };
        vec![name.to_owned(), check.name.to_owned(), verdict.to_owned(), check.detail.clone()]
    };
    let rows = tried.iter().flat_map(|(name, checks)| checks.iter().map(|c| row(name, c)));
    Doc {
        json: json.collect(),
        header: vec!["CONTEXT", "CHECK", "VERDICT", "DETAIL"],
        rows: rows.collect(),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_told_and_one_that_has_ended_is_wrong() {
        let told = |days| {
            let check = certificate("user ann", days, "2027-01-01T00:00:00Z");
            (check.ok, check.detail.contains("cert issue"), check.detail.contains("EXPIRED"))
        };
        assert_eq!(told(3), (true, false, false));
        assert_eq!(told(2), (true, true, false));
        assert_eq!(told(0), (true, true, false));
        assert_eq!(told(-1), (false, true, true));
    }

    #[test]
    fn every_check_is_a_row_and_a_context_is_as_good_as_its_worst() {
        let check = |name, ok| Check { name, ok, detail: "d".into() };
        let tried = [
            ("a", vec![check("files", true), check("node", false)]),
            ("b", vec![check("files", true)]),
        ];
        let doc = doc(&tried);
        assert_eq!((&doc.json[0]["ok"], &doc.json[1]["ok"]), (&json!(false), &json!(true)));
        assert_eq!(doc.json[0]["checks"][1]["check"], "node");
        assert_eq!(doc.rows[1], ["a", "node", "WRONG", "d"].map(str::to_owned));
    }
}
