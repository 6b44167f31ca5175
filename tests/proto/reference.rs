//! A naive reading of SIO "Packet encoding", to compare the decoder with: no borrowing, no bounds on time, one
//! sentence of the grammar after the other.

use serde_json::Value;
use tinysio::proto::limits;

/// Whether `text` is a packet that comes with this many attachments.
pub(crate) fn accepts(text: &str, attachments: usize) -> bool {
    read(text, attachments).is_some()
}

fn read(text: &str, attachments: usize) -> Option<()> {
    let kind = text.chars().next().filter(|kind| ('0'..='6').contains(kind))?;
    let mut rest = &text[1..];
    let binary = matches!(kind, '5' | '6');
    require(binary || attachments == 0)?;
    if binary {
        let (count, after) = rest.split_once('-')?;
        require(count == attachments.to_string() && (1..=10).contains(&attachments))?;
        rest = after;
    }
    if rest.starts_with('/') {
        let (name, after) = rest.split_once(',').unwrap_or((rest, ""));
        require(name.len() <= limits::MAX_NAMESPACE && !name.contains(['{', '[', '"']))?;
        rest = after;
    }
    let json = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let id = &rest[..rest.len() - json.len()];
    require(id.is_empty() || (id.len() <= 20 && id.parse::<u64>().is_ok()))?;
    require(!json.starts_with([' ', '\t', '\r', '\n']))?;
    let data = if json.is_empty() { None } else { Some(serde_json::from_str::<Value>(json).ok()?) };
    require(match (kind, &data) {
        ('0', None | Some(Value::Object(_))) => id.is_empty(),
        ('1', None) => id.is_empty(),
        ('2' | '5', Some(Value::Array(items))) => items.first().is_some_and(|name| match name {
            Value::String(name) => !limits::RESERVED_EVENTS.contains(&&**name),
            name => name.is_number(),
        }),
        ('3' | '6', Some(Value::Array(_))) => !id.is_empty(),
        ('4', None | Some(Value::Object(_) | Value::String(_))) => id.is_empty(),
        _ => false,
    })?;
    require(!binary || placeholders_are_good(&data?, attachments))
}

fn placeholders_are_good(value: &Value, attachments: usize) -> bool {
    let good = |item| placeholders_are_good(item, attachments);
    match value {
        Value::Object(object) if object.get("_placeholder") == Some(&Value::Bool(true)) => {
            object.get("num").and_then(Value::as_u64).is_some_and(|num| num < attachments as u64)
        }
        Value::Object(object) => object.values().all(good),
        Value::Array(items) => items.iter().all(good),
        _ => true,
    }
}

fn require(condition: bool) -> Option<()> {
    condition.then_some(())
}
