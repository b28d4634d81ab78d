//! The bill of materials of the binary, as CycloneDX 1.5: what cargo resolves for it, with licences and checksums.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{NAME, VERSION, cannot, read, write};
use crate::{
    failed::Failed,
    house::metadata::{Graph, Kind, Package},
    step::root,
};

/// The package of the binary.
const BINARY: &str = "veil-node";
/// Its name among the artefacts.
const FILE: &str = "veil-sbom.cdx.json";

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// By name and version.
type Checksums = BTreeMap<(String, String), String>;

/// Writes it.
pub(super) fn write_into(out: &Path) -> Result<PathBuf, Failed> {
    let path = root().join("Cargo.lock");
    let lock: Lock =
        toml::from_str(&read(&path)?).map_err(|error| cannot("read", &path, &error))?;
    let checksums = lock
        .package
        .into_iter()
        .filter_map(|package| Some(((package.name, package.version), package.checksum?)));
    let bill = bill(&Graph::read()?, &checksums.collect())?;
    let text = format!("{bill:#}\n");
    let path = out.join(FILE);
    write(&path, text.as_bytes())?;
    Ok(path)
}

fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn bill(graph: &Graph, checksums: &Checksums) -> Result<Value, Failed> {
    let of_binary = graph.members().find(|(_, package)| package.name == BINARY);
    let (id, binary) =
        of_binary.ok_or_else(|| Failed::new(NAME, format!("there is no package {BINARY}")))?;
    // Build scripts and macros make code that is part of the binary; tests are not.
    let within = graph.reach(id, |kind| kind != Kind::Dev);
    let parts: Vec<_> = within.keys().filter_map(|id| graph.packages.get(id)).collect();
    let components: Vec<_> = parts.iter().map(|package| component(package, checksums)).collect();
    let dependencies: Vec<_> = parts
        .iter()
        .copied()
        .chain([binary])
        .map(|package| {
            let edges = package.edges.iter().filter(|edge| edge.kind != Kind::Dev);
            let mut on: Vec<_> =
                edges.filter_map(|edge| graph.packages.get(&edge.to)).map(reference).collect();
            on.sort_unstable();
            on.dedup();
            json!({ "ref": reference(package), "dependsOn": on })
        })
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "name": "veil", "version": VERSION, "bom-ref": reference(binary),
            "licenses": [{ "expression": "Apache-2.0" }],
        } },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(package: &Package, checksums: &Checksums) -> Value {
    let mut component = json!({
        "type": "library",
        "name": package.name,
        "version": package.version,
        "bom-ref": reference(package),
        "purl": reference(package),
    });
    if let Some(licence) = &package.licence {
        // The older form of a choice.
        let expression = licence.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(sum) = checksums.get(&(package.name.clone(), package.version.clone())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::house::metadata::Edge;

    fn package(name: &str, is_member: bool, edges: &[(&str, Kind)]) -> (String, Package) {
        let edges = edges.iter().map(|&(to, kind)| Edge { to: to.to_owned(), kind });
        let package = Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: Some("MIT/Apache-2.0".to_owned()),
            edges: edges.collect::<BTreeSet<_>>(),
            is_member,
            ..Package::default()
        };
        (name.to_owned(), package)
    }

    #[test]
    fn it_lists_what_is_compiled_into_the_binary_and_nothing_of_the_tests() {
        let packages = [
            package(BINARY, true, &[("used", Kind::Normal), ("of-tests", Kind::Dev)]),
            package("used", false, &[("beneath", Kind::Build)]),
            package("beneath", false, &[]),
            package("of-tests", false, &[]),
        ];
        let graph = Graph { packages: packages.into() };
        let sums = [(("used".to_owned(), "1.0.0".to_owned()), "ab".to_owned())];
        let bill = bill(&graph, &sums.into()).unwrap();
        let names: Vec<_> =
            bill["components"].as_array().unwrap().iter().map(|of| &of["name"]).collect();
        assert_eq!(names, ["beneath", "used"]);
        let used = &bill["components"][1];
        assert_eq!(used["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(used["hashes"][0]["content"], "ab");
        let below: Vec<_> = bill["dependencies"].as_array().unwrap().iter().collect();
        assert!(below.iter().any(|of| of["ref"] == "pkg:cargo/veil-node@1.0.0"
            && of["dependsOn"] == json!(["pkg:cargo/used@1.0.0"])));
    }

    #[test]
    fn without_the_binary_there_is_no_bill() {
        assert!(bill(&Graph::default(), &Checksums::new()).is_err());
    }
}
