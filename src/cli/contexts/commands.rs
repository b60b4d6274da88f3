//! `context add`, `use`, `list`, `remove`: the file changes, nothing is connected.

use super::{Context, Contexts, InForce, file, validate};
use crate::cli::args::globals::{CERTS_DEFAULT, USER_DEFAULT};
use crate::cli::args::{ContextVerb, Globals};
use crate::cli::session::Call;
use crate::cli::value::{Answered, Doc};
use crate::types::{Code, Error, Result};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Carries out one of them; `call` has what flags and environment say about the connection.
pub async fn run(verb: ContextVerb, call: &Call) -> Result<Answered> {
    match verb {
        ContextVerb::Add { name, protected, color, replace } => {
            let context = Context { protected, color, ..of_flags(&call.globals)? };
            let note = format!(
                "`ppdb context validate {name}` tries it, `ppdb context use {name}` makes it the usual one"
            );
            let path = file::update(|all| add(all, &name, context.clone(), replace))?;
            Ok(kept(row_json(&name, &context, false), &path, vec![note]))
        }
        ContextVerb::Use { context, .. } => {
            let path = file::update(|all| choose(all, context.clone()))?;
            Ok(kept(json!({ "current": context }), &path, vec![used(context.as_deref())]))
        }
        ContextVerb::Remove { context } => {
            let path = file::update(|all| remove(all, &context))?;
            Ok(kept(json!({ "removed": context }), &path, vec![format!("{context} is forgotten")]))
        }
        ContextVerb::List => Ok(Answered::doc(list(&file::read()?), None)),
        ContextVerb::Validate { context } => {
            validate::run(&file::read()?, context.as_deref(), call).await
        }
    }
}

fn kept(json: Json, path: &Path, mut notes: Vec<String>) -> Answered {
    notes.push(format!("contexts are kept in {}", path.display()));
    let rows = notes.iter().map(|note| vec![note.clone()]).collect();
    Answered::doc(Doc { json, header: vec!["KEPT"], rows, notes: vec![] }, None)
}

fn used(name: Option<&str>) -> String {
    match name {
        Some(name) => format!(
            "{name} holds from now on where no other is named; a shell that is open stays where it is, `connect {name}` \
             goes there"
        ),
        None => "no context holds where none is named".to_owned(),
    }
}

/// What `writes on` and `writes off` answer.
pub fn writes(context: Option<&InForce>, allowed: bool, time: Option<Duration>) -> Answered {
    let name = context.map(|context| context.name.as_str());
    let protected = context.is_some_and(|context| context.protected);
    let within =
        time.map_or(String::new(), |time| format!(" for {}", humantime::format_duration(time)));
    let note = match (name, protected, allowed) {
        (Some(name), true, true) => format!("changes are allowed in {name}{within}"),
        (Some(name), true, false) => format!("{name} is read-only"),
        (Some(name), false, _) => format!("{name} is not protected: changes are always allowed"),
        (None, ..) => "there is no context here: changes are always allowed".to_owned(),
    };
    let for_ms = time.filter(|_| allowed).map(|time| time.as_millis() as u64);
    let json =
        json!({ "context": name, "protected": protected, "writes": allowed, "for_ms": for_ms });
    let rows = vec![vec![note]];
    Answered::doc(Doc { json, header: vec!["WRITES"], rows, notes: vec![] }, None)
}

/// What flags and environment say, complete and independent of the working folder.
fn of_flags(globals: &Globals) -> Result<Context> {
    if globals.endpoints.is_empty() {
        let message =
            "a context names a node to start from: --endpoint HOST:PORT, repeated for more";
        return Err(Error::new(Code::BadRequest, message));
    }
    let files = globals.ca.is_some() && globals.cert.is_some() && globals.key.is_some();
    let folder = match (&globals.certs, files) {
        (Some(folder), _) => Some(folder.clone()),
        (None, true) => None,
        (None, false) => Some(PathBuf::from(CERTS_DEFAULT)),
    };
    let user = globals.user.clone().unwrap_or_else(|| USER_DEFAULT.to_owned());
    Ok(Context {
        endpoints: globals.endpoints.clone(),
        user: folder.is_some().then_some(user),
        certs: folder.as_deref().map(absolute).transpose()?,
        ca: globals.ca.as_deref().map(absolute).transpose()?,
        cert: globals.cert.as_deref().map(absolute).transpose()?,
        key: globals.key.as_deref().map(absolute).transpose()?,
        ..Context::default()
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let bad = |why: String| Error::new(Code::BadRequest, format!("{}: {why}", path.display()));
    let whole = std::path::absolute(path).map_err(|error| bad(error.to_string()))?;
    match whole.to_str() {
        Some(_) => Ok(whole),
        None => Err(bad("a path in a context is UTF-8 text".into())),
    }
}

fn add(all: &mut Contexts, name: &str, context: Context, replace: bool) -> Result<()> {
    if all.contexts.contains_key(name) && !replace {
        let message = format!("there is a context `{name}` already; --replace takes its place");
        return Err(Error::new(Code::BadRequest, message));
    }
    all.contexts.insert(name.to_owned(), context);
    Ok(())
}

fn choose(all: &mut Contexts, name: Option<String>) -> Result<()> {
    if let Some(name) = &name {
        all.get(name)?;
    }
    all.current = name;
    Ok(())
}

fn remove(all: &mut Contexts, name: &str) -> Result<()> {
    all.get(name)?;
    all.contexts.remove(name);
    all.current.take_if(|current| current == name);
    Ok(())
}

fn row_json(name: &str, context: &Context, current: bool) -> Json {
    json!({
        "name": name, "current": current, "endpoints": context.endpoints, "certs": context.certs,
        "user": context.user, "ca": context.ca, "cert": context.cert, "key": context.key,
        "protected": context.protected, "color": context.color.map(|color| color.name()),
    })
}

fn list(all: &Contexts) -> Doc {
    let is_current = |name: &String| all.current.as_ref() == Some(name);
    let row = |(name, context): (&String, &Context)| {
        let who = match (&context.cert, &context.user) {
            (Some(file), _) => file.display().to_string(),
            (None, user) => user.clone().unwrap_or_default(),
        };
        vec![
            if is_current(name) { "*" } else { "" }.to_owned(),
            name.clone(),
            context.endpoints.join(","),
            who,
            if context.protected { "yes" } else { "no" }.to_owned(),
            context.color.map_or("-", |color| color.name()).to_owned(),
        ]
    };
    let json = all.contexts.iter().map(|(name, c)| row_json(name, c, is_current(name)));
    Doc {
        json: json.collect(),
        header: vec!["", "CONTEXT", "ENDPOINTS", "USER", "PROTECTED", "COLOR"],
        rows: all.contexts.iter().map(row).collect(),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(endpoints: &[&str]) -> Globals {
        Globals {
            endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
            ..Globals::default()
        }
    }

    #[test]
    fn a_context_is_complete_and_does_not_depend_on_the_folder_it_was_made_in() {
        assert_eq!(of_flags(&globals(&[])).unwrap_err().code, Code::BadRequest);
        let plain = of_flags(&globals(&["a:1", "b:2"])).unwrap();
        assert_eq!((plain.endpoints.len(), plain.user.as_deref()), (2, Some("admin")));
        assert_eq!(plain.certs, Some(std::path::absolute("certs").unwrap()));
        assert!(plain.globals().is_whole());
        let path = |name: &str| Some(PathBuf::from(name));
        let files =
            Globals { ca: path("/ca"), cert: path("/c"), key: path("k"), ..globals(&["a:1"]) };
        let files = of_flags(&files).unwrap();
        assert_eq!((&files.certs, &files.user), (&None, &None));
        assert!(files.key.as_ref().is_some_and(|key| key.is_absolute()));
        assert!(files.globals().is_whole());
    }

    #[test]
    fn contexts_come_and_go_and_the_current_one_exists() {
        let mut all = Contexts::default();
        let context = of_flags(&globals(&["a:1"])).unwrap();
        add(&mut all, "prod", context.clone(), false).unwrap();
        assert_eq!(
            add(&mut all, "prod", context.clone(), false).unwrap_err().code,
            Code::BadRequest
        );
        let red = Context { protected: true, color: Some(super::super::Color::Red), ..context };
        add(&mut all, "prod", red, true).unwrap();
        assert_eq!(choose(&mut all, Some("prdo".into())).unwrap_err().code, Code::NotFound);
        choose(&mut all, Some("prod".into())).unwrap();
        let doc = list(&all);
        assert_eq!(doc.rows, [["*", "prod", "a:1", "admin", "yes", "red"].map(str::to_owned)]);
        assert_eq!((&doc.json[0]["current"], &doc.json[0]["color"]), (&json!(true), &json!("red")));
        assert_eq!(remove(&mut all, "x").unwrap_err().code, Code::NotFound);
        remove(&mut all, "prod").unwrap();
        assert_eq!(all, Contexts::default());
    }
}
