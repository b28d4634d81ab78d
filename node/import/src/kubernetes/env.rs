//! Variables of a container, and `$(NAME)` in what they and its command say.

use super::Context;
use crate::{
    error::{ImportError, Pos},
    job::{From, Job, Sealed, Target, name_like},
    report::Report,
    yaml::Node,
};

pub(super) fn read(
    context: &mut Context<'_>,
    object: &Node,
    job: &mut Job,
    container: &Node,
) -> Result<(), ImportError> {
    for node in container.get("envFrom").map_or(&[][..], Node::items) {
        all_of(context, job, node);
    }
    for node in container.get("env").map_or(&[][..], Node::items) {
        let name = node.get("name").ok_or_else(|| ImportError::Value {
            pos: node.pos,
            key: "env".to_owned(),
            says: "`name` is missing".to_owned(),
        })?;
        let name = name.str("env.name")?.to_owned();
        let is_own = |sealed: &Sealed| sealed.target == Target::Variable(name.clone());
        job.secrets.retain(|sealed| !is_own(sealed));
        job.env.remove(&name);
        match node.get("valueFrom") {
            Some(from) => value_from(context, object, job, &name, from),
            None => {
                let text = node.text_at(&["value"]).unwrap_or_default();
                let value = expand(context.report, job, "env", text, node.pos);
                job.env.insert(name, value);
            }
        }
    }
    Ok(())
}

/// Everything that a ConfigMap or Secret holds.
fn all_of(context: &mut Context<'_>, job: &mut Job, node: &Node) {
    let prefix = node.text_at(&["prefix"]).unwrap_or_default();
    for (key, is_secret) in [("configMapRef", false), ("secretRef", true)] {
        let Some(reference) = node.get(key) else { continue };
        let name = reference.text_at(&["name"]).unwrap_or_default();
        let optional = reference.get("optional").and_then(Node::as_bool) == Some(true);
        match context.objects.data(is_secret, name).cloned() {
            Some(data) => {
                // What is binary is no variable.
                let is_text = |value: &[u8]| {
                    core::str::from_utf8(value).is_ok_and(|text| !text.contains('\0'))
                };
                for (key, value) in data.into_iter().filter(|(_, value)| is_text(value)) {
                    set(
                        context,
                        job,
                        (is_secret, name, &key),
                        &format!("{prefix}{key}"),
                        value,
                        node.pos,
                    );
                }
            }
            None if optional => {}
            None => {
                let reason = format!("`{name}` is not in the file, and so its keys are not known");
                context.report.changed(&job.service, &format!("envFrom.{key}"), node.pos, reason);
            }
        }
    }
}

/// A variable with the value of a key: of a Secret, from a file beside the job file.
fn set(
    context: &mut Context<'_>,
    job: &mut Job,
    (is_secret, of, key): (bool, &str, &str),
    name: &str,
    value: Vec<u8>,
    pos: Pos,
) {
    if !context.counts(value.len()) {
        return;
    }
    let Ok(mut text) = String::from_utf8(value) else {
        context.report.changed(&job.service, &format!("env.{name}"), pos, "its value is no text");
        return;
    };
    if !is_secret {
        job.env.insert(name.to_owned(), text);
        return;
    }
    // As a variable, a file loses the end of its last line.
    if text.ends_with('\n') {
        text.push('\n');
    }
    let path = file_of(job, of, key);
    context.file(path.clone(), text.into_bytes(), true);
    job.env.remove(name);
    job.secrets.push(Sealed { target: Target::Variable(name.to_owned()), from: From::File(path) });
}

/// Where the content of a key lies beside the job file.
pub(super) fn file_of(job: &Job, of: &str, key: &str) -> String {
    format!("{}.files/{}/{}", job.name, name_like(of), file_name(key))
}

/// A key as the name of a file.
fn file_name(key: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = key.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if name.trim_matches('.').is_empty() { "_".to_owned() } else { name }
}

fn value_from(context: &mut Context<'_>, object: &Node, job: &mut Job, name: &str, from: &Node) {
    for (key, is_secret) in [("configMapKeyRef", false), ("secretKeyRef", true)] {
        let Some(reference) = from.get(key) else { continue };
        let of = reference.text_at(&["name"]).unwrap_or_default();
        let wanted = reference.text_at(&["key"]).unwrap_or_default();
        let optional = reference.get("optional").and_then(Node::as_bool) == Some(true);
        let value = context.objects.data(is_secret, of).and_then(|data| data.get(wanted)).cloned();
        match value {
            Some(value) => set(context, job, (is_secret, of, wanted), name, value, from.pos),
            None if optional => {}
            // Somebody has it: it is not in this file.
            None => {
                let path = file_of(job, of, wanted);
                job.fill_in.push(format!(
                    "{path}: the key `{wanted}` of `{of}`, which the file does not have"
                ));
                job.secrets.push(Sealed {
                    target: Target::Variable(name.to_owned()),
                    from: From::File(path),
                });
            }
        }
        return;
    }
    if let Some(path) = from.text_at(&["fieldRef", "fieldPath"]) {
        match field(object, path) {
            Some(value) => {
                job.env.insert(name.to_owned(), value);
            }
            None => {
                let reason = format!("a replica is not told `{path}`");
                context.report.changed(&job.service, &format!("env.{name}"), from.pos, reason);
            }
        }
    } else if let Some(resource) = from.text_at(&["resourceFieldRef", "resource"]) {
        let value = match resource.split_once('.') {
            Some((_, "cpu")) => job.resources.millicores.map(|cpu| cpu.div_ceil(1000)),
            Some((_, "memory")) => job.resources.memory,
            _ => None,
        };
        match value {
            Some(value) => {
                job.env.insert(name.to_owned(), value.to_string());
            }
            None => {
                let reason = format!("a replica is not told `{resource}`");
                context.report.changed(&job.service, &format!("env.{name}"), from.pos, reason);
            }
        }
    } else {
        context.report.changed(
            &job.service,
            &format!("env.{name}"),
            from.pos,
            "a job file cannot say it",
        );
    }
}

/// What the file itself says of a pod.
pub(super) fn field(object: &Node, path: &str) -> Option<String> {
    let template = object.at(&["spec", "template"]).unwrap_or(object);
    if path == "metadata.namespace" {
        let namespace = object.text_at(&["metadata", "namespace"]);
        return Some(namespace.unwrap_or("default").to_owned());
    }
    for list in ["labels", "annotations"] {
        let key = path.strip_prefix("metadata.").and_then(|rest| rest.strip_prefix(list));
        if let Some(key) =
            key.and_then(|key| key.strip_prefix("['")).and_then(|key| key.strip_suffix("']"))
        {
            return template.text_at(&["metadata", list, key]).map(str::to_owned);
        }
    }
    None
}

/// A list of words, with variables put in.
pub(super) fn words(
    report: &mut Report,
    job: &Job,
    key: &str,
    node: &Node,
) -> Result<Vec<String>, ImportError> {
    let words = node.list(key)?.iter();
    words.map(|word| Ok(expand(report, job, key, word.str(key)?, word.pos))).collect()
}

/// `$(NAME)` becomes the value of a variable that is set before; `$$(NAME)` stays, with one dollar sign.
fn expand(report: &mut Report, job: &Job, key: &str, text: &str, pos: Pos) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
            continue;
        }
        let inside = after.strip_prefix('(').and_then(|inside| inside.split_once(')'));
        rest = match inside {
            None => {
                out.push('$');
                after
            }
            Some((name, after)) => {
                let secret = Target::Variable(name.to_owned());
                match job.env.get(name) {
                    Some(value) => out.push_str(value),
                    None => {
                        if job.secrets.iter().any(|sealed| sealed.target == secret) {
                            let reason =
                                format!("`{name}` is secret, and cannot be put into another text");
                            report.changed(&job.service, key, pos, reason);
                        }
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                after
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harmless::Format;

    #[test]
    fn variables_are_put_into_commands() {
        let mut job = Job::default();
        job.env.insert("A".to_owned(), "1".to_owned());
        let mut report = Report::new(Format::Kubernetes);
        let mut expand = |text: &str| expand(&mut report, &job, "args", text, Pos::default());
        for (text, expanded) in [
            ("--a=$(A)", "--a=1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(", "$("),
        ] {
            assert_eq!(expand(text), expanded, "{text}");
        }
        assert!(report.dropped.is_empty());
    }

    #[test]
    fn a_key_is_no_path() {
        assert_eq!(file_name("../x"), ".._x");
        assert_eq!((file_name(".."), file_name("a.conf")), ("_".to_owned(), "a.conf".to_owned()));
    }
}
