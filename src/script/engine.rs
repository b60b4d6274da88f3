//! The fence around a script: which parts of the language there are, and how much of each a script may use.
//!
//! Built from nothing: no module resolver, so nothing can be imported; no `eval`; no function that touches
//! a file, a process or the network. What a script can do beyond computing is what is registered on top.

use rhai::packages::{
    BasicArrayPackage, BasicMapPackage, BasicMathPackage, BasicTimePackage, CorePackage,
    LogicPackage, MoreStringPackage, Package,
};
use rhai::{Engine, OptimizationLevel};

/// Operations of the language; a runbook needs hundreds, a day of polling some ten thousand.
pub const OPERATIONS_MAX: u64 = 20_000_000;
/// Functions of the script that call each other.
pub const CALL_DEPTH_MAX: usize = 32;
/// Depth of an expression, outside and inside a function.
pub const EXPRESSION_DEPTH_MAX: (usize, usize) = (64, 32);
/// Bytes of a string; the largest value fits.
pub const STRING_BYTES_MAX: usize = 1 << 20;
/// Elements of an array, with those inside.
pub const ARRAY_MAX: usize = 50_000;
/// Entries of a map, with those inside. The documents of a large cluster fit.
pub const MAP_MAX: usize = 50_000;
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
    engine
}
