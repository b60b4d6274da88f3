//! What comes before a command: whole names of nodes for beginnings of names, and the consent of a person.

use super::{Call, GRACE, REFRESH_TIMEOUT, Session, client_options, out_of_time};
use crate::cli::args::{Globals, Verb};
use crate::cli::care::{self, Danger, Decision};
use crate::cli::data::Stand;
use crate::cli::preview::{self, Seen};
use crate::cli::value::Answered;
use crate::cli::{nodes, strategy};
use crate::types::{NodeName, Result};
use crate::wire::client::Map;
use std::time::Instant;

impl Session {
    /// Puts whole names of nodes where the beginnings of names were typed.
    pub(super) async fn look_up(&mut self, verb: &mut Verb, call: &mut Call) -> Result<()> {
        let mut globals = call.globals.clone();
        let crew = matches!(verb, Verb::Node(_));
        let mut places = nodes::places(verb, &mut globals);
        if places.is_empty() {
            return Ok(());
        }
        // The nodes of a demo are started when none answers.
        let client = match crew {
            true => self.client.clone(),
            false => Some(self.client(call).await?),
        };
        let Some(client) = client else { return Ok(()) };
        let mut map = client.map();
        let known = |map: &Map, name: &NodeName| map.nodes.iter().any(|node| node.name == *name);
        if !crew && !map.nodes.is_empty() && !places.iter().all(|name| known(&map, name)) {
            // The node may have joined since; a node that does not answer now is no reason to wait.
            let fresh = tokio::time::timeout(call.left().min(REFRESH_TIMEOUT), client.refresh());
            map = fresh.await.ok().and_then(Result::ok).unwrap_or(map);
        }
        if map.nodes.is_empty() {
            return Ok(());
        }
        let names: Vec<&NodeName> = map.nodes.iter().map(|node| &node.name).collect();
        for place in &mut places {
            **place = nodes::resolve(place, &names)?;
        }
        call.globals = globals;
        Ok(())
    }

    /// The answer of a command that is not to be carried out, because a person says so or it would touch nothing; none if
    /// it is: it touches little, or consent came with it, or a person agrees now.
    pub(super) async fn settled(
        &mut self,
        verb: &mut Verb,
        call: &Call,
        stand: &Stand,
    ) -> Result<Option<Answered>> {
        let danger = care::danger(verb, stand);
        // What a demo's own shell does to its throw-away cluster has to be agreed on only if it deletes much.
        if danger == Danger::Moderate && self.is_throw_away(&call.globals) {
            return Ok(None);
        }
        let cluster = match danger {
            Danger::Severe => client_options(&call.globals)?.identity.principal().cluster.clone(),
            _ => String::new(),
        };
        let by_name = match care::decide(danger, care::given(verb), self.attended, &cluster) {
            Decision::Go => return Ok(None),
            Decision::Refuse(why) => return Err(why),
            Decision::AskYes => false,
            Decision::AskName => true,
        };
        let time = call.typed.timeout.unwrap_or(strategy::PLAN_DEFAULT);
        let call = Call { deadline: Instant::now() + time, ..call.clone() };
        let client = self.client(&call).await?;
        let looked = tokio::time::timeout(time + GRACE, preview::of(&client, verb, &call, stand));
        let preview = match looked.await.unwrap_or_else(|_| Err(out_of_time(false, time)))? {
            Seen::Ask(preview) => preview,
            Seen::Refused => return Ok(None),
            Seen::Nothing(answered) => return Ok(Some(*answered)),
        };
        self.talk.close_line();
        eprint!("{}", preview.shown);
        let question = preview.question;
        let agreed = match by_name {
            false => care::is_yes(&care::ask(&format!("{question} [y/N]")).await?),
            true => {
                care::ask(&format!("{question} type the name of the cluster, {cluster}:")).await?
                    == cluster
            }
        };
        Ok((!agreed).then(care::declined))
    }

    /// Whether that is the cluster of the session's own processes, and no context says to be careful.
    fn is_throw_away(&self, globals: &Globals) -> bool {
        let home = self.home.as_ref().is_some_and(|home| home.globals.same_connection(globals));
        home && globals.in_force().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Crew, Door};
    use super::*;
    use crate::cli::contexts::{InForce, Place};
    use std::sync::Arc;
    use tokio::sync::Mutex;

    struct Nobody;
    impl Crew for Nobody {
        fn kill_node(&mut self, _: &NodeName) -> Result<()> {
            Ok(())
        }
        fn start_node(&mut self, _: &NodeName) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_demo_asks_less_about_its_own_cluster_and_about_no_other() {
        let at = |endpoint: &str| Globals {
            endpoints: vec![endpoint.to_owned()],
            certs: Some("/demo".into()),
            user: Some("demo".into()),
            place: Place::Bare,
            ..Globals::default()
        };
        let session = || Session::new(at("demo:1"), Door::Shell);
        assert!(!session().is_throw_away(&at("demo:1")), "a shell, and no demo");
        let mut demo = session().with_crew(Arc::new(Mutex::new(Nobody)));
        assert!(demo.is_throw_away(&at("demo:1")));
        let other = at("prod:1");
        assert!(!demo.is_throw_away(&other), "on one line");
        demo.base = other.clone();
        assert!(!demo.is_throw_away(&other), "after `connect`");
        assert!(demo.is_throw_away(&at("demo:1")));
        let (name, protected) = ("home".to_owned(), true);
        let place = Place::In(Arc::new(InForce { name, color: None, protected }));
        assert!(!demo.is_throw_away(&Globals { place, ..at("demo:1") }));
    }
}
