//! Everything that a script may call, in one table: for completion, for editors, and for the test that each of it is
//! there. What a function does is where it is registered.

/// A function that scripts may call.
pub struct Function {
    /// The object that it is called on, `Operation` for what an order answers, nothing for a plain function.
    pub on: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its arguments as editors show them.
    pub args: &'static str,
    /// What it answers.
    pub answers: &'static str,
    /// It changes something: only inside `step`.
    pub changes: bool,
    /// What it does.
    pub doc: &'static str,
    /// A call of it.
    pub example: &'static str,
}

const fn f(
    on: &'static str,
    name: &'static str,
    args: &'static str,
    answers: &'static str,
    doc: &'static str,
    example: &'static str,
) -> Function {
    Function { on, name, args, answers, changes: false, doc, example }
}

const fn changing(function: Function) -> Function {
    Function { changes: true, ..function }
}

/// The objects and their types.
pub const OBJECTS: [(&str, &str); 6] = [
    ("cluster", "Cluster"),
    ("strategy", "Strategy"),
    ("shards", "Shards"),
    ("replicas", "Replicas"),
    ("nodes", "Nodes"),
    ("kv", "Kv"),
];

/// The functions, in the order of `scripts/README.md`.
#[rustfmt::skip]
pub const FUNCTIONS: &[Function] = &[
    f("", "params", "declared: Map", "Map", "Declares the parameters with their defaults; comes first.", "params(#{ hours: 24 })"),
    f("", "required", "kind: String", "Required", "A parameter without a default: bool, int, float or string.", "required(\"string\")"),
    f("", "guard", "text: String, holds: bool", "()", "Ends the script with exit code 5 if that does not hold.", "guard(\"healthy\", true)"),
    f("", "confirm", "question: String", "bool", "Asks at the terminal; --yes answers yes, no ends the script.", "confirm(\"go on?\")"),
    f("", "step", "name: String, work: FnPtr", "?", "A step of the record; only here may something be changed.", "step(\"one\", || 1)"),
    f("", "on_failure", "work: FnPtr", "()", "Called once if the script fails, is stopped or runs out of time.", "on_failure(|e| log(e.message))"),
    f("", "wait_until", "text: String, timeout: String, holds: FnPtr", "()", "Asks every 250 ms until that holds.", "wait_until(\"it is so\", \"1s\", || true)"),
    f("", "note", "text: String", "()", "Kept in the record of the run.", "note(\"half way\")"),
    f("", "log", "text: String", "()", "A remark on standard error.", "log(\"a remark\")"),
    f("", "fail", "message: String", "!", "Ends the script with exit code 1.", "try { fail(\"no\") } catch { }"),
    f("", "sleep", "time: String", "()", "A pause; Ctrl-C and the time limit end it.", "sleep(\"1ms\")"),
    f("", "human", "bytes: int", "String", "A size for people.", "human(1024)"),
    f("", "human_ms", "ms: int", "String", "A time for people.", "human_ms(1500)"),
    f("", "is_dry_run", "", "bool", "Whether orders are only rehearsed.", "is_dry_run()"),
    f("cluster", "status", "", "Map", "The whole cluster: the value of `ppdb status`.", "cluster.status()"),
    f("cluster", "name", "", "String", "Its name.", "cluster.name()"),
    f("cluster", "epoch", "", "int", "The version of its map.", "cluster.epoch()"),
    f("cluster", "alarms", "", "Array", "What an operator should see to.", "cluster.alarms()"),
    f("cluster", "is_healthy", "", "bool", "Every node is up and every shard has a leader.", "cluster.is_healthy()"),
    f("cluster", "can_lose", "primaries: int", "bool", "So many primaries may fail without loss.", "cluster.can_lose(1)"),
    f("cluster", "setting", "name: String", "String", "A live setting.", "cluster.setting(\"reads.default\")"),
    changing(f("cluster", "configure", "name: String, value: ?", "String", "Sets a live setting.", "cluster.configure(\"reads.default\", \"session\")")),
    f("strategy", "current", "", "String", "`sharded` or `full`.", "strategy.current()"),
    f("strategy", "plan", "to: String", "Map", "Whether a switch may start, and what it will cost.", "strategy.plan(\"full\")"),
    f("strategy", "plans", "", "Array", "The plans that are kept, and whether each may still start a switch.", "strategy.plans()"),
    f("strategy", "operation", "", "Map", "The latest operation with its progress, or ().", "strategy.operation()"),
    f("strategy", "history", "", "Array", "All operations that the journal remembers.", "strategy.history()"),
    changing(f("strategy", "prepare", "to: String|Map", "Map", "Copies and compares; nothing is switched.", "strategy.prepare(\"full\")")),
    changing(f("strategy", "commit", "", "Map", "Switches to what was prepared.", "strategy.commit()")),
    changing(f("strategy", "switch_to", "to: String|Map", "Map", "Prepares and commits.", "strategy.switch_to(strategy.plan(\"full\"))")),
    changing(f("strategy", "abort", "reason: String", "Map", "Gives up what was not committed.", "strategy.abort(\"not now\")")),
    changing(f("strategy", "revert", "reason: String", "Map", "Goes back while the switch soaks.", "strategy.revert(\"p99\")")),
    changing(f("strategy", "finalize", "", "Map", "Closes the way back.", "strategy.finalize()")),
    changing(f("strategy", "throttle", "rate: String", "Map", "How fast is copied, or \"default\".", "strategy.throttle(\"8MiB\")")),
    f("Operation", "wait", "timeout: String", "Map", "Waits until its order has led where it should.", "let op = strategy.operation(); if op != () { op.wait(\"1s\") }"),
    f("Operation", "wait_for", "phase: String, timeout: String", "Map", "Waits for a phase.", "let op = strategy.operation(); if op != () { op.wait_for(\"soaking\", \"1s\") }"),
    f("shards", "map", "", "Array", "Owner and copies of each shard.", "shards.map()"),
    f("shards", "leaderless", "", "Array", "Numbers of the shards without a leader.", "shards.leaderless()"),
    f("shards", "verify", "", "Map", "Compares all copies by their digests; of one shard with its name.", "shards.verify(\"s1\")"),
    f("replicas", "lag", "", "Array", "How far each copy is behind its leader.", "replicas.lag()"),
    f("replicas", "verify", "options: Map", "Map", "Reads a sample of keys at every holder of a copy.", "replicas.verify(#{ sample: 5, prefix: \"\" })"),
    f("nodes", "all", "", "Array", "The members.", "nodes.all()"),
    f("nodes", "names", "", "Array", "Their names.", "nodes.names()"),
    f("nodes", "get", "name: String", "Map", "One of them.", "nodes.get(\"n1\")"),
    f("nodes", "is_up", "name: String", "bool", "Whether it is heard.", "nodes.is_up(\"n1\")"),
    f("nodes", "info", "name: String", "Map", "What it says of itself.", "nodes.info(\"n1\")"),
    f("kv", "get", "key: String", "String", "The value as text, or () for a missing key.", "kv.get(\"k\")"),
    f("kv", "exists", "key: String", "bool", "Whether there is such a key.", "kv.exists(\"k\")"),
    f("kv", "scan", "prefix: String, limit: int", "Array", "The first keys with that prefix, with their values.", "kv.scan(\"\", 10)"),
    changing(f("kv", "set", "key: String, value: ?", "bool", "Writes; with #{ ttl: \"1h\" } for a time.", "kv.set(\"k\", 1, #{ ttl: \"1h\" })")),
    changing(f("kv", "del", "key: String", "bool", "Whether there was such a key.", "kv.del(\"k\")")),
    changing(f("kv", "incr", "key: String, by: int", "int", "Adds and answers the sum.", "kv.incr(\"k\", 1)")),
];

/// Words of the language that begin something.
const WORDS: [&str; 16] = [
    "break", "const", "continue", "do", "else", "false", "fn", "for", "if", "let", "loop",
    "return", "throw", "true", "try", "while",
];

/// Everything that a text may begin with.
pub fn names() -> Vec<&'static str> {
    let plain = FUNCTIONS.iter().filter(|function| function.on.is_empty()).map(|f| f.name);
    let objects = OBJECTS.iter().map(|(name, _)| *name);
    let mut names: Vec<&str> = plain.chain(objects).chain(WORDS).chain(["print"]).collect();
    names.sort_unstable();
    names
}

/// What can be called on an object.
pub fn methods(object: &str) -> Vec<&'static str> {
    FUNCTIONS
        .iter()
        .filter(|function| function.on == object)
        .map(|function| function.name)
        .collect()
}

/// The table as a definition file of the language, `ppdb.d.rhai`.
pub fn definitions() -> String {
    let mut text = String::from("module static;\n");
    for (name, kind) in OBJECTS {
        text.push_str(&format!("\nconst {name}: {kind};\n"));
    }
    for function in FUNCTIONS {
        let object = match function.on {
            "" => None,
            "Operation" => Some("operation: Map".to_owned()),
            on => OBJECTS
                .iter()
                .find(|(name, _)| *name == on)
                .map(|(name, kind)| format!("{name}: {kind}")),
        };
        let args =
            object.into_iter().chain((!function.args.is_empty()).then(|| function.args.to_owned()));
        let args = args.collect::<Vec<_>>().join(", ");
        let only = if function.changes { " Only inside `step`." } else { "" };
        let (doc, name, answers) = (function.doc, function.name, function.answers);
        text.push_str(&format!("\n/// {doc}{only}\n///\n/// `{}`\n", function.example));
        text.push_str(&format!("fn {name}({args}) -> {answers};\n"));
    }
    text
}
