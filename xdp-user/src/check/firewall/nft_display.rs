//! A rule of nft's in a few words that its owner recognizes. nft prints its own syntax only where it prints no JSON.

use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A rule in a few words: nft prints its own syntax only without JSON.
pub(super) fn statements(rule: &Value) -> String {
    let short = |statement: &Value| -> Option<String> {
        if let Some(condition) = statement.get("match") {
            let left = condition["left"].as_object()?.values().next()?;
            let fields = ["protocol", "key", "field"].map(|key| text(&left[key]));
            let left: Vec<&str> = fields.into_iter().filter(|word| !word.is_empty()).collect();
            let operator = match text(&condition["op"]) {
                "==" | "in" => String::new(),
                other => format!("{other} "),
            };
            return Some(format!(
                "{} {operator}{}",
                left.join(" "),
                plain(&condition["right"])
            ));
        }
        let (name, value) = statement.as_object()?.iter().next()?;
        if name == "counter" {
            return None;
        }
        let to = plain(&value["addr"]);
        let to = if value["addr"].is_null() {
            String::new()
        } else {
            format!(" to {to}")
        };
        let name = if name == "xt" {
            text(&value["name"])
        } else {
            name
        };
        Some(format!("{name}{to}"))
    };
    let parts = rule["expr"].as_array().into_iter().flatten();
    parts.filter_map(short).collect::<Vec<String>>().join(" ")
}

fn plain(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    if let Some(prefix) = value.get("prefix") {
        return format!("{}/{}", plain(&prefix["addr"]), prefix["len"]);
    }
    if let Some(range) = value.get("range") {
        return format!("{}-{}", plain(&range[0]), plain(&range[1]));
    }
    match value.get("set").unwrap_or(value).as_array() {
        Some(elements) => {
            let elements: Vec<String> = elements.iter().map(plain).collect();
            format!("{{ {} }}", elements.join(", "))
        }
        None => value.to_string(),
    }
}
