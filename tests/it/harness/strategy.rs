//! Orders about the strategy, and waiting for where they lead.

use super::cluster::Cluster;
use super::wait_until;
use ppdb::client::Client;
use ppdb::types::{Code, Error, Result};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command};
use ppdb::wire::operation::{Operation, Phase, StrategyOrder, StrategyView};
use std::time::{Duration, Instant};

/// Longest time for one order to be journaled.
const ORDER_WITHIN: Duration = Duration::from_secs(60);
/// Longest time for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl Cluster {
    /// Gives an order until it is journaled: a coordinator that dies in between is replaced.
    pub async fn order(&self, client: &Client, order: StrategyOrder) -> Result<Operation> {
        let end = Instant::now() + ORDER_WITHIN;
        loop {
            let command = Command::Strategy(order.clone());
            let error = match client.command(command, None, ANSWER_WITHIN).await {
                Ok((Answer::Operation(operation), _)) => return Ok(*operation),
                Ok((other, _)) => panic!("another answer: {other:?}"),
                Err(error) => error,
            };
            let transient = matches!(
                error.code,
                // A check that says no may say yes soon: a replica that was killed catches up.
                Code::PrecheckFailed
                    | Code::NotReady
                    | Code::NotLeader
                    | Code::Unreachable
                    | Code::Overloaded
            );
            if !transient || Instant::now() > end {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sets a live setting.
    pub async fn set_live(&self, client: &Client, name: &str, value: &str) {
        let ask = async || {
            let command = Command::Set { name: name.to_owned(), value: value.to_owned() };
            client.command(command, None, ANSWER_WITHIN).await
        };
        let _ = wait_until("setting", ORDER_WITHIN, ask, |answer| answer.is_ok()).await;
    }

    /// Waits until the operation is in one of these phases; `what` names the wait.
    pub async fn wait_phase(
        &self,
        client: &Client,
        phases: &[Phase],
        within: Duration,
    ) -> StrategyView {
        let ask = async || show(client).await;
        let there = |view: &Result<StrategyView>| {
            let operation = view.as_ref().ok().and_then(|view| view.operation.as_ref());
            operation.is_some_and(|operation| phases.contains(&operation.phase))
        };
        wait_until("phase", within, ask, there).await.expect("just checked")
    }

    /// From one strategy to the other, to where the way back is open.
    pub async fn switch(&self, client: &Client, to: Strategy, within: Duration) -> StrategyView {
        self.order(client, StrategyOrder::switch(to)).await.expect("the switch begins");
        self.wait_phase(client, &[Phase::Soaking], within).await
    }
}

/// The latest operation and how far it is.
pub async fn show(client: &Client) -> Result<StrategyView> {
    match client.command(Command::StrategyShow, None, ANSWER_WITHIN).await? {
        (Answer::StrategyView(view), _) => Ok(*view),
        (other, _) => Err(Error::new(Code::Internal, format!("another answer: {other:?}"))),
    }
}
