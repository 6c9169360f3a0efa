// SPDX-License-Identifier: Apache-2.0
//! The fields of CycloneDX 1.6 that are written (<https://cyclonedx.org/docs/1.6/json/>), and package URLs
//! (<https://github.com/package-url/purl-spec>).

use firstboot::text::timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A bill of materials.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Serialize)]
struct Metadata {
    /// RFC 3339.
    timestamp: String,
    tools: Tools,
    component: Component,
}

#[derive(Serialize)]
struct Tools {
    components: [Component; 1],
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A program.
    Application,
    /// A container image.
    Container,
    /// A package, a module or a crate.
    Library,
    /// The image itself.
    OperatingSystem,
}

/// A component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    #[serde(rename = "type")]
    kind: Kind,
    /// By what others name it in this document.
    #[serde(rename = "bom-ref")]
    pub reference: String,
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

impl Component {
    /// A component whose reference is its package URL, or else its name and version.
    pub fn new(kind: Kind, name: &str, version: &str, purl: Option<String>) -> Component {
        let reference = purl.clone().unwrap_or_else(|| format!("{name}@{version}"));
        Component { kind, reference, name: name.to_owned(), version: version.to_owned(), hashes: Vec::new(), purl }
    }

    /// Adds a hex SHA-256.
    pub fn hash(&mut self, sha256: &str) {
        self.hashes.push(Hash { alg: "SHA-256", content: sha256.to_owned() });
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    #[serde(rename = "ref")]
    reference: String,
    depends_on: BTreeSet<String>,
}

impl Document {
    /// A document about `subject`, which was built at `time` (seconds since 1970).
    pub fn new(
        serial: Uuid,
        time: u64,
        subject: Component,
        components: Vec<Component>,
        needs: BTreeMap<String, Vec<String>>,
    ) -> Document {
        let own = Component::new(Kind::Application, "imagebuild", env!("CARGO_PKG_VERSION"), None);
        let depends = |(reference, these): (String, Vec<String>)| Dependency {
            reference,
            depends_on: these.into_iter().collect(),
        };
        Document {
            schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
            bom_format: "CycloneDX",
            spec_version: "1.6",
            serial_number: format!("urn:uuid:{serial}"),
            version: 1,
            metadata: Metadata { timestamp: timestamp(time), tools: Tools { components: [own] }, component: subject },
            components,
            dependencies: needs.into_iter().map(depends).collect(),
        }
    }
}

/// A part of a package URL: all but letters, digits and `.-_~:` is percent-encoded.
pub fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Package URL of a container image: `pkg:oci/NAME@sha256%3ADIGEST?repository_url=HOST/PATH&tag=TAG`.
pub fn oci(reference: &str, sha256: &str) -> String {
    let (repository, tag) = match reference.rsplit_once(':') {
        // A colon before the last slash is that of a port.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (reference, None),
    };
    let name = repository.rsplit('/').next().unwrap_or(repository).to_lowercase();
    let url: Vec<String> = repository.split('/').map(encoded).collect();
    let tag = tag.map(|tag| format!("&tag={}", encoded(tag))).unwrap_or_default();
    format!("pkg:oci/{}@sha256%3A{sha256}?repository_url={}{tag}", encoded(&name), url.join("/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_encoded() {
        assert_eq!(encoded("1:2.3+dfsg-1~deb13u1"), "1:2.3%2Bdfsg-1~deb13u1");
        assert_eq!(
            oci("registry.k8s.io/coredns/coredns:v1.14.2", "ab"),
            "pkg:oci/coredns@sha256%3Aab?repository_url=registry.k8s.io/coredns/coredns&tag=v1.14.2"
        );
        assert_eq!(oci("h:5000/Demo", "ab"), "pkg:oci/demo@sha256%3Aab?repository_url=h:5000/Demo");
    }

    #[test]
    fn a_document_has_the_fields_of_the_format() {
        let mut library = Component::new(Kind::Library, "a", "1", Some("pkg:cargo/a@1".to_owned()));
        library.hash("00");
        let image = Component::new(Kind::OperatingSystem, "board", "key", None);
        let needs = BTreeMap::from([("board@key".to_owned(), vec!["pkg:cargo/a@1".to_owned(); 2])]);
        let document = Document::new(Uuid::nil(), 1_700_000_000, image, vec![library], needs);
        let own = env!("CARGO_PKG_VERSION");
        let wanted = serde_json::json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
            "serialNumber": "urn:uuid:00000000-0000-0000-0000-000000000000",
            "metadata": {
                "timestamp": "2023-11-14T22:13:20Z",
                "tools": { "components": [{ "type": "application", "bom-ref": format!("imagebuild@{own}"),
                    "name": "imagebuild", "version": own }] },
                "component": { "type": "operating-system", "bom-ref": "board@key", "name": "board", "version": "key" },
            },
            "components": [{ "type": "library", "bom-ref": "pkg:cargo/a@1", "name": "a", "version": "1",
                "purl": "pkg:cargo/a@1", "hashes": [{ "alg": "SHA-256", "content": "00" }] }],
            "dependencies": [{ "ref": "board@key", "dependsOn": ["pkg:cargo/a@1"] }],
        });
        assert_eq!(serde_json::to_value(&document).unwrap(), wanted);
    }
}
