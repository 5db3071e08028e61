//! Checks JSON against the part of JSON Schema that the files in `schemas/` use.

use serde_json::Value;

/// What is wrong with `value` by the schema `root`: the place of the first fault, and the rule.
///
/// Known are `type`, `enum`, `required`, `properties`, `additionalProperties`, `items`, `minItems`, `minLength`, `pattern` (`^` and the
/// beginning of a text), `oneOf`, and `$ref` to a name in `$defs`.
///
/// # Errors
/// The first fault.
pub fn check(root: &Value, value: &Value) -> Result<(), String> {
    fits(root, root, value, "$")
}

fn fits(root: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let rules = schema.as_object().ok_or_else(|| format!("{place}: may not be there"))?;
    let wrong = |rule: &str, wanted: &Value| Err(format!("{place}: {value} breaks {rule} {wanted}"));
    for (rule, wanted) in rules {
        let count = wanted.as_u64().unwrap_or_default() as usize;
        let holds = match rule.as_str() {
            "type" => is_of(wanted.as_str().unwrap_or_default(), value),
            "enum" => wanted.as_array().is_some_and(|values| values.contains(value)),
            "minItems" => value.as_array().is_some_and(|items| items.len() >= count),
            "minLength" => value.as_str().is_some_and(|text| text.len() >= count),
            "pattern" => {
                let start = wanted.as_str().and_then(|pattern| pattern.strip_prefix('^'));
                value.as_str().zip(start).is_some_and(|(text, start)| text.starts_with(start))
            }
            "required" => {
                let names = wanted.as_array().into_iter().flatten().filter_map(Value::as_str);
                names.into_iter().all(|name| value.get(name).is_some())
            }
            "oneOf" => {
                let results: Vec<_> = wanted
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|schema| fits(root, schema, value, place))
                    .collect();
                if results.iter().filter(|result| result.is_ok()).count() != 1 {
                    return Err(format!("{place}: fits not exactly one: {results:?}"));
                }
                true
            }
            "$ref" => {
                let name = wanted.as_str().and_then(|name| name.strip_prefix("#/$defs/"));
                fits(root, &root["$defs"][name.unwrap_or_default()], value, place)?;
                true
            }
            "items" => {
                for (item, index) in value.as_array().into_iter().flatten().zip(0..) {
                    fits(root, wanted, item, &format!("{place}[{index}]"))?;
                }
                true
            }
            "properties" | "additionalProperties" => {
                let known = &rules.get("properties");
                for (name, inner) in value.as_object().into_iter().flatten() {
                    let own = known.and_then(|known| known.get(name));
                    let schema = own.or_else(|| rules.get("additionalProperties"));
                    if let Some(schema) = schema {
                        fits(root, schema, inner, &format!("{place}.{name}"))?;
                    }
                }
                true
            }
            "$comment" | "$defs" => true,
            _ => false,
        };
        if !holds {
            return wrong(rule, wanted);
        }
    }
    Ok(())
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_are_found_at_their_place() {
        let schema = json!({
            "type": "object", "required": ["a"], "additionalProperties": false,
            "properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/b"}}}, "$defs": {"b": {"enum": [1]}},
        });
        assert_eq!(check(&schema, &json!({"a": [1, 1]})), Ok(()));
        for (value, place) in [
            (json!([]), "$:"),
            (json!({}), "$:"),
            (json!({"a": [1, 2]}), "$.a[1]:"),
            (json!({"a": [], "c": 1}), "$.c:"),
        ] {
            let fault = check(&schema, &value).unwrap_err();
            assert!(fault.starts_with(place), "{fault}");
        }
    }
}
