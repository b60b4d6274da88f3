//! A dry run: the cluster is asked every question and given no order. What an order would have led to is
//! pretended, so that the rest of the script can be walked through. Pure.

use crate::types::{Code, Error, Result};
use crate::wire::client::Strategy;
use crate::wire::guard::Guard;
use crate::wire::operation::{Operation, Phase, StrategyOrder, StrategyView, Times};
use crate::wire::terms::Terms;

/// The operation that an order would lead to, from what holds and the latest operation, pretended or not.
pub fn rehearsed(
    order: &StrategyOrder,
    view: &StrategyView,
    latest: Option<&Operation>,
) -> Result<Operation> {
    use Phase::*;
    let misfit = |what: &str| Err(Error::new(Code::OperationConflict, what));
    let begin = |to: Strategy, terms: &Terms, phase: Phase| {
        let id = latest.map_or(1, |op| op.id + 1);
        let times = Times::default();
        let commit_asked = phase == Soaking;
        let by = "a dry run".to_owned();
        Ok(Operation {
            id,
            step: 1,
            turn: 1,
            phase,
            from: holds(view, latest),
            to,
            by,
            commit_asked,
            reason: None,
            checkpoint: None,
            verified: vec![],
            dropped: false,
            times,
            copy_bytes_per_s: None,
            guard: Guard::default(),
            last_failure: None,
            terms: terms.clone(),
            actual: Default::default(),
        })
    };
    let go_on = |phase: Phase, reason: Option<&String>| match latest {
        Some(op) => Ok(Operation { phase, reason: reason.cloned(), ..op.clone() }),
        None => misfit("there is no operation"),
    };
    let phase = latest.map(|op| op.phase);
    match order {
        StrategyOrder::Prepare { to, terms } => begin(*to, terms, Prepared),
        StrategyOrder::Switch { to, terms } => begin(*to, terms, Soaking),
        StrategyOrder::Commit if phase.is_some_and(|p| p <= Prepared) => go_on(Soaking, None),
        StrategyOrder::Commit => misfit("nothing is prepared; `prepare` comes first"),
        StrategyOrder::Abort { reason } if phase.is_some_and(|p| p <= Prepared) => {
            go_on(Aborted, Some(reason))
        }
        StrategyOrder::Abort { .. } => misfit("there is nothing to abort"),
        StrategyOrder::Revert { reason } if matches!(phase, Some(Committing | Soaking)) => {
            go_on(Reverted, Some(reason))
        }
        StrategyOrder::Revert { .. } => misfit("there is nothing to revert"),
        StrategyOrder::Finalize if phase == Some(Soaking) => go_on(Finalized, None),
        StrategyOrder::Finalize => misfit("there is nothing to finalize"),
        StrategyOrder::Throttle { .. } => go_on(phase.unwrap_or(Planned), None),
    }
}

/// The strategy that holds after the latest operation, pretended or not.
pub fn holds(view: &StrategyView, latest: Option<&Operation>) -> Strategy {
    match latest {
        Some(op) if matches!(op.phase, Phase::Soaking | Phase::Finalized) => op.to,
        Some(op) if matches!(op.phase, Phase::Aborted | Phase::Reverted) => op.from,
        _ => view.strategy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::operation;

    fn view(strategy: Strategy) -> StrategyView {
        StrategyView { strategy, epoch: 4, operation: None, progress: None }
    }

    #[test]
    fn a_switch_there_and_back_can_be_walked_through() {
        let view = view(Strategy::Sharded);
        let mut latest = None;
        for (order, phase, strategy) in [
            (StrategyOrder::prepare(Strategy::Full), Phase::Prepared, Strategy::Sharded),
            (StrategyOrder::Commit, Phase::Soaking, Strategy::Full),
            (StrategyOrder::Revert { reason: "r".into() }, Phase::Reverted, Strategy::Sharded),
            (StrategyOrder::switch(Strategy::Full), Phase::Soaking, Strategy::Full),
            (StrategyOrder::Finalize, Phase::Finalized, Strategy::Full),
        ] {
            let op = rehearsed(&order, &view, latest.as_ref()).unwrap();
            assert_eq!((op.phase, holds(&view, Some(&op))), (phase, strategy), "{order:?}");
            latest = Some(op);
        }
        assert_eq!(latest.map(|op| op.id), Some(2));
    }

    #[test]
    fn what_the_cluster_would_refuse_is_refused() {
        let view = view(Strategy::Sharded);
        let abort = StrategyOrder::Abort { reason: "r".into() };
        let revert = StrategyOrder::Revert { reason: "r".into() };
        for (order, latest) in [
            (StrategyOrder::Commit, None),
            (StrategyOrder::Commit, Some(operation(1, Phase::Soaking))),
            (abort, Some(operation(1, Phase::Soaking))),
            (revert, Some(operation(1, Phase::Prepared))),
            (StrategyOrder::Finalize, Some(operation(1, Phase::Aborted))),
        ] {
            let error = rehearsed(&order, &view, latest.as_ref()).unwrap_err();
            assert_eq!(error.code, Code::OperationConflict, "{order:?}");
        }
    }
}
