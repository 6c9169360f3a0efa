// SPDX-License-Identifier: Apache-2.0
//! What a request asks for: the parts of its path and the parameters that matter here
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).

use hyper::{Method, Uri};

use crate::selector::Selector;

/// What the path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All objects of a resource, in a namespace or in all.
    Collection(Place),
    /// One object.
    Object(Place, String),
    /// A part of an object, such as `status` or `token`.
    Part(Place, String, String),
    /// A document that describes the API: discovery, OpenAPI, the version.
    Document,
    /// Anything else.
    Other,
}

/// A resource in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub group: String,
    /// Plural name, as `pods`.
    pub resource: String,
    /// Empty for all namespaces, and for objects of the cluster.
    pub namespace: String,
}

impl Place {
    /// `GROUP/RESOURCE`, whatever the namespace.
    pub fn resource_path(&self) -> String {
        format!("{}/{}", self.group, self.resource)
    }
}

/// The parameters of a request that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// `watch`.
    pub watch: bool,
    /// `sendInitialEvents`.
    pub initial_events: bool,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `resourceVersion`; 0 where it is absent or `0`.
    pub version: u64,
    /// `resourceVersionMatch=Exact`.
    pub exact: bool,
    /// `continue`.
    pub page: String,
    /// `timeoutSeconds`.
    pub timeout: Option<u64>,
    /// `fieldSelector` and `labelSelector`.
    pub selector: Selector,
    /// Whether there is a parameter that changes an object before it is sent.
    pub altered: bool,
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let pair = || Some(hex(*after.first()?)? << 4 | hex(*after.get(1)?)?);
        match (first, pair()) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads the parameters.
pub fn query(uri: &Uri) -> Query {
    let mut query = Query::default();
    let (mut fields, mut labels) = (String::new(), String::new());
    for pair in uri.query().unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value);
        let yes = matches!(value.as_str(), "true" | "1" | "True" | "TRUE" | "t" | "T");
        match decode(key).as_str() {
            "watch" => query.watch = yes,
            "sendInitialEvents" => query.initial_events = yes,
            "allowWatchBookmarks" => query.bookmarks = yes,
            "resourceVersion" => query.version = value.parse().unwrap_or_default(),
            "resourceVersionMatch" => query.exact = value == "Exact",
            "continue" => query.page = value,
            "timeoutSeconds" => query.timeout = value.parse().ok(),
            "fieldSelector" => fields = value,
            "labelSelector" => labels = value,
            "" | "limit" | "pretty" | "timeout" => {}
            _ => query.altered = true,
        }
    }
    // A line end separates requirements where they are kept; in a request it is part of a value.
    query.altered |= fields.contains('\n') || labels.contains('\n');
    query.selector = Selector::new(&fields, &labels);
    query
}

/// Reads the path.
pub fn target(uri: &Uri) -> Target {
    let path = uri.path();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (group, rest) = match &parts[..] {
        _ if parts.iter().any(|p| p.is_empty() || p.contains('%') || *p == "..") => return Target::Other,
        ["version"] | ["api"] | ["apis"] | ["api", _] | ["apis", _] | ["apis", _, _] | ["openapi", ..] => {
            return Target::Document;
        }
        ["api", version, rest @ ..] => (format!("/api/{version}"), rest),
        ["apis", group, version, rest @ ..] => (format!("/apis/{group}/{version}"), rest),
        _ => return Target::Other,
    };
    let place = |resource: &str, namespace: &str| Place {
        group: group.clone(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
    };
    match rest {
        ["watch" | "proxy", ..] => Target::Other,
        ["namespaces", name, part @ ("status" | "finalize")] => {
            Target::Part(place("namespaces", ""), (*name).to_owned(), (*part).to_owned())
        }
        ["namespaces", namespace, resource] => Target::Collection(place(resource, namespace)),
        ["namespaces", namespace, resource, name] => Target::Object(place(resource, namespace), (*name).to_owned()),
        ["namespaces", namespace, resource, name, part @ ..] => {
            Target::Part(place(resource, namespace), (*name).to_owned(), part.join("/"))
        }
        [resource] => Target::Collection(place(resource, "")),
        [resource, name] => Target::Object(place(resource, ""), (*name).to_owned()),
        [resource, name, part @ ..] => Target::Part(place(resource, ""), (*name).to_owned(), part.join("/")),
        [] => Target::Other,
    }
}

/// A POST whose answer kubelet needs again after a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The token of a service account, for a pod of this node.
    Token,
    /// Whose token a request to kubelet's port has.
    TokenReview,
    /// What that user may do.
    AccessReview,
}

/// Which question a request is, if any.
pub fn question(method: &Method, target: &Target) -> Option<Question> {
    match target {
        _ if method != Method::POST => None,
        Target::Part(place, _, part) if place.resource == "serviceaccounts" && part == "token" => Some(Question::Token),
        Target::Collection(place) => match (place.group.as_str(), place.resource.as_str()) {
            ("/apis/authentication.k8s.io/v1", "tokenreviews") => Some(Question::TokenReview),
            ("/apis/authorization.k8s.io/v1", "subjectaccessreviews") => Some(Question::AccessReview),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(path: &str) -> Target {
        target(&path.parse().unwrap())
    }

    #[test]
    fn paths() {
        let place = |group: &str, resource: &str, namespace: &str| Place {
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
        };
        assert_eq!(at("/api/v1/pods?x=/"), Target::Collection(place("/api/v1", "pods", "")));
        assert_eq!(at("/api/v1/namespaces/a/pods"), Target::Collection(place("/api/v1", "pods", "a")));
        assert_eq!(at("/api/v1/namespaces/a"), Target::Object(place("/api/v1", "namespaces", ""), "a".into()));
        let status = Target::Part(place("/api/v1", "namespaces", ""), "a".into(), "status".into());
        assert_eq!(at("/api/v1/namespaces/a/status"), status);
        let pod = place("/api/v1", "pods", "a");
        assert_eq!(at("/api/v1/namespaces/a/pods/p"), Target::Object(pod.clone(), "p".into()));
        assert_eq!(at("/api/v1/namespaces/a/pods/p/exec"), Target::Part(pod, "p".into(), "exec".into()));
        let csi = place("/apis/storage.k8s.io/v1", "csinodes", "");
        assert_eq!(at("/apis/storage.k8s.io/v1/csinodes/n"), Target::Object(csi, "n".into()));
        for other in ["/healthz", "/", "/api/v1/watch/pods", "/api/v1//pods", "/api/v1/pods/..", "/api/v1/%70ods"] {
            assert_eq!(at(other), Target::Other, "{other}");
        }
        for document in ["/version", "/api", "/apis/apps/v1", "/openapi/v3/api/v1"] {
            assert_eq!(at(document), Target::Document, "{document}");
        }
    }

    #[test]
    fn parameters() {
        let uri = "/api/v1/pods?allowWatchBookmarks=true&fieldSelector=spec.nodeName%3Dn&resourceVersion=12\
                   &resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeoutSeconds=300&watch=true";
        let want = Query {
            watch: true,
            initial_events: true,
            bookmarks: true,
            version: 12,
            timeout: Some(300),
            selector: Selector::new("spec.nodeName=n", ""),
            ..Query::default()
        };
        assert_eq!(query(&uri.parse().unwrap()), want);
        for altered in ["dryRun=All", "fieldSelector=metadata.name%3Da%0Af:metadata.namespace%3Db"] {
            assert!(query(&format!("/api/v1/pods?{altered}").parse().unwrap()).altered, "{altered}");
        }
        assert_eq!(decode("a%2Cb+c%zz%4"), "a,b c%zz%4");
    }
}
