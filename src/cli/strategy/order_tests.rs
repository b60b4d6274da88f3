//! What the journal says of an order whose answer was lost, and that no order is ever carried out twice.

use super::super::super::testing::{Mishap, Twin, operation};
use super::*;
use crate::wire::client::Strategy;

fn prepare() -> StrategyOrder {
    StrategyOrder::prepare(Strategy::Full)
}

fn abort() -> StrategyOrder {
    StrategyOrder::Abort { reason: "r".into() }
}

fn insistence(ms: u64) -> Insistence {
    let until = Instant::now() + Duration::from_millis(ms);
    Insistence { until, pause: Duration::from_millis(1), again: true }
}

#[test]
fn the_journal_tells_whether_an_order_was_taken() {
    use Phase::*;
    let op = operation;
    let yes = |op: Operation| Taken::Yes(Box::new(op));
    let (one, two) = (op(1, Finalized), op(2, Copying));
    assert_eq!(taken(&prepare(), None, None), Taken::NotYet);
    assert_eq!(taken(&prepare(), Some(&one), Some(&one)), Taken::NotYet);
    assert_eq!(taken(&prepare(), Some(&one), Some(&two)), yes(two.clone()));
    assert_eq!(taken(&prepare(), None, Some(&two)), yes(two.clone()));
    let back = StrategyOrder::switch(Strategy::Sharded);
    assert_eq!(taken(&back, Some(&one), Some(&two)), Taken::Overtaken);
    for (order, before, after) in [
        (StrategyOrder::Commit, Prepared, Committing),
        (abort(), Copying, Aborting),
        (StrategyOrder::Revert { reason: "r".into() }, Soaking, Reverting),
        (StrategyOrder::Finalize, Soaking, Finalizing),
    ] {
        let (before, after) = (op(2, before), op(2, after));
        assert_eq!(taken(&order, Some(&before), Some(&before)), Taken::NotYet, "{order:?}");
        assert_eq!(taken(&order, Some(&before), Some(&after)), yes(after), "{order:?}");
        // Of a newer operation it must not be said a second time.
        assert_eq!(taken(&order, Some(&before), Some(&op(3, Prepared))), Taken::Overtaken);
        assert_eq!(taken(&order, None, None), Taken::NotYet);
    }
}

#[test]
fn a_commit_that_was_asked_for_is_taken_before_it_happens() {
    let before = operation(2, Phase::Prepared);
    let asked = Operation { commit_asked: true, ..before.clone() };
    let yes = Taken::Yes(Box::new(asked.clone()));
    assert_eq!(taken(&StrategyOrder::Commit, Some(&before), Some(&asked)), yes);
    assert_eq!(taken(&abort(), Some(&before), Some(&asked)), Taken::NotYet);
    let given_up = Operation { phase: Phase::Aborting, ..asked };
    assert_eq!(taken(&StrategyOrder::Commit, Some(&before), Some(&given_up)), Taken::NotYet);
}

#[test]
fn a_rate_was_set_once_the_operation_has_it() {
    let order = StrategyOrder::Throttle { copy_bytes_per_s: Some(1 << 20) };
    let before = operation(2, Phase::Copying);
    let after = Operation { copy_bytes_per_s: Some(1 << 20), ..before.clone() };
    assert_eq!(taken(&order, Some(&before), Some(&before)), Taken::NotYet);
    let yes = Taken::Yes(Box::new(after.clone()));
    assert_eq!(taken(&order, Some(&before), Some(&after)), yes);
    assert_eq!(taken(&order, Some(&before), Some(&operation(3, Phase::Copying))), Taken::Overtaken);
}

#[tokio::test]
async fn an_order_means_the_operation_that_was_there_or_the_one_that_is_named() {
    let twin = Twin::with(|state| state.operations.push(operation(7, Phase::Prepared)));
    let wrong = give_to(&twin, &StrategyOrder::Commit, Some(6), &insistence(1_000)).await;
    assert_eq!(wrong.unwrap_err().code, Code::OperationConflict);
    assert_eq!(twin.phase(), Some(Phase::Prepared), "nothing was ordered");
    let (op, _) = give_to(&twin, &abort(), Some(7), &insistence(1_000)).await.unwrap();
    assert_eq!((op.id, op.phase), (7, Phase::Aborting));
    assert_eq!(command(prepare(), Some(7)), Command::Strategy(prepare()), "it begins another one");
    let named = Command::StrategyOf { operation: 7, order: StrategyOrder::Finalize };
    assert_eq!(command(StrategyOrder::Finalize, Some(7)), named);
}

#[tokio::test]
async fn an_order_is_carried_out_once_whatever_is_lost() {
    let not_ready = || Mishap::Refused(Error::new(Code::NotReady, "no coordinator"));
    for mishaps in [
        vec![],
        vec![Mishap::AnswerLost],
        vec![Mishap::OrderLost],
        vec![not_ready(), not_ready()],
        vec![Mishap::OrderLost, not_ready(), Mishap::AnswerLost],
    ] {
        let count = mishaps.len();
        let twin = Twin::with(|state| state.mishaps = mishaps.into());
        let (op, _) = give(&twin, &prepare(), &insistence(10_000)).await.unwrap();
        assert_eq!(op.id, 1);
        let state = twin.0.lock();
        assert_eq!(state.operations.len(), 1, "after {count} mishaps");
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_not_refused() {
    let twin = Twin::with(|state| {
        state.operations.push(operation(1, Phase::Prepared));
        state.mishaps.push_back(Mishap::AnswerLost);
    });
    let (op, _) = give(&twin, &StrategyOrder::Commit, &insistence(10_000)).await.unwrap();
    assert!(op.commit_asked);
}

#[tokio::test]
async fn a_refusal_is_told_at_once_with_its_reason() {
    let twin = Twin::with(|state| state.verdict = crate::wire::plan::Verdict::NoGo);
    let error = give(&twin, &prepare(), &insistence(10_000)).await.unwrap_err();
    assert_eq!(error.code, Code::PrecheckFailed);
    let error = give(&twin, &abort(), &insistence(10_000)).await.unwrap_err();
    assert_eq!(error.code, Code::OperationConflict);
    let unsafe_now = Error::new(Code::NotSafeNow, "n2 lags");
    let twin = Twin::with(|state| state.mishaps.push_back(Mishap::Refused(unsafe_now.clone())));
    assert_eq!(give(&twin, &prepare(), &insistence(10_000)).await.unwrap_err(), unsafe_now);
    assert_eq!(twin.0.lock().orders.len(), 1);
}

#[tokio::test]
async fn insisting_ends_and_one_attempt_is_one() {
    let lost = |count| Twin::with(|state| state.mishaps = vec![Mishap::OrderLost; count].into());
    let twin = lost(100_000);
    let error = give(&twin, &prepare(), &insistence(50)).await.unwrap_err();
    assert_eq!(error.outcome(), "unknown");
    assert!(error.message.contains("strategy show"), "{error}");
    let twin = lost(1);
    let once = Insistence { again: false, ..insistence(10_000) };
    assert_eq!(give(&twin, &prepare(), &once).await.unwrap_err().code, Code::Unknown);
    assert_eq!(twin.0.lock().orders.len(), 1);
}
