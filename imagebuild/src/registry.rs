// SPDX-License-Identifier: Apache-2.0
//! Takes an image from a registry, by digest only: <https://github.com/opencontainers/distribution-spec>.
//!
//! Whatever the registry says, every byte is checked against a digest that leads back to the one in the lock.

use crate::arch::Arch;
use crate::oci::{Content, Image};
use crate::{digest, http, verify};
use anyhow::{Context, Result, bail};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
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
        repository.blob(&blob.digest, &to)?;
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
        http::body(self.get(&url)?, &url, &mut bytes)?;
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

    fn blob(&mut self, digest: &str, to: &Path) -> Result<()> {
        let url = format!("{}/blobs/{digest}", self.base);
        let mut file = File::create(to).with_context(|| format!("create {}", to.display()))?;
        http::body(self.get(&url)?, &url, &mut file)?;
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
        let Some(token_url) = token_url(challenge) else {
            return Ok(answer);
        };
        let mut bytes = Vec::new();
        http::get(&token_url, &mut bytes).context("ask the registry for an anonymous token")?;
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

/// The URL of the token that a `Bearer realm="…",service="…",scope="…"` challenge requires.
fn token_url(challenge: &str) -> Option<String> {
    let fields = challenge.strip_prefix("Bearer ")?;
    let field = |name: &str| {
        let start = fields.find(&format!("{name}=\""))? + name.len() + 2;
        fields[start..].split('"').next()
    };
    let mut url = reqwest::Url::parse(field("realm")?).ok()?;
    for name in ["service", "scope"] {
        if let Some(value) = field(name) {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    Some(url.into())
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
