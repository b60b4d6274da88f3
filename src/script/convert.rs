//! Documents as values of the language, and back.

use rhai::{Array, Dynamic, Map};
use serde_json::{Number, Value as Json, json};

/// Nesting of a value that is looked into; deeper parts are shown as text.
const DEPTH_MAX: usize = 16;

/// A document for a script: objects are maps, null is `()`.
pub fn to_script(json: &Json) -> Dynamic {
    match json {
        Json::Null => Dynamic::UNIT,
        Json::Bool(yes) => Dynamic::from(*yes),
        Json::Number(number) => of_number(number),
        Json::String(text) => Dynamic::from(text.clone()),
        Json::Array(items) => Dynamic::from_array(items.iter().map(to_script).collect::<Array>()),
        Json::Object(fields) => {
            let fields =
                fields.iter().map(|(name, value)| (name.as_str().into(), to_script(value)));
            Dynamic::from_map(fields.collect::<Map>())
        }
    }
}

/// Whole numbers stay whole; one beyond 64 bits with a sign becomes a float.
fn of_number(number: &Number) -> Dynamic {
    match number.as_i64() {
        Some(whole) => Dynamic::from_int(whole),
        None => Dynamic::from_float(number.as_f64().unwrap_or(f64::MAX)),
    }
}

/// What a script ended with, as a document.
pub fn to_json(value: &Dynamic) -> Json {
    at_depth(value, 0)
}

fn at_depth(value: &Dynamic, depth: usize) -> Json {
    if value.is_unit() {
        return Json::Null;
    }
    if let Ok(yes) = value.as_bool() {
        return json!(yes);
    }
    if let Ok(whole) = value.as_int() {
        return json!(whole);
    }
    if let Ok(float) = value.as_float() {
        return json!(float);
    }
    if depth < DEPTH_MAX {
        if let Some(items) = value.read_lock::<Array>() {
            return items.iter().map(|item| at_depth(item, depth + 1)).collect();
        }
        if let Some(fields) = value.read_lock::<Map>() {
            let fields = fields.iter().map(|(name, v)| (name.to_string(), at_depth(v, depth + 1)));
            return Json::Object(fields.collect());
        }
    }
    json!(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_survive_the_way_there_and_back() {
        let document = json!({
            "null": null, "yes": true, "n": -3, "f": 1.5, "text": "é", "list": [1, "two", [3]],
            "map": {"a": {"b": []}},
        });
        assert_eq!(to_json(&to_script(&document)), document);
        assert_eq!(to_json(&to_script(&json!(u64::MAX))), json!(u64::MAX as f64));
        assert_eq!(to_json(&Dynamic::from('x')), json!("x"));
    }

    #[test]
    fn depth_has_an_end() {
        let mut deep = Dynamic::from_int(1);
        for _ in 0..100 {
            deep = Dynamic::from_array(vec![deep]);
        }
        let mut depth = 0;
        let mut json = &to_json(&deep);
        while let Some(inner) = json.get(0) {
            (json, depth) = (inner, depth + 1);
        }
        assert_eq!(depth, DEPTH_MAX);
    }
}
