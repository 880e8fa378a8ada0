//! Values as YAML 1.2: a small part of it, in which every text that could be mistaken is quoted as
//! JSON quotes it, which YAML reads the same way.

use serde::Serialize;
use serde_json::Value;

/// A value as YAML.
pub(crate) fn text(value: &impl Serialize) -> String {
    let mut text = String::new();
    match serde_json::to_value(value) {
        Ok(value) if is_block(&value) => block(&value, 0, &mut text),
        Ok(value) => text = format!("{}\n", scalar(&value)),
        // Nothing that is shown has keys that are no texts.
        Err(error) => text = format!("# {error}\n"),
    }
    text
}

/// Whether a value takes lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    }
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Array(items) => {
            for item in items {
                if is_block(item) {
                    let mut inner = String::new();
                    block(item, depth + 1, &mut inner);
                    // The first line of the item stands behind its dash.
                    let first = inner.get(indent.len() + 2..).unwrap_or_default();
                    text.push_str(&format!("{indent}- {first}"));
                } else {
                    text.push_str(&format!("{indent}- {}\n", scalar(item)));
                }
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = scalar(&Value::String(key.clone()));
                if is_block(value) {
                    text.push_str(&format!("{indent}{key}:\n"));
                    block(value, depth + 1, text);
                } else {
                    text.push_str(&format!("{indent}{key}: {}\n", scalar(value)));
                }
            }
        }
        _ => {}
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(word) if is_plain(word) => word.clone(),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// Whether a text is only that, for every reader of YAML, new and old.
fn is_plain(word: &str) -> bool {
    let meanings = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    word.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && word.bytes().all(is_inner)
        && !meanings.contains(&word.to_ascii_lowercase().as_str())
}

#[cfg(test)]
#[path = "yaml_test.rs"]
mod tests;
