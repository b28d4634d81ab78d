//! States of containers that Docker's API does not know.
//!
//! Podman has some of its own, also where it speaks Docker's API, such as `stopped` between the end of a
//! container's program and its clearing away. One container in such a state would make the whole list
//! unreadable: its state is put into Docker's words, and the answer read again.

use bollard::errors::Error;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// In Docker's words. Nothing is said of what is neither.
fn docker_s(state: &str) -> &str {
    match state {
        "created" | "running" | "paused" | "restarting" | "exited" | "removing" | "dead"
        | "stopping" => state,
        "configured" | "initialized" => "created",
        "stopped" => "exited",
        _ => "",
    }
}

/// `State` in a list, `State.Status` of one container.
fn translate(answer: &mut Value) {
    let one = |state: &mut Value| {
        if let Value::String(text) = state {
            *text = docker_s(text).to_owned();
        }
    };
    match answer {
        Value::Array(all) => {
            all.iter_mut().filter_map(|found| found.get_mut("State")).for_each(one)
        }
        found => found.pointer_mut("/State/Status").into_iter().for_each(one),
    }
}

/// What the engine has said of one container, or a list of them.
pub(crate) fn reread<T: DeserializeOwned>(answer: Result<T, Error>) -> Result<T, Error> {
    match answer {
        Err(Error::JsonDataError { message, contents, column }) => {
            let read = serde_json::from_str(&contents).ok().and_then(|mut answer| {
                translate(&mut answer);
                serde_json::from_value(answer).ok()
            });
            // Without the content, which is not for any log.
            read.ok_or(Error::JsonDataError { message, contents: String::new(), column })
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{
        ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
        ContainerSummaryStateEnum,
    };
    use serde_json::json;

    use super::*;

    /// As bollard reads an answer.
    fn read<T: DeserializeOwned>(answer: &Value) -> Result<T, Error> {
        let contents = answer.to_string();
        serde_json::from_str(&contents).map_err(|error| Error::JsonDataError {
            message: error.to_string(),
            contents,
            column: error.column(),
        })
    }

    #[test]
    fn a_state_of_podmans_hides_no_container() {
        use ContainerSummaryStateEnum::{CREATED, EMPTY, EXITED, RUNNING};
        let states = ["running", "stopped", "initialized", "configured", "bewildered"];
        let list = json!(states.map(|state| json!({ "Id": state, "State": state })));
        assert!(read::<Vec<ContainerSummary>>(&list).is_err());
        let list = reread(read::<Vec<ContainerSummary>>(&list)).unwrap();
        let found: Vec<_> = list.iter().map(|found| found.state.unwrap()).collect();
        assert_eq!(found, [RUNNING, EXITED, CREATED, CREATED, EMPTY]);
        assert_eq!(list[1].id.as_deref(), Some("stopped"));

        let one = json!({ "State": { "Status": "stopped", "ExitCode": 3 } });
        let state = reread(read::<ContainerInspectResponse>(&one)).unwrap().state.unwrap();
        assert_eq!(state.status, Some(ContainerStateStatusEnum::EXITED));
        assert_eq!(state.exit_code, Some(3));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_without_its_content() {
        let secret = json!({ "State": 7, "Config": { "Env": ["PASSWORD=secret"] } });
        let error = reread(read::<ContainerInspectResponse>(&secret)).unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
