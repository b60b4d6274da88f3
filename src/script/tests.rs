//! Scripts against the twin of a cluster: orders, exceptions, the fence, stopping, and the runbooks that are
//! shipped.

use super::run::{check, run};
use crate::cli::runbook::{Asking, Ended, Runbook, Stage, Trouble};
use crate::cli::strategy::follow::Change;
use crate::cli::testing::{Mishap, Twin, name, operation};
use crate::types::{Code, Error, ShardId};
use crate::wire::client::Strategy;
use crate::wire::operation::{Operation, Phase};
use crate::wire::plan::Verdict;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const PRESALE: &str = include_str!("../../scripts/presale.rhai");
const POSTSALE: &str = include_str!("../../scripts/postsale.rhai");
const VERIFY: &str = include_str!("../../scripts/verify.rhai");
const DRILL: &str = include_str!("../../scripts/drill.rhai");

pub fn book(source: &str) -> Runbook {
    let (timeout, request_timeout) = (Duration::from_secs(60), Duration::from_secs(1));
    Runbook { timeout, request_timeout, ..Runbook::of("test.rhai", source) }
}

/// Remembers what was said, and answers every question the same.
#[derive(Default)]
pub struct Paper {
    pub lines: Mutex<Vec<String>>,
    pub phases: Mutex<Vec<Phase>>,
    pub answer: bool,
}

impl Stage for Paper {
    fn print(&self, text: &str) {
        self.lines.lock().push(text.into());
    }
    fn log(&self, text: &str) {
        self.lines.lock().push(format!("log: {text}"));
    }
    fn changed(&self, change: &Change) {
        self.phases.lock().push(change.phase);
    }
    fn confirm<'a>(&'a self, _question: &'a str) -> Asking<'a> {
        Box::pin(async { Ok(self.answer) })
    }
}

/// A script, its cluster and what was said.
pub struct Played {
    pub ended: Ended,
    pub twin: Arc<Twin>,
    pub paper: Arc<Paper>,
}

impl Played {
    pub fn result(&self) -> Json {
        self.ended.result.clone().unwrap_or_else(|trouble| panic!("{trouble:?}"))
    }
    pub fn trouble(&self) -> Box<Trouble> {
        self.ended.result.clone().unwrap_err()
    }
    pub fn said(&self) -> String {
        self.paper.lines.lock().join("\n")
    }
    pub fn orders(&self) -> usize {
        self.twin.0.lock().orders.len()
    }
}

pub async fn play_on(twin: Twin, book: Runbook) -> Played {
    play_again(Arc::new(twin), book).await
}

pub async fn play_again(twin: Arc<Twin>, book: Runbook) -> Played {
    let paper = Arc::new(Paper { answer: true, ..Paper::default() });
    let (_stop, stopped) = watch::channel(false);
    let ended = run(twin.clone(), book, paper.clone(), stopped).await;
    Played { ended, twin, paper }
}

pub async fn play(source: &str) -> Played {
    play_on(Twin::new(), book(source)).await
}

pub async fn result_of(source: &str) -> Json {
    play(source).await.result()
}

pub async fn trouble_of(source: &str) -> Box<Trouble> {
    play(source).await.trouble()
}

#[tokio::test]
async fn the_functions_give_the_orders_of_the_command_line() {
    let source = r#"
        let plan = strategy.plan("full");
        print(`${plan.verdict}: ${plan.checks.len} checks, ${plan.copy_bytes.human()} in ${plan.eta}`);
        let told = [plan.ok, strategy.current(), strategy.operation() == ()];
        step("all", || {
            told.push(strategy.prepare(plan).wait().phase);
            told.push(strategy.operation().progress == ());
            told.push(strategy.commit().wait("20s").phase);
            told.push(strategy.current());
            told.push(strategy.revert("p99").wait().reason);
            let op = strategy.switch_to("full");
            told.push(op.phase);
            told.push(op.wait_for("soaking", "20s").phase);
            told.push(op.wait("20s", |s| s.p99_ms < 5.0).phase);
            told.push(strategy.finalize().wait("20s").phase);
            told.push(strategy.history().len);
        });
        told
    "#;
    let played = play(source).await;
    let expected = json!([
        true,
        "sharded",
        true,
        "prepared",
        true,
        "soaking",
        "full",
        "p99",
        "planned",
        "soaking",
        "soaking",
        "finalized",
        2
    ]);
    assert_eq!(played.result(), expected);
    assert!(played.said().contains("go: 2 checks, 300.0 MiB in 1.5s"), "{}", played.said());
    assert_eq!(played.orders(), 5);
    let calls: Vec<&str> = played.ended.calls.iter().map(|call| call.call.as_str()).collect();
    assert_eq!(calls[..3], ["strategy.plan(\"full\")", "strategy.prepare(\"full\")", "wait()"]);
    assert_eq!(played.ended.calls[1].line, 6);
    assert_eq!(played.ended.steps.len(), 1);
    let phases = played.paper.phases.lock();
    assert!(phases.contains(&Phase::Copying), "progress is shown");
    let planned = phases.iter().filter(|phase| **phase == Phase::Planned).count();
    assert_eq!(planned, 2, "once for each of the two operations: {phases:?}");
}

#[tokio::test]
async fn questions_settings_and_keys() {
    let source = r#"
        fn inside() { cluster.setting("reads.default") }
        let all = [cluster.status().strategy, inside()];
        step("all", || {
            all.push(cluster.configure("reads.default", "session"));
            all.push(cluster.setting("reads.default"));
            all.push(kv.get("k") == ());
            all.push(kv.set("k", 12));
            all.push(kv.get("k"));
            all.push(kv.scan("", 5)[0].value);
            all.push(kv.del("k"));
            all.push(kv.del("k"));
        });
        let compared = shards.verify();
        all.push(compared.equal);
        all.push(compared.copies);
        all.push(shards.verify("s1").shards.len);
        all.push(human(3 * 1024 * 1024));
        all.push(nodes.is_up("n2"));
        all.push(cluster.can_lose(1));
        all
    "#;
    let expected = json!([
        "sharded",
        "linearizable",
        "session",
        "session",
        true,
        true,
        "12",
        "12",
        true,
        false,
        true,
        6,
        1,
        "3.0 MiB",
        true,
        false
    ]);
    let played = play(source).await;
    assert_eq!(played.result(), expected);
    assert_eq!(played.twin.0.lock().levels, [None, None], "reads go by the cluster's default");
}

#[tokio::test]
async fn a_plan_knows_a_busy_hour() {
    for (said, peak) in
        [(Some(Verdict::Go), json!(false)), (Some(Verdict::Warn), json!(true)), (None, Json::Null)]
    {
        let twin = Twin::with(|state| state.off_peak = said);
        let played = play_on(twin, book("strategy.plan(\"full\").in_peak")).await;
        assert_eq!(played.result(), peak);
    }
}

#[tokio::test]
async fn an_error_of_a_command_can_be_caught_with_code_class_and_message() {
    let source = r#"
        let told = [];
        step("s", || {
            try { strategy.commit(); } catch (e) {
                told.push(e.code); told.push(e.class); told.push(e.message);
            }
        });
        try { strategy.plan("ful"); } catch (e) { told.push(e.code); }
        try { cluster.setting("reads.defualt"); } catch (e) { told.push(e.message); }
        try { shards.verify("s9"); } catch (e) { told.push(e.code); }
        try { nodes.get("n9"); } catch (e) { told.push(e.message); }
        told
    "#;
    let expected = json!([
        "OperationConflict",
        "fix",
        "the order does not fit what is under way",
        "BadRequest",
        "there is no live setting `reads.defualt`; did you mean `reads.default`?",
        "NotFound",
        "there is no node `n9`; there are: n1, n2"
    ]);
    assert_eq!(result_of(source).await, expected);
}

#[tokio::test]
async fn an_error_that_nobody_catches_has_code_line_column_and_the_functions_around_it() {
    let source =
        "fn bring_up() {\n    step(\"s\", || strategy.prepare(\"full\"));\n}\nbring_up();\n";
    let no_go = Twin::with(|state| state.verdict = Verdict::NoGo);
    let played = play_on(no_go, book(source)).await;
    let trouble = played.trouble();
    assert_eq!((trouble.code.as_str(), trouble.exit), ("PrecheckFailed", 5));
    assert_eq!(trouble.at, Some((2, 27)));
    assert!(trouble.inside.contains(&"bring_up".to_owned()), "{trouble:?}");
    assert_eq!(trouble.message, "disk: n2 is short; make room");
    assert_eq!(played.ended.calls[0].code.as_deref(), Some("PrecheckFailed"));
    assert_eq!(played.ended.steps[0].code.as_deref(), Some("PrecheckFailed"));
    // Thrown again by the script it is still the same.
    let source = "try { step(\"s\", || strategy.commit()) } catch (e) { throw e; }";
    assert_eq!(trouble_of(source).await.code, "OperationConflict");
}

#[tokio::test]
async fn mistakes_of_a_script_are_named_with_their_place() {
    for (source, code, exit, at) in [
        ("let a = 1;\nlet b = a + ;", "ScriptSyntax", 2, Some((2, 13))),
        ("print(1);\n  nothing_like_this(1);", "ScriptError", 2, Some((2, 3))),
        ("let a = 1;\nlet b = aa;", "ScriptSyntax", 2, Some((2, 9))),
        ("let a = #{};\na.typo", "ScriptError", 2, Some((2, 3))),
        ("1 / 0", "ScriptError", 2, Some((1, 3))),
        ("\nfail(\"no\")", "ScriptFailed", 1, Some((2, 1))),
        ("throw \"up\"", "ScriptFailed", 1, Some((1, 1))),
        ("throw #{ code: \"Mine\", message: \"m\" }", "ScriptFailed", 1, Some((1, 1))),
    ] {
        let trouble = trouble_of(source).await;
        assert_eq!((trouble.code.as_str(), trouble.exit), (code, exit), "{source}: {trouble:?}");
        assert_eq!(trouble.at, at, "{source}: {trouble:?}");
        assert!(!trouble.message.contains("line"), "the place is beside it: {}", trouble.message);
    }
    assert_eq!(trouble_of("fail(\"no room\")").await.message, "no room");
}

#[tokio::test]
async fn a_script_has_no_files_modules_or_eval() {
    for source in [
        "import \"x\" as x;",
        "eval(\"1\")",
        "open_file(\"/etc/passwd\")",
        "let f = Fn(\"eval\"); f.call(\"1\")",
        "export let a = 1;",
    ] {
        let trouble = trouble_of(source).await;
        assert!(
            ["ScriptSyntax", "ScriptError"].contains(&trouble.code.as_str()),
            "{source}: {trouble:?}"
        );
    }
}

#[tokio::test]
async fn every_limit_holds() {
    let deep = format!("let a = {}1{};", "(".repeat(500), ")".repeat(500));
    let deep_call = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let many_functions: String = (0..300).map(|i| format!("fn f{i}() {{}}\n")).collect();
    let many_variables: String = (0..300).map(|i| format!("let v{i} = 1;\n")).collect();
    for (what, source, codes) in [
        ("operations", "loop {}", &["ScriptLimit"][..]),
        ("depth of calls", "fn f(n) { f(n + 1) } f(0)", &["ScriptLimit"]),
        ("string", "let s = \"x\"; loop { s += s; }", &["ScriptLimit"]),
        ("array", "let a = []; loop { a.push(1); }", &["ScriptLimit"]),
        ("nested array", "let a = [1]; loop { a = [a, a]; }", &["ScriptLimit"]),
        ("padding", "let a = []; a.pad(10000000, 1);", &["ScriptLimit"]),
        ("map", "let m = #{}; let i = 0; loop { m[`k${i}`] = i; i += 1; }", &["ScriptLimit"]),
        ("expression", &deep, &["ScriptSyntax"]),
        ("nested literal", &deep_call, &["ScriptSyntax"]),
        ("functions", &many_functions, &["ScriptSyntax", "ScriptLimit"]),
        ("variables", &many_variables, &["ScriptLimit"]),
    ] {
        let started = Instant::now();
        let trouble = trouble_of(source).await;
        assert!(codes.contains(&trouble.code.as_str()), "{what}: {trouble:?}");
        assert_eq!(trouble.exit, 2, "{what}");
        assert!(started.elapsed() < Duration::from_secs(50), "{what}");
    }
}

#[test]
fn every_field_of_every_document_can_be_named_in_a_script() {
    use crate::cli::strategy::document;
    use crate::wire::operation::StrategyView;
    fn names(json: &Json, all: &mut Vec<String>) {
        match json {
            Json::Object(fields) => fields.iter().for_each(|(name, value)| {
                all.push(name.clone());
                names(value, all);
            }),
            Json::Array(items) => items.iter().for_each(|item| names(item, all)),
            _ => {}
        }
    }
    let told = crate::cli::testing::precheck(Verdict::Go);
    let view = StrategyView {
        strategy: Strategy::Full,
        epoch: 1,
        operation: Some(operation(1, Phase::Copying)),
        progress: Some(crate::cli::testing::progress(1, 2)),
    };
    let mut all = vec![];
    names(&crate::cli::strategy::plan::document(&told).json, &mut all);
    names(&document::view(&view, 12).json, &mut all);
    assert!(all.len() > 30, "{all:?}");
    for name in all {
        let compiled = check(&book(&format!("let a = #{{}};\na.{name}")));
        assert!(compiled.is_ok(), "`{name}` is a word of the language: {compiled:?}");
    }
}

#[tokio::test]
async fn a_limit_that_was_reached_is_named() {
    let message = trouble_of("loop {}").await.message;
    assert!(message.contains("processor time") || message.contains("20000000"), "{message}");
    let message = trouble_of("fn f(n) { f(n + 1) } f(0)").await.message;
    assert!(message.contains("32 deep"), "{message}");
}

#[tokio::test]
async fn time_runs_out_in_loops_and_in_waits_and_cannot_be_caught() {
    for source in [
        "loop { try { loop { let a = [1, 2, 3]; a += [4]; } } catch { } }",
        "try { sleep(\"1h\") } catch { }",
        "sleep(3600)",
        "sleep(3600.0)",
        "step(\"s\", || { try { strategy.prepare(\"full\").wait(\"1h\") } catch { } })",
    ] {
        let twin = Twin::with(|state| state.stuck_in = Some(Phase::Copying));
        let book = Runbook { timeout: Duration::from_millis(100), ..book(source) };
        let started = Instant::now();
        let trouble = play_on(twin, book).await.trouble();
        assert_eq!((trouble.code.as_str(), trouble.exit), ("ScriptTimeout", 124), "{source}");
        assert!(trouble.message.contains("100ms"), "{}", trouble.message);
        assert!(started.elapsed() < Duration::from_secs(5), "{source}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_pause_of_nonsense_is_refused() {
    for source in ["sleep(-1)", "sleep(-1.0)", "sleep(\"soon\")", "sleep(0.0 / 0.0)"] {
        assert_eq!(trouble_of(source).await.code, "BadRequest", "{source}");
    }
}

#[tokio::test]
async fn an_interrupted_script_ends_and_says_what_goes_on() {
    for source in [
        "step(\"s\", || { try { strategy.prepare(\"full\").wait() } catch { } }); loop { sleep(\"100ms\") }",
        "step(\"s\", || strategy.prepare(\"full\")); loop { sleep(\"100ms\") }",
    ] {
        let twin = Arc::new(Twin::with(|state| state.stuck_in = Some(Phase::Copying)));
        let (stop, stopped) = watch::channel(false);
        let paper = Arc::new(Paper::default());
        let running = tokio::spawn(run(twin.clone(), book(source), paper, stopped));
        while twin.phase() != Some(Phase::Copying) && twin.phase() != Some(Phase::Planned) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.send_replace(true);
        let ended = running.await.unwrap();
        let trouble = ended.result.unwrap_err();
        assert_eq!((trouble.code.as_str(), trouble.exit), ("Interrupted", 130), "{source}");
        let text = ended.left_running.unwrap();
        assert!(text.contains("operation 1 (sharded -> full)"), "{text}");
        assert!(
            text.contains("`ppdb strategy show`") && text.contains("`ppdb strategy abort`"),
            "{text}"
        );
        assert!(twin.phase().is_some_and(|phase| !phase.is_over()), "the operation goes on");
    }
}

#[tokio::test]
async fn a_question_ends_with_the_script_and_nobody_goes_on_reading() {
    /// Never answers; says whether somebody waits for that.
    #[derive(Default)]
    struct Thinking(Arc<()>);
    impl Stage for Thinking {
        fn print(&self, _: &str) {}
        fn log(&self, _: &str) {}
        fn changed(&self, _: &Change) {}
        fn confirm<'a>(&'a self, _: &'a str) -> Asking<'a> {
            let reading = self.0.clone();
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(reading);
                Ok(true)
            })
        }
    }
    let (stop, stopped) = watch::channel(false);
    let asks = book("confirm(\"sure?\"); step(\"s\", || strategy.prepare(\"full\"))");
    let (twin, stage) = (Arc::new(Twin::new()), Arc::new(Thinking::default()));
    let running = tokio::spawn(run(twin.clone(), asks.clone(), stage.clone(), stopped.clone()));
    while Arc::strong_count(&stage.0) == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let started = Instant::now();
    stop.send_replace(true);
    assert_eq!(running.await.unwrap().result.unwrap_err().code, "Interrupted");
    assert!(started.elapsed() < Duration::from_secs(2), "it was not left behind");
    assert_eq!(Arc::strong_count(&stage.0), 1);
    assert!(twin.0.lock().orders.is_empty());
    // Its time is up as well.
    stop.send_replace(false);
    let short = Runbook { timeout: Duration::from_millis(100), ..asks };
    let ended = run(Arc::new(Twin::new()), short, stage.clone(), stopped).await;
    assert_eq!(ended.result.unwrap_err().code, "ScriptTimeout");
    assert_eq!((Arc::strong_count(&stage.0), started.elapsed().as_secs() < 2), (1, true));
}

#[tokio::test]
async fn a_question_is_answered_by_a_person_or_by_the_flag() {
    let source = "confirm(\"sure?\"); 1";
    assert_eq!(result_of(source).await, json!(1));
    let (_stop, stopped) = watch::channel(false);
    let ended = run(Arc::new(Twin::new()), book(source), Arc::new(Paper::default()), stopped).await;
    let trouble = ended.result.unwrap_err();
    assert_eq!((trouble.code.as_str(), trouble.exit), ("ScriptFailed", 1));
    let yes = play_on(Twin::new(), Runbook { yes: true, ..book(source) }).await;
    assert!(yes.said().contains("by --yes"));
}

#[tokio::test]
async fn a_dry_run_asks_everything_and_orders_nothing() {
    let source = r#"
        let told = [strategy.plan("full").verdict];
        step("there", || {
            told.push(strategy.prepare("full").wait().phase);
            told.push(strategy.operation().phase);
            told.push(strategy.current());
            told.push(strategy.commit().pretended);
            told.push(strategy.operation().wait_for("soaking", "1h").phase);
            told.push(strategy.current());
            kv.set("k", "v");
            cluster.configure("reads.default", "local");
            told.push(kv.get("k") == ());
            wait_until("it is there", "1h", || kv.exists("k"));
        });
        note("only words");
        confirm("sure?");
        step("back", || told.push(strategy.revert("r").phase));
        told.push(is_dry_run());
        told
    "#;
    let dry = |source| Runbook { dry_run: true, ..book(source) };
    let played = play_on(Twin::new(), dry(source)).await;
    let expected = json!([
        "go", "prepared", "prepared", "sharded", true, "soaking", "full", true, "reverted", true
    ]);
    assert_eq!(played.result(), expected);
    assert_eq!(played.orders(), 0);
    let said = played.said();
    assert!(said.contains("would be ordered: strategy prepare (sharded -> full)"), "{said}");
    assert!(said.contains("NOT SIMULATED: waiting until it is there"), "{said}");
    assert!(said.contains("NOT SIMULATED: kv reads `k`"), "{said}");
    let (written, records) = {
        let state = played.twin.0.lock();
        (state.operations.len() + state.keys.len(), state.records.runs.latest(9))
    };
    assert_eq!((written, records.len(), played.ended.run), (0, 0, None), "and no record");
    let no_go = Twin::with(|state| state.verdict = Verdict::NoGo);
    let refused = play_on(no_go, dry("step(\"s\", || strategy.prepare(\"full\"))")).await;
    assert_eq!(refused.trouble().code, "PrecheckFailed");
}

#[tokio::test]
async fn an_order_whose_answer_is_lost_is_not_given_twice() {
    let twin = Twin::with(|state| {
        state.mishaps = vec![
            Mishap::AnswerLost,
            Mishap::Refused(Error::new(Code::NotReady, "no coordinator")),
            Mishap::AnswerLost,
        ]
        .into();
    });
    let source =
        "step(\"s\", || { strategy.prepare(\"full\").wait(); strategy.commit().wait().phase })";
    let played = play_on(twin, book(source)).await;
    assert_eq!(played.result(), json!("soaking"));
    assert_eq!(played.twin.0.lock().operations.len(), 1);
}

#[tokio::test]
async fn an_operation_that_gave_up_is_an_exception() {
    let twin = Twin::with(|state| state.gives_up_in = Some(Phase::CaughtUp));
    let source = "step(\"s\", || strategy.prepare(\"full\").wait())";
    let trouble = play_on(twin, book(source)).await.trouble();
    assert_eq!((trouble.code.as_str(), trouble.exit), ("Undone", 6));
    assert!(trouble.message.contains("the guard said so"));
}

#[tokio::test]
async fn a_condition_that_does_not_hold_takes_an_operation_back() {
    let twin = Twin::with(|state| state.stuck_in = Some(Phase::Copying));
    let source =
        "step(\"s\", || strategy.switch_to(\"full\").wait(\"20s\", |s| s.phase != \"copying\"))";
    let played = play_on(twin, book(source)).await;
    assert_eq!(played.trouble().code, "Undone");
    assert_eq!(played.twin.phase(), Some(Phase::Aborted));
}

#[tokio::test]
async fn calls_in_the_summary_are_bounded_and_a_storm_of_them_ends() {
    let played =
        play("step(\"s\", || for i in 0..1200 { try { kv.set(\"k\", i); } catch {} })").await;
    assert_eq!(played.trouble().code, "ScriptLimit");
    assert!(played.trouble().message.contains("too often"), "{:?}", played.trouble());
    assert!(played.ended.calls.len() > 400 && played.ended.calls.len() < 700);
}

pub fn with(source: &str, params: &[(&str, &str)]) -> Runbook {
    let params = params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Runbook { params, ..book(source) }
}

#[test]
fn the_runbooks_compile_and_name_their_parameters() {
    for (source, names) in [
        (PRESALE, &["accept_warn", "verify"][..]),
        (POSTSALE, &["finalize", "verify"]),
        (VERIFY, &["sample", "prefix"]),
        (DRILL, &["node", "patience"]),
    ] {
        let params = check(&book(source)).unwrap();
        for name in names {
            assert!(params.iter().any(|p| p.name == *name), "{name}: {params:?}");
        }
    }
    let params = check(&book(DRILL)).unwrap();
    assert!(params.iter().any(|p| p.name == "node" && p.default.is_none()), "{params:?}");
    let trouble = check(&with(PRESALE, &[("verfy", "no")])).unwrap_err();
    assert!(trouble.message.contains("did you mean `verify`?"), "{trouble:?}");
}

#[tokio::test]
async fn presale_goes_to_full_from_wherever_it_finds_the_cluster() {
    let begun = |phase| Twin::with(|state| state.operations.push(operation(1, phase)));
    let full = |phase| {
        Twin::with(|state| {
            state.strategy = Strategy::Full;
            state.operations.push(operation(1, phase));
        })
    };
    let (committing, already) = (full(Phase::Committing), full(Phase::Soaking));
    for (twin, orders) in [
        (Twin::new(), 2),
        (begun(Phase::Copying), 1),
        (begun(Phase::Prepared), 1),
        (committing, 0),
        (begun(Phase::Aborted), 2),
        (already, 0),
    ] {
        let before = twin.phase();
        let played = play_on(twin, book(PRESALE)).await;
        let result = played.result();
        assert_eq!(result["strategy"], "full", "{before:?}: {result}");
        assert_eq!(result["equal"], true, "{before:?}");
        assert_eq!(played.orders(), orders, "{before:?}");
        assert_eq!(played.twin.phase(), Some(Phase::Soaking));
    }
}

#[tokio::test]
async fn presale_stops_at_a_no_go_and_passes_a_warning_only_if_told_so() {
    let with_verdict = |verdict| Twin::with(|state| state.verdict = verdict);
    let played = play_on(with_verdict(Verdict::NoGo), book(PRESALE)).await;
    assert_eq!(played.trouble().code, "ScriptFailed");
    assert!(played.said().contains("disk") && played.said().contains("n2"), "{}", played.said());
    assert_eq!(played.orders(), 0);
    let played = play_on(with_verdict(Verdict::Warn), book(PRESALE)).await;
    assert!(played.trouble().message.contains("accept_warn"), "{:?}", played.trouble());
    assert_eq!(played.orders(), 0);
    let accepted = with(PRESALE, &[("accept_warn", "true")]);
    let played = play_on(with_verdict(Verdict::Warn), accepted).await;
    assert_eq!(played.result()["strategy"], "full");
}

#[tokio::test]
async fn presale_does_not_call_a_difference_a_success() {
    let odd = || Twin::with(|state| state.odd_digests.push((name("n3"), ShardId(1))));
    let played = play_on(odd(), book(PRESALE)).await;
    assert_eq!(played.trouble().code, "ScriptFailed");
    assert!(played.said().contains("n3"), "{}", played.said());
    let unlooked = play_on(odd(), with(PRESALE, &[("verify", "false")])).await;
    assert_eq!(unlooked.result()["equal"], Json::Null, "not looked at is not equal");
}

#[tokio::test]
async fn presale_can_be_rehearsed() {
    let played = play_on(Twin::new(), Runbook { dry_run: true, ..book(PRESALE) }).await;
    assert_eq!(played.result()["strategy"], "full");
    assert_eq!(played.orders(), 0);
}

#[tokio::test]
async fn postsale_reverts_what_soaks_and_switches_back_what_does_not() {
    let full = |phase| {
        Twin::with(|state| {
            state.strategy = Strategy::Full;
            state.operations.push(operation(1, phase));
        })
    };
    let played = play_on(full(Phase::Soaking), book(POSTSALE)).await;
    assert_eq!(played.result()["strategy"], "sharded");
    assert_eq!(played.twin.phase(), Some(Phase::Reverted));
    assert_eq!(played.orders(), 1);
    let played = play_on(full(Phase::Finalized), book(POSTSALE)).await;
    assert_eq!(played.result()["strategy"], "sharded");
    assert_eq!(played.twin.phase(), Some(Phase::Soaking), "the way back stays open");
    let finalized = with(POSTSALE, &[("finalize", "true")]);
    let played = play_on(full(Phase::Finalized), finalized).await;
    assert_eq!(played.twin.phase(), Some(Phase::Finalized));
    // Nothing to do, and one that is on its way already.
    let played = play_on(Twin::new(), book(POSTSALE)).await;
    assert_eq!((played.result()["strategy"].clone(), played.orders()), (json!("sharded"), 0));
    let back =
        Operation { from: Strategy::Full, to: Strategy::Sharded, ..operation(2, Phase::Prepared) };
    let twin = Twin::with(|state| {
        state.strategy = Strategy::Full;
        state.operations = vec![operation(1, Phase::Finalized), back];
    });
    let played = play_on(twin, book(POSTSALE)).await;
    assert_eq!(played.result()["strategy"], "sharded");
}

#[tokio::test]
async fn verify_names_what_differs_by_digest_and_by_read() {
    let keys = |state: &mut crate::cli::testing::State| {
        for i in 0..7 {
            state.keys.insert(format!("k{i}").into(), "v".into());
        }
    };
    let fine = play_on(Twin::with(keys), with(VERIFY, &[("sample", "5")])).await;
    assert_eq!(fine.result(), json!({ "copies": 6, "equal": true, "keys": 5 }));
    let odd = Twin::with(|state| {
        keys(state);
        state.odd_reads = Some((name("n3"), "k1".into()));
        state.odd_digests.push((name("n2"), ShardId(1)));
    });
    let played = play_on(odd, book(VERIFY)).await;
    assert_eq!((played.trouble().code.as_str(), played.trouble().exit), ("GuardFailed", 5));
    assert!(played.said().contains("k1 on n3 differs"), "{}", played.said());
    assert!(played.orders() == 0 && played.ended.steps.is_empty(), "it changes nothing");
    let silent = Twin::with(|state| state.down = Some(name("n3")));
    let played = play_on(silent, with(VERIFY, &[("sample", "0")])).await;
    assert!(played.said().contains("on n3 silent"), "{}", played.said());
}

#[tokio::test]
async fn a_drill_is_for_a_cluster_that_can_bear_it() {
    let played = play_on(Twin::new(), with(DRILL, &[("node", "n2")])).await;
    assert!(played.trouble().message.contains("the strategy is full"), "{:?}", played.trouble());
    let full = Twin::with(|state| state.strategy = Strategy::Full);
    let played = play_on(full, with(DRILL, &[("node", "n2")])).await;
    assert!(played.trouble().message.contains("without loss"), "{:?}", played.trouble());
    assert!(played.twin.0.lock().keys.is_empty());
}
