use veil_protocol_spec_base::{codec::assert_wire, ids::KeySetDigest};

use super::*;
use crate::{
    arbitrary,
    opened::RequestSeed,
    proven::{ProofMetadata, ProvenList},
    quantities::Scale,
    request::EncryptedRequest,
    resources::{GpuUnits, MemoryUnits, Resource},
};

fn contents() -> SealedContents {
    let variable =
        |name: &str, value: &str| SealedVariable { name: name.into(), value: value.into() };
    let file = |path: &str| SealedFile {
        path: path.parse().unwrap(),
        mode: FileMode::READ_ONLY,
        content: Bytes(b"hunter2".to_vec()),
    };
    SealedContents {
        env: vec![variable("DB", "postgres://hunter2"), variable("TZ", "Europe/Berlin")],
        files: vec![file("/etc/app.conf"), file("/run/secrets/db")],
        registry: Some(RegistryCredentials {
            username: "robot".into(),
            password: "hunter2".into(),
        }),
        arguments: None,
        request: None,
    }
}

fn sealed_arguments() -> SealedContents {
    let command = vec!["/bin/app".to_owned()];
    let args = vec!["--token=hunter2".to_owned()];
    let mut contents = contents();
    contents.arguments = Some(SealedArguments { command, args });
    contents
}

/// A job whose request is encrypted, as far as contents are concerned with it.
fn encrypted(limits: Resources) -> (JobSpec, SealedContents) {
    let mut job = arbitrary::job();
    let request = SealedRequest { limits, seed: RequestSeed::new([9; 32]) };
    let key_set = KeySetDigest([3; 32]);
    let metadata = ProofMetadata::for_request(&job.scope, &key_set, &job.operator, job.nonce);
    job.request = ResourceRequest::Encrypted(EncryptedRequest {
        key_set,
        scale: Scale::FINEST,
        dominant: Resource::Memory,
        commitment: request.commitment(&metadata),
        list: ProvenList::new(vec![1]).unwrap(),
    });
    let mut contents = contents();
    contents.request = Some(request);
    (job, contents)
}

#[test]
fn sealed_arguments_take_the_place_of_none() {
    let (contents, whole) = (sealed_arguments(), arbitrary::job());
    assert_wire(&contents);
    assert!(!format!("{contents:?} {:?}", contents.arguments).contains("hunter2"));
    assert_eq!(contents.validate(&whole), Err(ContentsError::ArgumentsTwice));
    let public = contents.public(whole.clone());
    assert!(public.command.is_empty() && public.args.is_empty());
    assert_eq!(contents.validate(&public), Ok(()));
    let applied = contents.applied(&public);
    assert_eq!((&applied.args[0][..], applied.args.len()), ("--token=hunter2", 1));
    assert_eq!(JobSpec { command: whole.command, args: whole.args, ..applied }, arbitrary::job());
    // They keep the rules of arguments.
    let mut wrong = sealed_arguments();
    wrong.arguments.as_mut().unwrap().command = vec![String::new()];
    assert!(matches!(wrong.validate(&public), Err(ContentsError::Job(_))));
}

#[test]
fn the_limits_of_an_encrypted_request_are_those_that_the_body_commits_to() {
    let ResourceRequest::Clear(limits) = arbitrary::job().request else { panic!("in clear") };
    let (job, sealed) = encrypted(limits);
    assert_wire(&sealed);
    assert_eq!(sealed.validate(&job), Ok(()));
    assert_eq!(sealed.applied(&job), arbitrary::job());
    assert_eq!(contents().validate(&job), Err(ContentsError::NoLimits));
    assert_eq!(contents().limits(&job), None);
    assert_eq!(sealed.validate(&arbitrary::job()), Err(ContentsError::ClearRequest));
    let mut other = sealed.clone();
    other.request.as_mut().unwrap().limits.memory.0 += 1;
    assert_eq!(other.validate(&job), Err(ContentsError::OtherLimits));
    // What nobody may ask for in clear is refused here, too: no memory, more than the scale, mounts beyond it.
    let nothing = Resources { memory: MemoryUnits(0), ..limits };
    let (job, sealed) = encrypted(nothing);
    assert!(matches!(sealed.validate(&job), Err(ContentsError::Job(_))));
    let (job, sealed) = encrypted(Resources { gpu: GpuUnits(192), ..limits });
    assert!(matches!(sealed.validate(&job), Err(ContentsError::TooLarge)));
    let (job, sealed) = encrypted(Resources { memory: MemoryUnits(1), ..limits });
    let beyond = sealed.validate(&job).unwrap_err().to_string();
    assert!(beyond.contains("tmpfs `/tmp`"), "{beyond}");
}

#[test]
fn contents_round_trip_and_print_nothing_of_themselves() {
    assert_wire(&contents());
    let printed = format!("{:?} {:?} {:?}", contents(), contents().env, contents().files);
    let printed = format!("{printed} {:?}", contents().registry);
    assert!(printed.contains("redacted") && printed.contains("DB"), "{printed}");
    assert!(!printed.contains("hunter2") && !printed.contains("robot"), "{printed}");
}

#[test]
fn contents_that_no_container_can_have_are_refused_by_name() {
    let mut job = arbitrary::job();
    job.links = vec![arbitrary::link("db", 5432, "shop-db")];
    job.links[0].env = Some("ADDR".parse().unwrap());
    assert_eq!(contents().validate(&job), Ok(()));
    type Change = fn(&mut SealedContents);
    type Expected = fn(&ContentsError) -> bool;
    let cases: [(Change, Expected); 12] = [
        (|c| c.env[0].name = "ADDR".into(), |e| matches!(e, ContentsError::OfLink(_))),
        (|c| c.env[0].name.clear(), |e| matches!(e, ContentsError::VariableName(_))),
        (|c| c.env[0].name = "A=B".into(), |e| matches!(e, ContentsError::VariableName(_))),
        (|c| c.env[0].value = "a\0".into(), |e| matches!(e, ContentsError::VariableValue(_))),
        (|c| c.env.swap(0, 1), |e| matches!(e, ContentsError::Order(_))),
        (|c| c.files.swap(0, 1), |e| matches!(e, ContentsError::Order(_))),
        (
            |c| c.files[0].path = "/dev/mem".parse().unwrap(),
            |e| matches!(e, ContentsError::Mount(_)),
        ),
        (
            |c| c.files[1].path = "/tmp".parse().unwrap(),
            |e| matches!(e, ContentsError::MountedTwice(_)),
        ),
        (
            |c| c.registry.as_mut().unwrap().password.clear(),
            |e| matches!(e, ContentsError::Credentials),
        ),
        (
            |c| c.files[0].content = Bytes(vec![0; limits::SEALED_FILE_BYTES + 1]),
            |e| matches!(e, ContentsError::LongFile { len: 262_145, .. }),
        ),
        (
            |c| c.env[0].value = "x".repeat(limits::SEALED_VARIABLES_BYTES),
            |e| matches!(e, ContentsError::LongVariables(_)),
        ),
        (
            |c| {
                for file in &mut c.files {
                    file.content = Bytes(vec![0; limits::SEALED_FILE_BYTES]);
                }
            },
            |e| matches!(e, ContentsError::TooLong(_)),
        ),
    ];
    for (i, (change, expected)) in cases.into_iter().enumerate() {
        let mut changed = contents();
        change(&mut changed);
        let error = changed.validate(&job).unwrap_err();
        assert!(expected(&error), "{i}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn the_largest_file_can_be_sealed_beside_the_longest_variables() {
    let mut full = contents();
    full.files[0].content = Bytes(vec![7; limits::SEALED_FILE_BYTES]);
    let names: usize =
        full.env.iter().map(|variable| variable.name.len() + variable.value.len()).sum();
    let room = limits::SEALED_VARIABLES_BYTES - names - 4096;
    full.env[0].value.push_str(&"x".repeat(room));
    assert_eq!(full.validate(&arbitrary::job()), Ok(()));
    assert_wire(&full);
}

#[test]
fn a_mode_is_of_files() {
    assert_eq!(FileMode::try_from(0o400).map(FileMode::bits), Ok(0o400));
    assert_eq!(FileMode::try_from(0o1777), Err(InvalidFileMode(0o1777)));
}
