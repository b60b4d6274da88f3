//! What a person is shown before a dangerous command is carried out, and the question.
//!
//! What was shown is what is done: a switch is bound to the plan that was shown, an order to the operation.

use super::args::admin::Admin;
use super::args::load::{Breaker, Force};
use super::args::strategy::Strategy;
use super::args::{Format, Verb};
use super::caller::Caller;
use super::data::Stand;
use super::session::Call;
use super::strategy::{document, measured, order, plan};
use super::value::{Answered, Doc};
use super::{output, sweep};
use crate::client::Client;
use crate::types::{NodeName, Result};
use crate::wire::plan::{Check, Precheck, Verdict};
use bytes::Bytes;
use std::time::Instant;

/// What is shown, and what is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// Lines in front of the question.
    pub shown: String,
    /// The question, without its mark.
    pub question: String,
}

/// What came of a look at what a command would touch.
#[derive(Debug)]
pub enum Seen {
    /// That is asked.
    Ask(Preview),
    /// There is nothing to decide: the order will be refused.
    Refused,
    /// It would touch nothing. This is the answer; what comes to be there later was never agreed on.
    Nothing(Box<Answered>),
}

/// What a person is shown, if there is something to decide.
pub async fn of(client: &Client, verb: &mut Verb, call: &Call, stand: &Stand) -> Result<Seen> {
    match verb {
        Verb::Admin(Admin::Strategy(verb)) => {
            Ok(of_strategy(client, verb, call).await?.map_or(Seen::Refused, Seen::Ask))
        }
        Verb::Admin(Admin::Breaker(Breaker::Open(force))) => {
            Ok(Seen::Ask(of_breaker(force, call.globals.node.as_ref())))
        }
        Verb::Data(data) => match sweep::asked(data, stand) {
            Some((prefix, _)) => of_sweep(client, &prefix, call.deadline).await,
            None => Ok(Seen::Refused),
        },
        _ => Ok(Seen::Refused),
    }
}

/// What has that prefix.
pub(super) async fn of_sweep<T: sweep::Table>(
    table: &T,
    prefix: &Bytes,
    deadline: Instant,
) -> Result<Seen> {
    let count = sweep::preview(table, prefix, deadline).await?;
    if count.keys == 0 {
        return Ok(Seen::Nothing(Box::new(sweep::deleted(prefix, 0))));
    }
    let shown = format!("{}\n", count.words(prefix));
    let question = "delete all of them?".to_owned();
    Ok(Seen::Ask(Preview { shown, question }))
}

fn of_breaker(force: &Force, by: Option<&NodeName>) -> Preview {
    let who = by.map_or("no other node asks".to_owned(), |by| format!("{by} does not ask"));
    let what = match force.class {
        Some(class) => format!("calls of class {}", class.name()),
        None => "questions, orders and copies alike".to_owned(),
    };
    let time = humantime::format_duration(force.time);
    let shown = format!("{who} {} anything for {time}: {what}\n", force.peer);
    Preview { shown, question: format!("hold back calls to {}?", force.peer) }
}

async fn of_strategy<C: Caller>(
    caller: &C,
    verb: &mut Strategy,
    call: &Call,
) -> Result<Option<Preview>> {
    let closes = matches!(verb, Strategy::Finalize { .. });
    match verb {
        Strategy::Prepare { to, terms, .. } | Strategy::Switch { to, terms, .. } => {
            // A plan that was named was looked at when it was made.
            let question = |plan: &str| format!("{} by {plan}?", document::name((*to).into()));
            if let Some(plan) = terms.plan {
                let question = format!("go to {}", question(&format!("plan {plan}")));
                return Ok(Some(Preview { shown: String::new(), question }));
            }
            let told = measured(caller, (*to).into(), call).await?;
            terms.plan = told.plan.map(|plan| plan.id);
            let named =
                terms.plan.map_or("a plan of its own".to_owned(), |plan| format!("plan {plan}"));
            let question = format!("go to {}", question(&named));
            Ok(Some(Preview { shown: table(what_matters(&told)), question }))
        }
        Strategy::Commit { meant, .. } | Strategy::Finalize { meant, .. } => {
            let view = order::view(caller, call.left()).await?;
            let Some(op) = &view.operation else { return Ok(None) };
            let latest = *meant.operation.get_or_insert(op.id) == op.id;
            let shards = caller.map().await?.shards.len();
            let (from, to) = (document::name(op.from), document::name(op.to));
            let question = match closes {
                true => format!("close the way back from {to} to {from}, of operation {}?", op.id),
                false => format!("commit operation {}, from {from} to {to}?", op.id),
            };
            // Another one is meant: that is refused without a question.
            Ok(latest.then(|| Preview { shown: table(document::view(&view, shards)), question }))
        }
        _ => Ok(None),
    }
}

/// The plan with the checks that do not simply say go: a person has to see them among all the others.
fn what_matters(told: &Precheck) -> Doc {
    let doc = plan::document(told);
    let matters = |check: &Check| check.verdict != Verdict::Go || check.skipped;
    let rows: Vec<_> = told
        .checks
        .iter()
        .zip(doc.rows)
        .filter(|(check, _)| matters(check))
        .map(|(_, row)| row)
        .collect();
    let (all, go) = (told.checks.len(), told.checks.len() - rows.len());
    let mut notes = doc.notes;
    notes.push(format!("{go} of {all} checks say go"));
    Doc { rows, notes, ..doc }
}

fn table(doc: Doc) -> String {
    let printed = output::render(&Ok(Answered::doc(doc, None)), Format::Table, 0.0);
    String::from_utf8_lossy(&printed.out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Globals};
    use super::super::talk::Talk;
    use super::super::testing::{Twin, operation};
    use super::*;
    use crate::wire::operation::Phase;
    use crate::wire::terms::PlanId;
    use std::ffi::OsString;
    use std::time::{Duration, Instant};

    async fn shown(twin: &Twin, line: &str) -> (Option<Preview>, Strategy) {
        let words = shlex::split(&format!("strategy {line}")).unwrap();
        let cli = Cli::from_words(words.into_iter().map(OsString::from)).unwrap();
        let Verb::Admin(Admin::Strategy(mut verb)) = cli.verb else { panic!("{line}") };
        let deadline = Instant::now() + Duration::from_secs(5);
        let (globals, typed) = (Globals::default(), Globals::default());
        let call = Call { globals, typed, deadline, talk: Talk::default() };
        (of_strategy(twin, &mut verb, &call).await.unwrap(), verb)
    }

    #[tokio::test]
    async fn a_switch_is_bound_to_the_plan_that_was_shown() {
        let (preview, verb) = shown(&Twin::new(), "switch full").await;
        let preview = preview.unwrap();
        assert!(preview.shown.contains("to full: GO"), "{}", preview.shown);
        assert_eq!(preview.question, "go to full by plan P-17?");
        let Strategy::Switch { terms, .. } = verb else { panic!() };
        assert_eq!(terms.plan, Some(PlanId(17)));
        let (preview, _) = shown(&Twin::new(), "prepare sharded --plan P-3").await;
        let preview = preview.unwrap();
        assert_eq!(
            (preview.shown.as_str(), preview.question.as_str()),
            ("", "go to sharded by plan P-3?")
        );
        let no = Twin::with(|state| state.verdict = Verdict::NoGo);
        let (preview, _) = shown(&no, "switch full --skip disk").await;
        let shown = preview.unwrap().shown;
        assert!(shown.contains("NO-GO") && shown.contains("disk   n2"), "{shown}");
        assert!(shown.contains("1 of 2 checks say go") && !shown.contains("members"), "{shown}");
    }

    #[tokio::test]
    async fn an_order_is_bound_to_the_operation_that_was_shown() {
        assert_eq!(shown(&Twin::new(), "commit").await.0, None, "it will be refused");
        let twin = || Twin::with(|state| state.operations = vec![operation(7, Phase::Prepared)]);
        let (preview, verb) = shown(&twin(), "commit").await;
        assert_eq!(preview.unwrap().question, "commit operation 7, from sharded to full?");
        let Strategy::Commit { meant, .. } = verb else { panic!() };
        assert_eq!(meant.operation, Some(7));
        assert_eq!(shown(&twin(), "commit --operation 6").await.0, None);
        let (preview, _) = shown(&twin(), "finalize").await;
        assert!(preview.unwrap().question.starts_with("close the way back from full to sharded"));
    }
}
