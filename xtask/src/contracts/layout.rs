//! Where the contracts keep what in storage, without what differs from one compilation to the next.

use serde_json::{Map, Value, json};

use crate::failed::Failed;

use super::{CONTRACTS, built};

/// The layout of each contract that has storage, by name.
pub(super) fn all() -> Result<Value, Failed> {
    let mut all = Map::new();
    for contract in CONTRACTS {
        let layout = &built(contract)?["storageLayout"];
        let entries = |list: &Value| -> Vec<Value> {
            let entry = |entry: &Value| {
                json!({
                    "label": entry["label"],
                    "slot": entry["slot"],
                    "offset": entry["offset"],
                    "type": entry["type"].as_str().map(without_ids),
                })
            };
            list.as_array().into_iter().flatten().map(entry).collect()
        };
        let mut structs = Map::new();
        for (name, kind) in layout["types"].as_object().into_iter().flatten() {
            if kind["members"].is_array() {
                structs.insert(without_ids(name), entries(&kind["members"]).into());
            }
        }
        let storage = entries(&layout["storage"]);
        all.insert(contract.to_owned(), json!({ "storage": storage, "structs": structs }));
    }
    Ok(all.into())
}

/// Types carry the numbers of their syntax trees behind a closing bracket.
fn without_ids(name: &str) -> String {
    let mut text = String::new();
    let mut after_bracket = false;
    for letter in name.chars() {
        if after_bracket && letter.is_ascii_digit() {
            continue;
        }
        after_bracket = letter == ')';
        text.push(letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::without_ids;

    #[test]
    fn only_the_numbers_of_syntax_trees_are_dropped() {
        assert_eq!(
            without_ids("t_mapping(t_bytes32,t_array(t_struct(Key)1234_storage)dyn_storage)"),
            "t_mapping(t_bytes32,t_array(t_struct(Key)_storage)dyn_storage)"
        );
        assert_eq!(without_ids("t_uint64"), "t_uint64");
    }
}
