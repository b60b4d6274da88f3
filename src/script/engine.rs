//! The fence around a script: which parts of the language there are, and how much of each a script may use.
//!
//! Built from nothing: no module resolver, so nothing can be imported; no `eval`; no function that touches
//! a file, a process or the network. What a script can do beyond computing is what is registered on top.

use rhai::packages::{
    BasicArrayPackage, BasicMapPackage, BasicMathPackage, BasicTimePackage, CorePackage,
    LogicPackage, MoreStringPackage, Package,
};
use rhai::{Engine, EvalAltResult, ImmutableString, OptimizationLevel, Position};

/// Operations of the language; a runbook needs hundreds, a day of polling some ten thousand.
pub const OPERATIONS_MAX: u64 = 20_000_000;
/// Functions of the script that call each other.
pub const CALL_DEPTH_MAX: usize = 32;
/// Depth of an expression, outside and inside a function.
pub const EXPRESSION_DEPTH_MAX: (usize, usize) = (64, 32);
/// Bytes of a string, and so of a value that a script reads.
pub const STRING_BYTES_MAX: usize = 256 << 10;
/// Elements of an array, with those inside.
pub const ARRAY_MAX: usize = 20_000;
/// Entries of a map, with those inside. The documents of a thousand shards on four nodes fit.
pub const MAP_MAX: usize = 16_000;
/// Variables at a time.
pub const VARIABLES_MAX: usize = 256;
/// Functions that a script defines.
pub const FUNCTIONS_MAX: usize = 128;

/// An engine without any function of ours.
pub fn fenced() -> Engine {
    let mut engine = Engine::new_raw();
    for package in [
        CorePackage::new().as_shared_module(),
        LogicPackage::new().as_shared_module(),
        BasicMathPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
        MoreStringPackage::new().as_shared_module(),
        BasicTimePackage::new().as_shared_module(),
    ] {
        engine.register_global_module(package);
    }
    engine
        .set_max_operations(OPERATIONS_MAX)
        .set_max_call_levels(CALL_DEPTH_MAX)
        .set_max_expr_depths(EXPRESSION_DEPTH_MAX.0, EXPRESSION_DEPTH_MAX.1)
        .set_max_string_size(STRING_BYTES_MAX)
        .set_max_array_size(ARRAY_MAX)
        .set_max_map_size(MAP_MAX)
        .set_max_variables(VARIABLES_MAX)
        .set_max_functions(FUNCTIONS_MAX)
        // A misspelt variable or property is found, not read as nothing.
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        // What a script costs is what it says, whatever can be computed ahead.
        .set_optimization_level(OptimizationLevel::None)
        .disable_symbol("eval");
    bounded(&mut engine);
    engine
}

/// What the language would first carry out and then find too large stands behind these; and so does its `sleep`, which
/// nothing could interrupt.
fn bounded(engine: &mut Engine) {
    type Text = ImmutableString;
    let no_pause = || Err::<(), Box<EvalAltResult>>("there is nothing to wait for".into());
    engine.register_fn("sleep", move |_: i64| no_pause());
    engine.register_fn("sleep", move |_: f64| no_pause());
    engine.register_fn("replace", |text: &mut Text, find: &str, with: &str| {
        replace(text, find, with)
    });
    engine.register_fn("replace", |text: &mut Text, find: char, with: &str| {
        replace(text, find.encode_utf8(&mut [0; 4]), with)
    });
    engine.register_fn("replace", |text: &mut Text, find: &str, with: char| {
        replace(text, find, with.encode_utf8(&mut [0; 4]))
    });
    engine.register_fn("replace", |text: &mut Text, find: char, with: char| {
        replace(text, find.encode_utf8(&mut [0; 4]), with.encode_utf8(&mut [0; 4]))
    });
}

fn replace(text: &mut ImmutableString, find: &str, with: &str) -> Result<(), Box<EvalAltResult>> {
    let more = text.matches(find).count().saturating_mul(with.len());
    if text.len().saturating_add(more) > STRING_BYTES_MAX {
        let what = "Length of string".to_owned();
        return Err(EvalAltResult::ErrorDataTooLarge(what, Position::NONE).into());
    }
    *text = text.replace(find, with).into();
    Ok(())
}
