//! Environment, secrets and configurations: what is sealed in the job.

use super::{Context, values::wrong};
use crate::{
    error::{ImportError, Pos},
    job::{From, Job, NewFile, Sealed, Target, name_like},
    variables::read_file,
    yaml::{Entry, Node},
};

/// `{ A: 1 }` or `["A=1", "B"]`.
pub(crate) fn pairs(key: &str, node: &Node) -> Result<Vec<(String, Option<String>)>, ImportError> {
    let mut found = Vec::new();
    for item in node.items() {
        let text = item.str(key)?;
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        found.push((name.to_owned(), value));
    }
    for Entry { key: name, value, .. } in node.entries() {
        let value = if value.is_null() {
            None
        } else {
            Some(value.str(&format!("{key}.{name}"))?.to_owned())
        };
        found.push((name.clone(), value));
    }
    if node.as_text().is_some() {
        return Err(wrong(key, node, "no map of names to values, and no list of NAME=value"));
    }
    Ok(found)
}

/// What has a value becomes `[env]`; what has none is passed on from whoever submits.
pub(super) fn environment(job: &mut Job, value: &Node) -> Result<(), ImportError> {
    for (name, value) in pairs("environment", value)? {
        set(job, name, value, true);
    }
    Ok(())
}

fn set(job: &mut Job, name: String, value: Option<String>, replaces: bool) {
    let is_own = |sealed: &Sealed| sealed.target == Target::Variable(name.clone());
    let taken = job.env.contains_key(&name) || job.secrets.iter().any(is_own);
    if taken && !replaces || name.is_empty() {
        return;
    }
    job.secrets.retain(|sealed| !is_own(sealed));
    match value {
        Some(value) => {
            job.env.insert(name, value);
        }
        None => {
            job.env.remove(&name);
            job.fill_in.push(format!("the environment of `veil job submit`: {name}"));
            job.secrets.push(Sealed {
                target: Target::Variable(name.clone()),
                from: From::Variable(name),
            });
        }
    }
}

/// Files of variables, the later before the earlier; `environment` before both.
pub(super) fn env_files(
    context: &mut Context<'_>,
    job: &mut Job,
    value: &Node,
) -> Result<(), ImportError> {
    let one = [value.clone()];
    let files = if value.as_list().is_some() { value.items() } else { &one };
    for file in files.iter().rev() {
        let path = file.as_text().or_else(|| file.text_at(&["path"]));
        let path = path.ok_or_else(|| wrong("env_file", file, "no path"))?;
        let optional = file.get("required").and_then(Node::as_bool) == Some(false);
        if let Some(format) = file.get("format") {
            context.report.drop(&job.service, "env_file.format", format.pos);
        }
        // What is elsewhere on this machine is nobody's business but its owner's.
        let inside = context.folder.inside(path);
        let found = match &inside {
            Some(inside) => read_file(&context.folder.path(inside), context.variables)?,
            None => None,
        };
        match found {
            Some(set_there) => {
                // Within a file the later line holds.
                for (name, value) in set_there.into_iter().rev() {
                    let value = value.or_else(|| context.variables.get(&name).map(str::to_owned));
                    set(job, name, value, false);
                }
            }
            None if optional => {}
            None => {
                let why = if inside.is_some() {
                    "is not there"
                } else {
                    "is outside the folder of the file"
                };
                job.fill_in.push(format!("[env]: what is in {path}, which {why}"));
                context
                    .report
                    .note(format!("{}: {path} {why}: its variables are left out", job.service));
            }
        }
    }
    Ok(())
}

/// `secrets` or `configs` of a service.
pub(super) fn sealed(
    context: &mut Context<'_>,
    job: &mut Job,
    key: &str,
    value: &Node,
) -> Result<(), ImportError> {
    for node in value.list(key)? {
        let name = node.as_text().or_else(|| node.text_at(&["source"]));
        let name = name.ok_or_else(|| wrong(key, node, "no name"))?.to_owned();
        let target = node.text_at(&["target"]);
        let path = match target {
            Some(target) if target.starts_with('/') => target.to_owned(),
            Some(target) if key == "secrets" => format!("/run/secrets/{target}"),
            Some(target) => format!("/{target}"),
            None if key == "secrets" => format!("/run/secrets/{name}"),
            None => format!("/{name}"),
        };
        let mode = node.text_at(&["mode"]).and_then(mode);
        for Entry { key: field, pos, .. } in node.entries() {
            if !["source", "target", "mode"].contains(&field.as_str()) {
                context.report.drop(&job.service, &format!("{key}.{field}"), *pos);
            }
        }
        let Some(from) = source(context, job, key, &name, node.pos)? else { continue };
        let sealed = Sealed { target: Target::Path { path, mode }, from };
        if key == "secrets" {
            job.secrets.push(sealed);
        } else {
            job.files.push(sealed);
        }
    }
    Ok(())
}

/// `0440`, as YAML 1.1 and 1.2 write octal numbers, or the decimal number that it is.
pub(crate) fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    let bits = match digits {
        Some("") => Some(0),
        Some(digits) => u32::from_str_radix(digits, 8).ok(),
        None => text
            .parse()
            .ok()
            .filter(|bits| *bits <= 0o777)
            .or_else(|| u32::from_str_radix(text, 8).ok()),
    };
    bits.filter(|bits| *bits <= 0o777)
}

/// Where the content is that the file's own `secrets` or `configs` defines.
fn source(
    context: &mut Context<'_>,
    job: &mut Job,
    key: &str,
    name: &str,
    pos: Pos,
) -> Result<Option<From>, ImportError> {
    let Some(defined) = context.document.at(&[key, name]) else {
        let reason = format!("the file defines no `{key}.{name}`");
        context.report.changed(&job.service, key, pos, reason);
        return Ok(None);
    };
    if let Some(path) = defined.text_at(&["file"]) {
        let missing = !context.folder.path(path).is_file();
        let path = context.folder.written(path);
        if missing {
            job.fill_in.push(format!("{path}, which is to be sealed and is not there"));
        }
        return Ok(Some(From::File(path)));
    }
    if let Some(variable) = defined.text_at(&["environment"]) {
        job.fill_in.push(format!("the environment of `veil job submit`: {variable}"));
        return Ok(Some(From::Variable(variable.to_owned())));
    }
    let path = format!("{}.files/{}", job.name, name_like(name));
    match defined.text_at(&["content"]) {
        Some(content) => {
            let content = content.as_bytes().to_vec().into();
            let secret = key == "secrets";
            context.found.files.push(NewFile { path: path.clone(), content, secret });
        }
        // Swarm has it: somebody knows what is in it.
        None => job.fill_in.push(format!("{path}: what is in the external `{name}`")),
    }
    Ok(Some(From::File(path)))
}

#[cfg(test)]
mod tests {
    use super::mode;

    #[test]
    fn modes_are_octal() {
        for (text, bits) in [("0440", 0o440), ("0o400", 0o400), ("288", 0o440), ("0", 0)] {
            assert_eq!(mode(text), Some(bits), "{text}");
        }
        assert_eq!((mode("x"), mode("07777")), (None, None));
    }
}
