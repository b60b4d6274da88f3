//! Connections: the one of a session, those of single lines, and what a protected context leaves of them.

use super::{CLOSE_TIMEOUT, CONNECTIONS_PER_NODE, Call, Session};
use crate::cli::admin;
use crate::cli::args::Globals;
use crate::cli::contexts;
use crate::cli::value::Done;
use crate::client::{Client, Options};
use crate::pki::Identity;
use crate::types::{Code, Error, Result};
use std::time::Instant;

impl Session {
    pub(super) async fn connect(&mut self, addr: Option<String>, call: &Call) -> Done {
        let globals = match addr {
            Some(addr) => towards(addr, &call.globals)?,
            None => call.globals.clone(),
        };
        let (client, cluster) = open_unguarded(&globals, call).await?;
        let answered = admin::connected(&client, &cluster, &globals, call).await?;
        if let Some(old) = self.client.replace(client) {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, old.close()).await;
        }
        // What was allowed in one context is not allowed in the next.
        let stays = self.base.place == globals.place;
        self.base = Globals {
            endpoints: globals.endpoints,
            certs: globals.certs,
            user: globals.user,
            ca: globals.ca,
            cert: globals.cert,
            key: globals.key,
            context: globals.context,
            place: globals.place,
            writes: self.base.writes && stays,
            writes_until: self.base.writes_until.filter(|_| stays),
            ..self.base.clone()
        };
        self.cluster = Some(cluster);
        Ok(answered)
    }

    /// The session's client; a line with endpoints or certificates of its own gets one for itself.
    pub(super) async fn client(&mut self, call: &Call) -> Result<Client> {
        if !call.globals.same_connection(&self.base) {
            return Ok(open(&call.globals, call).await?.0);
        }
        if let Some(client) = &self.client {
            return Ok(guarded(client, &call.globals));
        }
        let (client, cluster) = open_unguarded(&call.globals, call).await?;
        self.cluster = Some(cluster);
        Ok(guarded(self.client.insert(client), &call.globals))
    }
}

/// Connects within the time of the call; also says which cluster our certificate is of. In a protected context the
/// client changes nothing unless that was allowed.
pub async fn open(globals: &Globals, call: &Call) -> Result<(Client, String)> {
    let globals = contexts::here(globals.clone())?;
    let (client, cluster) = open_unguarded(&globals, call).await?;
    Ok((guarded(&client, &globals), cluster))
}

fn guarded(client: &Client, globals: &Globals) -> Client {
    match globals.read_only(Instant::now()) {
        Some(why) => client.read_only(&why),
        None => client.clone(),
    }
}

/// Where `connect` leads to: a context of that name, or an address, which has a colon.
fn towards(addr: String, globals: &Globals) -> Result<Globals> {
    if addr.contains(':') {
        return Ok(Globals { endpoints: vec![addr], ..globals.clone() });
    }
    contexts::here(globals.overlaid_by(&Globals { context: Some(addr), ..Globals::default() }))
}

async fn open_unguarded(globals: &Globals, call: &Call) -> Result<(Client, String)> {
    let options = client_options(globals)?;
    let cluster = options.identity.principal().cluster.clone();
    let names = options.endpoints.join(", ");
    match tokio::time::timeout(call.left(), Client::connect(options)).await {
        Ok(client) => Ok((client?, cluster)),
        Err(_) => Err(Error::new(Code::Unreachable, format!("no answer from {names} in time"))),
    }
}

/// What a client is made from: where, and as whom.
pub fn client_options(globals: &Globals) -> Result<Options> {
    let (ca, cert, key) = globals.identity_paths();
    let identity = Identity::load(&ca, &cert, &key)?;
    let endpoints = globals.endpoints();
    Ok(Options { endpoints, identity, connections_per_node: CONNECTIONS_PER_NODE })
}
