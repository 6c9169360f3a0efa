// SPDX-License-Identifier: Apache-2.0
//! Takes an image from a registry, by digest only: <https://github.com/opencontainers/distribution-spec>.
//!
//! Whatever the registry says, every byte is checked against a digest that leads back to the one in the lock. It decides
//! neither how much is read nor, beyond its own domain, who is asked.

use crate::arch::Arch;
use crate::http::Limit;
use crate::oci::{Content, Image};
use crate::{digest, http, verify};
use anyhow::{Context, Result, bail};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Lists of manifests, one for each platform.
const LISTS: [&str; 2] = [crate::oci::INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Manifests of one platform.
const MANIFESTS: [&str; 2] = [crate::oci::MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];

/// A manifest or a list of manifests, as far as it is used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    /// Bytes.
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// One repository of a registry.
struct Repository<'a> {
    component: &'a str,
    base: String,
    token: Option<HeaderValue>,
}

/// Fetches the image for `arch` whose manifest, or list of manifests, has `digest` (`sha256:…`). `image` is
/// `host[:port]/name`. Layers are stored in the directory `scratch`, which must outlive the result.
pub fn pull(component: &str, image: &str, digest: &str, plain_http: bool, arch: Arch, scratch: &Path) -> Result<Image> {
    let Some((host, name)) = image.split_once('/') else {
        bail!("read image {image} of component {component}: it is not host/name");
    };
    let scheme = if plain_http { "http" } else { "https" };
    let mut repository = Repository { component, base: format!("{scheme}://{host}/v2/{name}"), token: None };
    let (mut bytes, mut manifest) = repository.manifest(digest)?;
    if !manifest.manifests.is_empty() {
        let fits =
            |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == arch.name());
        let chosen = manifest.manifests.iter().find(fits);
        let chosen = chosen.with_context(|| format!("find linux/{arch} in image {image} of component {component}"))?;
        (bytes, manifest) = repository.manifest(&chosen.digest)?;
    }
    let config = manifest.config.with_context(|| format!("read image {image}: its manifest names no config"))?;
    let mut blobs = BTreeMap::new();
    for blob in manifest.layers.iter().chain([&config]) {
        let hex = hex_of(&blob.digest)?;
        let to = scratch.join(hex);
        repository.blob(blob, &to)?;
        blobs.insert(hex.to_owned(), Content::File(to));
    }
    let media_type = manifest.media_type.unwrap_or_else(|| crate::oci::MANIFEST.to_owned());
    Ok(Image { media_type, manifest: bytes, blobs })
}

/// The hex of a `sha256:` digest.
fn hex_of(digest: &str) -> Result<&str> {
    let hex = digest.strip_prefix("sha256:").filter(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.with_context(|| format!("read digest {digest}: it is not sha256 with 64 hex digits"))
}

impl Repository<'_> {
    fn manifest(&mut self, digest: &str) -> Result<(Vec<u8>, Manifest)> {
        let url = format!("{}/manifests/{digest}", self.base);
        let mut bytes = Vec::new();
        http::body(self.get(&url)?, &url, Limit::JSON, &mut bytes)?;
        let found = format!("sha256:{}", digest::bytes(&bytes));
        verify::expect(self.component, &format!("manifest {url}"), digest, &found)?;
        let manifest: Manifest = serde_json::from_slice(&bytes).with_context(|| format!("read manifest {url}"))?;
        if let Some(kind) = &manifest.media_type
            && !LISTS.contains(&kind.as_str())
            && !MANIFESTS.contains(&kind.as_str())
        {
            bail!("read manifest {url}: media type {kind} is unknown");
        }
        Ok((bytes, manifest))
    }

    fn blob(&mut self, Descriptor { digest, size, .. }: &Descriptor, to: &Path) -> Result<()> {
        let url = format!("{}/blobs/{digest}", self.base);
        let mut file = File::create(to).with_context(|| format!("create {}", to.display()))?;
        http::body(self.get(&url)?, &url, Limit::of(*size), &mut file)?;
        let found = format!("sha256:{}", digest::file(to)?);
        verify::expect(self.component, &format!("layer {url}"), digest, &found)
    }

    /// Sends a request, and repeats it with an anonymous token when the registry requires one.
    fn get(&mut self, url: &str) -> Result<reqwest::blocking::Response> {
        let answer = http::request(url, self.headers()?)?;
        if answer.status() != StatusCode::UNAUTHORIZED || self.token.is_some() {
            return Ok(answer);
        }
        let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let Some(token_url) = token_url(challenge, url)? else {
            return Ok(answer);
        };
        let mut bytes = Vec::new();
        http::get(&token_url, Limit::JSON, &mut bytes).context("ask the registry for an anonymous token")?;
        #[derive(Deserialize)]
        struct Token {
            #[serde(alias = "access_token")]
            token: String,
        }
        let token: Token = serde_json::from_slice(&bytes).context("read the registry's token")?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.token)).context("use registry token")?;
        value.set_sensitive(true);
        self.token = Some(value);
        http::request(url, self.headers()?)
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let kinds = [LISTS, MANIFESTS].concat().join(", ");
        headers.insert(ACCEPT, HeaderValue::from_str(&kinds).context("name manifest types")?);
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        Ok(headers)
    }
}

/// The URL of the token that a `Bearer realm="…",service="…",scope="…"` challenge requires; `asked` is what the registry was
/// asked for.
///
/// # Errors
/// When the token server is neither the registry itself nor, by TLS, of the same domain.
fn token_url(challenge: &str, asked: &str) -> Result<Option<String>> {
    let Some(fields) = challenge.strip_prefix("Bearer ") else { return Ok(None) };
    let field = |name: &str| {
        let start = fields.find(&format!("{name}=\""))? + name.len() + 2;
        fields[start..].split('"').next()
    };
    let realm = field("realm").and_then(|realm| Url::parse(realm).ok());
    let (Some(mut url), Ok(registry)) = (realm, Url::parse(asked)) else { return Ok(None) };
    if !may_ask(&registry, &url) {
        bail!("ask registry {} for a token: its token server {} is another one's", server(&registry), server(&url));
    }
    for name in ["service", "scope"] {
        if let Some(value) = field(name) {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    Ok(Some(url.into()))
}

/// Whether a registry may name `realm` as its token server, as `auth.docker.io` is that of `registry-1.docker.io`.
fn may_ask(registry: &Url, realm: &Url) -> bool {
    if registry.origin() == realm.origin() {
        return true;
    }
    let (Some(own), Some(other)) = (registry.domain(), realm.domain()) else { return false };
    // What is above the registry; a name of two parts has nothing above it but a public suffix.
    let domain = own.split_once('.').map(|(_, above)| above).filter(|above| above.contains('.')).unwrap_or(own);
    let below = other.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    below && realm.scheme() == "https" && realm.port().is_none()
}

/// `host` or `host:port`, for messages.
fn server(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "registry_limit_tests.rs"]
mod limit_tests;
